/* Many searches from one process: a file of queries, answered line by line and in order.
 *
 * Queries go out in batches (SearchMany), several on their way at once; answers are printed in the
 * order of the file. */
#include "tools/memosctl/find.h"

#include "tools/memosctl/import_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_MAX = 64, BATCHES_AHEAD = 4, LINE_BYTES_MAX = 1024 * 1024 };

/* Queries that go out together, and what came back. */
struct batch {
    Memos__Search searches[BATCH_MAX];
    json_t *lines[BATCH_MAX]; /* keeps the texts of searches */
    size_t count;
    size_t payloads;  /* that the answers may carry: a message has room for MEMOS_FRAMES_MAX */
    uint64_t request; /* 0: free */
    struct memos_message *reply;
};

struct queries {
    struct ctl *ctl;
    const struct ctl_search *preset;
    FILE *file;
    const char *path;
    char *line; /* LINE_BYTES_MAX + 2 */
    uint64_t lines_count, failed_count;
    uint64_t missing_most;     /* cubes without a vector, in one answer */
    const char *encoder_least; /* "" when one answer had none; NULL: no answer yet */
    bool at_end;
    Memos__Search held; /* read, but for the next batch */
    json_t *held_line;  /* NULL: none */
    struct batch ring[BATCHES_AHEAD];
    size_t oldest, batches_count;
};

static enum memos_status fail_line(
    const struct queries *queries, const char *what, struct memos_error *err)
{
    return memos_fail(err, MEMOS_INVALID, "%.100s, line %llu: %s", queries->path,
        (unsigned long long)queries->lines_count, what);
}

static size_t payloads_of(const Memos__Search *search)
{
    enum { TOP_K_DEFAULT = 10 };
    if (search->no_payload || search->ids_only) {
        return 0;
    }
    size_t hits = search->top_k ? search->top_k : TOP_K_DEFAULT;
    return hits * (1 + 2 * (size_t)search->neighbours);
}

/* Put a search into the batch, or hold it for the next one when its answers could not travel with
 * those of the others. Takes line. False: it is held. */
static bool add_query(
    struct queries *queries, struct batch *batch, const Memos__Search *search, json_t *line)
{
    size_t payloads = payloads_of(search);
    if (batch->count > 0 && batch->payloads + payloads > MEMOS_FRAMES_MAX) {
        queries->held = *search;
        queries->held_line = line;
        return false;
    }
    batch->searches[batch->count] = *search;
    batch->lines[batch->count++] = line;
    batch->payloads += payloads;
    return true;
}

/* Turn a line into a search, whose texts stay the line's. */
static enum memos_status take_query(
    struct queries *queries, const json_t *line, Memos__Search *search, struct memos_error *err)
{
    const char *text = json_string_value(json_object_get(line, "text"));
    const char *space = json_string_value(json_object_get(line, "space"));
    const json_t *top_k = json_object_get(line, "top_k");
    *search = queries->preset->search;
    if (!text) {
        return fail_line(queries, "a query needs a \"text\"", err);
    }
    search->text = ctl_field(text);
    if (space) {
        search->space = ctl_field(space);
    } else if (!ctl_operand(queries->ctl, 0)) {
        return fail_line(queries, "it names no \"space\", and neither does the command", err);
    }
    if (top_k && (!json_is_integer(top_k) || json_integer_value(top_k) < 1 ||
                     json_integer_value(top_k) > 1000)) {
        return fail_line(queries, "\"top_k\" is a number from 1 to 1000", err);
    }
    search->top_k = top_k ? (uint32_t)json_integer_value(top_k) : search->top_k;
    return MEMOS_OK;
}

static enum memos_status read_batch(
    struct queries *queries, struct batch *batch, struct memos_error *err)
{
    if (queries->held_line) {
        json_t *held = queries->held_line;
        queries->held_line = NULL;
        (void)add_query(queries, batch, &queries->held, held); /* an empty batch has room */
    }
    while (batch->count < BATCH_MAX && !queries->at_end) {
        json_t *line = NULL;
        Memos__Search search;
        errno = 0;
        if (!fgets(queries->line, LINE_BYTES_MAX + 2, queries->file)) {
            queries->at_end = true;
            return ferror(queries->file)
                       ? memos_fail_errno(err, errno, "cannot read '%.100s'", queries->path)
                       : MEMOS_OK;
        }
        queries->lines_count++;
        size_t size = strlen(queries->line);
        if (strspn(queries->line, " \t\r\n") == size) {
            continue;
        }
        struct memos_error why = {0};
        if (size > LINE_BYTES_MAX) {
            return fail_line(queries, "it is longer than 1 MiB", err);
        }
        if (ctl_import_json_parse(memos_bytes_make(queries->line, size), &line, &why) != MEMOS_OK) {
            return fail_line(queries, why.text, err);
        }
        enum memos_status status = take_query(queries, line, &search, err);
        if (status != MEMOS_OK) {
            json_decref(line);
            return status;
        }
        if (!add_query(queries, batch, &search, line)) {
            break;
        }
    }
    return MEMOS_OK;
}

static void batch_clear(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        json_decref(batch->lines[i]);
    }
    memos_message_free(&batch->reply);
    batch->count = 0;
    batch->payloads = 0;
    batch->request = 0;
}

static enum memos_status send_batch(
    struct queries *queries, struct batch *batch, struct memos_error *err)
{
    Memos__Search *searches[BATCH_MAX];
    Memos__SearchMany many = MEMOS__SEARCH_MANY__INIT;
    Memos__Request request = CTL_REQUEST(SEARCH_MANY, search_many, &many);
    for (size_t i = 0; i < batch->count; i++) {
        searches[i] = &batch->searches[i];
    }
    many.searches = searches;
    many.n_searches = batch->count;
    request.deadline_ms = (uint32_t)queries->ctl->timeout_ms;
    return memos_client_send(queries->ctl->client, &request, NULL, 0, &batch->request, err);
}

/* Keep what is to be said of all answers together. */
static void take_note(struct queries *queries, const Memos__Hits *hits)
{
    if (!hits->encoder[0] || !queries->encoder_least) {
        queries->encoder_least = hits->encoder[0] ? "any" : "";
    }
    if (hits->missing > queries->missing_most) {
        queries->missing_most = hits->missing;
    }
}

/* {"id"} and what ctl_hits_json has, or {"id", "status", "error"}. */
static json_t *answer_json(
    struct queries *queries, const struct batch *batch, const Memos__HitsMany *many, size_t i)
{
    json_t *answer = json_object();
    json_t *id = json_object_get(batch->lines[i], "id");
    const Memos__HitsOrError *result = many->results[i];
    json_object_set(answer, "id", id ? id : json_null());
    if (result->status == MEMOS_OK && result->hits) {
        json_t *found = ctl_hits_json(batch->reply, result->hits, queries->preset->search.ids_only);
        json_object_update(answer, found);
        json_decref(found);
        take_note(queries, result->hits);
        return answer;
    }
    queries->failed_count++;
    json_object_set_new(
        answer, "status", json_string(memos_status_name((enum memos_status)result->status)));
    json_object_set_new(answer, "error", ctl_json_string(result->message));
    return answer;
}

static enum memos_status print_batch(
    struct queries *queries, const struct batch *batch, struct memos_error *err)
{
    const Memos__Reply *reply = memos_message_reply(batch->reply);
    if (reply->status != MEMOS_OK) {
        return memos_fail(err,
            reply->status <= INT32_MAX && memos_status_known((int)reply->status)
                ? (enum memos_status)reply->status
                : MEMOS_CORRUPT,
            "%s", reply->message);
    }
    if (reply->body_case != MEMOS__REPLY__BODY_HITS_MANY ||
        reply->hits_many->n_results != batch->count) {
        return memos_fail(
            err, MEMOS_CORRUPT, "the broker's reply does not answer %zu queries", batch->count);
    }
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < batch->count && status == MEMOS_OK; i++) {
        status = ctl_json_line(answer_json(queries, batch, reply->hits_many, i), err);
    }
    return status;
}

/* Wait for any reply and put it to its batch. */
static enum memos_status receive(struct queries *queries, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    enum memos_status status =
        memos_client_receive(queries->ctl->client, queries->ctl->timeout_ms, &reply, err);
    if (status != MEMOS_OK) {
        memos_message_free(&reply);
        return status;
    }
    for (size_t i = 0; i < BATCHES_AHEAD; i++) {
        struct batch *batch = &queries->ring[i];
        if (batch->request == memos_message_reply(reply)->id && !batch->reply) {
            batch->reply = reply;
            return MEMOS_OK;
        }
    }
    memos_message_free(&reply);
    return MEMOS_OK;
}

static bool has_more(const struct queries *queries)
{
    return !queries->at_end || queries->held_line;
}

static enum memos_status answer_all(struct queries *queries, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && (has_more(queries) || queries->batches_count > 0)) {
        struct batch *oldest = &queries->ring[queries->oldest];
        if (queries->batches_count < BATCHES_AHEAD && has_more(queries)) {
            struct batch *next =
                &queries->ring[(queries->oldest + queries->batches_count) % BATCHES_AHEAD];
            status = read_batch(queries, next, err);
            if (status == MEMOS_OK && next->count > 0) {
                status = send_batch(queries, next, err);
                queries->batches_count++;
            }
        } else if (oldest->reply) {
            status = print_batch(queries, oldest, err);
            batch_clear(oldest);
            queries->oldest = (queries->oldest + 1) % BATCHES_AHEAD;
            queries->batches_count--;
        } else {
            status = receive(queries, err);
        }
    }
    return status;
}

enum memos_status ctl_queries_answer(
    struct ctl *ctl, const struct ctl_search *preset, struct memos_error *err)
{
    const char *path = ctl_args_value(ctl->args, CTL_QUERIES);
    bool is_input = strcmp(path, "-") == 0;
    struct queries *queries = calloc(1, sizeof *queries);
    if (!queries) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for queries");
    }
    queries->line = malloc(LINE_BYTES_MAX + 2);
    queries->ctl = ctl;
    queries->preset = preset;
    queries->path = is_input ? "standard input" : path;
    queries->file = is_input ? stdin : fopen(path, "re");
    enum memos_status status = queries->file
                                   ? ctl_connect(ctl, err)
                                   : memos_fail_errno(err, errno, "cannot open '%.100s'", path);
    if (status == MEMOS_OK && !queries->line) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for queries");
    }
    if (status == MEMOS_OK) {
        status = answer_all(queries, err);
    }
    if (queries->encoder_least) {
        ctl_meaning_note(ctl, &preset->search, queries->encoder_least, queries->missing_most);
    }
    if (status == MEMOS_OK && queries->failed_count > 0) {
        status = memos_fail(err, MEMOS_INVALID, "%llu queries failed; their lines say why",
            (unsigned long long)queries->failed_count);
    }
    for (size_t i = 0; i < BATCHES_AHEAD; i++) {
        batch_clear(&queries->ring[i]);
    }
    json_decref(queries->held_line);
    if (queries->file && !is_input) {
        (void)fclose(queries->file);
    }
    free(queries->line);
    free(queries);
    return status;
}
