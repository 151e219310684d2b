/* What a receipt says in words: what was left out, and why.
 *
 * Notes name cubes by id and version and never carry their words, so that a receipt has nothing to
 * forget.
 *
 * Threads: one list belongs to one thread at a time. */
#ifndef MEMOS_WORKER_NOTE_H
#define MEMOS_WORKER_NOTE_H

#include "memcube/cube.h"
#include "proto/arena.h"

#define WORKER_NOTES_MAX 64

struct worker_notes {
    struct memos_arena *arena; /* borrowed */
    char *texts[WORKER_NOTES_MAX];
    size_t count;
    size_t lost; /* that had no room */
};

/* Without room the note is counted as lost: worker_notes_close says how many. */
__attribute__((format(printf, 2, 3))) void worker_note(
    struct worker_notes *notes, const char *format, ...);
void worker_notes_close(struct worker_notes *notes);

/* "01923456-789a-7bcd-8ef0-123456789abc@3" */
#define WORKER_REF_TEXT_BYTES (MEMOS_ID_TEXT_BYTES + 12)
const char *worker_ref_text(const struct memcube_ref *ref, char out[WORKER_REF_TEXT_BYTES]);

#endif
