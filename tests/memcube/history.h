/* A small history with something of everything, for tests of proofs, repairs and archives. */
#ifndef TESTS_MEMCUBE_HISTORY_H
#define TESTS_MEMCUBE_HISTORY_H

#include "tests/memcube/store_fixture.h"

/* Updates, tags, a blob, a shared payload, a derivation that turned stale, fresh and stale again,
 * states, a rollback, something forgotten with what came from it ("secret of Ann" in its words). */
struct history {
    struct memcube_ref tea, coffee, blob, shared, derived, forgotten, forgotten_derived, expiring;
    uint64_t seq_before; /* what the rollback went back to */
};
struct history history_make(struct fixture *f, const char *space);

/* More than fits into the database. Static. */
char *history_large_text(void);

void history_roll_back(struct fixture *f, const char *space, uint64_t seq);
void history_forget(struct fixture *f, const char *space, const struct memos_id *id);

#endif
