#include "memos/worker/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ALIGN = 4096, BUCKETS = 256 };

#define BYTES_PRESET ((uint64_t)1 << 30)

/* `kept` first, so that what was held is found again. */
struct entry {
    struct worker_kept kept;
    struct entry *next;          /* of the bucket */
    struct entry *newer, *older; /* by use */
    char space[MEMCUBE_SPACE_BYTES_MAX + 1];
    void *memory;
    size_t size;
    size_t holders;
    bool is_mapped;
    bool is_gone; /* found by nobody; freed with its last holder */
};

struct worker_cache {
    pthread_mutex_t lock; /* Sync: of all below */
    struct entry *buckets[BUCKETS];
    struct entry *newest, *oldest;
    uint64_t bytes, bytes_max;
};

enum memos_status worker_cache_create(
    uint64_t bytes_max, struct worker_cache **out, struct memos_error *err)
{
    struct worker_cache *cache = calloc(1, sizeof *cache);
    *out = NULL;
    if (!cache) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a cache of captures");
    }
    if (pthread_mutex_init(&cache->lock, NULL) != 0) {
        free(cache);
        return memos_fail(err, MEMOS_NO_MEMORY, "no lock for a cache of captures");
    }
    cache->bytes_max = bytes_max > 0 ? bytes_max : BYTES_PRESET;
    *out = cache;
    return MEMOS_OK;
}

static void entry_free(struct entry *entry)
{
    if (entry->is_mapped) {
        (void)munmap(entry->memory, entry->size);
    } else {
        free(entry->memory);
    }
    free(entry);
}

/* ---- under the lock -------------------------------------------------------------------------- */

static struct entry **bucket_of(struct worker_cache *cache, const uint8_t hash[MEMCUBE_HASH_BYTES])
{
    return &cache->buckets[hash[0]];
}

static struct entry *find(struct worker_cache *cache, const uint8_t hash[MEMCUBE_HASH_BYTES])
{
    struct entry *entry = *bucket_of(cache, hash);
    while (entry && memcmp(entry->kept.hash, hash, MEMCUBE_HASH_BYTES) != 0) {
        entry = entry->next;
    }
    return entry;
}

static void use_unlink(struct worker_cache *cache, struct entry *entry)
{
    *(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
    entry->newer = entry->older = NULL;
}

static void use_newest(struct worker_cache *cache, struct entry *entry)
{
    entry->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

/* Nobody finds it any more; its memory goes now, or with its last holder. */
static void take_out(struct worker_cache *cache, struct entry *entry)
{
    struct entry **at = bucket_of(cache, entry->kept.hash);
    while (*at != entry) {
        at = &(*at)->next;
    }
    *at = entry->next;
    use_unlink(cache, entry);
    entry->is_gone = true;
    if (entry->holders == 0) {
        cache->bytes -= entry->size;
        entry_free(entry);
    }
}

/* Room for `size` more, as far as what nobody holds gives it. */
static void make_room(struct worker_cache *cache, uint64_t size)
{
    struct entry *entry = cache->oldest;
    while (entry && cache->bytes + size > cache->bytes_max) {
        struct entry *newer = entry->newer;
        if (entry->holders == 0) {
            take_out(cache, entry);
        }
        entry = newer;
    }
}

/* ---- holding --------------------------------------------------------------------------------- */

const struct worker_kept *worker_cache_hold(
    struct worker_cache *cache, const uint8_t hash[MEMCUBE_HASH_BYTES])
{
    (void)pthread_mutex_lock(&cache->lock);
    struct entry *entry = find(cache, hash);
    if (entry) {
        entry->holders++;
        use_unlink(cache, entry);
        use_newest(cache, entry);
    }
    (void)pthread_mutex_unlock(&cache->lock);
    return entry ? &entry->kept : NULL;
}

void worker_cache_release(struct worker_cache *cache, const struct worker_kept *kept)
{
    struct entry *entry = (struct entry *)(uintptr_t)kept;
    if (!entry) {
        return;
    }
    (void)pthread_mutex_lock(&cache->lock);
    memos_assert(entry->holders > 0);
    entry->holders--;
    if (entry->holders == 0 && entry->is_gone) {
        cache->bytes -= entry->size;
        entry_free(entry);
    } else if (entry->holders == 0 && cache->bytes > cache->bytes_max) {
        make_room(cache, 0);
    }
    (void)pthread_mutex_unlock(&cache->lock);
}

/* ---- adding ---------------------------------------------------------------------------------- */

static struct entry *entry_make(
    const char *space, const uint8_t hash[MEMCUBE_HASH_BYTES], enum worker_source source)
{
    struct entry *entry = calloc(1, sizeof *entry);
    if (entry) {
        memcpy(entry->kept.hash, hash, MEMCUBE_HASH_BYTES);
        entry->kept.source = source;
        (void)strncpy(entry->space, space, MEMCUBE_SPACE_BYTES_MAX);
    }
    return entry;
}

/* Takes the entry, whose memory is in place. Another thread may have been quicker. */
static enum memos_status check_and_keep(struct worker_cache *cache, struct entry *entry,
    const struct worker_kept **out, struct memos_error *err)
{
    enum memos_status status =
        paramem_kv_cube_read(memos_bytes_make(entry->memory, entry->size), &entry->kept.cube, err);
    if (status == MEMOS_OK) {
        status = paramem_kv_cube_check(&entry->kept.cube, NULL, true, err);
    }
    if (status != MEMOS_OK) {
        entry_free(entry);
        return status;
    }
    (void)pthread_mutex_lock(&cache->lock);
    struct entry *there = find(cache, entry->kept.hash);
    if (!there) {
        make_room(cache, entry->size);
        struct entry **bucket = bucket_of(cache, entry->kept.hash);
        entry->next = *bucket;
        *bucket = entry;
        use_newest(cache, entry);
        cache->bytes += entry->size;
    }
    struct entry *kept = there ? there : entry;
    kept->holders++;
    (void)pthread_mutex_unlock(&cache->lock);
    if (there) {
        entry_free(entry);
    }
    *out = &kept->kept;
    return MEMOS_OK;
}

enum memos_status worker_cache_add(struct worker_cache *cache, const char *space,
    const uint8_t hash[MEMCUBE_HASH_BYTES], struct memos_bytes bytes,
    const struct worker_kept **out, struct memos_error *err)
{
    const size_t rounded = (bytes.size + ALIGN - 1) / ALIGN * ALIGN;
    struct entry *entry = entry_make(space, hash, WORKER_WIRE);
    *out = NULL;
    if (entry) {
        entry->memory = aligned_alloc(ALIGN, rounded > 0 ? rounded : ALIGN);
        entry->size = bytes.size;
    }
    if (!entry || !entry->memory) {
        free(entry);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a capture of %zu bytes", bytes.size);
    }
    if (bytes.size > 0) {
        memcpy(entry->memory, bytes.data, bytes.size);
    }
    return check_and_keep(cache, entry, out, err);
}

/* A file of that size, mapped read-only. */
static enum memos_status map_file(
    const char *path, uint64_t bytes, void **out, struct memos_error *err)
{
    struct stat info;
    enum memos_status status = MEMOS_OK;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &info) != 0) {
        status = memos_fail_errno(err, errno, "the file of a capture, %s", path);
    } else if (!S_ISREG(info.st_mode) || info.st_size < 0 || (uint64_t)info.st_size != bytes ||
               bytes == 0 || bytes > SIZE_MAX) {
        status = memos_fail(err, MEMOS_CORRUPT, "%s is not the %llu bytes of a capture", path,
            (unsigned long long)bytes);
    } else {
        void *memory = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, file, 0);
        if (memory == MAP_FAILED) {
            status = memos_fail_errno(err, errno, "mapping %s", path);
        } else {
            (void)madvise(memory, (size_t)bytes, MADV_WILLNEED); /* a hint */
            *out = memory;
        }
    }
    if (file >= 0) {
        (void)close(file);
    }
    return status;
}

enum memos_status worker_cache_map(struct worker_cache *cache, const char *space,
    const uint8_t hash[MEMCUBE_HASH_BYTES], const char *path, uint64_t bytes,
    const struct worker_kept **out, struct memos_error *err)
{
    struct entry *entry = entry_make(space, hash, WORKER_MAPPED);
    *out = NULL;
    if (!entry) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a capture");
    }
    enum memos_status status = map_file(path, bytes, &entry->memory, err);
    if (status != MEMOS_OK) {
        free(entry);
        return status;
    }
    entry->size = (size_t)bytes;
    entry->is_mapped = true;
    return check_and_keep(cache, entry, out, err);
}

/* ---- the whole ------------------------------------------------------------------------------- */

void worker_cache_keep(
    struct worker_cache *cache, const char *space, const uint8_t *hashes, size_t count)
{
    (void)pthread_mutex_lock(&cache->lock);
    struct entry *entry = cache->newest;
    while (entry) {
        struct entry *older = entry->older;
        bool is_kept = space && strcmp(entry->space, space) != 0;
        for (size_t i = 0; i < count && !is_kept; i++) {
            is_kept =
                memcmp(hashes + i * MEMCUBE_HASH_BYTES, entry->kept.hash, MEMCUBE_HASH_BYTES) == 0;
        }
        if (!is_kept) {
            take_out(cache, entry);
        }
        entry = older;
    }
    (void)pthread_mutex_unlock(&cache->lock);
}

uint64_t worker_cache_bytes(struct worker_cache *cache)
{
    (void)pthread_mutex_lock(&cache->lock);
    const uint64_t bytes = cache->bytes;
    (void)pthread_mutex_unlock(&cache->lock);
    return bytes;
}

static bool is_listed(const struct memos_buffer *names, const char *space)
{
    const char *at = (const char *)names->data, *end = at + names->size;
    while (at && at < end) {
        if (strcmp(at, space) == 0) {
            return true;
        }
        at += strlen(at) + 1;
    }
    return false;
}

size_t worker_cache_spaces(struct worker_cache *cache, size_t count_max, struct memos_buffer *out)
{
    size_t count = 0;
    (void)pthread_mutex_lock(&cache->lock);
    for (struct entry *entry = cache->newest; entry && count < count_max; entry = entry->older) {
        if (!is_listed(out, entry->space)) {
            memos_buffer_bytes(out, entry->space, strlen(entry->space) + 1);
            count += !out->failed;
        }
    }
    (void)pthread_mutex_unlock(&cache->lock);
    return count;
}

void worker_cache_destroy(struct worker_cache **cache)
{
    struct worker_cache *own = *cache;
    *cache = NULL;
    if (!own) {
        return;
    }
    for (struct entry *entry = own->newest; entry; entry = entry->older) {
        memos_assert(entry->holders == 0);
    }
    worker_cache_keep(own, NULL, NULL, 0);
    (void)pthread_mutex_destroy(&own->lock);
    free(own);
}
