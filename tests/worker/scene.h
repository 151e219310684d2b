/* A worker's memory with a small model, and a broker to ask, in the test's process.
 *
 * For cmocka tests: what cannot be done fails the test. */
#ifndef TESTS_WORKER_SCENE_H
#define TESTS_WORKER_SCENE_H

#include "tests/broker/fixture.h"
#include "tests/worker/tiny_host.h"

#define SCENE_SPACE "acme/alice"
#define SCENE_TOKENS 12 /* of an answer */

struct scene {
    struct fixture fixture;
    struct tiny_host tiny;
    struct worker_memory *memory;
    struct worker_fetch fetch;
    struct memos_arena arena;   /* of captures that were made */
    Memos__CaptureMade kept;    /* the last one of scene_keep; its ref is in the arena */
    struct worker_prompt *open; /* of the last round: a test that failed did not free it */
};

void scene_begin(struct scene *scene, const struct tiny_host_options *options);
void scene_end(struct scene *scene);
/* The worker was started again: nothing is in its cache, nothing in its engine. */
void scene_restart(struct scene *scene);

/* For cmocka: a scene of its own for a test, in *state. */
int scene_setup(void **state);
int scene_teardown(void **state);
#define SCENE_TEST(name) cmocka_unit_test_setup_teardown(name, scene_setup, scene_teardown)

/* ---- what is in the space ---- */

struct memos_id scene_put(struct scene *scene, const char *text, int64_t day);
void scene_update(struct scene *scene, const struct memos_id *id, const char *text);
/* Back to before the last change, of this cube (NULL: of the space). */
void scene_rollback(struct scene *scene, const struct memos_id *id, uint64_t seq);
void scene_forget(struct scene *scene, const struct memos_id *id);
uint64_t scene_seq(struct scene *scene);
/* Captures of the space, newest first; free the message. */
struct memos_message *scene_captures(struct scene *scene);
/* Replace the payload of a cube. */
void scene_damage(struct scene *scene, const struct memos_id *id, struct memos_bytes payload);
/* A copy of a cube's payload, with malloc. */
struct memos_bytes scene_payload(struct scene *scene, const struct memos_id *id);

/* ---- what is asked ---- */

struct scene_wish {
    const char *question;
    const struct memos_id *named; /* cubes */
    size_t named_count;
    bool search, capture, independent;
    unsigned captures; /* as Memory.captures */
    unsigned recompute;
    uint64_t as_of; /* a record; 0: now */
};

/* One answer, and its receipt. */
struct scene_round {
    struct worker_prompt *prompt;
    struct tiny_answer answer;
};
enum memos_status scene_prepare(struct scene *scene, const struct scene_wish *wish,
    struct scene_round *out, struct memos_error *err);
/* fuse, answer, told. */
void scene_finish(struct scene *scene, struct scene_round *round);
/* prepare, and all that. */
void scene_run(struct scene *scene, const struct scene_wish *wish, struct scene_round *out);
void scene_free(struct scene *scene, struct scene_round *round);
/* The answer is what the model says when nothing but the prompt is read, by an engine that knows
 * nothing. */
void scene_assert_plain(struct scene *scene, const struct scene_round *round);

/* Keep what the round wants kept, unless its sources do not stand any more; whether it was kept. */
bool scene_keep(struct scene *scene, struct scene_round *round, struct memcube_ref *out);

/* Does a note of the receipt have this in it? */
bool scene_noted(const struct scene_round *round, const char *part);
/* Tokens that the receipt says came out of captures. */
size_t scene_from_kv(const struct scene_round *round);

#endif
