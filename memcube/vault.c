/* memcube/vault.h on one file.
 *
 * The file is read through one mapping that is made once, over the most that the file may ever
 * grow to; the pages past its end are there in address space only. `count` says how far they may be
 * read: it is raised when new slots are durable, so a reader needs no lock against growing.
 *
 * Destroying writes through the file (the mapping is read-only, so no stray pointer can do it).
 * Readers hold the lock for reading while they copy a key, so that none copies half of one. */
#include "memcube/vault.h"

#include "memcube/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES 64u
#define SLOT_BYTES 32u
#define RUN_SLOTS 16384u /* made ahead at once: 512 KiB, two syncs */
#define MAP_BYTES_MOST ((size_t)32 << 30)
#define FORMAT_VERSION 1u

static const char magic[8] = {'m', 'e', 'm', 'o', 's', 'v', 'l', 't'};

struct memcube_vault {
    int fd;
    char *path;
    bool read_only;
    const uint8_t *map;
    size_t map_bytes;
    _Atomic uint64_t count;  /* slots that are durable */
    pthread_rwlock_t in_use; /* Sync: keys are copied under it, destroyed alone */
};

/* ---- the file ------------------------------------------------------------------------------ */

static enum memos_status header_write(
    struct memcube_vault *vault, uint64_t count, struct memos_error *err)
{
    struct memos_buffer b = memos_buffer_make(HEADER_BYTES);
    memos_buffer_bytes(&b, magic, sizeof magic);
    memos_buffer_u32(&b, FORMAT_VERSION);
    memos_buffer_u32(&b, SLOT_BYTES);
    memos_buffer_u64(&b, count);
    void *rest = memos_buffer_take(&b, HEADER_BYTES - b.size);
    if (rest) {
        memset(rest, 0, HEADER_BYTES - 24);
    }
    enum memos_status status =
        b.failed ? memos_fail(err, MEMOS_NO_MEMORY, "no memory for the vault's header")
                 : memcube_file_write_at(vault->fd, memos_buffer_view(&b), 0, vault->path, err);
    memos_buffer_free(&b);
    return status == MEMOS_OK ? memcube_file_sync(vault->fd, vault->path, err) : status;
}

static enum memos_status header_read(
    struct memcube_vault *vault, uint64_t file_bytes, struct memos_error *err)
{
    uint8_t raw[HEADER_BYTES];
    char found[sizeof magic];
    if (pread(vault->fd, raw, sizeof raw, 0) != (ssize_t)sizeof raw) {
        return memos_fail_errno(err, errno ? errno : EIO, "reading %s", vault->path);
    }
    struct memos_reader r = memos_reader_of(memos_bytes_make(raw, sizeof raw));
    memos_read_into(&r, found, sizeof found);
    uint32_t version = memos_read_u32(&r);
    uint32_t slot_bytes = memos_read_u32(&r);
    uint64_t count = memos_read_u64(&r);
    if (memcmp(found, magic, sizeof magic) != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "%s is not a vault", vault->path);
    }
    if (version != FORMAT_VERSION || slot_bytes != SLOT_BYTES) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "%s has format %u with slots of %u bytes",
            vault->path, version, slot_bytes);
    }
    if (count > (file_bytes - HEADER_BYTES) / SLOT_BYTES) {
        return memos_fail(err, MEMOS_CORRUPT, "%s was cut short: %llu keys are named, %llu fit",
            vault->path, (unsigned long long)count,
            (unsigned long long)((file_bytes - HEADER_BYTES) / SLOT_BYTES));
    }
    atomic_store_explicit(&vault->count, count, memory_order_release);
    return MEMOS_OK;
}

/* The largest mapping that the address space has room for. */
static enum memos_status map_file(
    struct memcube_vault *vault, uint64_t file_bytes, struct memos_error *err)
{
    for (size_t size = MAP_BYTES_MOST; size >= file_bytes && size > HEADER_BYTES; size /= 2) {
        void *map = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, vault->fd, 0);
        if (map != MAP_FAILED) {
            vault->map = map;
            vault->map_bytes = size;
            (void)madvise(map, size, MADV_DONTDUMP);
            (void)madvise(map, size, MADV_RANDOM);
            return MEMOS_OK;
        }
    }
    return memos_fail(err, MEMOS_NO_MEMORY, "no room in the address space for %s", vault->path);
}

static enum memos_status file_open(struct memcube_vault *vault, struct memos_error *err)
{
    struct stat about;
    int flags = vault->read_only ? O_RDONLY : O_RDWR | O_CREAT;
    vault->fd = open(vault->path, flags | O_CLOEXEC, 0600);
    if (vault->fd < 0 || fstat(vault->fd, &about) != 0) {
        return memos_fail_errno(err, errno, "opening %s", vault->path);
    }
    uint64_t file_bytes = (uint64_t)about.st_size;
    enum memos_status status = MEMOS_OK;
    if (file_bytes < HEADER_BYTES && !vault->read_only) {
        /* New, or the making of it was interrupted: no key was ever handed out. */
        status = header_write(vault, 0, err);
        file_bytes = HEADER_BYTES;
    }
    if (status == MEMOS_OK) {
        errno = 0;
        status = header_read(vault, file_bytes, err);
    }
    return status == MEMOS_OK ? map_file(vault, file_bytes, err) : status;
}

enum memos_status memcube_vault_open(
    const char *folder, bool read_only, struct memcube_vault **out_vault, struct memos_error *err)
{
    struct memcube_vault *vault = calloc(1, sizeof *vault);
    if (!vault) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to open the vault of %s", folder);
    }
    vault->fd = -1;
    vault->read_only = read_only;
    (void)pthread_rwlock_init(&vault->in_use, NULL);
    enum memos_status status = MEMOS_OK;
    if (sodium_init() < 0) {
        status = memos_fail(err, MEMOS_INTERNAL, "libsodium cannot be used");
    } else if (asprintf(&vault->path, "%s/vault", folder) < 0) {
        vault->path = NULL;
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to open the vault of %s", folder);
    } else {
        status = file_open(vault, err);
    }
    if (status == MEMOS_OK) {
        *out_vault = vault;
    } else {
        memcube_vault_close(&vault);
    }
    return status;
}

void memcube_vault_close(struct memcube_vault **vault_place)
{
    struct memcube_vault *vault = *vault_place;
    if (!vault) {
        return;
    }
    if (vault->map) {
        (void)munmap((void *)vault->map, vault->map_bytes);
    }
    if (vault->fd >= 0) {
        (void)close(vault->fd);
    }
    (void)pthread_rwlock_destroy(&vault->in_use);
    free(vault->path);
    free(vault);
    *vault_place = NULL;
}

/* ---- keys ---------------------------------------------------------------------------------- */

static uint64_t offset_of(uint64_t slot)
{
    return HEADER_BYTES + (slot - 1) * SLOT_BYTES;
}

/* First the keys, then the count that names them: a crash between leaves keys that nobody knows,
 * and the next run overwrites them. */
static enum memos_status add_run(struct memcube_vault *vault, struct memos_error *err)
{
    uint64_t count = atomic_load_explicit(&vault->count, memory_order_relaxed);
    size_t size = (size_t)RUN_SLOTS * SLOT_BYTES;
    if (vault->map_bytes < offset_of(count + 1) + size) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%s cannot hold more than %llu keys", vault->path,
            (unsigned long long)count);
    }
    uint8_t *keys = malloc(size);
    if (!keys) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for new keys");
    }
    randombytes_buf(keys, size);
    enum memos_status status = memcube_file_write_at(
        vault->fd, memos_bytes_make(keys, size), offset_of(count + 1), vault->path, err);
    sodium_memzero(keys, size);
    free(keys);
    if (status == MEMOS_OK) {
        status = memcube_file_sync(vault->fd, vault->path, err);
    }
    if (status == MEMOS_OK) {
        status = header_write(vault, count + RUN_SLOTS, err);
    }
    if (status == MEMOS_OK) {
        atomic_store_explicit(&vault->count, count + RUN_SLOTS, memory_order_release);
    }
    return status;
}

enum memos_status memcube_vault_reserve(
    struct memcube_vault *vault, uint64_t slot, struct memos_error *err)
{
    if (vault->read_only) {
        return memos_fail(err, MEMOS_DENIED, "%s is open for reading only", vault->path);
    }
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && slot > atomic_load_explicit(&vault->count, memory_order_relaxed)) {
        status = add_run(vault, err);
    }
    return status;
}

enum memos_status memcube_vault_key(
    struct memcube_vault *vault, uint64_t slot, uint8_t out[32], struct memos_error *err)
{
    if (slot == 0 || slot > atomic_load_explicit(&vault->count, memory_order_acquire)) {
        return memos_fail(
            err, MEMOS_CORRUPT, "the vault has no key %llu", (unsigned long long)slot);
    }
    (void)pthread_rwlock_rdlock(&vault->in_use);
    memcpy(out, vault->map + offset_of(slot), SLOT_BYTES);
    (void)pthread_rwlock_unlock(&vault->in_use);
    if (sodium_is_zero(out, SLOT_BYTES)) {
        return memos_fail(err, MEMOS_FORGOTTEN, "the key was destroyed");
    }
    return MEMOS_OK;
}

enum memos_status memcube_vault_apply(struct memcube_vault *vault, uint64_t slot, uint64_t nonce,
    const void *in, void *out, size_t size, struct memos_error *err)
{
    uint8_t key[crypto_stream_chacha20_KEYBYTES];
    uint8_t nonce_bytes[crypto_stream_chacha20_NONCEBYTES];
    _Static_assert(sizeof key == SLOT_BYTES && sizeof nonce_bytes == 8, "ChaCha20 as of djb");
    enum memos_status status = memcube_vault_key(vault, slot, key, err);
    if (status != MEMOS_OK) {
        return status;
    }
    for (size_t i = 0; i < sizeof nonce_bytes; i++) {
        nonce_bytes[i] = (uint8_t)(nonce >> (8 * i));
    }
    if (size > 0) {
        int rc = crypto_stream_chacha20_xor(out, in, size, nonce_bytes, key);
        memos_assert(rc == 0);
    }
    sodium_memzero(key, sizeof key);
    return MEMOS_OK;
}

enum memos_status memcube_vault_destroy(
    struct memcube_vault *vault, const uint64_t *slots, size_t slots_count, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    uint64_t count = atomic_load_explicit(&vault->count, memory_order_relaxed);
    (void)pthread_rwlock_wrlock(&vault->in_use);
    for (size_t i = 0; status == MEMOS_OK && i < slots_count; i++) {
        if (slots[i] == 0 || slots[i] > count) {
            status = memos_fail(
                err, MEMOS_CORRUPT, "the vault has no key %llu", (unsigned long long)slots[i]);
        } else {
            status =
                memcube_file_zero(vault->fd, offset_of(slots[i]), SLOT_BYTES, vault->path, err);
        }
    }
    (void)pthread_rwlock_unlock(&vault->in_use);
    return status == MEMOS_OK ? memcube_file_sync(vault->fd, vault->path, err) : status;
}
