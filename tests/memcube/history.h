/* A small history with something of everything, for tests of proofs, repairs and archives. */
#ifndef TESTS_MEMCUBE_HISTORY_H
#define TESTS_MEMCUBE_HISTORY_H

#include "tests/memcube/store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

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

/* A thread that puts facts into a space, one commit each, and soon forgets every third. */
struct history_writing {
    struct memcube_store *store;
    const char *space;
    size_t count;
    pthread_t thread;
    _Atomic bool done;
    enum memos_status status;
    struct memos_error err;
};
void history_writing_begin(struct history_writing *writing, struct memcube_store *store,
    const char *space, size_t count);
bool history_writing_done(const struct history_writing *writing);
/* Waits for it; a write that failed fails the test. */
void history_writing_end(struct history_writing *writing);

#endif
