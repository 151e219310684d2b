/* Which docs may be found: by bitmaps and facets now, by the docs' intervals in the past. */
#include "memcube/store_internal.h"

enum { SCRATCH_BYTES_MAX = 16 * 1024 * 1024 }; /* one version, many times over */

/* A selection while it is made. */
struct selecting {
    struct memcube_read *read;
    const struct memcube_space *space;
    const struct memcube_filter *filter;
    unsigned states;
    uint64_t *words;   /* what is selected so far */
    uint64_t *room;    /* one criterion */
    size_t words_count;
    uint32_t docs_end;
};

static unsigned states_searched(void)
{
    unsigned states = 0;
#define X(name, number, text, searched) states |= (searched) ? 1u << (number) : 0;
    MEMCUBE_STATE_TABLE(X)
#undef X
    return states;
}

static void room_clear(struct selecting *selecting)
{
    memset(selecting->room, 0, selecting->words_count * sizeof *selecting->room);
}

static void room_and(struct selecting *selecting)
{
    for (size_t i = 0; i < selecting->words_count; i++) {
        selecting->words[i] &= selecting->room[i];
    }
}

static bool selected(const struct selecting *selecting, uint32_t doc)
{
    return doc < selecting->docs_end && (selecting->words[doc / 64] >> (doc % 64) & 1) != 0;
}

static void deselect(struct selecting *selecting, uint32_t doc)
{
    selecting->words[doc / 64] &= ~(UINT64_C(1) << (doc % 64));
}

/* ---- access lists -------------------------------------------------------------------------- */

static bool named(const struct memcube_description *description, struct memos_bytes viewer)
{
    for (size_t i = 0; i < description->readers_count; i++) {
        if (memos_bytes_equal(description->readers[i], viewer)) {
            return true;
        }
    }
    return description->readers_count == 0;
}

static enum memos_status head_names(struct memcube_read *read, const struct memcube_space *space,
    const struct memos_id *id, struct memos_bytes viewer, struct memos_arena *arena, bool *out,
    struct memos_error *err)
{
    struct memcube_cube cube;
    struct memcube_version head;

    *out = true;
    enum memos_status status = memcube_cube_read(read, space->number, id, &cube, err);
    if (status != MEMOS_OK || (cube.flags & MEMCUBE_CUBE_RESTRICTED) == 0) {
        return status;
    }
    status = memcube_version_load(read, space->number, &cube, cube.row, arena, &head, err);
    *out = status == MEMOS_OK && named(&head.description, viewer);
    return status;
}

enum memos_status memcube_viewer_may(struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_version *version, struct memos_bytes viewer, bool *out_may,
    struct memos_error *err)
{
    *out_may = !viewer.data || named(&version->description, viewer);
    if (!viewer.data || !*out_may) {
        return MEMOS_OK;
    }
    return head_names(read, space, &version->id, viewer, &read->arena, out_may, err);
}

/* ---- now ----------------------------------------------------------------------------------- */

static enum memos_status select_bits(struct selecting *selecting, uint8_t which,
    uint64_t *words, struct memos_error *err)
{
    return memcube_bits_load(
        selecting->read, selecting->space->number, which, words, selecting->docs_end, err);
}

static enum memos_status select_states(struct selecting *selecting, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    for (int state = 1; status == MEMOS_OK && memcube_state_text(state); state++) {
        if (selecting->states & (1u << state)) {
            status = select_bits(selecting, (uint8_t)state, selecting->words, err);
        }
    }
    if (status != MEMOS_OK || selecting->filter->include_stale) {
        return status;
    }
    room_clear(selecting);
    status = select_bits(selecting, MEMCUBE_BITS_STALE, selecting->room, err);
    for (size_t i = 0; status == MEMOS_OK && i < selecting->words_count; i++) {
        selecting->words[i] &= ~selecting->room[i];
    }
    return status;
}

static enum memos_status select_kinds(struct selecting *selecting, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    if (selecting->filter->kinds == 0) {
        return MEMOS_OK;
    }
    room_clear(selecting);
    for (int kind = 1; status == MEMOS_OK && memcube_kind_text(kind); kind++) {
        if (selecting->filter->kinds & (1u << kind)) {
            status = select_bits(
                selecting, (uint8_t)(MEMCUBE_BITS_KIND + kind), selecting->room, err);
        }
    }
    room_and(selecting);
    return status;
}

/* Docs that have any of the values. */
static enum memos_status select_facet(struct selecting *selecting, enum memcube_facet facet,
    const struct memos_bytes *values, size_t count, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    room_clear(selecting);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        status = memcube_facet_load(selecting->read, selecting->space, facet, values[i],
            selecting->room, selecting->docs_end, err);
    }
    room_and(selecting);
    return status;
}

static enum memos_status select_facets(struct selecting *selecting, struct memos_error *err)
{
    const struct memcube_filter *filter = selecting->filter;
    enum memos_status status = MEMOS_OK;

    if (filter->subtypes_count > 0) {
        status = select_facet(selecting, MEMCUBE_FACET_SUBTYPE, filter->subtypes,
            filter->subtypes_count, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < filter->tags_count; i++) {
        status = select_facet(selecting, MEMCUBE_FACET_TAG, &filter->tags[i], 1, err);
    }
    if (status == MEMOS_OK && filter->source.size > 0) {
        status = select_facet(selecting, MEMCUBE_FACET_SOURCE, &filter->source, 1, err);
    }
    if (status == MEMOS_OK && filter->speaker.size > 0) {
        status = select_facet(selecting, MEMCUBE_FACET_SPEAKER, &filter->speaker, 1, err);
    }
    return status;
}

/* Set the bits of the docs whose event lies in the filter's time. */
static enum memos_status select_time(struct selecting *selecting, struct memos_error *err)
{
    const struct memcube_filter *filter = selecting->filter;
    const struct memcube_key prefix = memcube_key_of(selecting->space->number);
    struct memcube_key first = prefix;
    struct memcube_key last = prefix;
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes value;

    if (filter->from_us == 0 && filter->to_us == 0) {
        return MEMOS_OK;
    }
    memcube_key_time(&first, filter->from_us != 0 ? filter->from_us : INT64_MIN);
    memcube_key_time(&last, filter->to_us != 0 ? filter->to_us : INT64_MAX);
    struct memos_bytes key = memcube_key_view(&first);
    room_clear(selecting);
    enum memos_status status = memcube_cursor_open(
        selecting->read->txn, selecting->read->store->tables.time, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
    }
    while (status == MEMOS_OK && key.size == last.size + sizeof(uint32_t) &&
           memcmp(key.data, last.bytes, last.size) < 0) {
        struct memos_reader r = memos_reader_of(key);
        (void)memos_read_bytes(&r, last.size);
        const uint32_t doc = memos_read_u32_be(&r);
        if (doc < selecting->docs_end) {
            selecting->room[doc / 64] |= UINT64_C(1) << (doc % 64);
        }
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
    }
    memcube_cursor_close(&cursor);
    room_and(selecting);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* Leave out what the clock has ended and no sweep has written yet. Sweeps keep these few. */
static enum memos_status drop_overdue(struct selecting *selecting, struct memos_error *err)
{
    struct memcube_read *read = selecting->read;
    const int64_t now = read->store->clock.wall_us(read->store->clock.self);
    struct memcube_key limit = { .size = 0 };
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key;
    struct memos_bytes value;

    memcube_key_time(&limit, now);
    enum memos_status status =
        memcube_cursor_open(read->txn, read->store->tables.expiry, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, err);
    }
    while (status == MEMOS_OK && key.size == limit.size + 20 &&
           memcmp(key.data, limit.bytes, limit.size) <= 0) {
        struct memos_reader r = memos_reader_of(key);
        struct memos_id id;
        struct memcube_cube cube;
        (void)memos_read_bytes(&r, limit.size);
        const uint32_t space = memos_read_u32_be(&r);
        memos_read_into(&r, id.bytes, sizeof id.bytes);
        if (space == selecting->space->number) {
            status = memcube_cube_read(read, space, &id, &cube, err);
            if (status == MEMOS_OK && selected(selecting, cube.doc)) {
                deselect(selecting, cube.doc);
            }
        }
        if (status == MEMOS_OK) {
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
        }
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* Leave out what has a list of readers without the viewer. */
static enum memos_status drop_unreadable(struct selecting *selecting, struct memos_error *err)
{
    struct memos_arena scratch;
    enum memos_status status = MEMOS_OK;

    if (!selecting->filter->viewer.data) {
        return MEMOS_OK;
    }
    room_clear(selecting);
    status = select_bits(selecting, MEMCUBE_BITS_READERS, selecting->room, err);
    memos_arena_init(&scratch, SCRATCH_BYTES_MAX);
    for (size_t i = 0; status == MEMOS_OK && i < selecting->words_count; i++) {
        uint64_t left = selecting->words[i] & selecting->room[i];
        for (; status == MEMOS_OK && left != 0; left &= left - 1) {
            const uint32_t doc = (uint32_t)(i * 64 + (size_t)__builtin_ctzll(left));
            struct memcube_doc record;
            bool may = false;
            memos_arena_reset(&scratch);
            status = memcube_doc_read(
                selecting->read, selecting->space->number, doc, &scratch, &record, err);
            if (status == MEMOS_OK) {
                status = head_names(selecting->read, selecting->space, &record.id,
                    selecting->filter->viewer, &scratch, &may, err);
            }
            if (status == MEMOS_OK && !may) {
                deselect(selecting, doc);
            }
        }
    }
    memos_arena_finish(&scratch);
    return status;
}

static enum memos_status select_now(struct selecting *selecting, struct memos_error *err)
{
    enum memos_status status = select_states(selecting, err);
    if (status == MEMOS_OK) {
        status = select_kinds(selecting, err);
    }
    if (status == MEMOS_OK) {
        status = select_facets(selecting, err);
    }
    if (status == MEMOS_OK) {
        status = select_time(selecting, err);
    }
    if (status == MEMOS_OK) {
        status = drop_overdue(selecting, err);
    }
    if (status == MEMOS_OK) {
        status = drop_unreadable(selecting, err);
    }
    return status;
}

/* ---- the past ------------------------------------------------------------------------------ */

static bool filter_reads(const struct memcube_filter *filter)
{
    return filter->kinds != 0 || filter->subtypes_count > 0 || filter->tags_count > 0 ||
           filter->source.size > 0 || filter->speaker.size > 0 || filter->from_us != 0 ||
           filter->to_us != 0;
}

static bool among(struct memos_bytes value, const struct memos_bytes *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (memos_bytes_equal(value, values[i])) {
            return true;
        }
    }
    return false;
}

static bool sources_match(const struct memcube_description *description, struct memos_bytes uri)
{
    for (size_t i = 0; i < description->sources_count; i++) {
        if (memos_bytes_equal(description->sources[i].uri, uri)) {
            return true;
        }
    }
    return false;
}

static bool filter_matches(
    const struct memcube_filter *filter, const struct memcube_version *version)
{
    const struct memcube_description *description = &version->description;

    if (filter->kinds != 0 && (filter->kinds & (1u << version->kind)) == 0) {
        return false;
    }
    if (filter->subtypes_count > 0 &&
        !among(version->subtype, filter->subtypes, filter->subtypes_count)) {
        return false;
    }
    for (size_t i = 0; i < filter->tags_count; i++) {
        if (!among(filter->tags[i], description->tags, description->tags_count)) {
            return false;
        }
    }
    if (filter->source.size > 0 && !sources_match(description, filter->source)) {
        return false;
    }
    if (filter->speaker.size > 0 && !memos_bytes_equal(filter->speaker, description->speaker)) {
        return false;
    }
    return (filter->from_us == 0 || description->event_us >= filter->from_us) &&
           (filter->to_us == 0 || description->event_us < filter->to_us);
}

/* The version that a doc's cube had at seq: does the filter want it, may the viewer see it? */
static enum memos_status version_wanted(struct selecting *selecting, const struct memos_id *id,
    uint64_t seq, struct memos_arena *scratch, bool *out, struct memos_error *err)
{
    const struct memcube_filter *filter = selecting->filter;
    struct memcube_read *read = selecting->read;
    const uint32_t space = selecting->space->number;
    struct memcube_cube cube;
    struct memcube_version version;
    struct memcube_version head;
    uint32_t number = 0;
    uint32_t row = 0;

    *out = true;
    enum memos_status status = memcube_cube_read(read, space, id, &cube, err);
    const bool restricted =
        status == MEMOS_OK && filter->viewer.data && (cube.flags & MEMCUBE_CUBE_RESTRICTED);
    if (status != MEMOS_OK || (!filter_reads(filter) && !restricted)) {
        return status;
    }
    status = memcube_chain_as_of(read, space, &cube, seq, &number, &row, err);
    if (status == MEMOS_OK) {
        status = memcube_version_load(read, space, &cube, row, scratch, &version, err);
    }
    *out = status == MEMOS_OK && filter_matches(filter, &version);
    if (*out && restricted) {
        status = memcube_version_load(read, space, &cube, cube.row, scratch, &head, err);
        *out = status == MEMOS_OK && named(&version.description, filter->viewer) &&
               named(&head.description, filter->viewer);
    }
    return status;
}

static const struct memcube_interval *interval_at(const struct memcube_doc *doc, uint64_t seq)
{
    for (size_t i = 0; i < doc->intervals_count; i++) {
        if (doc->intervals[i].from <= seq && seq < doc->intervals[i].to) {
            return &doc->intervals[i];
        }
    }
    return NULL;
}

static enum memos_status past_one(struct selecting *selecting, uint32_t number,
    struct memos_bytes value, uint64_t seq, int64_t time_us, struct memos_arena *scratch,
    struct memos_error *err)
{
    struct memcube_doc doc;
    bool wanted = false;

    memos_arena_reset(scratch);
    enum memos_status status = memcube_doc_decode(value, scratch, &doc, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const struct memcube_interval *interval = interval_at(&doc, seq);
    if (!interval || (selecting->states & (1u << interval->state)) == 0 ||
        (interval->stale && !selecting->filter->include_stale) ||
        interval->expires_us <= time_us) {
        return MEMOS_OK;
    }
    status = version_wanted(selecting, &doc.id, seq, scratch, &wanted, err);
    if (status == MEMOS_OK && wanted && number < selecting->docs_end) {
        selecting->words[number / 64] |= UINT64_C(1) << (number % 64);
    }
    return status;
}

static enum memos_status select_past(struct selecting *selecting,
    const struct memcube_as_of *as_of, struct memos_error *err)
{
    struct memcube_read *read = selecting->read;
    const struct memcube_key prefix = memcube_key_of(selecting->space->number);
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key = memcube_key_view(&prefix);
    struct memos_bytes value;
    struct memos_arena scratch;
    uint64_t seq = 0;
    int64_t time_us = as_of->time_us;

    enum memos_status status = memcube_as_of_seq(read, selecting->space, as_of, &seq, err);
    if (status == MEMOS_OK && as_of->seq != 0 && seq > 0) {
        status = memcube_log_time(read, selecting->space, seq, &time_us, err);
    }
    if (status != MEMOS_OK || seq == 0) {
        return status;
    }
    memos_arena_init(&scratch, SCRATCH_BYTES_MAX);
    status = memcube_cursor_open(read->txn, read->store->tables.doc, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
    }
    while (status == MEMOS_OK && memcube_key_begins(key, &prefix)) {
        struct memos_reader r = memos_reader_of(key);
        (void)memos_read_u32_be(&r);
        const uint32_t number = memos_read_u32_be(&r);
        status = past_one(selecting, number, value, seq, time_us, &scratch, err);
        if (status == MEMOS_OK) {
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
        }
    }
    memcube_cursor_close(&cursor);
    memos_arena_finish(&scratch);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* ---- both ---------------------------------------------------------------------------------- */

enum memos_status memcube_docs_select(struct memcube_read *read, const struct memcube_space *space,
    const struct memcube_filter *filter, const struct memcube_as_of *as_of,
    struct memcube_docs *out, struct memos_error *err)
{
    const uint32_t docs_end = space->docs + 1;
    struct selecting selecting = {
        .read = read,
        .space = space,
        .filter = filter,
        .states = filter->states ? filter->states : states_searched(),
        .words_count = (size_t)docs_end / 64 + 1,
        .docs_end = docs_end,
    };
    const bool now = !as_of || (as_of->seq == 0 && as_of->time_us == 0);

    selecting.words =
        memos_arena_take(&read->arena, selecting.words_count, sizeof *selecting.words);
    selecting.room =
        memos_arena_take(&read->arena, selecting.words_count, sizeof *selecting.room);
    if (!selecting.words || !selecting.room) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %u docs", docs_end);
    }
    memset(selecting.words, 0, selecting.words_count * sizeof *selecting.words);
    const enum memos_status status =
        now ? select_now(&selecting, err) : select_past(&selecting, as_of, err);
    if (status != MEMOS_OK) {
        return status;
    }
    *out = (struct memcube_docs){ .words = selecting.words, .docs_end = docs_end };
    for (size_t i = 0; i < selecting.words_count; i++) {
        out->count += (uint32_t)__builtin_popcountll(selecting.words[i]);
    }
    return MEMOS_OK;
}
