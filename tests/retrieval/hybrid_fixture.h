/* A store with all indexes, conversations in it, and an encoder that knows seven things and the
 * words for them: what it makes of two texts is near when they speak of the same thing. What cannot
 * be done fails the test. */
#ifndef TESTS_RETRIEVAL_HYBRID_FIXTURE_H
#define TESTS_RETRIEVAL_HYBRID_FIXTURE_H

#include "retrieval/search.h"
#include "retrieval/vectors.h"
#include "tests/memcube/store_fixture.h"

enum { HYBRID_DIMS = 32, HYBRID_HITS = 64 };

#define HYBRID_SPACE "chats"
#define HYBRID_DAY_US INT64_C(86400000000)

struct hybrid {
    struct fixture f;
    struct retrieval *retrieval;
    uint8_t fingerprint[32];
    bool silent; /* no vectors are offered */
};

void hybrid_make(struct hybrid *h);
void hybrid_drop(struct hybrid *h);
void hybrid_reopen(struct hybrid *h);

/* Something that was said. Fields that are 0 are not set. */
struct hybrid_turn {
    const char *session, *speaker, *text;
    int64_t event_us;
    const char *reader, *tag;
    uint8_t priority;
    int64_t valid_to_us, valid_from_us;
};
struct memcube_ref hybrid_put(struct hybrid *h, const struct hybrid_turn *turn);
/* PUT(h, session, speaker, text, .field = ...) */
#define PUT(h, by_session, by_speaker, ...)                                                        \
    hybrid_put((h), &(const struct hybrid_turn){                                                   \
                        .session = (by_session), .speaker = (by_speaker), .text = __VA_ARGS__})

/* Change the text of a cube. */
struct memcube_ref hybrid_edit(struct hybrid *h, const struct memos_id *id, const char *text);
void hybrid_forget(struct hybrid *h, const struct memos_id *id);
/* Go back to a record of the space. */
void hybrid_rollback(struct hybrid *h, uint64_t seq);
uint64_t hybrid_seq(struct hybrid *h);

void hybrid_encode(struct memos_bytes text, float out[HYBRID_DIMS]);

struct hybrid_found {
    struct retrieval_hit hits[HYBRID_HITS];
    struct memos_id ids[HYBRID_HITS];
    size_t count;
    struct retrieval_report report;
};
/* Ask: query's vector is made, unless no_vector; top_k 0 is HYBRID_HITS. */
struct hybrid_found hybrid_ask(
    struct hybrid *h, const char *text, const struct retrieval_query *query, bool no_vector);

/* The place of a cube among what was found; -1: it was not. */
int hybrid_place(const struct hybrid_found *found, struct memcube_ref ref);

/* The text of a hit's doc. */
const char *hybrid_text(struct hybrid *h, uint32_t doc);

/* The texts of the neighbours of the head's doc as `viewer` (NULL: an administrator) sees them,
 * joined: "before2 before1 | after1 after2". */
const char *hybrid_beside(struct hybrid *h, struct memcube_ref ref, const char *viewer,
    const struct memcube_as_of *as_of);

#endif
