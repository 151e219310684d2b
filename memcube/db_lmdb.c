/* memcube/db.h on LMDB.
 *
 * The gate. LMDB may only move its map, or be opened anew, while no transaction is open. Therefore
 * every transaction passes a gate: a count of open transactions under one mutex, and a flag that
 * shuts it. Growing shuts the gate, waits until the count is zero, moves the map and opens it
 * again. The same mutex keeps the read transactions that have ended: LMDB renews one much faster
 * than it begins one.
 *
 * After a failure in the last step of a commit (the meta page) LMDB refuses the whole environment.
 * The pages on disk are still right: it is closed and opened anew under the shut gate, and the
 * transaction that met the refusal begins again.
 *
 * The lock. LMDB would let several processes in; a store is owned by one. The file memos.lock is
 * held with flock, which the kernel lets go when the process ends, however it ends. */
#include "memcube/db.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define TABLES_MAX 64u
#define KEY_BYTES_MAX 511u
#define MAP_BYTES_DEFAULT ((uint64_t)1 << 30)
#define MAP_BYTES_MIN ((uint64_t)1 << 20)
#define READERS_DEFAULT 126u
/* A short write does not say why it was short; with less than this free, it was the disk. */
#define DISK_FULL_BYTES ((uint64_t)1 << 20)

struct db_table {
    char *name;
    enum memcube_table_type type;
    MDB_dbi dbi;
};

struct memcube_db {
    struct memcube_db_options options; /* its path is a copy */
    int lock_fd;

    pthread_mutex_t mutex; /* Sync: of everything down to the tables */
    pthread_cond_t changed;
    MDB_env *env; /* changes only while the gate is shut and open is 0 */
    bool shut;
    bool writing;
    bool failed; /* the environment must be opened anew before the next transaction */
    unsigned open;
    struct memcube_txn *idle; /* ended read transactions, to be renewed */
    bool map_full;            /* the last write transaction ended for want of map */
    uint64_t grown;

    struct db_table tables[TABLES_MAX];
    unsigned tables_count;
    memcube_db_trace_fn *trace;
    void *trace_self;
};

struct memcube_txn {
    struct memcube_db *db;
    MDB_txn *txn;
    struct memcube_txn *next_idle;
    bool write;
    int failed; /* the first code that broke it; 0: sound */
    /* What memcube_put_room gave out and the trace has not seen filled yet. */
    bool room_open;
    memcube_table room_table;
    size_t room_key_bytes;
    struct memos_bytes room;
    uint8_t room_key[KEY_BYTES_MAX];
};

struct memcube_cursor {
    struct memcube_txn *txn;
    memcube_table table;
    MDB_cursor *cursor;
};

/* ---- codes --------------------------------------------------------------------------------- */

static enum memos_status status_of_mdb(int code)
{
    switch (code) {
    case MDB_NOTFOUND:
        return MEMOS_NOT_FOUND;
    case MDB_KEYEXIST:
        return MEMOS_EXISTS;
    case MDB_MAP_FULL:
        return MEMOS_NO_SPACE;
    case MDB_READERS_FULL:
        return MEMOS_BUSY;
    case MDB_TXN_FULL:
        return MEMOS_TOO_LARGE;
    case MDB_BAD_VALSIZE:
        return MEMOS_INVALID;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_INCOMPATIBLE:
        return MEMOS_CORRUPT;
    case MDB_VERSION_MISMATCH:
        return MEMOS_UNSUPPORTED;
    case MDB_PANIC:
        return MEMOS_IO;
    default:
        return MEMOS_INTERNAL;
    }
}

/* The one place where LMDB's codes become ours; its positive codes are errno's. */
static enum memos_status db_fail(struct memos_error *err, int code, const char *what)
{
    if (code > 0) {
        return memos_fail_errno(err, code, "database: %s", what);
    }
    return memos_fail_foreign(
        err, status_of_mdb(code), code, "database: %s: %s", what, mdb_strerror(code));
}

/* ---- the folder and its lock --------------------------------------------------------------- */

static enum memos_status path_in(const struct memcube_db *db, const char *name, char *out,
    size_t out_size, struct memos_error *err)
{
    int size = snprintf(out, out_size, "%s/%s", db->options.path, name);
    if (size < 0 || (size_t)size >= out_size) {
        return memos_fail(err, MEMOS_INVALID, "the path of the store is too long");
    }
    return MEMOS_OK;
}

static enum memos_status lock_busy(const struct memcube_db *db, int fd, struct memos_error *err)
{
    char owner[24] = {0};
    ssize_t size = pread(fd, owner, sizeof owner - 1, 0);
    owner[size > 0 ? strcspn(owner, "\n") : 0] = 0;
    return memos_fail(err, MEMOS_BUSY, "%s is open in another process%s%s", db->options.path,
        owner[0] ? ", pid " : "", owner);
}

/* Write our pid for people who look. The lock holds without it, so a full disk does not matter. */
static void lock_sign(int fd)
{
    char pid[24];
    int size = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    bool signed_off = ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)size, 0) == size;
    (void)signed_off;
}

static enum memos_status lock_take(struct memcube_db *db, struct memos_error *err)
{
    char path[4096];
    bool read_only = db->options.read_only;
    enum memos_status status = path_in(db, "memos.lock", path, sizeof path, err);
    if (status != MEMOS_OK) {
        return status;
    }
    int fd = open(path, (read_only ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC, 0600);
    if (fd < 0 && read_only && (errno == ENOENT || errno == EACCES)) {
        return MEMOS_OK; /* a copy that nobody owns */
    }
    if (fd < 0) {
        return memos_fail_errno(err, errno, "opening %s", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int code = errno;
        status = code == EWOULDBLOCK ? lock_busy(db, fd, err)
                                     : memos_fail_errno(err, code, "locking %s", path);
        (void)close(fd);
        return status;
    }
    db->lock_fd = fd;
    if (!read_only) {
        lock_sign(fd);
    }
    return MEMOS_OK;
}

/* ---- the environment ----------------------------------------------------------------------- */

static uint64_t file_bytes_of(const struct memcube_db *db)
{
    char path[4096];
    struct stat about;
    if (path_in(db, "data.mdb", path, sizeof path, NULL) != MEMOS_OK || stat(path, &about) != 0) {
        return 0;
    }
    return (uint64_t)about.st_size;
}

/* Room for what is there and a quarter more, so that opening does not lead straight to growing. */
static uint64_t map_bytes_wanted(const struct memcube_db *db)
{
    uint64_t map = db->options.map_bytes;
    uint64_t file = file_bytes_of(db);
    while (map - map / 5 < file && map <= UINT64_MAX / 4) {
        map *= 2;
    }
    if (map > db->options.map_bytes_max) {
        map = db->options.map_bytes_max;
    }
    return map;
}

/* LMDB reads pages through the map without asking how long the file is: a file that was cut short
 * would be a SIGBUS. Zeros where pages are missing make it an error that LMDB reports. */
static enum memos_status mend_length(struct memcube_db *db, struct memos_error *err)
{
    MDB_envinfo info;
    MDB_stat stat_main;
    int fd;
    if (mdb_env_info(db->env, &info) != 0 || mdb_env_stat(db->env, &stat_main) != 0 ||
        mdb_env_get_fd(db->env, &fd) != 0) {
        return memos_fail(err, MEMOS_INTERNAL, "the database does not describe itself");
    }
    uint64_t need = ((uint64_t)info.me_last_pgno + 1) * stat_main.ms_psize;
    if (db->options.read_only || file_bytes_of(db) >= need) {
        return MEMOS_OK;
    }
    if (ftruncate(fd, (off_t)need) != 0) {
        return memos_fail_errno(err, errno, "restoring the length of the database");
    }
    return MEMOS_OK;
}

static enum memos_status table_open(
    struct memcube_db *db, struct db_table *table, struct memos_error *err)
{
    MDB_txn *txn = NULL;
    bool read_only = db->options.read_only;
    unsigned flags = read_only ? 0 : MDB_CREATE;
    flags |= table->type == MEMCUBE_TABLE_SET ? MDB_DUPSORT | MDB_DUPFIXED : 0;
    int rc = mdb_txn_begin(db->env, NULL, read_only ? MDB_RDONLY : 0, &txn);
    if (rc != 0) {
        return db_fail(err, rc, "beginning to open a table");
    }
    rc = mdb_dbi_open(txn, table->name, flags, &table->dbi);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return db_fail(err, rc, table->name);
    }
    /* A handle outlives the transaction that opened it only through a commit. */
    rc = mdb_txn_commit(txn);
    return rc == 0 ? MEMOS_OK : db_fail(err, rc, "making a table");
}

static void env_close(struct memcube_db *db)
{
    while (db->idle) {
        struct memcube_txn *txn = db->idle;
        db->idle = txn->next_idle;
        mdb_txn_abort(txn->txn);
        free(txn);
    }
    if (db->env) {
        mdb_env_close(db->env);
        db->env = NULL;
    }
}

static enum memos_status env_open(struct memcube_db *db, struct memos_error *err)
{
    const struct memcube_db_options *o = &db->options;
    unsigned flags = MDB_NOTLS | (o->read_only ? MDB_RDONLY : 0) | (o->sync_off ? MDB_NOSYNC : 0);
    enum memos_status status = MEMOS_OK;
    int rc = mdb_env_create(&db->env);
    if (rc != 0) {
        db->env = NULL;
        return db_fail(err, rc, "creating its environment");
    }
    if ((rc = mdb_env_set_maxdbs(db->env, TABLES_MAX)) != 0 ||
        (rc = mdb_env_set_maxreaders(db->env, o->readers_max)) != 0 ||
        (rc = mdb_env_set_mapsize(db->env, map_bytes_wanted(db))) != 0 ||
        (rc = mdb_env_open(db->env, o->path, flags, 0600)) != 0) {
        status = db_fail(err, rc, o->path);
    }
    if (status == MEMOS_OK) {
        status = mend_length(db, err);
    }
    for (unsigned i = 0; status == MEMOS_OK && i < db->tables_count; i++) {
        status = table_open(db, &db->tables[i], err);
    }
    if (status != MEMOS_OK) {
        env_close(db);
    }
    return status;
}

static void options_complete(struct memcube_db_options *o)
{
    if (o->map_bytes == 0) {
        o->map_bytes = MAP_BYTES_DEFAULT;
    } else if (o->map_bytes < MAP_BYTES_MIN) {
        o->map_bytes = MAP_BYTES_MIN;
    }
    if (o->map_bytes_max == 0) {
        o->map_bytes_max = (uint64_t)1 << 46; /* what x86-64 and arm64 can map, less a bit */
    }
    if (o->map_bytes > o->map_bytes_max) {
        o->map_bytes = o->map_bytes_max;
    }
    if (o->readers_max == 0) {
        o->readers_max = READERS_DEFAULT;
    }
}

enum memos_status memcube_db_open(
    const struct memcube_db_options *options, struct memcube_db **out_db, struct memos_error *err)
{
    struct memcube_db *db = calloc(1, sizeof *db);
    enum memos_status status = MEMOS_OK;
    if (!db) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to open a database");
    }
    db->lock_fd = -1;
    (void)pthread_mutex_init(&db->mutex, NULL);
    (void)pthread_cond_init(&db->changed, NULL);
    db->options = *options;
    options_complete(&db->options);
    db->options.path = strdup(options->path);
    if (!db->options.path) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to open a database");
        goto out;
    }
    if (!options->read_only && mkdir(options->path, 0700) != 0 && errno != EEXIST) {
        status = memos_fail_errno(err, errno, "making the folder %s", options->path);
        goto out;
    }
    status = lock_take(db, err);
    if (status == MEMOS_OK) {
        status = env_open(db, err);
    }
out:
    if (status == MEMOS_OK) {
        *out_db = db;
    } else {
        memcube_db_close(&db);
    }
    return status;
}

void memcube_db_close(struct memcube_db **db_place)
{
    struct memcube_db *db = *db_place;
    if (!db) {
        return;
    }
    memos_assert(db->open == 0);
    env_close(db);
    if (db->lock_fd >= 0) {
        (void)close(db->lock_fd);
    }
    for (unsigned i = 0; i < db->tables_count; i++) {
        free(db->tables[i].name);
    }
    (void)pthread_cond_destroy(&db->changed);
    (void)pthread_mutex_destroy(&db->mutex);
    free((char *)db->options.path);
    free(db);
    *db_place = NULL;
}

enum memos_status memcube_db_table(struct memcube_db *db, const char *name,
    enum memcube_table_type type, memcube_table *out_table, struct memos_error *err)
{
    for (unsigned i = 0; i < db->tables_count; i++) {
        if (strcmp(db->tables[i].name, name) == 0) {
            *out_table = i;
            return MEMOS_OK;
        }
    }
    if (db->tables_count == TABLES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "a database has at most %u tables", TABLES_MAX);
    }
    struct db_table *table = &db->tables[db->tables_count];
    *table = (struct db_table){.name = strdup(name), .type = type};
    if (!table->name) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a table");
    }
    enum memos_status status = table_open(db, table, err);
    if (status != MEMOS_OK) {
        free(table->name);
        return status;
    }
    *out_table = db->tables_count++;
    return MEMOS_OK;
}

/* ---- the gate ------------------------------------------------------------------------------ */

/* Shut the gate and wait until nobody is inside; the mutex is held before and after. */
static void gate_shut(struct memcube_db *db)
{
    while (db->shut) {
        (void)pthread_cond_wait(&db->changed, &db->mutex);
    }
    db->shut = true;
    while (db->open > 0) {
        (void)pthread_cond_wait(&db->changed, &db->mutex);
    }
}

static void gate_open(struct memcube_db *db)
{
    db->shut = false;
    (void)pthread_cond_broadcast(&db->changed);
}

/* Open a failed environment anew; the mutex is held. Its pages in the kernel's cache are what the
 * next commit builds on: they must be on disk before anything is. */
static enum memos_status env_mend(struct memcube_db *db, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    gate_shut(db);
    if (db->failed) {
        env_close(db);
        status = env_open(db, err);
        if (status == MEMOS_OK && !db->options.read_only) {
            int rc = mdb_env_sync(db->env, 1);
            if (rc != 0) {
                status = db_fail(err, rc, "syncing after a failure");
            }
        }
        db->failed = status != MEMOS_OK;
    }
    gate_open(db);
    return status;
}

static enum memos_status gate_enter(
    struct memcube_db *db, bool write, struct memcube_txn **out_idle, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    (void)pthread_mutex_lock(&db->mutex);
    for (;;) {
        if (db->shut || (write && db->writing)) {
            (void)pthread_cond_wait(&db->changed, &db->mutex);
        } else if (db->failed) {
            status = env_mend(db, err);
            if (status != MEMOS_OK) {
                break;
            }
        } else {
            db->open++;
            db->writing = db->writing || write;
            if (!write && db->idle) {
                *out_idle = db->idle;
                db->idle = db->idle->next_idle;
            }
            break;
        }
    }
    (void)pthread_mutex_unlock(&db->mutex);
    return status;
}

/* Leave; keep an ended read transaction for the next reader. */
static void gate_leave(struct memcube_db *db, bool write, struct memcube_txn *idle, bool failed)
{
    (void)pthread_mutex_lock(&db->mutex);
    if (idle) {
        idle->next_idle = db->idle;
        db->idle = idle;
    }
    db->failed = db->failed || failed;
    db->open--;
    if (write) {
        db->writing = false;
    }
    if (write || db->shut) {
        (void)pthread_cond_broadcast(&db->changed);
    }
    (void)pthread_mutex_unlock(&db->mutex);
}

enum memos_status memcube_db_grow(struct memcube_db *db, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    MDB_envinfo info;
    (void)pthread_mutex_lock(&db->mutex);
    gate_shut(db);
    if (!db->env || mdb_env_info(db->env, &info) != 0) {
        status = memos_fail(err, MEMOS_IO, "the database is not open");
    } else if (info.me_mapsize >= db->options.map_bytes_max) {
        status = memos_fail(err, MEMOS_NO_SPACE, "the database has its largest size, %llu bytes",
            (unsigned long long)db->options.map_bytes_max);
    } else {
        uint64_t most = db->options.map_bytes_max;
        uint64_t map = info.me_mapsize > most / 2 ? most : (uint64_t)info.me_mapsize * 2;
        int rc = mdb_env_set_mapsize(db->env, map);
        if (rc != 0) {
            /* The old map is gone already. */
            db->failed = true;
            status = db_fail(err, rc, "growing the map");
        } else {
            db->grown++;
            db->map_full = false;
        }
    }
    gate_open(db);
    (void)pthread_mutex_unlock(&db->mutex);
    return status;
}

/* ---- transactions -------------------------------------------------------------------------- */

static int txn_start(struct memcube_db *db, bool write, struct memcube_txn *txn)
{
    *txn = (struct memcube_txn){.db = db, .txn = txn->txn, .write = write};
    if (txn->txn) {
        return mdb_txn_renew(txn->txn);
    }
    return mdb_txn_begin(db->env, NULL, write ? 0 : MDB_RDONLY, &txn->txn);
}

static enum memos_status txn_begin(
    struct memcube_db *db, bool write, struct memcube_txn **out_txn, struct memos_error *err)
{
    int rc = 0;
    for (int attempt = 0; attempt < 2; attempt++) {
        struct memcube_txn *txn = NULL;
        enum memos_status status = gate_enter(db, write, &txn, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (!txn) {
            txn = calloc(1, sizeof *txn);
        }
        rc = txn ? txn_start(db, write, txn) : ENOMEM;
        if (rc == 0) {
            *out_txn = txn;
            return MEMOS_OK;
        }
        if (txn) {
            mdb_txn_abort(txn->txn);
            free(txn);
        }
        gate_leave(db, write, NULL, rc == MDB_PANIC);
        if (rc != MDB_PANIC) {
            break;
        }
    }
    return db_fail(err, rc, write ? "beginning to write" : "beginning to read");
}

enum memos_status memcube_txn_read(
    struct memcube_db *db, struct memcube_txn **out_txn, struct memos_error *err)
{
    return txn_begin(db, false, out_txn, err);
}

enum memos_status memcube_txn_write(
    struct memcube_db *db, struct memcube_txn **out_txn, struct memos_error *err)
{
    if (db->options.read_only) {
        return memos_fail(err, MEMOS_DENIED, "%s is open for reading only", db->options.path);
    }
    return txn_begin(db, true, out_txn, err);
}

static void trace(struct memcube_txn *txn, memcube_table table, struct memos_bytes key,
    struct memos_bytes value, bool is_delete)
{
    const struct memcube_db *db = txn->db;
    db->trace(
        db->trace_self, db->tables[table].name, db->tables[table].type, key, value, is_delete);
}

/* Before a change: tell the trace what has become of the room that was given out. */
static void trace_room(struct memcube_txn *txn)
{
    if (txn->room_open) {
        txn->room_open = false;
        trace(txn, txn->room_table, memos_bytes_make(txn->room_key, txn->room_key_bytes), txn->room,
            false);
    }
}

static bool disk_is_full(const struct memcube_db *db)
{
    struct statvfs about;
    return statvfs(db->options.path, &about) == 0 &&
           (uint64_t)about.f_bavail * about.f_frsize < DISK_FULL_BYTES;
}

static void write_ended(struct memcube_txn *txn, int rc)
{
    struct memcube_db *db = txn->db;
    (void)pthread_mutex_lock(&db->mutex);
    db->map_full = rc == MDB_MAP_FULL;
    (void)pthread_mutex_unlock(&db->mutex);
    free(txn);
    gate_leave(db, true, NULL, rc == MDB_PANIC);
}

enum memos_status memcube_txn_commit(struct memcube_txn **txn_place, struct memos_error *err)
{
    struct memcube_txn *txn = *txn_place;
    struct memcube_db *db = txn->db;
    if (!txn->write) {
        memcube_txn_abort(txn_place);
        return MEMOS_OK;
    }
    trace_room(txn);
    int rc = txn->failed;
    if (rc != 0) {
        mdb_txn_abort(txn->txn);
    } else {
        rc = mdb_txn_commit(txn->txn);
    }
    *txn_place = NULL;
    write_ended(txn, rc);
    if (rc == 0) {
        return MEMOS_OK;
    }
    return db_fail(err, rc == EIO && disk_is_full(db) ? ENOSPC : rc, "committing");
}

void memcube_txn_abort(struct memcube_txn **txn_place)
{
    struct memcube_txn *txn = *txn_place;
    if (!txn) {
        return;
    }
    *txn_place = NULL;
    if (txn->write) {
        mdb_txn_abort(txn->txn);
        write_ended(txn, txn->failed);
    } else {
        mdb_txn_reset(txn->txn);
        gate_leave(txn->db, false, txn, false);
    }
}

bool memcube_txn_broken(const struct memcube_txn *txn)
{
    return txn->failed != 0;
}

bool memcube_txn_map_full(const struct memcube_txn *txn)
{
    return txn->failed == MDB_MAP_FULL;
}

bool memcube_db_map_full(struct memcube_db *db)
{
    (void)pthread_mutex_lock(&db->mutex);
    bool full = db->map_full;
    (void)pthread_mutex_unlock(&db->mutex);
    return full;
}

/* ---- reading and changing ------------------------------------------------------------------ */

static MDB_val val_of(struct memos_bytes bytes)
{
    return (MDB_val){bytes.size, (void *)bytes.data};
}

static struct memos_bytes bytes_of(MDB_val val)
{
    return memos_bytes_make(val.mv_data, val.mv_size);
}

/* A failed operation: remember what broke the transaction. What is not there, is there already or
 * has a wrong size leaves it whole. */
static enum memos_status op_fail(
    struct memcube_txn *txn, memcube_table table, int rc, struct memos_error *err)
{
    bool harmless = rc == MDB_NOTFOUND || rc == MDB_KEYEXIST || rc == MDB_BAD_VALSIZE;
    if (!harmless && txn->failed == 0) {
        txn->failed = rc;
    }
    if (rc == MDB_NOTFOUND) {
        /* The usual answer to a question: no text is worth its time. */
        if (err) {
            *err = (struct memos_error){.status = MEMOS_NOT_FOUND, .text = "no such key"};
        }
        return MEMOS_NOT_FOUND;
    }
    return db_fail(
        err, rc == EIO && disk_is_full(txn->db) ? ENOSPC : rc, txn->db->tables[table].name);
}

enum memos_status memcube_get(struct memcube_txn *txn, memcube_table table, struct memos_bytes key,
    struct memos_bytes *out_value, struct memos_error *err)
{
    MDB_val k = val_of(key), v;
    int rc = mdb_get(txn->txn, txn->db->tables[table].dbi, &k, &v);
    if (rc != 0) {
        return op_fail(txn, table, rc, err);
    }
    *out_value = bytes_of(v);
    return MEMOS_OK;
}

enum memos_status memcube_put(struct memcube_txn *txn, memcube_table table, struct memos_bytes key,
    struct memos_bytes value, struct memos_error *err)
{
    bool set = txn->db->tables[table].type == MEMCUBE_TABLE_SET;
    MDB_val k = val_of(key), v = val_of(value);
    trace_room(txn);
    int rc = mdb_put(txn->txn, txn->db->tables[table].dbi, &k, &v, set ? MDB_NODUPDATA : 0);
    if (rc != 0 && !(set && rc == MDB_KEYEXIST)) {
        return op_fail(txn, table, rc, err);
    }
    if (txn->db->trace) {
        trace(txn, table, key, value, false);
    }
    return MEMOS_OK;
}

enum memos_status memcube_put_room(struct memcube_txn *txn, memcube_table table,
    struct memos_bytes key, size_t value_bytes, void **out_room, struct memos_error *err)
{
    MDB_val k = val_of(key), v = {value_bytes, NULL};
    trace_room(txn);
    int rc = mdb_put(txn->txn, txn->db->tables[table].dbi, &k, &v, MDB_RESERVE);
    if (rc != 0) {
        return op_fail(txn, table, rc, err);
    }
    *out_room = v.mv_data;
    if (txn->db->trace && key.size <= sizeof txn->room_key) {
        txn->room_open = true;
        txn->room_table = table;
        txn->room_key_bytes = key.size;
        memcpy(txn->room_key, key.data, key.size);
        txn->room = bytes_of(v);
    }
    return MEMOS_OK;
}

enum memos_status memcube_delete(struct memcube_txn *txn, memcube_table table,
    struct memos_bytes key, struct memos_bytes value, struct memos_error *err)
{
    MDB_val k = val_of(key), v = val_of(value);
    trace_room(txn);
    int rc = mdb_del(txn->txn, txn->db->tables[table].dbi, &k, value.data ? &v : NULL);
    if (rc != 0) {
        return op_fail(txn, table, rc, err);
    }
    if (txn->db->trace) {
        trace(txn, table, key, value, true);
    }
    return MEMOS_OK;
}

/* ---- cursors ------------------------------------------------------------------------------- */

enum memos_status memcube_cursor_open(struct memcube_txn *txn, memcube_table table,
    struct memcube_cursor **out_cursor, struct memos_error *err)
{
    struct memcube_cursor *cursor = calloc(1, sizeof *cursor);
    if (!cursor) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a cursor");
    }
    *cursor = (struct memcube_cursor){.txn = txn, .table = table};
    int rc = mdb_cursor_open(txn->txn, txn->db->tables[table].dbi, &cursor->cursor);
    if (rc != 0) {
        free(cursor);
        return op_fail(txn, table, rc, err);
    }
    *out_cursor = cursor;
    return MEMOS_OK;
}

void memcube_cursor_close(struct memcube_cursor **cursor)
{
    if (*cursor) {
        mdb_cursor_close((*cursor)->cursor);
        free(*cursor);
        *cursor = NULL;
    }
}

enum memos_status memcube_cursor_move(struct memcube_cursor *cursor, enum memcube_move move,
    struct memos_bytes *key, struct memos_bytes *value, struct memos_error *err)
{
    static const MDB_cursor_op ops[] = {
        [MEMCUBE_FIRST] = MDB_FIRST,
        [MEMCUBE_LAST] = MDB_LAST,
        [MEMCUBE_NEXT] = MDB_NEXT,
        [MEMCUBE_PREVIOUS] = MDB_PREV,
        [MEMCUBE_AT_OR_AFTER] = MDB_SET_RANGE,
        [MEMCUBE_AT] = MDB_SET_KEY,
        [MEMCUBE_NEXT_KEY] = MDB_NEXT_NODUP,
    };
    MDB_val k = {0, NULL}, v = {0, NULL};
    if (move == MEMCUBE_AT_OR_AFTER || move == MEMCUBE_AT) {
        k = val_of(*key);
    }
    int rc = mdb_cursor_get(cursor->cursor, &k, &v, ops[move]);
    if (rc != 0) {
        return op_fail(cursor->txn, cursor->table, rc, err);
    }
    *key = bytes_of(k);
    *value = bytes_of(v);
    return MEMOS_OK;
}

enum memos_status memcube_cursor_values(struct memcube_cursor *cursor, bool first,
    struct memos_bytes *out_values, struct memos_error *err)
{
    MDB_val k = {0, NULL}, v = {0, NULL};
    int rc;
    if (first) {
        /* LMDB leaves v as it is for a key with a single value, so that one goes in first. */
        rc = mdb_cursor_get(cursor->cursor, &k, &v, MDB_FIRST_DUP);
        if (rc == 0) {
            rc = mdb_cursor_get(cursor->cursor, &k, &v, MDB_GET_MULTIPLE);
        }
    } else {
        rc = mdb_cursor_get(cursor->cursor, &k, &v, MDB_NEXT_MULTIPLE);
    }
    if (rc != 0) {
        return op_fail(cursor->txn, cursor->table, rc, err);
    }
    *out_values = bytes_of(v);
    return MEMOS_OK;
}

enum memos_status memcube_cursor_value_at_or_after(struct memcube_cursor *cursor,
    struct memos_bytes key, struct memos_bytes *value, struct memos_error *err)
{
    MDB_val k = val_of(key), v = val_of(*value);
    int rc = mdb_cursor_get(cursor->cursor, &k, &v, MDB_GET_BOTH_RANGE);
    if (rc != 0) {
        return op_fail(cursor->txn, cursor->table, rc, err);
    }
    *value = bytes_of(v);
    return MEMOS_OK;
}

enum memos_status memcube_cursor_count(
    struct memcube_cursor *cursor, uint64_t *out_count, struct memos_error *err)
{
    size_t count = 0;
    int rc = mdb_cursor_count(cursor->cursor, &count);
    if (rc != 0) {
        return op_fail(cursor->txn, cursor->table, rc, err);
    }
    *out_count = count;
    return MEMOS_OK;
}

enum memos_status memcube_cursor_delete(struct memcube_cursor *cursor, struct memos_error *err)
{
    struct memcube_txn *txn = cursor->txn;
    MDB_val k = {0, NULL}, v = {0, NULL};
    trace_room(txn);
    int rc = mdb_cursor_get(cursor->cursor, &k, &v, MDB_GET_CURRENT);
    if (rc == 0 && txn->db->trace) {
        bool set = txn->db->tables[cursor->table].type == MEMCUBE_TABLE_SET;
        trace(txn, cursor->table, bytes_of(k), set ? bytes_of(v) : memos_bytes_make(NULL, 0), true);
    }
    if (rc == 0) {
        rc = mdb_cursor_del(cursor->cursor, 0);
    }
    return rc == 0 ? MEMOS_OK : op_fail(txn, cursor->table, rc, err);
}

/* ---- figures ------------------------------------------------------------------------------- */

/* Pages that LMDB keeps for later: each value of its free list begins with how many it names. */
static int count_free_pages(MDB_txn *txn, uint64_t *out)
{
    MDB_cursor *cursor = NULL;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, 0, &cursor);
    if (rc != 0) {
        return rc;
    }
    *out = 0;
    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        size_t pages = 0;
        memcpy(&pages, v.mv_data, v.mv_size < sizeof pages ? v.mv_size : sizeof pages);
        *out += pages;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

enum memos_status memcube_db_stats(
    struct memcube_db *db, struct memcube_db_stats *out, struct memos_error *err)
{
    struct memcube_txn *txn = NULL;
    MDB_envinfo info;
    MDB_stat about = {0};
    uint64_t free_pages = 0;
    enum memos_status status = memcube_txn_read(db, &txn, err);
    if (status != MEMOS_OK) {
        return status;
    }
    *out = (struct memcube_db_stats){.file_bytes = file_bytes_of(db)};
    int rc = mdb_env_info(db->env, &info);
    if (rc == 0) {
        rc = count_free_pages(txn->txn, &free_pages);
    }
    for (unsigned i = 0; rc == 0 && i < db->tables_count; i++) {
        rc = mdb_stat(txn->txn, db->tables[i].dbi, &about);
        out->entries += about.ms_entries;
    }
    if (rc == 0) {
        (void)pthread_mutex_lock(&db->mutex);
        out->grown = db->grown;
        (void)pthread_mutex_unlock(&db->mutex);
        out->map_bytes = info.me_mapsize;
        out->used_bytes = ((uint64_t)info.me_last_pgno + 1 - free_pages) * about.ms_psize;
        out->last_txn = info.me_last_txnid;
        out->readers = info.me_numreaders;
        out->readers_max = info.me_maxreaders;
    } else {
        status = db_fail(err, rc, "counting");
    }
    memcube_txn_abort(&txn);
    return status;
}

void memcube_db_trace(struct memcube_db *db, memcube_db_trace_fn *fn, void *self)
{
    db->trace = fn;
    db->trace_self = self;
}
