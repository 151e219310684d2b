/* Goldens, and where they and the real encoder lie. For cmocka tests: what cannot be done fails the
 * test. */
#ifndef TESTS_PARAMEM_GOLDEN_H
#define TESTS_PARAMEM_GOLDEN_H

#include "proto/bytes.h"

#define GOLDEN_PATH_BYTES 1024

/* golden/NAME in the source tree. Returns out. */
char *golden_path(const char *name, char out[GOLDEN_PATH_BYTES]);

/* All of a file. The caller frees it with memos_buffer_free. */
struct memos_buffer golden_file(const char *path);
struct memos_buffer golden_read(const char *name);

/* A folder with copies of the files of golden/NAME, one level deep, in an empty folder `into`. */
void golden_copy(const char *name, const char *into);

/* Replace (or make) the file into/name. */
void golden_write(const char *into, const char *name, struct memos_bytes bytes);

/* The folder of all-MiniLM-L6-v2: $MEMOS_ENCODER_DIR, else below $XDG_DATA_HOME or ~/.local/share.
 * NULL when there is none; then it has said so. */
const char *golden_minilm(char out[GOLDEN_PATH_BYTES]);

/* One record of a golden.bin: a text, whether it is a question, its ids and its vector. */
struct golden_text {
    bool query;
    struct memos_bytes text;
    size_t ids_count;
    const uint32_t *ids;
    const float *vector; /* dims */
};
struct golden_texts {
    struct memos_buffer file;
    struct golden_text *texts;
    size_t count, dims;
};
struct golden_texts golden_texts_read(const char *name);
void golden_texts_free(struct golden_texts *texts);

double golden_cosine(const float *a, const float *b, size_t dims);

/* FNV-1a; begin with GOLDEN_FNV. */
#define GOLDEN_FNV 0x811C9DC5u
uint32_t golden_fnv(uint32_t state, const void *data, size_t size);

/* A generator: the next of SplitMix64. */
uint64_t golden_random(uint64_t *state);

/* The seed of a random test: $MEMOS_TEST_SEED or a fresh one, printed. */
uint64_t golden_seed(void);

#endif
