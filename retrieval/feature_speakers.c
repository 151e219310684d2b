/* Whom a question names, of those who speak in a space.
 *
 * Records of all docs are three megabytes of 100,000, and who speaks does not change: so the
 * speakers of large spaces are kept in memory, each with a chain of his docs. Brought up to date by
 * the search that asks, from its own snapshot, never from inside a write. Docs that had no record
 * then (forgotten ones; ones that a repair gets to later) are read again when they are seen. When a
 * record is written over, which only a repair does, nothing is kept any more: `repaired`. */
#include "retrieval/feature_internal.h"

#include <stdlib.h>
#include <string.h>

#define KEPT_FROM 4096u /* docs: smaller spaces are read through */
#define SLOTS_LEAST 64u

struct retrieval_speakers {
    struct retrieval_speakers *next;
    uint32_t space;
    struct memos_id id;
    uint32_t through;   /* docs up to this one are here */
    uint32_t *previous; /* by doc: the one before it of the same speaker; 0: none */
    size_t previous_max;
    struct speaker {
        uint32_t name; /* 0: a free slot */
        uint32_t last; /* his last doc */
    } * slots;         /* a hash table, at most half full */
    size_t slots_max, slots_used;
    uint32_t *unknown; /* docs without a record */
    size_t unknown_count, unknown_max;
};

/* What is looked for. */
struct asked {
    struct retrieval_features_view *view;
    const struct memcube_docs *visible;
    const uint32_t *names; /* sorted */
    size_t names_count;
    uint32_t found;
    bool several;
};

static void asked_take(struct asked *asked, uint32_t name)
{
    asked->several |= asked->found != 0 && asked->found != name;
    asked->found = name;
}

/* ---- keeping ------------------------------------------------------------------------------- */

static struct speaker *slot_of(const struct retrieval_speakers *speakers, uint32_t name)
{
    size_t at = name & (speakers->slots_max - 1);
    while (speakers->slots[at].name != 0 && speakers->slots[at].name != name) {
        at = (at + 1) & (speakers->slots_max - 1);
    }
    return &speakers->slots[at];
}

static bool slots_grow(struct retrieval_speakers *speakers)
{
    struct retrieval_speakers larger = {
        .slots_max = speakers->slots_max ? speakers->slots_max * 2 : SLOTS_LEAST};
    larger.slots = calloc(larger.slots_max, sizeof *larger.slots);
    if (!larger.slots) {
        return false;
    }
    for (size_t i = 0; i < speakers->slots_max; i++) {
        if (speakers->slots[i].name != 0) {
            *slot_of(&larger, speakers->slots[i].name) = speakers->slots[i];
        }
    }
    free(speakers->slots);
    speakers->slots = larger.slots;
    speakers->slots_max = larger.slots_max;
    return true;
}

static bool unknown_add(struct retrieval_speakers *speakers, uint32_t doc)
{
    if (speakers->unknown_count == speakers->unknown_max) {
        const size_t max = speakers->unknown_max ? speakers->unknown_max * 2 : 64;
        uint32_t *grown = realloc(speakers->unknown, max * sizeof *grown);
        if (!grown) {
            return false;
        }
        speakers->unknown = grown;
        speakers->unknown_max = max;
    }
    speakers->unknown[speakers->unknown_count++] = doc;
    return true;
}

static bool speakers_add(
    struct retrieval_speakers *speakers, uint32_t doc, const struct retrieval_feature *feature)
{
    speakers->previous[doc] = 0;
    if ((feature->flags & RETRIEVAL_FEATURE_THERE) == 0) {
        return unknown_add(speakers, doc);
    } else if (feature->speaker == 0) {
        return true;
    }
    if (speakers->slots_used * 2 >= speakers->slots_max && !slots_grow(speakers)) {
        return false;
    }
    struct speaker *slot = slot_of(speakers, feature->speaker);
    speakers->slots_used += slot->name == 0;
    speakers->previous[doc] = slot->last;
    *slot = (struct speaker){feature->speaker, doc};
    return true;
}

/* Take in what came since. Where there is no memory it stops: the rest is read through. */
static void speakers_update(
    struct retrieval_speakers *speakers, struct retrieval_features_view *view, uint32_t docs_end)
{
    struct retrieval_feature feature;
    if (docs_end > speakers->previous_max) {
        const size_t max = docs_end + docs_end / 4;
        uint32_t *grown = realloc(speakers->previous, max * sizeof *grown);
        if (!grown) {
            return;
        }
        speakers->previous = grown;
        speakers->previous_max = max;
    }
    for (uint32_t doc = speakers->through + 1; doc < docs_end; doc++) {
        (void)retrieval_feature_get(view, doc, &feature);
        if (view->status != MEMOS_OK || !speakers_add(speakers, doc, &feature)) {
            return;
        }
        speakers->through = doc;
    }
}

/* The speakers of a space, as of at least this snapshot; NULL: nothing is kept. Under the lock. */
static struct retrieval_speakers *speakers_take(struct retrieval_features *features,
    struct memcube_read *read, const struct memcube_space *space,
    struct retrieval_features_view *view, uint32_t docs_end)
{
    struct retrieval_speakers *speakers = features->speakers;
    while (speakers && (speakers->space != space->number ||
                           memcmp(&speakers->id, &space->id, sizeof speakers->id) != 0)) {
        speakers = speakers->next;
    }
    if (!speakers && docs_end > KEPT_FROM && !memcube_read_inside_write(read)) {
        speakers = calloc(1, sizeof *speakers);
        if (speakers) {
            speakers->space = space->number;
            speakers->id = space->id;
            speakers->next = features->speakers;
            features->speakers = speakers;
        }
    }
    if (speakers && !memcube_read_inside_write(read)) {
        speakers_update(speakers, view, docs_end);
    }
    return speakers;
}

void retrieval_speakers_free(struct retrieval_speakers **all)
{
    while (*all) {
        struct retrieval_speakers *speakers = *all;
        *all = speakers->next;
        free(speakers->previous);
        free(speakers->slots);
        free(speakers->unknown);
        free(speakers);
    }
}

/* ---- asking -------------------------------------------------------------------------------- */

static bool docs_has(const struct memcube_docs *docs, uint32_t doc)
{
    return doc < docs->docs_end && (docs->words[doc / 64] >> (doc % 64) & 1) != 0;
}

static bool is_among(const uint32_t *names, size_t count, uint32_t name)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (names[middle] < name) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && names[low] == name;
}

/* By one doc's record. */
static void ask_doc(struct asked *asked, uint32_t doc)
{
    struct retrieval_feature feature;
    if (docs_has(asked->visible, doc) && retrieval_feature_get(asked->view, doc, &feature) &&
        feature.speaker != 0 && is_among(asked->names, asked->names_count, feature.speaker)) {
        asked_take(asked, feature.speaker);
    }
}

/* By what is kept: has a speaker of this name a doc that is seen? */
static void ask_kept(struct asked *asked, const struct retrieval_speakers *speakers)
{
    for (size_t i = 0; i < asked->names_count && speakers->slots_max > 0; i++) {
        const uint32_t name = asked->names[i];
        uint32_t doc = name != 0 ? slot_of(speakers, name)->last : 0;
        while (doc != 0 && !docs_has(asked->visible, doc)) {
            doc = speakers->previous[doc];
        }
        if (doc != 0) {
            asked_take(asked, name);
        }
    }
    for (size_t i = 0; i < speakers->unknown_count; i++) {
        ask_doc(asked, speakers->unknown[i]);
    }
}

uint32_t retrieval_features_named(struct retrieval_features *features, struct memcube_read *read,
    const struct memcube_space *space, struct retrieval_features_view *view,
    const struct memcube_docs *visible, const uint32_t *names, size_t names_count)
{
    struct asked asked = {
        .view = view, .visible = visible, .names = names, .names_count = names_count};
    uint32_t from = 1;

    if (names_count == 0) {
        return 0;
    }
    if (!atomic_load_explicit(&features->repaired, memory_order_acquire)) {
        (void)pthread_mutex_lock(&features->lock);
        const struct retrieval_speakers *speakers =
            speakers_take(features, read, space, view, visible->docs_end);
        if (speakers) {
            ask_kept(&asked, speakers);
            from = speakers->through + 1;
        }
        (void)pthread_mutex_unlock(&features->lock);
    }
    for (uint32_t doc = from; doc < visible->docs_end && !asked.several; doc++) {
        ask_doc(&asked, doc);
    }
    return asked.several ? 0 : asked.found;
}
