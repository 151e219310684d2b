/* The files of approximate indexes: SPACE-ENCODER.ann, which retrieval/ann.h writes, and beside it
 * SPACE-ENCODER.docs, which says whose rows it has (numbers of the store; rows lie otherwise after
 * the next start).
 *
 * The latter is "memosvdc", version u32 (1), count u64, a doc u32 for each row (0: none), and
 * BLAKE2b-256 of all bytes before.
 *
 * An index file holds vectors in the clear. So whatever lies here of a space is destroyed in the
 * transaction that forgets something of it, before that commits; and none is written that was made
 * from what a forget has meanwhile erased. One lock holds the two apart: a forget may wait for a
 * file that is just being written. */
#include "retrieval/vectors_table.h"

#include "memcube/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define MAGIC "memosvdc"
#define MAGIC_BYTES 8u
#define VERSION 1u
#define HASH_BYTES 32u
#define HEAD_BYTES (MAGIC_BYTES + 4u + 8u)

struct retrieval_vec_files {
    pthread_mutex_t lock; /* Sync: guards the folder and what is known of it */
    uint32_t *spaces;     /* that may have files */
    size_t spaces_count, spaces_max;
    char folder[PATH_BYTES - 64];
};

/* ---- what lies in the folder ----------------------------------------------------------------- */

static bool space_add(struct retrieval_vec_files *files, uint32_t space)
{
    for (size_t i = 0; i < files->spaces_count; i++) {
        if (files->spaces[i] == space) {
            return true;
        }
    }
    if (files->spaces_count == files->spaces_max) {
        const size_t most = files->spaces_max * 2 + 16;
        uint32_t *spaces = realloc(files->spaces, most * sizeof *spaces);
        if (!spaces) {
            return false;
        }
        files->spaces = spaces;
        files->spaces_max = most;
    }
    files->spaces[files->spaces_count++] = space;
    return true;
}

/* The space of a file named "SPACE-...". */
static bool name_parse(const char *name, uint32_t *out_space)
{
    char *end = NULL;
    if (*name < '0' || *name > '9') {
        return false;
    }
    errno = 0;
    const unsigned long space = strtoul(name, &end, 10);
    *out_space = (uint32_t)space;
    return errno == 0 && space <= UINT32_MAX && *end == '-';
}

/* Note the spaces of all files (destroy false), or destroy those of one space. */
static enum memos_status folder_walk(
    struct retrieval_vec_files *files, bool destroy, uint32_t space, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    char path[PATH_BYTES];
    struct dirent *entry;
    DIR *dir = opendir(files->folder);

    if (!dir) {
        return errno == ENOENT ? MEMOS_OK
                               : memos_fail_errno(err, errno, "reading %s", files->folder);
    }
    while (status == MEMOS_OK && (entry = readdir(dir))) {
        uint32_t number;
        if (!name_parse(entry->d_name, &number) || (destroy && number != space)) {
            continue;
        }
        const int size = snprintf(path, sizeof path, "%s/%s", files->folder, entry->d_name);
        if (size < 0 || (size_t)size >= sizeof path) {
            status = memos_fail(err, MEMOS_INVALID, "the path of %s is too long", files->folder);
        } else if (destroy) {
            status = memcube_file_destroy(path, files->folder, NULL, err);
        } else if (!space_add(files, number)) {
            status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to read %s", files->folder);
        }
    }
    (void)closedir(dir);
    return status;
}

enum memos_status retrieval_vec_files_open(
    const char *folder, struct retrieval_vec_files **out_files, struct memos_error *err)
{
    struct retrieval_vec_files *files = calloc(1, sizeof *files);
    if (!files) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to open %s", folder);
    }
    (void)pthread_mutex_init(&files->lock, NULL);
    const int size = snprintf(files->folder, sizeof files->folder, "%s", folder);
    enum memos_status status = MEMOS_OK;
    if (size < 0 || (size_t)size >= sizeof files->folder) {
        status = memos_fail(err, MEMOS_INVALID, "the path of the vectors' folder is too long");
    } else {
        status = folder_walk(files, false, 0, err);
    }
    if (status == MEMOS_OK) {
        *out_files = files;
    } else {
        retrieval_vec_files_close(&files);
    }
    return status;
}

void retrieval_vec_files_close(struct retrieval_vec_files **files_in)
{
    struct retrieval_vec_files *files = *files_in;
    *files_in = NULL;
    if (files) {
        (void)pthread_mutex_destroy(&files->lock);
        free(files->spaces);
        free(files);
    }
}

enum memos_status retrieval_vec_file_erase(
    struct retrieval_vec_files *files, uint32_t space, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    (void)pthread_mutex_lock(&files->lock);
    for (size_t i = 0; status == MEMOS_OK && i < files->spaces_count; i++) {
        if (files->spaces[i] == space) {
            status = folder_walk(files, true, space, err);
            if (status == MEMOS_OK) {
                files->spaces[i] = files->spaces[--files->spaces_count];
            }
            break;
        }
    }
    (void)pthread_mutex_unlock(&files->lock);
    return status;
}

/* ---- the file of docs ------------------------------------------------------------------------ */

static void path_of(const struct retrieval_vec_files *files,
    const struct retrieval_vec_table *table, const char *kind, char out[PATH_BYTES])
{
    (void)snprintf(
        out, PATH_BYTES, "%s/%u-%u.%s", files->folder, table->space, table->encoder.number, kind);
}

/* What an index is bound to: whose rows, which space, which encoder. */
static void tag_of(
    const struct retrieval_vec_table *table, const uint8_t docs_hash[HASH_BYTES], uint8_t out[32])
{
    crypto_generichash_state state;
    const uint8_t codes = (uint8_t)table->encoder.codes;

    (void)crypto_generichash_init(&state, NULL, 0, 32);
    (void)crypto_generichash_update(&state, docs_hash, HASH_BYTES);
    (void)crypto_generichash_update(&state, table->space_id.bytes, sizeof table->space_id.bytes);
    (void)crypto_generichash_update(
        &state, table->encoder.fingerprint, sizeof table->encoder.fingerprint);
    (void)crypto_generichash_update(&state, &codes, sizeof codes);
    (void)crypto_generichash_final(&state, out, 32);
}

enum memos_status retrieval_vec_saved_decode(
    struct memos_bytes bytes, struct retrieval_vec_saved *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(bytes);
    uint8_t hash[HASH_BYTES];
    char magic[MAGIC_BYTES];

    *out = (struct retrieval_vec_saved){.docs = NULL};
    memos_read_into(&r, magic, sizeof magic);
    const uint32_t version = memos_read_u32(&r);
    const uint64_t count = memos_read_u64(&r);
    if (r.failed || memcmp(magic, MAGIC, MAGIC_BYTES) != 0 || version != VERSION ||
        r.left < HASH_BYTES || (r.left - HASH_BYTES) / 4 != count ||
        (r.left - HASH_BYTES) % 4 != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "a list of an index's docs is damaged");
    }
    const size_t body = bytes.size - HASH_BYTES;
    (void)crypto_generichash(hash, sizeof hash, bytes.data, body, NULL, 0);
    if (memcmp(hash, (const uint8_t *)bytes.data + body, sizeof hash) != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "a list of an index's docs was changed");
    }
    out->docs = malloc(count * sizeof *out->docs + 1);
    if (!out->docs) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a list of docs");
    }
    out->count = count;
    for (uint64_t i = 0; i < count; i++) {
        out->docs[i] = memos_read_u32(&r);
    }
    return MEMOS_OK;
}

static enum memos_status docs_write(const struct retrieval_vec_files *files, const char *path,
    const struct retrieval_vec_saved *docs, uint8_t out_hash[HASH_BYTES], struct memos_error *err)
{
    struct memos_buffer b = memos_buffer_make(SIZE_MAX);
    char fresh[PATH_BYTES + 4];

    memos_buffer_bytes(&b, MAGIC, MAGIC_BYTES);
    memos_buffer_u32(&b, VERSION);
    memos_buffer_u64(&b, docs->count);
    for (uint64_t i = 0; i < docs->count; i++) {
        memos_buffer_u32(&b, docs->docs[i]);
    }
    if (!b.failed) {
        (void)crypto_generichash(out_hash, HASH_BYTES, b.data, b.size, NULL, 0);
    }
    memos_buffer_bytes(&b, out_hash, HASH_BYTES);
    (void)snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = -1;
    enum memos_status status = MEMOS_OK;
    if (b.failed) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to save an index's docs");
    } else {
        fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        status = fd >= 0 ? memcube_file_write_at(fd, memos_buffer_view(&b), 0, fresh, err)
                         : memos_fail_errno(err, errno, "making %s", fresh);
    }
    if (status == MEMOS_OK) {
        status = memcube_file_sync(fd, fresh, err);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (status == MEMOS_OK && rename(fresh, path) != 0) {
        status = memos_fail_errno(err, errno, "renaming %s", fresh);
    }
    if (status != MEMOS_OK) {
        (void)unlink(fresh);
    }
    memos_buffer_free(&b);
    return status == MEMOS_OK ? memcube_file_sync_folder(files->folder, err) : status;
}

static enum memos_status docs_read(const char *path, struct retrieval_vec_saved *out,
    uint8_t out_hash[HASH_BYTES], struct memos_error *err)
{
    struct stat about;
    void *map = MAP_FAILED;
    enum memos_status status = MEMOS_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &about) != 0) {
        status = memos_fail_errno(err, errno, "opening %s", path);
    } else if (about.st_size < (off_t)(HEAD_BYTES + HASH_BYTES)) {
        status = memos_fail(err, MEMOS_CORRUPT, "%s is cut short", path);
    } else {
        map = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        status = map != MAP_FAILED ? MEMOS_OK : memos_fail_errno(err, errno, "mapping %s", path);
    }
    if (status == MEMOS_OK) {
        const size_t size = (size_t)about.st_size;
        status = retrieval_vec_saved_decode(memos_bytes_make(map, size), out, err);
        memcpy(out_hash, (const uint8_t *)map + size - HASH_BYTES, HASH_BYTES);
        (void)munmap(map, size);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}

/* ---- saving and loading ---------------------------------------------------------------------- */

enum memos_status retrieval_vec_file_save(struct retrieval_vectors *vectors,
    const struct retrieval_vec_table *table, const struct retrieval_ann *ann,
    const struct retrieval_vec_saved *docs, uint64_t change, struct memos_error *err)
{
    struct retrieval_vec_files *files = vectors->files;
    char docs_path[PATH_BYTES], ann_path[PATH_BYTES];
    uint8_t hash[HASH_BYTES] = {0}, tag[32];
    enum memos_status status = MEMOS_OK;

    path_of(files, table, "docs", docs_path);
    path_of(files, table, "ann", ann_path);
    (void)pthread_mutex_lock(&files->lock);
    if (mkdir(files->folder, 0700) != 0 && errno != EEXIST) {
        status = memos_fail_errno(err, errno, "making %s", files->folder);
    } else if (retrieval_vec_changes_erased(&vectors->changes, table->space, change)) {
        status = memos_fail(err, MEMOS_CONFLICT, "something of the space was forgotten meanwhile");
    } else if (!space_add(files, table->space)) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to save an index");
    }
    if (status == MEMOS_OK) { /* renamed over, its bytes would stay on the disk */
        status = memcube_file_destroy(ann_path, files->folder, NULL, err);
    }
    if (status == MEMOS_OK) {
        status = docs_write(files, docs_path, docs, hash, err);
    }
    if (status == MEMOS_OK) {
        tag_of(table, hash, tag);
        status = retrieval_ann_save(ann, ann_path, tag, err);
    }
    (void)pthread_mutex_unlock(&files->lock);
    return status;
}

enum memos_status retrieval_vec_file_load(struct retrieval_vectors *vectors,
    const struct retrieval_vec_table *table, struct retrieval_ann **out_ann,
    struct retrieval_vec_saved *out_docs, struct memos_error *err)
{
    struct retrieval_vec_files *files = vectors->files;
    char path[PATH_BYTES];
    uint8_t hash[HASH_BYTES], tag[32];

    *out_docs = (struct retrieval_vec_saved){.docs = NULL};
    *out_ann = NULL;
    (void)pthread_mutex_lock(&files->lock);
    path_of(files, table, "docs", path);
    enum memos_status status = docs_read(path, out_docs, hash, err);
    if (status == MEMOS_OK) {
        tag_of(table, hash, tag);
        path_of(files, table, "ann", path);
        status = retrieval_ann_load(path, tag, out_ann, err);
    }
    if (status == MEMOS_OK && retrieval_ann_count(*out_ann) != out_docs->count) {
        status = memos_fail(err, MEMOS_CORRUPT, "%s has another number of rows", path);
        retrieval_ann_free(out_ann);
    }
    (void)pthread_mutex_unlock(&files->lock);
    if (status != MEMOS_OK) {
        free(out_docs->docs);
        out_docs->docs = NULL;
    }
    return status;
}
