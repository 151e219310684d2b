#include "retrieval/ann.h"

#include "memcube/file.h"
#include "retrieval/ann_internal.h"
#include "retrieval/faiss_c.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "memosann"
#define VERSION 1

enum {
    HEADER_BYTES = 128,
    HEADER_HASHED = 112, /* what the hash at its end covers */
    HASH_BYTES = 32,
    PATH_BYTES = 4096,
    BLOCK_BYTES = 1 << 16,
};

struct header {
    uint32_t version, type, dims, effort;
    uint64_t count, body_bytes;
    uint8_t tag[32];
    uint8_t body_hash[HASH_BYTES];
};

/* ---- the header ---------------------------------------------------------------------------- */

static void header_hash(const uint8_t *bytes, uint8_t out[16])
{
    crypto_generichash(out, 16, bytes, HEADER_HASHED, NULL, 0);
}

static enum memos_status header_write(
    const struct header *h, struct memos_buffer *out, struct memos_error *err)
{
    memos_buffer_bytes(out, MAGIC, 8);
    memos_buffer_u32(out, h->version);
    memos_buffer_u32(out, h->type);
    memos_buffer_u32(out, h->dims);
    memos_buffer_u32(out, h->effort);
    memos_buffer_u64(out, h->count);
    memos_buffer_u64(out, h->body_bytes);
    memos_buffer_u64(out, 0);
    memos_buffer_bytes(out, h->tag, sizeof h->tag);
    memos_buffer_bytes(out, h->body_hash, sizeof h->body_hash);
    uint8_t *hash = memos_buffer_take(out, HEADER_BYTES - HEADER_HASHED);
    if (!hash) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to save an index");
    }
    header_hash(out->data, hash);
    return MEMOS_OK;
}

static enum memos_status header_read(
    const uint8_t *bytes, const char *path, struct header *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(memos_bytes_make(bytes, HEADER_BYTES));
    uint8_t hash[HEADER_BYTES - HEADER_HASHED];

    header_hash(bytes, hash);
    if (!memos_bytes_equal(memos_read_bytes(&r, 8), memos_bytes_of(MAGIC)) ||
        memcmp(hash, bytes + HEADER_HASHED, sizeof hash) != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "%s: the header is damaged", path);
    }
    out->version = memos_read_u32(&r);
    if (out->version != VERSION) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "%s: an index of version %u", path, out->version);
    }
    out->type = memos_read_u32(&r);
    out->dims = memos_read_u32(&r);
    out->effort = memos_read_u32(&r);
    out->count = memos_read_u64(&r);
    out->body_bytes = memos_read_u64(&r);
    uint64_t reserved = memos_read_u64(&r);
    memos_read_into(&r, out->tag, sizeof out->tag);
    memos_read_into(&r, out->body_hash, sizeof out->body_hash);
    if (reserved != 0 || out->type <= RETRIEVAL_ANN_AUTO || out->type > RETRIEVAL_ANN_IVF_PQ) {
        return memos_fail(err, MEMOS_CORRUPT, "%s: an index of type %u", path, out->type);
    }
    return MEMOS_OK;
}

/* ---- saving -------------------------------------------------------------------------------- */

/* What FAISS writes goes through here: to the file, into the hash, and counted. */
struct sink {
    int fd;
    uint64_t bytes;
    crypto_generichash_state hash;
    const char *path;
    struct memos_error *err;
    enum memos_status status; /* the first failure */
};

static ssize_t sink_write(void *self, const char *data, size_t size)
{
    struct sink *sink = self;
    if (sink->status == MEMOS_OK) {
        sink->status = memcube_file_write_at(sink->fd, memos_bytes_make(data, size),
            HEADER_BYTES + sink->bytes, sink->path, sink->err);
    }
    if (sink->status != MEMOS_OK) {
        return 0; /* an error, to stdio */
    }
    crypto_generichash_update(&sink->hash, (const uint8_t *)data, size);
    sink->bytes += size;
    return (ssize_t)size;
}

static enum memos_status body_write(
    const struct retrieval_ann *ann, struct sink *sink, struct memos_error *err)
{
    cookie_io_functions_t functions = {.write = sink_write};
    FILE *stream = fopencookie(sink, "w", functions);
    if (!stream) {
        return memos_fail_errno(err, errno, "%s: cannot be written", sink->path);
    }
    (void)setvbuf(stream, NULL, _IOFBF, BLOCK_BYTES);
    int code = faiss_write_index(ann->index, stream);
    bool closed = fclose(stream) == 0;
    if (sink->status != MEMOS_OK) {
        return sink->status; /* rather than what FAISS makes of it */
    }
    enum memos_status status = retrieval_faiss_status(code, "save an index", err);
    if (status == MEMOS_OK && !closed) {
        status = memos_fail(err, MEMOS_IO, "%s: cannot be written", sink->path);
    }
    return status;
}

/* Everything into the open, empty file, and synced. */
static enum memos_status file_write(const struct retrieval_ann *ann, int fd, const char *path,
    const uint8_t tag[32], struct memos_error *err)
{
    struct header header = {.version = VERSION,
        .type = (uint32_t)ann->type,
        .dims = (uint32_t)ann->dims,
        .effort = (uint32_t)ann->effort,
        .count = ann->count};
    struct sink sink = {.fd = fd, .path = path, .err = err};

    crypto_generichash_init(&sink.hash, NULL, 0, HASH_BYTES);
    enum memos_status status = body_write(ann, &sink, err);
    if (status != MEMOS_OK) {
        return status;
    }
    crypto_generichash_final(&sink.hash, header.body_hash, HASH_BYTES);
    header.body_bytes = sink.bytes;
    memcpy(header.tag, tag, sizeof header.tag);
    struct memos_buffer bytes = memos_buffer_make(HEADER_BYTES);
    status = header_write(&header, &bytes, err);
    if (status == MEMOS_OK) {
        status = memcube_file_write_at(fd, memos_buffer_view(&bytes), 0, path, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_file_sync(fd, path, err);
    }
    memos_buffer_free(&bytes);
    return status;
}

static enum memos_status folder_sync(const char *path, struct memos_error *err)
{
    char folder[PATH_BYTES];
    const char *slash = strrchr(path, '/');
    size_t size = !slash ? 0 : slash == path ? 1 : (size_t)(slash - path);
    memos_assert(size < sizeof folder);
    memcpy(folder, path, size);
    folder[size] = '\0';
    return memcube_file_sync_folder(size > 0 ? folder : ".", err);
}

enum memos_status retrieval_ann_save(const struct retrieval_ann *ann, const char *path,
    const uint8_t tag[32], struct memos_error *err)
{
    char temporary[PATH_BYTES];
    int size = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    if (size < 0 || (size_t)size >= sizeof temporary) {
        return memos_fail(err, MEMOS_INVALID, "a path of %zu bytes", strlen(path));
    }
    int fd = mkostemp(temporary, O_CLOEXEC); /* readable by its owner alone */
    if (fd < 0) {
        return memos_fail_errno(err, errno, "%s: cannot be created", temporary);
    }
    enum memos_status status = file_write(ann, fd, temporary, tag, err);
    if (close(fd) != 0 && status == MEMOS_OK) {
        status = memos_fail_errno(err, errno, "%s: cannot be closed", temporary);
    }
    if (status == MEMOS_OK && rename(temporary, path) != 0) {
        status = memos_fail_errno(err, errno, "%s: cannot be renamed", temporary);
    }
    if (status != MEMOS_OK) {
        (void)unlink(temporary);
        return status;
    }
    return folder_sync(path, err);
}

/* ---- loading ------------------------------------------------------------------------------- */

/* Is the rest of the file as long as the header says, and has it the hash? */
static enum memos_status body_check(
    FILE *file, const struct header *header, const char *path, struct memos_error *err)
{
    struct stat stat;
    uint8_t hash[HASH_BYTES];
    crypto_generichash_state state;

    if (fstat(fileno(file), &stat) != 0) {
        return memos_fail_errno(err, errno, "%s: cannot be looked at", path);
    }
    if (stat.st_size < HEADER_BYTES ||
        (uint64_t)stat.st_size - HEADER_BYTES != header->body_bytes) {
        return memos_fail(err, MEMOS_CORRUPT, "%s: has %lld bytes, and says that it has %llu", path,
            (long long)stat.st_size, (unsigned long long)header->body_bytes + HEADER_BYTES);
    }
    uint8_t *block = malloc(BLOCK_BYTES);
    if (!block) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to read %s", path);
    }
    crypto_generichash_init(&state, NULL, 0, HASH_BYTES);
    for (size_t read; (read = fread(block, 1, BLOCK_BYTES, file)) > 0;) {
        crypto_generichash_update(&state, block, read);
    }
    free(block);
    if (ferror(file)) {
        return memos_fail(err, MEMOS_IO, "%s: cannot be read", path);
    }
    crypto_generichash_final(&state, hash, HASH_BYTES);
    if (memcmp(hash, header->body_hash, HASH_BYTES) != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "%s: the index is damaged", path);
    }
    return MEMOS_OK;
}

static enum memos_status file_read(FILE *file, const char *path, const uint8_t tag[32],
    struct retrieval_ann *ann, struct memos_error *err)
{
    uint8_t bytes[HEADER_BYTES];
    struct header header;

    if (fread(bytes, 1, sizeof bytes, file) != sizeof bytes) {
        return ferror(file) ? memos_fail(err, MEMOS_IO, "%s: cannot be read", path)
                            : memos_fail(err, MEMOS_CORRUPT, "%s: is cut off", path);
    }
    enum memos_status status = header_read(bytes, path, &header, err);
    if (status == MEMOS_OK && memcmp(header.tag, tag, sizeof header.tag) != 0) {
        status = memos_fail(err, MEMOS_CONFLICT, "%s: was built from something else", path);
    }
    if (status == MEMOS_OK) {
        status = body_check(file, &header, path, err);
    }
    if (status == MEMOS_OK && fseek(file, HEADER_BYTES, SEEK_SET) != 0) {
        status = memos_fail_errno(err, errno, "%s: cannot be read", path);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    int code = faiss_read_index(file, 0, &ann->index);
    status = retrieval_faiss_status(code, "load an index", err);
    if (status != MEMOS_OK) {
        return status;
    }
    ann->type = (enum retrieval_ann_type)header.type;
    ann->dims = header.dims;
    ann->count = header.count;
    ann->effort = header.effort;
    return retrieval_ann_adopt(ann, err);
}

enum memos_status retrieval_ann_load(const char *path, const uint8_t tag[32],
    struct retrieval_ann **out_ann, struct memos_error *err)
{
    FILE *file = fopen(path, "rbe");
    if (!file) {
        return memos_fail_errno(err, errno, "%s: cannot be opened", path);
    }
    struct retrieval_ann *ann = calloc(1, sizeof *ann);
    enum memos_status status = ann ? file_read(file, path, tag, ann, err)
                                   : memos_fail(err, MEMOS_NO_MEMORY, "no memory for an index");
    (void)fclose(file);
    if (status != MEMOS_OK) {
        retrieval_ann_free(&ann);
        return status;
    }
    ann->threads = retrieval_faiss_threads_default(0);
    *out_ann = ann;
    return MEMOS_OK;
}
