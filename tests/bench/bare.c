#include "tests/bench/bare.h"

#include "tests/bench/bench.h"

#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TABLES_MAX 64
#define MAP_BYTES ((size_t)16 << 30)
#define TRACE_BYTES_MAX ((size_t)8 << 30)

struct table {
    char name[64];
    enum memcube_table_type type;
};

/* Changes lie one after the other in `changes`: table u8, is_delete u8, key and value sized. A
 * delete of a whole key has no value. */
struct bare_trace {
    struct table tables[TABLES_MAX];
    size_t tables_count;
    struct memos_buffer changes;
    size_t changes_count;
    size_t *marks; /* end of each put in `changes` */
    size_t marks_count, marks_room;
};

struct bare_trace *bare_trace_make(void)
{
    struct bare_trace *trace = bench_memory(1, sizeof *trace);

    trace->changes = memos_buffer_make(TRACE_BYTES_MAX);
    return trace;
}

void bare_trace_free(struct bare_trace **trace)
{
    if (*trace) {
        memos_buffer_free(&(*trace)->changes);
        free((*trace)->marks);
        free(*trace);
        *trace = NULL;
    }
}

static size_t table_of(struct bare_trace *trace, const char *name, enum memcube_table_type type)
{
    size_t i = 0;

    while (i < trace->tables_count && strcmp(trace->tables[i].name, name) != 0) {
        i++;
    }
    if (i == trace->tables_count) {
        if (i == TABLES_MAX || strlen(name) >= sizeof trace->tables[i].name) {
            bench_fail("table %s: too many, or too long a name", name);
        }
        strncpy(trace->tables[i].name, name, sizeof trace->tables[i].name - 1);
        trace->tables[i].type = type;
        trace->tables_count++;
    }
    return i;
}

void bare_trace_add(void *self, const char *table_name, enum memcube_table_type type,
    struct memos_bytes key, struct memos_bytes value, bool is_delete)
{
    struct bare_trace *trace = self;
    size_t table = table_of(trace, table_name, type);

    memos_buffer_u8(&trace->changes, (uint8_t)table);
    memos_buffer_u8(&trace->changes, is_delete);
    memos_buffer_sized(&trace->changes, key);
    memos_buffer_u32(&trace->changes, (uint32_t)value.size);
    void *room = memos_buffer_take(&trace->changes, value.size);
    if (room && value.data) {
        memcpy(room, value.data, value.size);
    } else if (room) {
        memset(room, 0, value.size);
    }
    trace->changes_count++;
}

void bare_trace_mark(struct bare_trace *trace)
{
    if (trace->marks_count == trace->marks_room) {
        trace->marks_room = trace->marks_room ? 2 * trace->marks_room : 1024;
        trace->marks = realloc(trace->marks, trace->marks_room * sizeof *trace->marks);
        if (!trace->marks) {
            bench_fail("no memory for %zu marks", trace->marks_room);
        }
    }
    trace->marks[trace->marks_count++] = trace->changes.size;
}

struct bare_trace_size bare_trace_size(const struct bare_trace *trace)
{
    /* each change has a head of two bytes and two lengths */
    return (struct bare_trace_size){
        trace->marks_count, trace->changes_count, trace->changes.size - 10 * trace->changes_count};
}

static void check(int rc, const char *what)
{
    if (rc != 0) {
        bench_fail("%s: %s", what, mdb_strerror(rc));
    }
}

static MDB_env *open_bare(const struct bare_trace *trace, const char *folder, MDB_dbi *tables)
{
    MDB_env *env = NULL;
    MDB_txn *txn = NULL;

    if (mkdir(folder, 0700) != 0) {
        bench_fail("%s: cannot be made", folder);
    }
    check(mdb_env_create(&env), "create");
    check(mdb_env_set_mapsize(env, MAP_BYTES), "map size");
    check(mdb_env_set_maxdbs(env, TABLES_MAX), "tables");
    check(mdb_env_open(env, folder, MDB_NOTLS, 0600), "open");
    check(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    for (size_t i = 0; i < trace->tables_count; i++) {
        unsigned flags = MDB_CREATE;
        if (trace->tables[i].type == MEMCUBE_TABLE_SET) {
            flags |= MDB_DUPSORT | MDB_DUPFIXED;
        }
        check(mdb_dbi_open(txn, trace->tables[i].name, flags, &tables[i]), "table");
    }
    check(mdb_txn_commit(txn), "commit");
    return env;
}

/* Apply the changes of one transaction. What is already there, or already gone, is fine: the first
 * changes of a trace may rest on what was written before it began. */
static void apply(
    const struct bare_trace *trace, MDB_txn *txn, const MDB_dbi *tables, struct memos_bytes changes)
{
    struct memos_reader r = memos_reader_of(changes);

    while (r.left > 0) {
        uint8_t table = memos_read_u8(&r);
        bool is_delete = memos_read_u8(&r) != 0;
        struct memos_bytes key = memos_read_sized(&r, r.left);
        struct memos_bytes value = memos_read_sized(&r, r.left);
        MDB_val k = {key.size, (void *)key.data};
        MDB_val v = {value.size, (void *)value.data};
        if (r.failed || table >= trace->tables_count) {
            bench_fail("the trace is broken");
        }
        if (is_delete) {
            int rc = mdb_del(txn, tables[table], &k, value.size ? &v : NULL);
            check(rc == MDB_NOTFOUND ? 0 : rc, "delete");
        } else {
            check(mdb_put(txn, tables[table], &k, &v, 0), "put");
        }
    }
}

double bare_replay(const struct bare_trace *trace, const char *folder, size_t marks, size_t groups,
    int64_t *transaction_ns)
{
    MDB_dbi tables[TABLES_MAX];
    MDB_env *env = open_bare(trace, folder, tables);
    const uint8_t *bytes = memos_buffer_view(&trace->changes).data;
    int64_t start_ns = bench_now_ns();
    size_t from = 0;

    if (trace->changes.failed || marks > trace->marks_count || groups == 0) {
        bench_fail("the trace is too short or too long");
    }
    for (size_t i = 0; i < groups; i++) {
        size_t last = (i + 1) * marks / groups;
        size_t to = last ? trace->marks[last - 1] : 0;
        MDB_txn *txn = NULL;
        int64_t begin_ns = bench_now_ns();
        check(mdb_txn_begin(env, NULL, 0, &txn), "begin");
        apply(trace, txn, tables, memos_bytes_make(bytes + from, to - from));
        check(mdb_txn_commit(txn), "commit");
        if (transaction_ns) {
            transaction_ns[i] = bench_now_ns() - begin_ns;
        }
        from = to;
    }
    double seconds = (double)(bench_now_ns() - start_ns) / 1e9;
    mdb_env_close(env);
    return seconds;
}
