/* One run of the random test: the store, the model of it, and the steps that are done to both. */
#ifndef TESTS_MEMCUBE_STORE_MODEL_RUN_H
#define TESTS_MEMCUBE_STORE_MODEL_RUN_H

#include "tests/memcube/store_fixture.h"
#include "tests/memcube/store_model.h"

enum {
    RUN_TEXTS = 24,
    RUN_TEXTS_LARGE = 4, /* the last ones are blob files */
    RUN_TAGS = 4,
    RUN_EXTERNALS = 12,
    RUN_IDS_MAX = 4,
};

#define RUN_SPACE "acme/model"

struct run {
    struct fixture f;
    struct model model;
    uint64_t random; /* the generator's state: the seed, to begin with */
};
extern struct run run;

uint64_t run_random(void);
int run_below(int limit);
bool run_chance(int percent);

/* Small numbers to texts; number 0 is the empty one. Static. */
struct memos_bytes run_word(const char *kind, int number);
struct memos_bytes run_payload(int number);

/* A draft and the room that it points to. */
struct run_draft {
    struct memcube_draft draft;
    struct memos_bytes tags[RUN_TAGS];
    struct memcube_ref derived[MODEL_DERIVED_MAX];
};
void run_draft_fill(struct run_draft *d, const struct model_content *content, int external);

/* Do something at random to both, inside run.f.write, and compare what came of it. */
void run_step(void);

#endif
