/* How fast the store writes, takes back, proves and finds, beside bare LMDB where that is the
 * limit.
 *
 * Durable puts are compared with the same keys and bytes (recorded from the store itself) in as
 * many bare transactions, each synced as the store's are. Rounds alternate; figures are medians. */
#include "tests/bench/bare.h"
#include "tests/bench/bench.h"

#include "memcube/writer.h"
#include "retrieval/lexical.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 512
#define TEXT_ROOM (TEXT_BYTES + 64)
#define IN_FLIGHT 64
#define WRITERS 16
#define ROUNDS 3
#define VOCABULARY 30000

/* A store with its lexical index and, when it is durable, its writer. */
struct fixture {
    struct retrieval_lexical *lexical;
    struct memcube_store *store;
    struct memcube_writer *writer;
    char path[BENCH_PATH_BYTES];
};

static void fixture_reopen(struct fixture *f, bool sync_off)
{
    struct memos_error err;
    struct memcube_index *indexes[1];

    bench_check(retrieval_lexical_create(NULL, &f->lexical, &err), &err, "index");
    indexes[0] = retrieval_lexical_index(f->lexical);
    struct memcube_store_options options = {
        .path = f->path,
        .map_bytes = (uint64_t)16 << 30,
        .clock = memos_clock_system(),
        .indexes = indexes,
        .indexes_count = 1,
        .sync_off = sync_off,
    };
    bench_check(memcube_store_open(&options, &f->store, &err), &err, "open");
    if (!sync_off) {
        struct memcube_writer_options writer = {.queue_max = 0};
        bench_check(memcube_writer_create(f->store, &writer, &f->writer, &err), &err, "writer");
    }
}

static void fixture_open(
    struct fixture *f, const struct bench *bench, const char *name, bool sync_off)
{
    *f = (struct fixture){.store = NULL};
    bench_path(bench, name, f->path);
    fixture_reopen(f, sync_off);
}

static void fixture_close(struct fixture *f)
{
    memcube_writer_destroy(&f->writer);
    memcube_store_close(&f->store);
    retrieval_lexical_destroy(&f->lexical);
}

static struct memcube_change change_of(const char *reason)
{
    return (struct memcube_change){.space = memos_bytes_of("bench/space"),
        .author = memos_bytes_of("bench"),
        .reason = memos_bytes_of(reason)};
}

static struct memcube_draft draft_of(const char *text, size_t size)
{
    return (struct memcube_draft){.kind = MEMCUBE_PLAINTEXT,
        .subtype = memos_bytes_of("message"),
        .codec = memos_bytes_of("text/plain; charset=utf-8"),
        .payload = memos_bytes_make(text, size)};
}

/* ---- durable puts -------------------------------------------------------------------------- */

/* One put of one text; 64 of them take turns. */
struct put_job {
    struct memcube_writer_job job;
    struct memos_bytes text;
    struct bare_trace *trace; /* or NULL */
    sem_t *free_slots;
    struct put_job **stack; /* free jobs */
    size_t *stack_count;
    pthread_mutex_t *stack_lock;
};

static enum memos_status put_run(void *self, struct memcube_write *write, struct memos_error *err)
{
    struct put_job *put = self;
    struct memcube_change change = change_of("");
    struct memcube_draft draft = draft_of(put->text.data, put->text.size);
    struct memcube_outcome outcome;

    enum memos_status status = memcube_create(write, &change, &draft, 1, &outcome, err);
    if (put->trace) {
        bare_trace_mark(put->trace);
    }
    return status;
}

static void put_done(void *self, enum memos_status status, const struct memos_error *err)
{
    struct put_job *put = self;

    bench_check(status, err, "put");
    (void)pthread_mutex_lock(put->stack_lock);
    put->stack[(*put->stack_count)++] = put;
    (void)pthread_mutex_unlock(put->stack_lock);
    (void)sem_post(put->free_slots);
}

static struct memos_bytes text_at(const char *texts, size_t number)
{
    return memos_bytes_make(texts + number * TEXT_ROOM, TEXT_BYTES);
}

/* Put count texts with IN_FLIGHT of them always waiting. Returns the seconds. */
static double put_all(struct fixture *f, const char *texts, size_t count, struct bare_trace *trace)
{
    struct put_job jobs[IN_FLIGHT];
    struct put_job *stack[IN_FLIGHT];
    size_t stack_count = 0;
    sem_t free_slots;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct memos_error err;

    (void)sem_init(&free_slots, 0, IN_FLIGHT);
    for (size_t i = 0; i < IN_FLIGHT; i++) {
        jobs[i] = (struct put_job){.job = {.run = put_run, .done = put_done, .self = &jobs[i]},
            .trace = trace,
            .free_slots = &free_slots,
            .stack = stack,
            .stack_count = &stack_count,
            .stack_lock = &lock};
        stack[stack_count++] = &jobs[i];
    }
    int64_t start_ns = bench_now_ns();
    for (size_t i = 0; i < count; i++) {
        (void)sem_wait(&free_slots);
        (void)pthread_mutex_lock(&lock);
        struct put_job *put = stack[--stack_count];
        (void)pthread_mutex_unlock(&lock);
        put->text = text_at(texts, i);
        bench_check(memcube_writer_submit(f->writer, &put->job, &err), &err, "submit");
    }
    for (size_t i = 0; i < IN_FLIGHT; i++) {
        (void)sem_wait(&free_slots);
    }
    double seconds = (double)(bench_now_ns() - start_ns) / 1e9;
    (void)sem_destroy(&free_slots);
    return seconds;
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *rounds, size_t count)
{
    qsort(rounds, count, sizeof *rounds, compare_doubles);
    return rounds[count / 2];
}

/* What the store writes for these texts, to be written bare. */
static struct bare_trace *record(const struct bench *bench, const char *texts, size_t count)
{
    struct bare_trace *trace = bare_trace_make();
    struct fixture f;

    fixture_open(&f, bench, "traced", false);
    memcube_db_trace(memcube_store_db(f.store), bare_trace_add, trace);
    (void)put_all(&f, texts, count, trace);
    fixture_close(&f);
    return trace;
}

static void time_puts(
    struct bench *bench, const char *texts, size_t count, const struct bare_trace *trace)
{
    double store_rate[ROUNDS], bare_rate[ROUNDS];

    for (size_t round = 0; round < ROUNDS; round++) {
        char name[32], path[BENCH_PATH_BYTES];
        struct fixture f;
        struct memcube_writer_stats stats;
        (void)snprintf(name, sizeof name, "puts-%zu", round);
        fixture_open(&f, bench, name, false);
        store_rate[round] = (double)count / put_all(&f, texts, count, NULL);
        memcube_writer_stats(f.writer, &stats);
        fixture_close(&f);
        (void)snprintf(name, sizeof name, "bare-%zu", round);
        bench_path(bench, name, path);
        bare_rate[round] = (double)count / bare_replay(trace, path, count, stats.groups, NULL);
        bench_say("  round %zu: %.0f puts/s in %llu groups, bare %.0f", round + 1,
            store_rate[round], (unsigned long long)stats.groups, bare_rate[round]);
    }
    bench_add(bench,
        (struct bench_row){"durable puts of 512 bytes, 64 in flight", median(store_rate, ROUNDS),
            "puts/s", median(bare_rate, ROUNDS), "bare LMDB, same keys and syncs", 0.4, true});
}

/* ---- many writers at once ------------------------------------------------------------------ */

struct patient_writer {
    struct fixture *fixture;
    const char *texts;
    size_t count;
    int64_t *times_ns;
};

static void *write_patiently(void *self)
{
    struct patient_writer *w = self;

    for (size_t i = 0; i < w->count; i++) {
        struct put_job put = {.text = text_at(w->texts, i)};
        struct memos_error err;
        int64_t start_ns = bench_now_ns();
        bench_check(memcube_writer_run(w->fixture->writer, put_run, &put, &err), &err, "put");
        w->times_ns[i] = bench_now_ns() - start_ns;
    }
    return NULL;
}

static void time_writers(
    struct bench *bench, const char *texts, size_t count, const struct bare_trace *trace)
{
    struct fixture f;
    struct patient_writer writers[WRITERS];
    pthread_t threads[WRITERS];
    char path[BENCH_PATH_BYTES];
    size_t each = count / WRITERS;
    int64_t *times_ns = bench_memory(count, sizeof *times_ns);

    fixture_open(&f, bench, "writers", false);
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i] =
            (struct patient_writer){&f, texts + i * each * TEXT_ROOM, each, times_ns + i * each};
        if (pthread_create(&threads[i], NULL, write_patiently, &writers[i]) != 0) {
            bench_fail("no thread");
        }
    }
    for (size_t i = 0; i < WRITERS; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    fixture_close(&f);
    double p99 = bench_percentile(times_ns, WRITERS * each, 99) / 1e6;
    size_t alone = count / 2;
    bench_path(bench, "bare-alone", path);
    (void)bare_replay(trace, path, alone, alone, times_ns);
    bench_add(bench, (struct bench_row){"16 writers at once, durable put, p99", p99, "ms",
                         bench_percentile(times_ns, alone, 99) / 1e6,
                         "one bare LMDB commit of a put, p99", 3, false});
    free(times_ns);
}

/* ---- rollback of a space ------------------------------------------------------------------- */

enum {
    CHANGED_CUBES = 10000,
    BATCH = 500,
};

static uint64_t commit(struct memcube_write **write, uint64_t seq)
{
    struct memos_error err;

    bench_check(memcube_write_commit(write, &err), &err, "commit");
    return seq;
}

static struct memcube_write *begin(struct fixture *f)
{
    struct memcube_write *write = NULL;
    struct memos_error err;

    bench_check(memcube_write_begin(f->store, &write, &err), &err, "begin");
    return write;
}

/* BATCH new cubes in one record; their ids go to out. Returns the record. */
static uint64_t create_batch(struct fixture *f, const char *texts, struct memos_id *out)
{
    struct memcube_write *write = begin(f);
    struct memcube_change change = change_of("made");
    struct memcube_draft drafts[BATCH];
    struct memcube_outcome outcome;
    struct memos_error err;

    for (size_t i = 0; i < BATCH; i++) {
        drafts[i] = draft_of(texts + i * TEXT_ROOM, 100 + i % 60);
    }
    bench_check(memcube_create(write, &change, drafts, BATCH, &outcome, &err), &err, "create");
    for (size_t i = 0; i < BATCH; i++) {
        out[i] = outcome.refs[i].id;
    }
    return commit(&write, outcome.seq);
}

static uint64_t update_batch(struct fixture *f, const char *texts, const struct memos_id *ids)
{
    struct memcube_write *write = begin(f);
    struct memcube_change change = change_of("changed");
    struct memcube_update updates[BATCH];
    struct memcube_outcome outcome;
    struct memos_error err;

    for (size_t i = 0; i < BATCH; i++) {
        updates[i] = (struct memcube_update){.id = ids[i],
            .fields = MEMCUBE_FIELD_PAYLOAD,
            .draft = draft_of(texts + i * TEXT_ROOM + 200, 100 + i % 60)};
    }
    bench_check(memcube_update(write, &change, updates, BATCH, &outcome, &err), &err, "update");
    return commit(&write, outcome.seq);
}

static void time_rollback(struct bench *bench, const char *texts)
{
    struct fixture f;
    struct memos_id *ids = bench_memory(CHANGED_CUBES, sizeof *ids);
    double seconds[ROUNDS];
    uint64_t before = 0, after = 0;

    fixture_open(&f, bench, "rollback", false);
    for (size_t i = 0; i < CHANGED_CUBES; i += BATCH) {
        before = create_batch(&f, texts + i % 4000 * TEXT_ROOM, ids + i);
    }
    for (size_t i = 0; i < CHANGED_CUBES; i += BATCH) {
        after = update_batch(&f, texts + i % 4000 * TEXT_ROOM, ids + i);
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        struct memcube_rollback rollback = {.to = {.seq = round % 2 ? after : before}};
        struct memcube_change change = change_of("taken back");
        struct memcube_rollback_item *items;
        struct memcube_outcome outcome;
        struct memos_error err;
        size_t items_count;
        int64_t start_ns = bench_now_ns();
        struct memcube_write *write = begin(&f);
        bench_check(
            memcube_rollback(write, &change, &rollback, &outcome, &items, &items_count, &err), &err,
            "rollback");
        if (items_count != CHANGED_CUBES) {
            bench_fail("the rollback changed %zu cubes", items_count);
        }
        (void)commit(&write, outcome.seq);
        seconds[round] = (double)(bench_now_ns() - start_ns) / 1e9;
    }
    bench_add(bench, (struct bench_row){"rollback of a space, 10,000 changed cubes",
                         median(seconds, ROUNDS), "s", 1, "the target", 1, false});
    fixture_close(&f);
    free(ids);
}

/* ---- a long history ------------------------------------------------------------------------ */

/* `count` records of one version each, a quarter of them new cubes, the rest changes of those. */
static void write_history(struct fixture *f, const char *texts, size_t texts_count, size_t count)
{
    size_t cubes = count / 4;
    struct memos_id *ids = bench_memory(cubes, sizeof *ids);
    struct memcube_write *write = NULL;
    struct memos_error err;

    for (size_t i = 0; i < count; i++) {
        struct memcube_change change = change_of(i < cubes ? "made" : "changed");
        const char *text = texts + i % texts_count * TEXT_ROOM + i / texts_count % 256;
        struct memcube_draft draft = draft_of(text, 64 + i % 64);
        struct memcube_outcome outcome;
        write = write ? write : begin(f);
        if (i < cubes) {
            bench_check(memcube_create(write, &change, &draft, 1, &outcome, &err), &err, "create");
            ids[i] = outcome.refs[0].id;
        } else {
            struct memcube_update update = {
                .id = ids[i % cubes], .fields = MEMCUBE_FIELD_PAYLOAD, .draft = draft};
            bench_check(memcube_update(write, &change, &update, 1, &outcome, &err), &err, "update");
        }
        if (i % 500 == 499 || i + 1 == count) {
            (void)commit(&write, 0);
        }
        if (i % 100000 == 99999) {
            bench_say("  %zu versions", i + 1);
        }
    }
    free(ids);
}

static void time_history(
    struct bench *bench, const char *texts, size_t texts_count, size_t versions)
{
    struct fixture f;
    struct memcube_verify_result result;
    struct memos_error err;
    double open_seconds[ROUNDS];
    static char open_name[64];

    fixture_open(&f, bench, "history", true);
    write_history(&f, texts, texts_count, versions);
    for (size_t round = 0; round < ROUNDS; round++) {
        fixture_close(&f);
        int64_t start_ns = bench_now_ns();
        fixture_reopen(&f, true);
        open_seconds[round] = (double)(bench_now_ns() - start_ns) / 1e9;
    }
    int64_t start_ns = bench_now_ns();
    bench_check(
        memcube_verify(f.store, memos_bytes_of("bench/space"), 0, NULL, NULL, &result, &err), &err,
        "verify");
    double seconds = (double)(bench_now_ns() - start_ns) / 1e9;
    if (!result.intact || result.records != versions) {
        bench_fail("verify: %llu records, %s", (unsigned long long)result.records, result.what);
    }
    bench_add(
        bench, (struct bench_row){"verify, a version and payload in each record",
                   (double)result.records / seconds, "records/s", 200000, "the target", 1, true});
    (void)snprintf(open_name, sizeof open_name, "open a store of %zu versions", versions);
    bench_add(bench, (struct bench_row){open_name, median(open_seconds, ROUNDS), "s", 0.2,
                         "the target", 1, false});
    fixture_close(&f);
}

/* ---- search -------------------------------------------------------------------------------- */

static void fill_for_search(struct fixture *f, const struct bench_words *words, size_t count)
{
    static char texts[BATCH][TEXT_ROOM];
    uint64_t state = 3;

    for (size_t done = 0; done < count; done += BATCH) {
        struct memcube_write *write = begin(f);
        struct memcube_change change = change_of("");
        struct memcube_draft drafts[BATCH];
        struct memcube_outcome outcome;
        struct memos_error err;
        for (size_t i = 0; i < BATCH; i++) {
            size_t size =
                bench_words_text(words, &state, 40 + bench_next(&state) % 160, texts[i], TEXT_ROOM);
            drafts[i] = draft_of(texts[i], size);
        }
        bench_check(memcube_create(write, &change, drafts, BATCH, &outcome, &err), &err, "create");
        (void)commit(&write, outcome.seq);
    }
}

static void time_search(struct bench *bench, const struct bench_words *words, size_t questions)
{
    struct fixture f;
    struct memcube_read *read = NULL;
    struct memos_error err;
    uint64_t state = 4;
    size_t found = 0;
    int64_t *times_ns = bench_memory(questions, sizeof *times_ns);

    fixture_open(&f, bench, "search", true);
    fill_for_search(&f, words, 100000);
    bench_check(memcube_read_begin(f.store, &read, &err), &err, "read");
    for (size_t i = 0; i < questions; i++) {
        char text[256];
        struct memcube_space space;
        struct retrieval_hit hits[10];
        size_t hits_count;
        struct retrieval_query query = {.top_k = 10};
        query.text = memos_bytes_make(text, bench_words_question(words, &state, text, sizeof text));
        int64_t start_ns = bench_now_ns();
        bench_check(memcube_read_renew(read, &err), &err, "renew");
        bench_check(
            memcube_space_find(read, memos_bytes_of("bench/space"), &space, &err), &err, "space");
        bench_check(
            retrieval_lexical_search(f.lexical, read, &space, &query, hits, &hits_count, &err),
            &err, "search");
        times_ns[i] = bench_now_ns() - start_ns;
        found += hits_count;
    }
    if (found < questions) {
        bench_fail("%zu questions found only %zu texts", questions, found);
    }
    bench_add(bench,
        (struct bench_row){"BM25 search over 100,000 short texts, p50",
            bench_percentile(times_ns, questions, 50) / 1e6, "ms", 5, "the target", 1, false});
    bench_add(bench, (struct bench_row){.name = "BM25 search over 100,000 short texts, p99",
                         .value = bench_percentile(times_ns, questions, 99) / 1e6,
                         .unit = "ms"});
    memcube_read_end(&read);
    fixture_close(&f);
    free(times_ns);
}

int main(int argc, char **argv)
{
    struct bench bench;

    bench_begin(&bench, "bench_store", argc, argv);
    size_t puts = bench.quick ? 5000 : 30000;
    size_t versions = bench.quick ? 100000 : 1000000;
    struct bench_words *words = bench_words_make(VOCABULARY);
    char *texts = bench_memory(puts, TEXT_ROOM);
    uint64_t state = 2;
    for (size_t i = 0; i < puts; i++) {
        (void)bench_words_text(words, &state, TEXT_BYTES, texts + i * TEXT_ROOM, TEXT_ROOM);
    }
    bench_say("recording what %zu puts write", puts);
    struct bare_trace *trace = record(&bench, texts, puts);
    struct bare_trace_size size = bare_trace_size(trace);
    bench_say("  %zu changes, %zu bytes a put", size.changes / size.marks, size.bytes / size.marks);
    bench_say("putting");
    time_puts(&bench, texts, puts, trace);
    time_writers(&bench, texts, bench.quick ? 3200 : 16000, trace);
    bare_trace_free(&trace);
    bench_say("rolling back");
    time_rollback(&bench, texts);
    bench_say("writing a history of %zu versions", versions);
    time_history(&bench, texts, puts, versions);
    bench_say("searching");
    time_search(&bench, words, bench.quick ? 300 : 2000);
    free(texts);
    bench_words_free(&words);
    return bench_end(&bench);
}
