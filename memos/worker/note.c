#include "memos/worker/note.h"

#include <stdarg.h>
#include <stdio.h>

enum { NOTE_BYTES = 512 };

static void add(struct worker_notes *notes, const char *text)
{
    char *own = memos_arena_copy(notes->arena, memos_bytes_of(text));
    if (own) {
        notes->texts[notes->count++] = own;
    } else {
        notes->lost++;
    }
}

void worker_note(struct worker_notes *notes, const char *format, ...)
{
    char text[NOTE_BYTES];
    va_list arguments;
    if (notes->count >= WORKER_NOTES_MAX - 1) {
        notes->lost++;
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    add(notes, text);
}

void worker_notes_close(struct worker_notes *notes)
{
    char text[NOTE_BYTES];
    if (notes->lost > 0 && notes->count < WORKER_NOTES_MAX) {
        (void)snprintf(text, sizeof text, "and %zu more of this kind", notes->lost);
        notes->lost = 0;
        add(notes, text);
    }
}

const char *worker_ref_text(const struct memcube_ref *ref, char out[WORKER_REF_TEXT_BYTES])
{
    char id[MEMOS_ID_TEXT_BYTES];
    (void)snprintf(
        out, WORKER_REF_TEXT_BYTES, "%s@%u", memos_id_format(&ref->id, id), (unsigned)ref->number);
    return out;
}
