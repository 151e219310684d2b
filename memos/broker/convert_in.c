/* Requests of the schema to calls of the store. */
#include "memos/broker/convert.h"

#include <math.h>
#include <string.h>

/* One request on its way in. The first failure is kept in status, so that a body's fields are
 * converted one after the other and asked about once. */
struct intake {
    const struct memos_frames *frames;
    struct memos_arena *arena;
    struct memos_error *err;
    enum memos_status status;
    uint64_t frames_used[MEMOS_FRAMES_MAX / 64]; /* one bit per payload frame */
};

#define intake_fail(in, code, ...)                                                                 \
    do {                                                                                           \
        if ((in)->status == MEMOS_OK) {                                                            \
            (in)->status = memos_fail((in)->err, code, __VA_ARGS__);                               \
        }                                                                                          \
    } while (0)

static void *intake_take(struct intake *in, size_t count, size_t size)
{
    void *piece = memos_arena_take(in->arena, count, size);
    if (!piece) {
        intake_fail(in, MEMOS_TOO_LARGE, "the request needs more memory than one may take");
    }
    return piece;
}

static struct memos_bytes intake_text(
    struct intake *in, const char *name, const char *text, size_t size_max)
{
    struct memos_bytes bytes = memos_bytes_of(text);
    if (bytes.size > size_max) {
        intake_fail(in, MEMOS_TOO_LARGE, "%s has %zu bytes; at most %zu are taken", name,
            bytes.size, size_max);
    } else if (!memos_bytes_utf8(bytes)) {
        intake_fail(in, MEMOS_INVALID, "%s is not UTF-8", name);
    }
    return bytes;
}

static struct memos_bytes *intake_texts(
    struct intake *in, const char *name, char *const *texts, size_t count, size_t count_max)
{
    if (count > count_max) {
        intake_fail(in, MEMOS_TOO_LARGE, "%zu %s; at most %zu are taken", count, name, count_max);
        return NULL;
    }
    struct memos_bytes *out = count ? intake_take(in, count, sizeof *out) : NULL;
    for (size_t i = 0; out && i < count; i++) {
        out[i] = intake_text(in, name, texts[i], MEMCUBE_NAME_BYTES_MAX);
    }
    return out;
}

static struct memos_id intake_id(struct intake *in, const char *name, ProtobufCBinaryData data)
{
    struct memos_id id = {{0}};
    if (data.len != sizeof id.bytes) {
        intake_fail(in, MEMOS_INVALID, "%s must be an id of 16 bytes, not %zu", name, data.len);
        return id;
    }
    memcpy(id.bytes, data.data, sizeof id.bytes);
    return id;
}

static struct memos_id *intake_ids(struct intake *in, const char *name,
    const ProtobufCBinaryData *data, size_t count, size_t count_max)
{
    if (count > count_max) {
        intake_fail(in, MEMOS_TOO_LARGE, "%zu %s; at most %zu are taken", count, name, count_max);
        return NULL;
    }
    struct memos_id *out = count ? intake_take(in, count, sizeof *out) : NULL;
    for (size_t i = 0; out && i < count; i++) {
        out[i] = intake_id(in, name, data[i]);
    }
    return out;
}

/* The payload frame of this number, which no other field may have; empty for 0. */
static struct memos_bytes intake_frame(struct intake *in, uint32_t number)
{
    struct memos_bytes none = {NULL, 0};
    if (number == 0) {
        return none;
    }
    if (number > memos_frames_payload_count(in->frames) || number > MEMOS_FRAMES_MAX) {
        intake_fail(in, MEMOS_INVALID, "frame %u is named, and %zu came", number,
            memos_frames_payload_count(in->frames));
        return none;
    }
    uint64_t *word = &in->frames_used[(number - 1) / 64], bit = 1ull << ((number - 1) % 64);
    if (*word & bit) {
        intake_fail(in, MEMOS_INVALID, "frame %u is named twice", number);
    }
    *word |= bit;
    return memos_frames_payload(in->frames, number);
}

static struct memcube_as_of intake_as_of(struct intake *in, const Memos__AsOf *as_of)
{
    if (!as_of) {
        return (struct memcube_as_of){0};
    }
    if (as_of->time_us < 0) {
        intake_fail(in, MEMOS_INVALID, "as_of lies before 1970");
    }
    return (struct memcube_as_of){as_of->seq, as_of->time_us};
}

static size_t intake_count(struct intake *in, uint32_t count, size_t preset)
{
    if (count > BROKER_BATCH_MAX) {
        intake_fail(in, MEMOS_INVALID, "%u results are wanted; at most %d are given", count,
            BROKER_BATCH_MAX);
    }
    return count ? count : preset;
}

/* ---- drafts ---- */

static struct memcube_ref *intake_refs(struct intake *in, Memos__Ref *const *refs, size_t count)
{
    if (count > MEMCUBE_DERIVED_MAX) {
        intake_fail(in, MEMOS_TOO_LARGE, "derived_from has %zu cubes; at most %d are taken", count,
            MEMCUBE_DERIVED_MAX);
        return NULL;
    }
    struct memcube_ref *out = count ? intake_take(in, count, sizeof *out) : NULL;
    for (size_t i = 0; out && i < count; i++) {
        out[i] = (struct memcube_ref){intake_id(in, "derived_from", refs[i]->id), refs[i]->number};
    }
    return out;
}

static void intake_sources(
    struct intake *in, const Memos__Draft *draft, struct memcube_description *out)
{
    if (draft->n_sources > MEMCUBE_SOURCES_MAX) {
        intake_fail(in, MEMOS_TOO_LARGE, "%zu sources; at most %d are taken", draft->n_sources,
            MEMCUBE_SOURCES_MAX);
        return;
    }
    out->sources =
        draft->n_sources ? intake_take(in, draft->n_sources, sizeof *out->sources) : NULL;
    for (size_t i = 0; out->sources && i < draft->n_sources; i++) {
        const Memos__Source *from = draft->sources[i];
        out->sources[i] = (struct memcube_source){
            .type = intake_text(in, "a source's type", from->type, MEMCUBE_NAME_BYTES_MAX),
            .uri = intake_text(in, "a source's uri", from->uri, MEMCUBE_ATTRIBUTE_BYTES_MAX),
            .offset = from->offset,
            .length = from->length,
        };
        out->sources_count = i + 1;
    }
}

static void intake_attributes(
    struct intake *in, const Memos__Draft *draft, struct memcube_description *out)
{
    size_t count = draft->n_attributes;
    if (count > MEMCUBE_ATTRIBUTES_MAX) {
        intake_fail(in, MEMOS_TOO_LARGE, "%zu attributes; at most %d are taken", count,
            MEMCUBE_ATTRIBUTES_MAX);
        return;
    }
    out->attributes = count ? intake_take(in, count, sizeof *out->attributes) : NULL;
    for (size_t i = 0; out->attributes && i < count; i++) {
        const Memos__Attribute *from = draft->attributes[i];
        out->attributes[i] = (struct memcube_attribute){
            intake_text(in, "an attribute's name", from->name, MEMCUBE_ATTRIBUTE_BYTES_MAX),
            intake_text(in, "an attribute's value", from->value, MEMCUBE_ATTRIBUTE_BYTES_MAX),
        };
        out->attributes_count = i + 1;
    }
}

static struct memcube_governance intake_governance(struct intake *in, const Memos__Draft *draft)
{
    if (draft->priority > UINT8_MAX) {
        intake_fail(in, MEMOS_INVALID, "priority is %u; it goes up to 255", draft->priority);
    }
    if (draft->sensitivity > 4) {
        intake_fail(in, MEMOS_INVALID, "sensitivity is %u; it goes up to 4", draft->sensitivity);
    }
    return (struct memcube_governance){
        .valid_from_us = draft->valid_from_us,
        .valid_to_us = draft->valid_to_us,
        .expires_us = draft->expires_us,
        .retain_until_us = draft->retain_until_us,
        .priority = (uint8_t)draft->priority,
        .sensitivity = (uint8_t)draft->sensitivity,
    };
}

static void intake_description(
    struct intake *in, const Memos__Draft *draft, struct memcube_description *out)
{
    out->title = intake_text(in, "title", draft->title, MEMCUBE_TITLE_BYTES_MAX);
    out->language = intake_text(in, "language", draft->language, MEMCUBE_NAME_BYTES_MAX);
    out->speaker = intake_text(in, "speaker", draft->speaker, MEMCUBE_NAME_BYTES_MAX);
    out->external_id =
        intake_text(in, "external_id", draft->external_id, MEMCUBE_EXTERNAL_ID_BYTES_MAX);
    out->event_us = draft->event_us;
    out->tags = intake_texts(in, "tags", draft->tags, draft->n_tags, MEMCUBE_TAGS_MAX);
    out->tags_count = out->tags ? draft->n_tags : 0;
    out->readers =
        intake_texts(in, "readers", draft->readers, draft->n_readers, MEMCUBE_READERS_MAX);
    out->readers_count = out->readers ? draft->n_readers : 0;
    intake_sources(in, draft, out);
    intake_attributes(in, draft, out);
}

/* `whole`: the draft is all there is, not the changed part of a version. */
static struct memcube_draft intake_draft(struct intake *in, const Memos__Draft *draft, bool whole)
{
    struct memcube_draft out = {.kind = MEMCUBE_PLAINTEXT};
    if (!draft) {
        if (whole) {
            intake_fail(in, MEMOS_INVALID, "the draft is missing");
        }
        return out;
    }
    if (draft->kind > 0 && (draft->kind > INT32_MAX || !memcube_kind_text((int)draft->kind))) {
        intake_fail(in, MEMOS_INVALID, "there is no kind %u", draft->kind);
    }
    out.kind = draft->kind ? (enum memcube_kind)draft->kind : MEMCUBE_PLAINTEXT;
    out.subtype = intake_text(in, "subtype", draft->subtype, MEMCUBE_SUBTYPE_BYTES_MAX);
    out.codec = intake_text(in, "codec", draft->codec, MEMCUBE_NAME_BYTES_MAX);
    out.codec = out.codec.size ? out.codec : memos_bytes_of("text/plain; charset=utf-8");
    if (draft->model.len > MEMCUBE_NAME_BYTES_MAX) {
        intake_fail(in, MEMOS_TOO_LARGE, "model has %zu bytes; at most %d are taken",
            draft->model.len, MEMCUBE_NAME_BYTES_MAX);
    }
    out.model = memos_bytes_make(draft->model.data, draft->model.len);
    out.payload = intake_frame(in, draft->frame);
    out.governance = intake_governance(in, draft);
    intake_description(in, draft, &out.description);
    out.derived_from = intake_refs(in, draft->derived_from, draft->n_derived_from);
    out.derived_count = out.derived_from ? draft->n_derived_from : 0;
    if (whole && in->status == MEMOS_OK) {
        in->status = memcube_draft_check(&out, in->err);
    }
    return out;
}

static bool batch_fits(struct intake *in, const char *name, size_t count, size_t count_max)
{
    if (count == 0) {
        intake_fail(in, MEMOS_INVALID, "no %s were given", name);
    } else if (count > count_max) {
        intake_fail(in, MEMOS_TOO_LARGE, "%zu %s; at most %zu are taken", count, name, count_max);
    }
    return in->status == MEMOS_OK;
}

static void put_make(struct intake *in, const Memos__Put *body, struct broker_call *out)
{
    if (!batch_fits(in, "drafts", body->n_drafts, BROKER_BATCH_MAX)) {
        return;
    }
    out->put.drafts = intake_take(in, body->n_drafts, sizeof *out->put.drafts);
    for (size_t i = 0; i < body->n_drafts && in->status == MEMOS_OK; i++) {
        out->put.drafts[i] = intake_draft(in, body->drafts[i], true);
    }
    out->put.count = body->n_drafts;
}

static struct memcube_update change_make(struct intake *in, const Memos__Change *change)
{
    const unsigned known = (unsigned)MEMCUBE_FIELD_SUBTYPE * 2 - 1;
    struct memcube_update out = {
        .id = intake_id(in, "id", change->id),
        .expected = change->expected,
        .fields = change->fields,
        .draft = intake_draft(in, change->draft, false),
        .tags_add =
            intake_texts(in, "tags", change->tags_add, change->n_tags_add, MEMCUBE_TAGS_MAX),
        .tags_remove =
            intake_texts(in, "tags", change->tags_remove, change->n_tags_remove, MEMCUBE_TAGS_MAX),
        .transform = change->transform,
    };
    out.tags_add_count = out.tags_add ? change->n_tags_add : 0;
    out.tags_remove_count = out.tags_remove ? change->n_tags_remove : 0;
    if (change->fields & ~known) {
        intake_fail(in, MEMOS_INVALID, "fields has bits that mean nothing: %#x", change->fields);
    }
    if (change->fields && !change->draft) {
        intake_fail(in, MEMOS_INVALID, "fields are named, and there is no draft to take them from");
    }
    return out;
}

static void update_make(struct intake *in, const Memos__Update *body, struct broker_call *out)
{
    if (!batch_fits(in, "changes", body->n_changes, BROKER_BATCH_MAX)) {
        return;
    }
    out->update.updates = intake_take(in, body->n_changes, sizeof *out->update.updates);
    for (size_t i = 0; i < body->n_changes && in->status == MEMOS_OK; i++) {
        out->update.updates[i] = change_make(in, body->changes[i]);
    }
    out->update.count = body->n_changes;
}

/* ---- reading ---- */

static void get_make(struct intake *in, const Memos__Get *body, struct broker_call *out)
{
    struct broker_call_get *get = &out->get;
    get->ids = intake_ids(in, "ids", body->ids, body->n_ids, BROKER_BATCH_MAX);
    get->ids_count = get->ids ? body->n_ids : 0;
    get->id_prefix = intake_text(in, "id_prefix", body->id_prefix, MEMOS_ID_TEXT_BYTES - 1);
    get->external_id =
        intake_text(in, "external_id", body->external_id, MEMCUBE_EXTERNAL_ID_BYTES_MAX);
    get->number = body->number;
    get->as_of = intake_as_of(in, body->as_of);
    get->external_ids = intake_texts(
        in, "external_ids", body->external_ids, body->n_external_ids, BROKER_BATCH_MAX);
    get->external_ids_count = get->external_ids ? body->n_external_ids : 0;
    int given = (body->n_ids > 0) + (get->id_prefix.size > 0) + (get->external_id.size > 0) +
                (body->n_external_ids > 0);
    if (given != 1) {
        intake_fail(in, MEMOS_INVALID,
            "a get names ids, or the beginning of one, or external ids: one of the three");
    }
}

static unsigned intake_bits(
    struct intake *in, const char *name, const uint32_t *numbers, size_t count, bool states)
{
    unsigned bits = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t number = numbers[i];
        const char *text = number > 31 ? NULL
                           : states    ? memcube_state_text((int)number)
                                       : memcube_kind_text((int)number);
        if (!text) {
            intake_fail(in, MEMOS_INVALID, "there is no %s %u", name, number);
            return 0;
        }
        bits |= 1u << number;
    }
    return bits;
}

static struct memcube_filter intake_filter(struct intake *in, const Memos__Filter *filter)
{
    if (!filter) {
        return (struct memcube_filter){0};
    }
    struct memcube_filter out = {
        .kinds = intake_bits(in, "kind", filter->kinds, filter->n_kinds, false),
        .states = intake_bits(in, "state", filter->states, filter->n_states, true),
        .subtypes =
            intake_texts(in, "subtypes", filter->subtypes, filter->n_subtypes, MEMCUBE_TAGS_MAX),
        .tags = intake_texts(in, "tags", filter->tags, filter->n_tags, MEMCUBE_TAGS_MAX),
        .source = intake_text(in, "source", filter->source, MEMCUBE_ATTRIBUTE_BYTES_MAX),
        .speaker = intake_text(in, "speaker", filter->speaker, MEMCUBE_NAME_BYTES_MAX),
        .from_us = filter->from_us,
        .to_us = filter->to_us,
        .include_stale = filter->include_stale,
    };
    out.subtypes_count = out.subtypes ? filter->n_subtypes : 0;
    out.tags_count = out.tags ? filter->n_tags : 0;
    return out;
}

static void list_make(struct intake *in, const Memos__List *body, struct broker_call *out)
{
    out->list = (struct memcube_list_query){
        .filter = intake_filter(in, body->filter),
        .as_of = intake_as_of(in, body->as_of),
        .oldest_first = body->oldest_first,
        .cursor = body->cursor,
        .count_max = intake_count(in, body->count_max, BROKER_COUNT_PRESET),
    };
}

/* Bits of the parts of the ranking that are to be left out. */
static unsigned intake_without(struct intake *in, char *const *names, size_t count)
{
    unsigned bits = 0;
    for (size_t i = 0; i < count && in->status == MEMOS_OK; i++) {
        enum retrieval_part part = retrieval_part_of(memos_bytes_of(names[i]));
        if (part == RETRIEVAL_PARTS) {
            intake_fail(in, MEMOS_INVALID, "the ranking has no part %.40s", names[i]);
        } else {
            bits |= 1u << part;
        }
    }
    return bits;
}

static struct broker_call_search search_one(struct intake *in, const Memos__Search *body)
{
    if (body->mode > RETRIEVAL_VECTORS) {
        intake_fail(in, MEMOS_INVALID, "a search has mode 0, 1 or 2, not %u", body->mode);
    }
    if (body->neighbours > RETRIEVAL_NEIGHBOURS_MAX) {
        intake_fail(in, MEMOS_TOO_LARGE, "at most %d neighbours are given, not %u",
            RETRIEVAL_NEIGHBOURS_MAX, body->neighbours);
    }
    struct broker_call_search out = {
        .query =
            {
                .text = intake_text(in, "text", body->text, BROKER_QUERY_BYTES_MAX),
                .language = intake_text(in, "language", body->language, MEMCUBE_NAME_BYTES_MAX),
                .filter = intake_filter(in, body->filter),
                .as_of = intake_as_of(in, body->as_of),
                .top_k = intake_count(in, body->top_k, BROKER_TOP_K_PRESET),
                .mode = (enum retrieval_mode)body->mode,
                .without = intake_without(in, body->without, body->n_without),
                .now_us = body->now_us,
            },
        .space = memos_bytes_of(body->space),
        .no_payload = body->no_payload,
        .ids_only = body->ids_only,
        .explain = body->explain,
        .neighbours = body->neighbours,
    };
    if (in->status == MEMOS_OK) {
        out.status = memcube_space_check(out.space, &out.err);
    }
    return out;
}

/* A space's name that cannot be one is that search's own mistake, not the others'. */
static void searches_make(
    struct intake *in, Memos__Search *const *bodies, size_t count, struct broker_call *out)
{
    if (!batch_fits(in, "searches", count, BROKER_SEARCHES_MAX)) {
        return;
    }
    out->search.searches = intake_take(in, count, sizeof *out->search.searches);
    for (size_t i = 0; i < count && in->status == MEMOS_OK; i++) {
        out->search.searches[i] = search_one(in, bodies[i]);
    }
    out->search.count = count;
}

static float intake_share(
    struct intake *in, const char *name, float value, float preset, float most)
{
    if (!(value >= 0.0f && value <= most)) {
        intake_fail(in, MEMOS_INVALID, "%s lies between 0 and %g", name, (double)most);
    }
    return value > 0.0f ? value : preset;
}

static void classify_make(struct intake *in, const Memos__Classify *body, struct broker_call *out)
{
    struct broker_call_classify *call = &out->classify;
    if (!batch_fits(in, "texts", body->n_texts, BROKER_SEARCHES_MAX)) {
        return;
    }
    if (body->method > RETRIEVAL_METHOD_INTERPOLATION) {
        intake_fail(in, MEMOS_INVALID,
            "there is no method %u; 0, 1 and 2 are weighting, vote and interpolation",
            body->method);
    }
    *call = (struct broker_call_classify){
        .texts = intake_take(in, body->n_texts, sizeof *call->texts),
        .count = body->n_texts,
        .tag_prefix = intake_text(in, "tag_prefix", body->tag_prefix, MEMCUBE_NAME_BYTES_MAX),
        .filter = intake_filter(in, body->filter),
        .as_of = intake_as_of(in, body->as_of),
        .top_k = intake_count(
            in, body->top_k, (uint32_t)retrieval_vote_top_k((enum retrieval_method)body->method)),
        .margin = intake_share(in, "margin", body->margin, RETRIEVAL_VOTE_MARGIN, 2.0f),
        .temperature =
            intake_share(in, "temperature", body->temperature, RETRIEVAL_VOTE_TEMPERATURE, 100.0f),
        .method = (enum retrieval_method)body->method,
    };
    for (size_t i = 0; i < body->n_texts && in->status == MEMOS_OK; i++) {
        call->texts[i] = intake_text(in, "texts", body->texts[i], BROKER_QUERY_BYTES_MAX);
    }
}

static void tree_make(struct intake *in, const Memos__Tree *body, struct broker_call *out)
{
    struct broker_call_tree *call = &out->tree;
    *call = (struct broker_call_tree){
        .path_count = body->n_path,
        .text = intake_text(in, "text", body->text, BROKER_QUERY_BYTES_MAX),
        .build = body->build,
        .examples = body->examples ? body->examples : BROKER_EXAMPLES_PRESET,
    };
    if (body->n_path > BROKER_TREE_LEVELS_MAX) {
        intake_fail(in, MEMOS_INVALID, "a path has at most %d steps", BROKER_TREE_LEVELS_MAX);
        return;
    }
    if (body->examples > BROKER_EXAMPLES_MAX) {
        intake_fail(
            in, MEMOS_TOO_LARGE, "at most %d examples of a child are given", BROKER_EXAMPLES_MAX);
    }
    for (size_t i = 0; i < body->n_path; i++) {
        call->path[i] = body->path[i];
    }
}

/* ---- changing ---- */

static void merge_make(struct intake *in, const Memos__Merge *body, struct broker_call *out)
{
    if (!batch_fits(in, "sources", body->n_sources, BROKER_BATCH_MAX)) {
        return;
    }
    out->merge.sources =
        intake_ids(in, "sources", body->sources, body->n_sources, BROKER_BATCH_MAX);
    out->merge.count = body->n_sources;
    out->merge.draft = intake_draft(in, body->draft, true);
}

static void transition_make(
    struct intake *in, const Memos__Transition *body, struct broker_call *out)
{
    if (!batch_fits(in, "ids", body->n_ids, BROKER_BATCH_MAX)) {
        return;
    }
    if (body->state > 31 || !memcube_state_text((int)body->state)) {
        intake_fail(in, MEMOS_INVALID, "there is no state %u", body->state);
        return;
    }
    out->transition.ids = intake_ids(in, "ids", body->ids, body->n_ids, BROKER_BATCH_MAX);
    out->transition.count = body->n_ids;
    out->transition.to = (enum memcube_state)body->state;
}

static void rollback_make(struct intake *in, const Memos__Rollback *body, struct broker_call *out)
{
    struct memcube_as_of to = intake_as_of(in, body->to);
    out->rollback = (struct memcube_rollback){
        .ids = intake_ids(in, "ids", body->ids, body->n_ids, BROKER_BATCH_MAX),
        .ids_count = body->n_ids,
        .to = to,
        .to_version = body->to_version,
        .to_beginning = body->to_beginning,
        .include_frozen = body->include_frozen,
        .dry_run = body->dry_run,
    };
    int given = (to.seq > 0 || to.time_us > 0) + (body->to_version > 0) + body->to_beginning;
    if (given != 1) {
        intake_fail(in, MEMOS_INVALID,
            "a rollback goes to a point in the history, to a version, or to the beginning: one of "
            "the three");
    }
    if (body->to_version > 0 && body->n_ids != 1) {
        intake_fail(in, MEMOS_INVALID, "a rollback to a version is of one cube");
    }
}

static void forget_make(struct intake *in, const Memos__Forget *body, struct broker_call *out)
{
    if (!batch_fits(in, "ids", body->n_ids, BROKER_BATCH_MAX)) {
        return;
    }
    out->forget.ids = intake_ids(in, "ids", body->ids, body->n_ids, BROKER_BATCH_MAX);
    out->forget.count = body->n_ids;
}

/* Copy bytes that have one right size. */
static void intake_fixed(
    struct intake *in, const char *name, ProtobufCBinaryData data, void *out, size_t size)
{
    if (data.len != size) {
        intake_fail(in, MEMOS_INVALID, "%s must have %zu bytes, not %zu", name, size, data.len);
        return;
    }
    memcpy(out, data.data, size);
}

static void checkpoint_make(
    struct intake *in, const Memos__Checkpoint *body, struct broker_call *out)
{
    const Memos__CheckpointInfo *info = body->check;
    struct memcube_checkpoint *to = &out->checkpoint;
    if (!info) {
        return;
    }
    if (body->list) {
        intake_fail(in, MEMOS_INVALID, "a checkpoint is listed or checked, not both");
    }
    to->space_id = intake_id(in, "space_id", info->space_id);
    to->seq = info->seq;
    to->time_us = info->time_us;
    intake_fixed(in, "head", info->head, to->head.bytes, sizeof to->head.bytes);
    intake_fixed(in, "public_key", info->public_key, to->public_key, sizeof to->public_key);
    intake_fixed(in, "signature", info->signature, to->signature, sizeof to->signature);
}

static void import_make(struct intake *in, const Memos__Import *body, struct broker_call *out)
{
    struct broker_call_import *import = &out->import;
    *import = (struct broker_call_import){
        .begin = body->begin,
        .commit = body->commit,
        .bytes_total = body->bytes_total,
        .offset = body->offset,
        .part = intake_frame(in, body->frame),
    };
    if (body->begin && (body->commit || body->frame > 0 || body->bytes_total == 0)) {
        intake_fail(in, MEMOS_INVALID, "an import begins with bytes_total and nothing else");
    }
    if (!body->begin) {
        intake_fixed(in, "token", body->token, import->token, sizeof import->token);
    }
    if (!body->begin && !body->commit && import->part.size == 0) {
        intake_fail(in, MEMOS_INVALID, "a part of an import brings a frame");
    }
}

bool broker_principal_valid(struct memos_bytes principal)
{
    const char *text = principal.data;
    if (principal.size == 0 || principal.size > BROKER_PRINCIPAL_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < principal.size; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || !strchr("._@+-", c))) {
            return false;
        }
    }
    return true;
}

bool broker_pattern_valid(struct memos_bytes pattern)
{
    const char *text = pattern.data;
    if (memos_bytes_equal(pattern, memos_bytes_of("*"))) {
        return true;
    }
    if (pattern.size > 2 && memcmp(text + pattern.size - 2, "/*", 2) == 0) {
        pattern.size -= 2;
    }
    return memcube_space_check(pattern, NULL) == MEMOS_OK;
}

static void grant_make(struct intake *in, const Memos__GrantSet *body, struct broker_call *out)
{
    out->grant.principal = memos_bytes_of(body->principal);
    out->grant.spaces = memos_bytes_of(body->spaces);
    out->grant.rights = memos_bytes_of(body->rights);
    if (!broker_principal_valid(out->grant.principal)) {
        intake_fail(in, MEMOS_INVALID, "a principal is 1 to %d of A-Z a-z 0-9 . _ @ + -",
            BROKER_PRINCIPAL_BYTES_MAX);
    }
    if (!broker_pattern_valid(out->grant.spaces)) {
        intake_fail(
            in, MEMOS_INVALID, "a grant is on a space, on all below one (NAME/*), or on all (*)");
    }
    static const char *const rights[] = {"", "read", "write", "admin"};
    for (size_t i = 0; i < sizeof rights / sizeof rights[0]; i++) {
        if (memos_bytes_equal(out->grant.rights, memos_bytes_of(rights[i]))) {
            return;
        }
    }
    intake_fail(in, MEMOS_INVALID, "rights are read, write, admin, or empty to revoke");
}

static void key_make(struct intake *in, const Memos__KeySet *body, struct broker_call *out)
{
    uint8_t bytes[BROKER_KEY_BYTES];
    out->key.public_key = memos_bytes_of(body->public_key);
    out->key.principal = memos_bytes_of(body->principal);
    if (out->key.public_key.size != BROKER_KEY_BYTES || !zmq_z85_decode(bytes, body->public_key)) {
        intake_fail(in, MEMOS_INVALID, "a public key is 40 characters of Z85");
    }
    if (out->key.principal.size > 0 && !broker_principal_valid(out->key.principal)) {
        intake_fail(in, MEMOS_INVALID, "a principal is 1 to %d of A-Z a-z 0-9 . _ @ + -",
            BROKER_PRINCIPAL_BYTES_MAX);
    }
}

static void feedback_make(struct intake *in, const Memos__Feedback *body, struct broker_call *out)
{
    out->feedback.id = intake_id(in, "id", body->id);
    out->feedback.usefulness = body->usefulness;
    if (!isfinite(body->usefulness) || body->usefulness < -1 || body->usefulness > 1) {
        intake_fail(in, MEMOS_INVALID, "usefulness lies between -1 and 1");
    }
}

/* ---- the whole request ---- */

static void space_make(struct intake *in, const char *space, struct broker_call *out)
{
    out->space = memos_bytes_of(space);
    if (in->status == MEMOS_OK) {
        in->status = memcube_space_check(out->space, in->err);
    }
}

static void change_of(
    struct intake *in, const char *space, const char *reason, struct broker_call *out)
{
    space_make(in, space, out);
    out->change.space = out->space;
    out->change.reason = intake_text(in, "reason", reason, MEMCUBE_REASON_BYTES_MAX);
}

static void changing_make(struct intake *in, const Memos__Request *request, struct broker_call *out)
{
    switch (request->body_case) {
    case MEMOS__REQUEST__BODY_PUT:
        change_of(in, request->put->space, request->put->reason, out);
        put_make(in, request->put, out);
        break;
    case MEMOS__REQUEST__BODY_UPDATE:
        change_of(in, request->update->space, request->update->reason, out);
        update_make(in, request->update, out);
        break;
    case MEMOS__REQUEST__BODY_MERGE:
        change_of(in, request->merge->space, request->merge->reason, out);
        merge_make(in, request->merge, out);
        break;
    case MEMOS__REQUEST__BODY_TRANSITION:
        change_of(in, request->transition->space, request->transition->reason, out);
        transition_make(in, request->transition, out);
        break;
    case MEMOS__REQUEST__BODY_ROLLBACK:
        change_of(in, request->rollback->space, request->rollback->reason, out);
        rollback_make(in, request->rollback, out);
        break;
    case MEMOS__REQUEST__BODY_FORGET:
        change_of(in, request->forget->space, request->forget->reason, out);
        forget_make(in, request->forget, out);
        break;
    case MEMOS__REQUEST__BODY_IMPORT:
        change_of(in, request->import->space, request->import->reason, out);
        import_make(in, request->import, out);
        break;
    case MEMOS__REQUEST__BODY_FEEDBACK:
        space_make(in, request->feedback->space, out);
        feedback_make(in, request->feedback, out);
        break;
    case MEMOS__REQUEST__BODY_GRANT_SET:
        grant_make(in, request->grant_set, out);
        break;
    case MEMOS__REQUEST__BODY_KEY_SET:
        key_make(in, request->key_set, out);
        break;
    default:
        intake_fail(in, MEMOS_UNSUPPORTED, "the request has no body that is known here");
    }
}

static void history_make(struct intake *in, const Memos__History *body, struct broker_call *out)
{
    space_make(in, body->space, out);
    out->history.id = intake_id(in, "id", body->id);
    out->history.from = body->from;
    out->history.count_max = intake_count(in, body->count_max, BROKER_COUNT_PRESET);
}

static void reading_make(struct intake *in, const Memos__Request *request, struct broker_call *out)
{
    switch (request->body_case) {
    case MEMOS__REQUEST__BODY_GET:
        space_make(in, request->get->space, out);
        get_make(in, request->get, out);
        break;
    case MEMOS__REQUEST__BODY_LIST:
        space_make(in, request->list->space, out);
        list_make(in, request->list, out);
        break;
    case MEMOS__REQUEST__BODY_SEARCH:
        space_make(in, request->search->space, out);
        searches_make(in, &request->search, 1, out);
        break;
    case MEMOS__REQUEST__BODY_SEARCH_MANY:
        searches_make(in, request->search_many->searches, request->search_many->n_searches, out);
        break;
    case MEMOS__REQUEST__BODY_CLASSIFY:
        space_make(in, request->classify->space, out);
        classify_make(in, request->classify, out);
        break;
    case MEMOS__REQUEST__BODY_TREE:
        space_make(in, request->tree->space, out);
        tree_make(in, request->tree, out);
        break;
    case MEMOS__REQUEST__BODY_LOG:
        space_make(in, request->log->space, out);
        out->log.from = request->log->from;
        out->log.count_max = intake_count(in, request->log->count_max, BROKER_COUNT_PRESET);
        break;
    case MEMOS__REQUEST__BODY_HISTORY:
        history_make(in, request->history, out);
        break;
    case MEMOS__REQUEST__BODY_VERIFY:
        space_make(in, request->verify->space, out);
        break;
    case MEMOS__REQUEST__BODY_CHECKPOINT:
        space_make(in, request->checkpoint->space, out);
        checkpoint_make(in, request->checkpoint, out);
        break;
    case MEMOS__REQUEST__BODY_EXPORT:
        space_make(in, request->export->space, out);
        out->export.single_cube = request->export->id.len > 0;
        if (out->export.single_cube) {
            out->export.id = intake_id(in, "id", request->export->id);
        }
        break;
    case MEMOS__REQUEST__BODY_SPACES:
        out->spaces.after =
            intake_text(in, "after", request->spaces->after, MEMCUBE_SPACE_BYTES_MAX);
        out->spaces.count_max = intake_count(in, request->spaces->count_max, BROKER_COUNT_PRESET);
        break;
    case MEMOS__REQUEST__BODY_WATCH:
        space_make(in, request->watch->space, out);
        break;
    default:
        changing_make(in, request, out);
    }
}

enum memos_status broker_call_make(const Memos__Request *request, const struct memos_frames *frames,
    struct memos_arena *arena, struct broker_call *out, struct memos_error *err)
{
    struct intake in = {.frames = frames, .arena = arena, .err = err};

    *out = (struct broker_call){.space = {NULL, 0}};
    if (request->idempotency_key.len > 64) {
        return memos_fail(err, MEMOS_INVALID, "idempotency_key has %zu bytes; at most 64 are taken",
            request->idempotency_key.len);
    }
    out->change.idempotency_key =
        memos_bytes_make(request->idempotency_key.data, request->idempotency_key.len);
    switch (request->body_case) {
    case MEMOS__REQUEST__BODY_HELLO:
    case MEMOS__REQUEST__BODY_STATS:
    case MEMOS__REQUEST__BODY_FSCK:
    case MEMOS__REQUEST__BODY_GRANT_LIST:
    case MEMOS__REQUEST__BODY_KEY_LIST:
    case MEMOS__REQUEST__BODY_CANCEL:
    case MEMOS__REQUEST__BODY_ENCODER_STATUS:
        return MEMOS_OK;
    default:
        if (request->body_case >= MEMOS__REQUEST__BODY_GENERATE) {
            return broker_call_work(request, frames, out, err);
        }
        reading_make(&in, request, out);
        return in.status;
    }
}
