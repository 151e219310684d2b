/* The store as a child would write it: arrays in memory, everything worked out from nothing each
 * time. The random test does the same things to it and to the real one. */
#ifndef TESTS_MEMCUBE_STORE_MODEL_H
#define TESTS_MEMCUBE_STORE_MODEL_H

#include "memcube/store.h"

enum {
    MODEL_CUBES_MAX = 512,
    MODEL_VERSIONS_MAX = 48,
    MODEL_DERIVED_MAX = 2,
    MODEL_RECORDS_MAX = 20000,
};

struct model_ref {
    int cube, number;
};

/* What a caller can say about a cube: small numbers that stand for texts. */
struct model_content {
    int text, title, speaker;
    unsigned tags;
    int64_t event_us, expires_us;
    struct model_ref derived[MODEL_DERIVED_MAX];
    int derived_count;
};

struct model_version {
    struct model_content content;
    enum memcube_state state;
    enum memcube_operation operation;
    uint64_t seq;
    uint32_t doc;
    int equals;
};

struct model_flip {
    uint64_t seq;
    bool stale;
};

struct model_cube {
    struct memos_id id;
    int external; /* 0: none */
    struct model_version versions[MODEL_VERSIONS_MAX]; /* version n at n - 1 */
    int count;
    bool stale;
    struct model_flip flips[MODEL_VERSIONS_MAX * 4];
    int flips_count;
};

struct model {
    struct model_cube cubes[MODEL_CUBES_MAX];
    int count;
    uint64_t seq;
    int64_t times[MODEL_RECORDS_MAX]; /* of record n at n */
    uint32_t docs;
};

const struct model_version *model_head(const struct model_cube *cube);
enum memcube_state model_state(const struct model_cube *cube);

/* When does the clock end it? INT64_MAX: never. */
int64_t model_expiry(const struct model_version *version);

/* The number of the version as of seq; 0: none. */
int model_as_of(const struct model_cube *cube, uint64_t seq);
bool model_stale_as_of(const struct model_cube *cube, uint64_t seq);
uint64_t model_seq_of_time(const struct model *model, int64_t time_us);

/* Do both say the same words (one doc)? Everything the same? */
bool model_words_same(const struct model_content *a, const struct model_content *b);
bool model_content_same(const struct model_content *a, const struct model_content *b);

/* Was `cube` ever derived from `from`, at any depth? */
bool model_descends(const struct model *model, int cube, int from);

/* Begin a record; append versions to it; work out the flags anew and say how many changed. */
void model_record(struct model *model, int64_t now_us);
/* like: the version whose doc it shares, NULL: a doc of its own. Returns the version. */
struct model_version *model_append(struct model *model, int cube,
    const struct model_content *content, enum memcube_state state,
    enum memcube_operation operation, const struct model_version *like);
int model_settle(struct model *model);

#endif
