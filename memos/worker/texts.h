/* The texts that a sequence may remember: cubes that were named, and cubes that a search found, all
 * as of one moment of their space.
 *
 * Threads: none of its own. Errors: those of the requests; STALE (a named version does not stand),
 * INVALID (a named cube is no text). */
#ifndef MEMOS_WORKER_TEXTS_H
#define MEMOS_WORKER_TEXTS_H

#include "memos/worker/ask.h"
#include "memos/worker/note.h"

/* A cube's words. Everything lies in the arena. */
struct worker_recalled {
    struct memcube_ref ref;
    uint8_t hash[MEMCUBE_HASH_BYTES]; /* of the payload */
    struct memos_bytes words;         /* UTF-8, as stored */
    struct memos_bytes speaker;       /* empty: not known */
    int64_t event_us;                 /* when it was said; else when it was recorded */
    float score;                      /* of the search; 0: named */
    bool is_named;
    char **readers; /* its access list */
    size_t readers_count;
};

struct worker_texts {
    struct worker_recalled *items; /* named ones as named, then found ones, the best first */
    size_t count;
    struct worker_moment moment;
    bool has_moment; /* false: there is no space to remember from */
    bool is_past;    /* the caller asked for a moment of the past */
    uint64_t micros; /* that finding took */
};

/* Find what `memory` (NULL: nothing) asks for in the job's space; query: what to search for when it
 * says nothing. A space that is not there gives no texts and a note, unless cubes are named. Of
 * texts that say the same, the best stands alone. */
MEMOS_MUST_USE enum memos_status worker_texts_find(const struct worker_fetch *fetch,
    const char *space, const Memos__Memory *memory, const char *query, struct memos_arena *arena,
    struct worker_notes *notes, struct worker_texts *out, struct memos_error *err);

/* The heads of named cubes, for a capture. */
MEMOS_MUST_USE enum memos_status worker_texts_named(const struct worker_fetch *fetch,
    const char *space, const ProtobufCBinaryData *ids, size_t count, struct memos_arena *arena,
    struct worker_texts *out, struct memos_error *err);

/* Do two texts say the same, or nearly so (words in common, cases and marks apart)? */
bool worker_texts_alike(struct memos_bytes a, struct memos_bytes b);

#endif
