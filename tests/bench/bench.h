/* What the benchmarks share: the clock, percentiles, texts, and the table or JSON object at the
 * end.
 *
 * A row compares a value with a limit that was measured in the same run (or is a fixed target). The
 * ratio and whether it holds are computed here, never given.
 *
 * Threads: a struct bench belongs to main's thread; bench_now_ns, bench_fail are for any. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include "proto/bytes.h"

#define BENCH_ROWS_MAX 192
#define BENCH_PATH_BYTES 512

struct bench_row {
    const char *name;
    double value;
    const char *unit;
    double limit; /* 0: nothing to compare with */
    const char *limit_name;
    double bar; /* of the ratio value / limit; 0: none is set */
    bool higher_is_better;
};

struct bench {
    const char *name;
    bool json;
    bool quick;
    bool full;
    char folder[BENCH_PATH_BYTES]; /* for its files; removed at the end */
    struct bench_row rows[BENCH_ROWS_MAX];
    size_t rows_count;
};

/* An option with a value that one benchmark has beside the common ones. */
struct bench_option {
    const char *name, **value;
};

/* Take those options and their values out of argv, so that the common ones are left for
 * bench_begin. Returns the new argc. */
int bench_options_take(const struct bench_option *options, size_t count, int argc, char **argv);

/* Reads --json, --quick, --full, --dir FOLDER (where files go: measure the disk that you mean;
 * default $TMPDIR, else /tmp), makes the folder. Ends the process after --help or bad arguments. */
void bench_begin(struct bench *bench, const char *name, int argc, char **argv);

/* Print the table or the JSON object, remove the folder. Returns main's exit status. */
int bench_end(struct bench *bench);

/* One line on stderr, so that the wait has a face. */
__attribute__((format(printf, 1, 2))) void bench_say(const char *format, ...);

void bench_add(struct bench *bench, struct bench_row row);

/* Print what went wrong and end the process: a benchmark has nobody to report to. */
__attribute__((noreturn, format(printf, 1, 2))) void bench_fail(const char *format, ...);

/* End the process unless status is OK. */
void bench_check(enum memos_status status, const struct memos_error *err, const char *what);

int64_t bench_now_ns(void);

/* What this thread has used of a processor: other work on the machine is not in it. */
int64_t bench_cpu_ns(void);

/* The p-th percentile (0..100) of count >= 1 times; sorts them. */
double bench_percentile(int64_t *times_ns, size_t count, double p);

/* Memory that never runs out: ends the process instead. Cleared. */
void *bench_memory(size_t count, size_t size);

/* Deterministic numbers (splitmix64): one state, one sequence, everywhere. */
uint64_t bench_next(uint64_t *state);

/* "FOLDER/name" in out. */
void bench_path(const struct bench *bench, const char *name, char out[BENCH_PATH_BYTES]);

/* Texts that look like talk: words drawn by Zipf's law from a vocabulary whose commonest words are
 * English function words. */
struct bench_words;
struct bench_words *bench_words_make(size_t words_count);
void bench_words_free(struct bench_words **words);

/* Write words until out holds at least size_min bytes (or room ends); returns the bytes written. */
size_t bench_words_text(
    const struct bench_words *words, uint64_t *state, size_t size_min, char *out, size_t room);

/* A question as people ask it ("When did ... go to the ...?") about words of middling frequency. */
size_t bench_words_question(
    const struct bench_words *words, uint64_t *state, char *out, size_t room);

#endif
