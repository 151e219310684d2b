#include "tools/memosctl/pipeline.h"

#include "memcube/record.h"
#include "tools/memosctl/occurrences.h"
#include "tools/memosctl/text.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { DRAFTS_MAX = 200, BATCHES_MAX = 6, BUSY_TRIES_MAX = 200, BUSY_WAIT_MS = 50 };
enum { EXTERNAL_ID_BYTES = MEMCUBE_EXTERNAL_ID_BYTES_MAX + 1 };
#define BATCH_BYTES_MAX ((size_t)4 * 1024 * 1024)   /* of payloads: then it goes out */
#define ARENA_BYTES_MAX ((size_t)512 * 1024 * 1024) /* of one batch, with a last large item */

/* A put: being gathered (request 0), or on its way. Its texts lie in its arena. */
struct batch {
    struct memos_arena arena;
    char *space;
    Memos__Draft drafts[DRAFTS_MAX];
    struct memos_bytes payloads[DRAFTS_MAX];
    uint64_t lines[DRAFTS_MAX];
    const char *names[DRAFTS_MAX]; /* of the files */
    size_t count, bytes;
    uint64_t request;
    uint64_t used_at; /* which of those being gathered was used last */
};

struct ctl_pipeline {
    struct ctl *ctl;
    struct ctl_pipeline_options options;
    const char *name; /* of the file that is being read */
    struct batch batches[BATCHES_MAX];
    uint64_t clock;
    struct ctl_occurrences seen;
    struct ctl_import_counts counts;
    uint64_t bad_shown;
    bool is_refused; /* it ends for an item that is no good */
};

/* ---- ids ---- */

static void hash_part(struct memcube_hasher *hasher, struct memos_bytes part)
{
    uint64_t size = part.size;
    memcube_hasher_add(hasher, memos_bytes_make(&size, sizeof size));
    memcube_hasher_add(hasher, part);
}

/* What an item says. */
static struct memcube_hash hash_item(const struct ctl_import_item *item)
{
    struct memcube_hasher hasher;
    memcube_hasher_begin(&hasher);
    hash_part(&hasher, memos_bytes_make(&item->event_us, sizeof item->event_us));
    hash_part(&hasher, item->session.size ? item->session : item->source_uri);
    hash_part(&hasher, item->speaker);
    hash_part(&hasher, item->title);
    hash_part(&hasher, item->text);
    return memcube_hasher_end(&hasher);
}

/* Where in `seen` a thing of a space is: equal things of two spaces are not the same. */
static uint64_t key_of(const char *space, struct memos_bytes thing)
{
    uint64_t key;
    struct memcube_hasher hasher;
    memcube_hasher_begin(&hasher);
    hash_part(&hasher, memos_bytes_of(space));
    hash_part(&hasher, thing);
    struct memcube_hash hash = memcube_hasher_end(&hasher);
    memcpy(&key, hash.bytes, sizeof key);
    return key;
}

/* "auto:" and 32 digits of the hash of what the item says; for the second of several equal ones
 * "-2" behind them. */
static enum memos_status make_id(struct ctl_pipeline *pipeline, const char *space,
    const struct memcube_hash *content, char out[EXTERNAL_ID_BYTES], struct memos_error *err)
{
    uint32_t *count;
    struct memos_bytes hash = memos_bytes_make(content->bytes, sizeof content->bytes);
    enum memos_status status =
        ctl_occurrences_find(&pipeline->seen, key_of(space, hash), &count, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct memos_buffer text = memos_buffer_make(EXTERNAL_ID_BYTES);
    memos_buffer_printf(&text, "auto:");
    ctl_hex_append(&text, memos_bytes_make(content->bytes, 16));
    if (++*count > 1) {
        memos_buffer_printf(&text, "-%u", *count);
    }
    memos_buffer_u8(&text, 0);
    if (text.failed) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for an id");
    } else {
        memcpy(out, text.data, text.size);
    }
    memos_buffer_free(&text);
    return status;
}

/* An item with an id of its own: NEW, AGAIN with the same words, or TAKEN by other words. */
enum own_id { OWN_ID_NEW, OWN_ID_AGAIN, OWN_ID_TAKEN };

static enum memos_status check_id(struct ctl_pipeline *pipeline, const char *space,
    const struct ctl_import_item *item, const struct memcube_hash *content, enum own_id *out,
    struct memos_error *err)
{
    uint32_t *seen, says;
    memcpy(&says, content->bytes, sizeof says);
    says |= 1; /* 0 is "not seen" */
    enum memos_status status =
        ctl_occurrences_find(&pipeline->seen, key_of(space, item->id), &seen, err);
    if (status == MEMOS_OK) {
        *out = *seen == 0 ? OWN_ID_NEW : *seen == says ? OWN_ID_AGAIN : OWN_ID_TAKEN;
        *seen = *seen ? *seen : says;
    }
    return status;
}

/* ---- what fails ---- */

enum { BAD_SHOWN_MAX = 20 };

static enum memos_status bad(struct ctl_pipeline *pipeline, const char *name, uint64_t line,
    enum memos_status code, const char *why, struct memos_error *err)
{
    pipeline->counts.failed++;
    if (!pipeline->options.skip_bad) {
        pipeline->is_refused = true;
        pipeline->ctl->hint = "--skip-bad goes on without what cannot be read";
        return memos_fail(err, code, "%.60s, line %llu: %s", name, (unsigned long long)line, why);
    }
    if (pipeline->bad_shown++ < BAD_SHOWN_MAX) {
        ctl_note(
            pipeline->ctl, "%.100s, line %llu: %s: left out", name, (unsigned long long)line, why);
    } else if (pipeline->bad_shown == BAD_SHOWN_MAX + 1) {
        ctl_note(pipeline->ctl, "more is left out and counted");
    }
    return MEMOS_OK;
}

static enum memos_status on_bad(void *self, uint64_t line, const char *why, struct memos_error *err)
{
    struct ctl_pipeline *pipeline = self;
    return bad(pipeline, pipeline->name, line, MEMOS_INVALID, why, err);
}

/* ---- sending ---- */

static void batch_reset(struct batch *batch)
{
    memos_arena_reset(&batch->arena);
    batch->space = NULL;
    batch->count = batch->bytes = 0;
    batch->request = 0;
}

static enum memos_status wait_busy(unsigned *tries, struct memos_error *err)
{
    if (++*tries > BUSY_TRIES_MAX) {
        return memos_fail(err, MEMOS_BUSY, "the broker stays overloaded");
    }
    (void)poll(NULL, 0, BUSY_WAIT_MS);
    return MEMOS_OK;
}

/* Make the put of drafts [first, first + count). */
static void fill_put(const struct ctl_pipeline *pipeline, struct batch *batch, size_t first,
    size_t count, Memos__Draft **drafts, Memos__Put *put)
{
    *put = (Memos__Put)MEMOS__PUT__INIT;
    for (size_t i = 0; i < count; i++) {
        drafts[i] = &batch->drafts[first + i];
        drafts[i]->frame = (uint32_t)i + 1;
    }
    put->space = batch->space;
    put->reason = ctl_field(ctl_args_value(pipeline->ctl->args, CTL_REASON));
    put->drafts = drafts;
    put->n_drafts = count;
}

static enum memos_status send_batch(
    struct ctl_pipeline *pipeline, struct batch *batch, struct memos_error *err)
{
    Memos__Draft *drafts[DRAFTS_MAX];
    Memos__Put put;
    Memos__Request request = CTL_REQUEST(PUT, put, &put);
    unsigned tries = 0;
    fill_put(pipeline, batch, 0, batch->count, drafts, &put);
    request.deadline_ms = (uint32_t)pipeline->ctl->timeout_ms;
    enum memos_status status = ctl_connect(pipeline->ctl, err);
    while (status == MEMOS_OK) {
        status = memos_client_send(
            pipeline->ctl->client, &request, batch->payloads, batch->count, &batch->request, err);
        if (status != MEMOS_BUSY) {
            break;
        }
        status = wait_busy(&tries, err);
    }
    return status;
}

/* The record of a put says which of its cubes are new; what it does not name was there. */
static void count_record(
    struct ctl_pipeline *pipeline, size_t drafts, const Memos__LogRecord *record)
{
    size_t created = 0;
    for (size_t i = 0; i < record->n_entries; i++) {
        created += record->entries[i]->number == 1;
    }
    size_t made = record->n_entries < drafts ? record->n_entries : drafts;
    pipeline->counts.created += created;
    pipeline->counts.updated += made > created ? made - created : 0;
    pipeline->counts.unchanged += drafts - made;
}

static enum memos_status count_outcome(struct ctl_pipeline *pipeline, char *space, size_t drafts,
    const Memos__Outcome *outcome, struct memos_error *err)
{
    if (outcome->seq == 0) {
        pipeline->counts.unchanged += drafts;
        return MEMOS_OK;
    }
    struct memos_message *reply = NULL;
    Memos__Log log = MEMOS__LOG__INIT;
    Memos__Request request = CTL_REQUEST(LOG, log, &log);
    log.space = space;
    log.from = outcome->seq;
    log.count_max = 1;
    enum memos_status status =
        ctl_call(pipeline->ctl, &request, NULL, 0, MEMOS__REPLY__BODY_LOG_RECORDS, &reply, err);
    if (status == MEMOS_OK && memos_message_reply(reply)->log_records->n_records == 1) {
        count_record(pipeline, drafts, memos_message_reply(reply)->log_records->records[0]);
    }
    memos_message_free(&reply);
    return status;
}

/* Faults of an item, not of the broker. */
static bool is_of_item(enum memos_status status)
{
    return status == MEMOS_INVALID || status == MEMOS_TOO_LARGE || status == MEMOS_FROZEN ||
           status == MEMOS_FORGOTTEN || status == MEMOS_CONFLICT || status == MEMOS_NOT_FOUND ||
           status == MEMOS_EXISTS;
}

/* A put was refused for one of its drafts: send them one by one, so that the others get in and the
 * one is named. */
static enum memos_status send_one_by_one(
    struct ctl_pipeline *pipeline, struct batch *batch, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < batch->count && status == MEMOS_OK; i++) {
        Memos__Draft *draft;
        Memos__Put put;
        Memos__Request request = CTL_REQUEST(PUT, put, &put);
        struct memos_message *reply = NULL;
        struct memos_error why = {0};
        fill_put(pipeline, batch, i, 1, &draft, &put);
        status = ctl_call(pipeline->ctl, &request, &batch->payloads[i], 1,
            MEMOS__REPLY__BODY_OUTCOME, &reply, &why);
        if (status == MEMOS_OK) {
            status =
                count_outcome(pipeline, batch->space, 1, memos_message_reply(reply)->outcome, err);
        } else if (is_of_item(status)) {
            status = bad(pipeline, batch->names[i], batch->lines[i], status, why.text, err);
        } else {
            status = memos_fail(err, status, "%s", why.text);
        }
        memos_message_free(&reply);
    }
    return status;
}

static enum memos_status take_reply(struct ctl_pipeline *pipeline, struct batch *batch,
    const Memos__Reply *reply, struct memos_error *err)
{
    if (reply->status == MEMOS_OK && reply->body_case == MEMOS__REPLY__BODY_OUTCOME) {
        return count_outcome(pipeline, batch->space, batch->count, reply->outcome, err);
    }
    if (reply->status == MEMOS_OK || reply->status > INT32_MAX ||
        !memos_status_known((int)reply->status)) {
        return memos_fail(err, MEMOS_CORRUPT, "the broker's reply is of another kind");
    }
    enum memos_status status = (enum memos_status)reply->status;
    if (is_of_item(status) || status == MEMOS_BUSY) {
        return send_one_by_one(pipeline, batch, err);
    }
    return memos_fail(err, status, "%s", reply->message);
}

/* Wait for any answer. */
static enum memos_status receive(struct ctl_pipeline *pipeline, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    enum memos_status status =
        memos_client_receive(pipeline->ctl->client, pipeline->ctl->timeout_ms, &reply, err);
    for (size_t i = 0; status == MEMOS_OK && i < BATCHES_MAX; i++) {
        struct batch *batch = &pipeline->batches[i];
        if (batch->request != 0 && batch->request == memos_message_reply(reply)->id) {
            status = take_reply(pipeline, batch, memos_message_reply(reply), err);
            batch_reset(batch);
            break;
        }
    }
    memos_message_free(&reply);
    const struct ctl_import_counts *counts = &pipeline->counts;
    ctl_progress(
        pipeline->ctl, "imported", counts->created + counts->updated + counts->unchanged, 0);
    return status;
}

/* ---- gathering ---- */

static struct batch *find_batch(struct ctl_pipeline *pipeline, const char *space)
{
    for (size_t i = 0; i < BATCHES_MAX; i++) {
        struct batch *batch = &pipeline->batches[i];
        if (batch->request == 0 && batch->space && strcmp(batch->space, space) == 0) {
            return batch;
        }
    }
    for (size_t i = 0; i < BATCHES_MAX; i++) {
        if (!pipeline->batches[i].space) {
            return &pipeline->batches[i];
        }
    }
    return NULL;
}

/* The one that is being gathered and was used longest ago; NULL when all are on their way. */
static struct batch *oldest_gathered(struct ctl_pipeline *pipeline)
{
    struct batch *oldest = NULL;
    for (size_t i = 0; i < BATCHES_MAX; i++) {
        struct batch *batch = &pipeline->batches[i];
        if (batch->request == 0 && batch->count > 0 &&
            (!oldest || batch->used_at < oldest->used_at)) {
            oldest = batch;
        }
    }
    return oldest;
}

/* A batch with room for an item of a space. */
static enum memos_status get_batch(
    struct ctl_pipeline *pipeline, const char *space, struct batch **out, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    while (!(*out = find_batch(pipeline, space)) && status == MEMOS_OK) {
        struct batch *oldest = oldest_gathered(pipeline);
        size_t waiting = 0;
        for (size_t i = 0; i < BATCHES_MAX; i++) {
            waiting += pipeline->batches[i].request != 0;
        }
        status = oldest && waiting < BATCHES_MAX / 2 ? send_batch(pipeline, oldest, err)
                 : waiting > 0                       ? receive(pipeline, err)
                                                     : send_batch(pipeline, oldest, err);
    }
    if (status == MEMOS_OK && !(*out)->space) {
        (*out)->space = memos_arena_copy(&(*out)->arena, memos_bytes_of(space));
        status = (*out)->space ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory");
    }
    return status;
}

static char *copy(struct batch *batch, struct memos_bytes text)
{
    return text.size ? memos_arena_copy(&batch->arena, text) : ctl_field("");
}

/* The tags of the command, then those of the item. */
static bool fill_tags(const struct ctl_pipeline *pipeline, struct batch *batch, Memos__Draft *draft,
    const struct ctl_import_item *item)
{
    size_t count = pipeline->options.tags_count + item->tags_count;
    draft->tags = memos_arena_take(&batch->arena, count + 1, sizeof *draft->tags);
    for (size_t i = 0; draft->tags && i < count; i++) {
        bool is_command = i < pipeline->options.tags_count;
        char *tag = is_command ? pipeline->options.tags[i]
                               : copy(batch, item->tags[i - pipeline->options.tags_count]);
        draft->tags[draft->n_tags++] = tag;
        if (!tag) {
            return false;
        }
    }
    return draft->tags != NULL;
}

static bool fill_source(
    struct batch *batch, Memos__Draft *draft, const struct ctl_import_item *item)
{
    Memos__Source *source = memos_arena_take(&batch->arena, 1, sizeof *source);
    draft->sources = memos_arena_take(&batch->arena, 1, sizeof *draft->sources);
    if (!source || !draft->sources) {
        return false;
    }
    memos__source__init(source);
    source->type = copy(batch, item->source_type);
    source->uri = copy(batch, item->source_uri);
    source->offset = item->offset;
    source->length = item->length;
    draft->sources[0] = source;
    draft->n_sources = 1;
    return source->type && source->uri;
}

static bool fill_pairs(struct batch *batch, Memos__Draft *draft, const struct ctl_import_item *item)
{
    Memos__Attribute *pairs = memos_arena_take(&batch->arena, item->pairs_count + 1, sizeof *pairs);
    draft->attributes =
        memos_arena_take(&batch->arena, item->pairs_count + 1, sizeof *draft->attributes);
    if (!pairs || !draft->attributes) {
        return false;
    }
    for (size_t i = 0; i < item->pairs_count; i++) {
        memos__attribute__init(&pairs[i]);
        pairs[i].name = copy(batch, item->pairs[i].name);
        pairs[i].value = copy(batch, item->pairs[i].value);
        if (!pairs[i].name || !pairs[i].value) {
            return false;
        }
        draft->attributes[draft->n_attributes++] = &pairs[i];
    }
    return true;
}

static bool fill_draft(const struct ctl_pipeline *pipeline, struct batch *batch,
    const struct ctl_import_item *item, const char *id)
{
    const struct ctl_pipeline_options *options = &pipeline->options;
    size_t i = batch->count;
    Memos__Draft *draft = &batch->drafts[i];
    *draft = (Memos__Draft)MEMOS__DRAFT__INIT;
    draft->subtype = ctl_field(options->subtype ? options->subtype : item->subtype);
    draft->title = copy(batch, item->title);
    draft->speaker = copy(batch, item->speaker);
    draft->language =
        item->language.size ? copy(batch, item->language) : ctl_field(options->language);
    draft->external_id = copy(batch, memos_bytes_of(id));
    draft->event_us = item->event_us;
    batch->payloads[i] =
        memos_bytes_make(memos_arena_copy(&batch->arena, item->text), item->text.size);
    batch->lines[i] = item->line;
    batch->names[i] = copy(batch, memos_bytes_of(pipeline->name));
    return draft->title && draft->speaker && draft->language && draft->external_id &&
           batch->payloads[i].data && batch->names[i] && fill_tags(pipeline, batch, draft, item) &&
           fill_source(batch, draft, item) && fill_pairs(batch, draft, item);
}

/* The space of an item: the command's, or its own, or its own below the command's. */
static enum memos_status space_of(const struct ctl_pipeline *pipeline,
    const struct ctl_import_item *item, char out[MEMCUBE_SPACE_BYTES_MAX + 1],
    struct memos_error *err)
{
    const char *space = pipeline->options.space ? pipeline->options.space : "";
    size_t own = item->space.size <= MEMCUBE_SPACE_BYTES_MAX ? item->space.size
                                                             : MEMCUBE_SPACE_BYTES_MAX + 1;
    if (!*space && own == 0) {
        return memos_fail(err, MEMOS_INVALID, "it names no space, and neither does the command");
    }
    int size = snprintf(out, MEMCUBE_SPACE_BYTES_MAX + 1, "%s%s%.*s", space,
        *space && own ? "/" : "", (int)own, own ? (const char *)item->space.data : "");
    if (size > MEMCUBE_SPACE_BYTES_MAX || strlen(out) != (size_t)size) {
        return memos_fail(err, MEMOS_INVALID, "the name of its space is too long, or holds a NUL");
    }
    return memcube_space_check(memos_bytes_of(out), err);
}

/* Find the item's external id. *out_skip: it is not to be sent, and has been counted. */
static enum memos_status identify(struct ctl_pipeline *pipeline, const char *space,
    const struct ctl_import_item *item, char id[EXTERNAL_ID_BYTES], bool *out_skip,
    struct memos_error *err)
{
    struct memcube_hash content = hash_item(item);
    enum own_id own;
    if (item->id.size == 0) {
        return make_id(pipeline, space, &content, id, err);
    }
    enum memos_status status = check_id(pipeline, space, item, &content, &own, err);
    if (status != MEMOS_OK || own == OWN_ID_NEW) {
        memcpy(id, item->id.data, item->id.size);
        id[item->id.size] = '\0';
        return status;
    }
    *out_skip = true;
    pipeline->counts.unchanged += own == OWN_ID_AGAIN;
    return own == OWN_ID_AGAIN
               ? MEMOS_OK
               : on_bad(pipeline, item->line, "its id came before, with other words", err);
}

static enum memos_status add_to_batch(struct ctl_pipeline *pipeline, const char *space,
    const struct ctl_import_item *item, const char *id, struct memos_error *err)
{
    struct batch *batch;
    enum memos_status status = get_batch(pipeline, space, &batch, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (!fill_draft(pipeline, batch, item, id)) {
        return memos_fail(
            err, MEMOS_NO_MEMORY, "no memory for an item of %zu bytes", item->text.size);
    }
    batch->count++;
    batch->bytes += item->text.size;
    batch->used_at = ++pipeline->clock;
    bool is_full = batch->count == DRAFTS_MAX || batch->bytes >= BATCH_BYTES_MAX;
    return is_full ? send_batch(pipeline, batch, err) : MEMOS_OK;
}

static enum memos_status on_item(
    void *self, const struct ctl_import_item *item, struct memos_error *err)
{
    struct ctl_pipeline *pipeline = self;
    char space[MEMCUBE_SPACE_BYTES_MAX + 1], id[EXTERNAL_ID_BYTES];
    struct memos_error why = {0};
    bool skip = false;
    if (item->id.size > MEMCUBE_EXTERNAL_ID_BYTES_MAX) {
        return on_bad(self, item->line, "its id is longer than 256 bytes", err);
    }
    if (space_of(pipeline, item, space, &why) != MEMOS_OK) {
        return on_bad(self, item->line, why.text, err);
    }
    enum memos_status status = identify(pipeline, space, item, id, &skip, err);
    if (status != MEMOS_OK || skip) {
        return status;
    }
    if (pipeline->options.dry_run) {
        pipeline->counts.created++;
        return MEMOS_OK;
    }
    return add_to_batch(pipeline, space, item, id, err);
}

/* ---- life ---- */

enum memos_status ctl_pipeline_create(struct ctl *ctl, const struct ctl_pipeline_options *options,
    struct ctl_pipeline **out_pipeline, struct memos_error *err)
{
    struct ctl_pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (!pipeline) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an import");
    }
    pipeline->ctl = ctl;
    pipeline->options = *options;
    pipeline->name = "";
    for (size_t i = 0; i < BATCHES_MAX; i++) {
        memos_arena_init(&pipeline->batches[i].arena, ARENA_BYTES_MAX);
    }
    *out_pipeline = pipeline;
    return MEMOS_OK;
}

void ctl_pipeline_destroy(struct ctl_pipeline **pipeline)
{
    if (!*pipeline) {
        return;
    }
    for (size_t i = 0; i < BATCHES_MAX; i++) {
        memos_arena_finish(&(*pipeline)->batches[i].arena);
    }
    ctl_occurrences_free(&(*pipeline)->seen);
    free(*pipeline);
    *pipeline = NULL;
}

struct ctl_import_sink ctl_pipeline_sink(struct ctl_pipeline *pipeline, const char *name)
{
    pipeline->name = name;
    return (struct ctl_import_sink){.take = on_item, .bad = on_bad, .self = pipeline};
}

enum memos_status ctl_pipeline_finish(struct ctl_pipeline *pipeline, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < BATCHES_MAX && status == MEMOS_OK; i++) {
        if (pipeline->batches[i].request == 0 && pipeline->batches[i].count > 0) {
            status = send_batch(pipeline, &pipeline->batches[i], err);
        }
    }
    for (size_t i = 0; i < BATCHES_MAX && status == MEMOS_OK; i++) {
        while (pipeline->batches[i].request != 0 && status == MEMOS_OK) {
            status = receive(pipeline, err);
        }
    }
    ctl_progress_end(pipeline->ctl);
    return status;
}

bool ctl_pipeline_is_refused(const struct ctl_pipeline *pipeline)
{
    return pipeline->is_refused;
}

const struct ctl_import_counts *ctl_pipeline_counts(const struct ctl_pipeline *pipeline)
{
    return &pipeline->counts;
}
