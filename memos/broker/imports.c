#include "memos/broker/imports.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IDLE_US_MAX = 600 * 1000 * 1000 };

struct broker_imports {
    pthread_mutex_t lock;
    const char *folder;
    uint64_t count_max, bytes_max; /* under lock */
    struct broker_import *first;   /* under lock */
    size_t count;                  /* under lock */
};

enum memos_status broker_imports_create(
    const char *folder, struct broker_imports **out_imports, struct memos_error *err)
{
    struct broker_imports *imports = calloc(1, sizeof *imports);
    if (!imports) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for imports");
    }
    (void)pthread_mutex_init(&imports->lock, NULL);
    imports->folder = folder;
    *out_imports = imports;
    return MEMOS_OK;
}

static void import_free(struct broker_import *import)
{
    if (import->fd >= 0) {
        (void)close(import->fd);
    }
    free(import);
}

void broker_imports_destroy(struct broker_imports **imports)
{
    struct broker_imports *it = *imports;
    *imports = NULL;
    if (!it) {
        return;
    }
    while (it->first) {
        struct broker_import *import = it->first;
        it->first = import->next;
        import_free(import);
    }
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
}

void broker_imports_limit(struct broker_imports *imports, uint64_t count_max, uint64_t bytes_max)
{
    (void)pthread_mutex_lock(&imports->lock);
    imports->count_max = count_max;
    imports->bytes_max = bytes_max;
    (void)pthread_mutex_unlock(&imports->lock);
}

static void text_keep(char *out, size_t size, struct memos_bytes text)
{
    (void)snprintf(out, size, "%.*s", (int)text.size, (const char *)text.data);
}

/* Is there room for one more of so many bytes? Reserves the place. */
static enum memos_status place_take(
    struct broker_imports *imports, uint64_t bytes_total, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    (void)pthread_mutex_lock(&imports->lock);
    if (bytes_total > imports->bytes_max) {
        status =
            memos_fail(err, MEMOS_TOO_LARGE, "an archive of %llu bytes; at most %llu are taken",
                (unsigned long long)bytes_total, (unsigned long long)imports->bytes_max);
    } else if (imports->count >= imports->count_max) {
        status =
            memos_fail(err, MEMOS_BUSY, "%zu imports are being received already", imports->count);
    } else {
        imports->count++;
    }
    (void)pthread_mutex_unlock(&imports->lock);
    return status;
}

static void place_leave(struct broker_imports *imports)
{
    (void)pthread_mutex_lock(&imports->lock);
    imports->count--;
    (void)pthread_mutex_unlock(&imports->lock);
}

enum memos_status broker_imports_begin(struct broker_imports *imports,
    const struct broker_request *rq, uint64_t bytes_total, int64_t now_us,
    struct broker_import **out_import, struct memos_error *err)
{
    enum memos_status status = place_take(imports, bytes_total, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct broker_import *import = calloc(1, sizeof *import);
    if (!import) {
        place_leave(imports);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an import");
    }
    import->fd = open(imports->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (import->fd < 0) {
        status = memos_fail_errno(err, errno, "cannot make a file in %s", imports->folder);
        place_leave(imports);
        import_free(import);
        return status;
    }
    randombytes_buf(import->token, sizeof import->token);
    text_keep(import->space, sizeof import->space, rq->call.space);
    text_keep(import->principal, sizeof import->principal, rq->principal);
    import->bytes_total = bytes_total;
    import->touched_us = now_us;
    import->taken = true;
    (void)pthread_mutex_lock(&imports->lock);
    import->next = imports->first;
    imports->first = import;
    (void)pthread_mutex_unlock(&imports->lock);
    *out_import = import;
    return MEMOS_OK;
}

enum memos_status broker_imports_take(struct broker_imports *imports,
    const struct broker_request *rq, const uint8_t token[16], struct broker_import **out_import,
    struct memos_error *err)
{
    enum memos_status status =
        memos_fail(err, MEMOS_NOT_FOUND, "there is no such import; it may have been too slow");
    (void)pthread_mutex_lock(&imports->lock);
    for (struct broker_import *import = imports->first; import; import = import->next) {
        if (sodium_memcmp(import->token, token, sizeof import->token) != 0 ||
            !memos_bytes_equal(memos_bytes_of(import->space), rq->call.space) ||
            !memos_bytes_equal(memos_bytes_of(import->principal), rq->principal)) {
            continue;
        }
        if (import->taken) {
            status = memos_fail(err, MEMOS_BUSY, "the part before has not been answered yet");
        } else {
            import->taken = true;
            *out_import = import;
            status = MEMOS_OK;
        }
        break;
    }
    (void)pthread_mutex_unlock(&imports->lock);
    return status;
}

enum memos_status broker_import_append(struct broker_import *import, uint64_t offset,
    struct memos_bytes bytes, struct memos_error *err)
{
    const char *at = bytes.data;
    size_t left = bytes.size;
    if (offset != import->bytes) {
        return memos_fail(err, MEMOS_CONFLICT, "the part is for byte %llu; byte %llu is awaited",
            (unsigned long long)offset, (unsigned long long)import->bytes);
    }
    if (left > import->bytes_total - import->bytes) {
        return memos_fail(err, MEMOS_TOO_LARGE,
            "more comes than the %llu bytes that were announced",
            (unsigned long long)import->bytes_total);
    }
    while (left > 0) {
        ssize_t put = pwrite(import->fd, at, left, (off_t)(offset + (bytes.size - left)));
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return memos_fail_errno(err, errno, "cannot keep a part of an import");
        }
        at += put;
        left -= (size_t)put;
    }
    import->bytes += bytes.size;
    return MEMOS_OK;
}

void broker_imports_give_back(
    struct broker_imports *imports, struct broker_import *import, int64_t now_us)
{
    (void)pthread_mutex_lock(&imports->lock);
    import->touched_us = now_us;
    import->taken = false;
    (void)pthread_mutex_unlock(&imports->lock);
}

static void import_remove(struct broker_imports *imports, struct broker_import *import)
{
    for (struct broker_import **at = &imports->first; *at; at = &(*at)->next) {
        if (*at == import) {
            *at = import->next;
            imports->count--;
            break;
        }
    }
}

void broker_imports_end(struct broker_imports *imports, struct broker_import **import)
{
    (void)pthread_mutex_lock(&imports->lock);
    import_remove(imports, *import);
    (void)pthread_mutex_unlock(&imports->lock);
    import_free(*import);
    *import = NULL;
}

void broker_imports_expire(struct broker_imports *imports, int64_t now_us)
{
    struct broker_import *over = NULL;
    (void)pthread_mutex_lock(&imports->lock);
    for (struct broker_import **at = &imports->first; *at;) {
        struct broker_import *import = *at;
        if (!import->taken && now_us - import->touched_us > IDLE_US_MAX) {
            *at = import->next;
            imports->count--;
            import->next = over;
            over = import;
        } else {
            at = &import->next;
        }
    }
    (void)pthread_mutex_unlock(&imports->lock);
    while (over) {
        struct broker_import *import = over;
        over = import->next;
        import_free(import);
    }
}
