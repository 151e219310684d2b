/* If this failed, a worker could read or write for a job what the job's client may not, or go on
 * doing so when the job is over. */
#include "tests/broker/fake_worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PLAINTEXT = 1, ACTIVATION = 2 };

/* A job of the client "loopback", who may write to space "s" and is no administrator of it. */
struct ticketed {
    struct fixture fixture;
    struct memos_client *client;
    struct fake_worker worker;
    struct memos_client *fetch; /* the worker's other connection */
    struct fake_job job;
    uint64_t id;
    struct memos_id open, hidden, elsewhere;
};

static int start(void **state)
{
    struct ticketed *it = calloc(1, sizeof *it);
    assert_non_null(it);
    fixture_start(&it->fixture, "inline_bytes = 1000\n");
    it->client = fixture_client(&it->fixture, NULL);
    it->fetch = another(&it->fixture);
    it->open = put_text(it->fixture.owner, "s", "for everybody", NULL);
    it->hidden = put_text(it->fixture.owner, "s", "for carol", "carol");
    it->elsewhere = put_text(it->fixture.owner, "t", "in another space", NULL);
    grant(&it->fixture, "loopback", "s", "write");
    grant(&it->fixture, "loopback", "t", "write");
    worker_plain(&it->fixture, &it->worker, 4);
    it->id = generate(it->client, &(const struct wish){.space = "s"});
    it->job = job_take(&it->worker);
    *state = it;
    return 0;
}

static int end(void **state)
{
    struct ticketed *it = *state;
    job_free(&it->job);
    worker_end(&it->worker);
    memos_client_close(&it->fetch);
    memos_client_close(&it->client);
    fixture_end(&it->fixture);
    free(it);
    return 0;
}

static struct answer ask_with(struct memos_client *client, ProtobufCBinaryData ticket,
    Memos__Request *request, const char *text)
{
    request->ticket = ticket;
    return ask(client, request, text);
}

static enum memos_status status_with(struct ticketed *it, Memos__Request *request, const char *text)
{
    struct answer answer = ask_with(it->fetch, it->job.job->ticket, request, text);
    enum memos_status status = answer.status;
    answer_free(&answer);
    return status;
}

static void get_fill(
    Memos__Get *body, ProtobufCBinaryData *id, const char *space, struct memos_id *of)
{
    memos__get__init(body);
    *id = (ProtobufCBinaryData){.len = sizeof of->bytes, .data = of->bytes};
    body->space = (char *)(uintptr_t)space;
    body->ids = id;
    body->n_ids = 1;
}

static enum memos_status get_by(
    struct memos_client *client, ProtobufCBinaryData ticket, const char *space, struct memos_id *of)
{
    Memos__Get body;
    ProtobufCBinaryData id;
    Memos__Request request;
    get_fill(&body, &id, space, of);
    REQUEST(request, GET, get, body);
    struct answer answer = ask_with(client, ticket, &request, NULL);
    enum memos_status status = answer.status;
    answer_free(&answer);
    return status;
}

static enum memos_status get_with(struct ticketed *it, const char *space, struct memos_id *of)
{
    return get_by(it->fetch, it->job.job->ticket, space, of);
}

/* ---- reading ---- */

static void test_reads_as_the_client(void **state)
{
    struct ticketed *it = *state;
    const ProtobufCBinaryData none = {0, NULL};
    assert_int_equal(get_with(it, "s", &it->open), MEMOS_OK);
    /* The worker itself, as the owner, may read both; the job's client may not. */
    assert_int_equal(get_by(it->fetch, none, "s", &it->hidden), MEMOS_OK);
    assert_int_equal(get_with(it, "s", &it->hidden), MEMOS_NOT_FOUND);
    assert_int_equal(get_by(it->fetch, none, "t", &it->elsewhere), MEMOS_OK);
    assert_int_equal(get_with(it, "t", &it->elsewhere), MEMOS_DENIED);

    Memos__List list = MEMOS__LIST__INIT;
    Memos__Request request;
    list.space = (char[]){"s"};
    REQUEST(request, LIST, list, list);
    struct answer answer = ask_with(it->fetch, it->job.job->ticket, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->cubes->n_cubes, 1);
    answer_free(&answer);
    Memos__Search search = MEMOS__SEARCH__INIT, *searches[] = {&search};
    search.space = (char[]){"s"};
    search.text = (char[]){"carol everybody"};
    REQUEST(request, SEARCH, search, search);
    answer = ask_with(it->fetch, it->job.job->ticket, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->hits->n_hits, 1);
    answer_free(&answer);
    Memos__SearchMany many = MEMOS__SEARCH_MANY__INIT;
    many.searches = searches;
    many.n_searches = 1;
    REQUEST(request, SEARCH_MANY, search_many, many);
    assert_int_equal(status_with(it, &request, NULL), MEMOS_OK);
    search.space = (char[]){"t"};
    assert_int_equal(status_with(it, &request, NULL), MEMOS_DENIED);
}

/* A file of its own is told to a worker on this host, also for a client that is elsewhere. */
static void test_path(void **state)
{
    struct ticketed *it = *state;
    char text[3000];
    memset(text, 'p', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct memos_id id = put_text(it->fixture.owner, "s", text, NULL);
    Memos__Get body;
    ProtobufCBinaryData data;
    Memos__Request request;
    get_fill(&body, &data, "s", &id);
    body.path = 1;
    REQUEST(request, GET, get, body);
    struct answer answer = ask_with(it->fetch, it->job.job->ticket, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(access(answer.reply->cubes->cubes[0]->path, R_OK), 0);
    answer_free(&answer);
    answer = ask(it->client, &request, NULL); /* the ticket is not the client's to use */
    assert_int_equal(answer.status, MEMOS_DENIED);
    answer_free(&answer);
}

/* ---- writing ---- */

static struct answer put_with(
    struct ticketed *it, uint32_t kind, const char *subtype, const char *external_id)
{
    Memos__Draft draft = MEMOS__DRAFT__INIT, *drafts[] = {&draft};
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request;
    static uint8_t model[] = {'0', '7'};
    draft.kind = kind;
    draft.subtype = (char *)(uintptr_t)subtype;
    draft.external_id = (char *)(uintptr_t)external_id;
    draft.codec = (char[]){"application/octet-stream"};
    draft.model =
        (ProtobufCBinaryData){.len = kind == ACTIVATION ? sizeof model : 0, .data = model};
    draft.frame = 1;
    body.space = (char[]){"s"};
    body.drafts = drafts;
    body.n_drafts = 1;
    REQUEST(request, PUT, put, body);
    return ask_with(it->fetch, it->job.job->ticket, &request, "keys and values");
}

static enum memos_status update_with(struct ticketed *it, struct memos_id *id)
{
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Change change = MEMOS__CHANGE__INIT, *changes[] = {&change};
    Memos__Update body = MEMOS__UPDATE__INIT;
    Memos__Request request;
    change.id = (ProtobufCBinaryData){.len = sizeof id->bytes, .data = id->bytes};
    change.fields = 2; /* the title */
    change.draft = &draft;
    draft.title = (char[]){"a title"};
    body.space = (char[]){"s"};
    body.changes = changes;
    body.n_changes = 1;
    REQUEST(request, UPDATE, update, body);
    return status_with(it, &request, NULL);
}

static void test_writes_captures_and_receipts(void **state)
{
    struct ticketed *it = *state;
    struct answer answer = put_with(it, PLAINTEXT, "", "");
    assert_int_equal(answer.status, MEMOS_DENIED);
    answer_free(&answer);
    answer = put_with(it, PLAINTEXT, "receipt", "");
    assert_int_equal(answer.status, MEMOS_OK);
    answer_free(&answer);
    answer = put_with(it, ACTIVATION, "kv", "kv:1");
    assert_int_equal(answer.status, MEMOS_OK);
    struct memos_id id;
    memcpy(id.bytes, answer.reply->outcome->refs[0]->id.data, sizeof id.bytes);
    answer_free(&answer);

    /* Whose it is: the client's. */
    Memos__Get body;
    ProtobufCBinaryData data;
    Memos__Request request;
    get_fill(&body, &data, "s", &id);
    REQUEST(request, GET, get, body);
    answer = ask(it->fixture.owner, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_string_equal(answer.reply->cubes->cubes[0]->author, "loopback");
    answer_free(&answer);

    assert_int_equal(update_with(it, &id), MEMOS_OK);
    assert_int_equal(update_with(it, &it->open), MEMOS_DENIED);
    assert_int_equal(update_with(it, &it->hidden), MEMOS_NOT_FOUND);
}

/* Several at once by the names that their maker gave them; those that are missing are left out. */
static void test_external_ids(void **state)
{
    struct ticketed *it = *state;
    for (int i = 0; i < 2; i++) {
        struct answer answer = put_with(it, ACTIVATION, "kv", i ? "kv:1" : "kv:0");
        assert_int_equal(answer.status, MEMOS_OK);
        answer_free(&answer);
    }
    char *ids[] = {(char[]){"kv:1"}, (char[]){"kv:2"}, (char[]){"kv:0"}};
    Memos__Get body = MEMOS__GET__INIT;
    Memos__Request request;
    body.space = (char[]){"s"};
    body.external_ids = ids;
    body.n_external_ids = 3;
    REQUEST(request, GET, get, body);
    struct answer answer = ask_with(it->fetch, it->job.job->ticket, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->cubes->n_cubes, 2);
    assert_string_equal(answer.reply->cubes->cubes[0]->external_id, "kv:1");
    assert_string_equal(answer.reply->cubes->cubes[1]->external_id, "kv:0");
    answer_free(&answer);
    body.n_external_ids = 0;
    assert_int_equal(status_with(it, &request, NULL), MEMOS_INVALID);
}

static void test_no_other_requests(void **state)
{
    struct ticketed *it = *state;
    ProtobufCBinaryData id = {.len = 16, .data = it->open.bytes};
    Memos__Request request;
    Memos__Forget forget = MEMOS__FORGET__INIT;
    forget.space = (char[]){"s"};
    forget.ids = &id;
    forget.n_ids = 1;
    REQUEST(request, FORGET, forget, forget);
    assert_int_equal(status_with(it, &request, NULL), MEMOS_DENIED);
    Memos__Transition transition = MEMOS__TRANSITION__INIT;
    transition.space = (char[]){"s"};
    transition.ids = &id;
    transition.n_ids = 1;
    transition.state = 4;
    REQUEST(request, TRANSITION, transition, transition);
    assert_int_equal(status_with(it, &request, NULL), MEMOS_DENIED);
    Memos__Spaces spaces = MEMOS__SPACES__INIT;
    REQUEST(request, SPACES, spaces, spaces);
    assert_int_equal(status_with(it, &request, NULL), MEMOS_DENIED);
    Memos__GrantSet grant_set = MEMOS__GRANT_SET__INIT;
    grant_set.principal = (char[]){"loopback"};
    grant_set.spaces = (char[]){"*"};
    grant_set.rights = (char[]){"admin"};
    REQUEST(request, GRANT_SET, grant_set, grant_set);
    assert_int_equal(status_with(it, &request, NULL), MEMOS_DENIED);
    Memos__Generate again = MEMOS__GENERATE__INIT;
    again.space = (char[]){"s"};
    again.prompt_frame = 1;
    REQUEST(request, GENERATE, generate, again);
    assert_int_equal(status_with(it, &request, "x"), MEMOS_DENIED);
}

/* ---- whose ticket, and how long ---- */

static void test_unknown_ticket(void **state)
{
    struct ticketed *it = *state;
    uint8_t bytes[16] = {1, 2, 3};
    assert_int_equal(
        get_by(it->fetch, (ProtobufCBinaryData){.len = 16, .data = bytes}, "s", &it->open),
        MEMOS_DENIED);
    assert_int_equal(
        get_by(it->fetch, (ProtobufCBinaryData){.len = 1, .data = bytes}, "s", &it->open),
        MEMOS_DENIED);
    memcpy(bytes, it->job.job->ticket.data, sizeof bytes);
    bytes[15] ^= 1;
    assert_int_equal(
        get_by(it->fetch, (ProtobufCBinaryData){.len = 16, .data = bytes}, "s", &it->open),
        MEMOS_DENIED);
    /* A right one that somebody has who is no worker. */
    assert_int_equal(get_by(it->client, it->job.job->ticket, "s", &it->open), MEMOS_DENIED);
    /* Or another worker's principal. */
    grant(&it->fixture, "loopback", "_workers", "admin");
    assert_int_equal(get_by(it->client, it->job.job->ticket, "s", &it->open), MEMOS_DENIED);
}

static void test_ends_with_the_job(void **state)
{
    struct ticketed *it = *state;
    job_finish(&it->worker, it->job.job, MEMOS_OK, "x");
    struct answer answer = expect(it->client, it->id, MEMOS_OK);
    answer_free(&answer);
    assert_int_equal(get_with(it, "s", &it->open), MEMOS_OK); /* it may still write */
    job_over(&it->worker, it->job.job);
    /* On another connection: it may come in before the end does. */
    enum memos_status status = MEMOS_OK;
    for (int i = 0; i < 1000 && status == MEMOS_OK; i++) {
        status = get_with(it, "s", &it->open);
    }
    assert_int_equal(status, MEMOS_DENIED);
}

static void test_ends_with_the_worker(void **state)
{
    struct ticketed *it = *state;
    worker_end(&it->worker);
    struct answer answer = expect(it->client, it->id, MEMOS_UNAVAILABLE);
    answer_free(&answer);
    assert_int_equal(get_with(it, "s", &it->open), MEMOS_DENIED);
}

/* The client's rights are those that it has now. */
static void test_grants_as_of_now(void **state)
{
    struct ticketed *it = *state;
    grant(&it->fixture, "loopback", "s", "read");
    assert_int_equal(get_with(it, "s", &it->open), MEMOS_OK);
    struct answer answer = put_with(it, ACTIVATION, "kv", "kv:1");
    assert_int_equal(answer.status, MEMOS_DENIED);
    answer_free(&answer);
    grant(&it->fixture, "loopback", "s", "");
    assert_int_equal(get_with(it, "s", &it->open), MEMOS_DENIED);
}

/* A job without memory reads nothing. */
static void test_no_space(void **state)
{
    struct ticketed *it = *state;
    (void)generate(it->fixture.owner, &(const struct wish){.space = ""});
    struct fake_job job = job_take(&it->worker);
    assert_int_equal(get_by(it->fetch, job.job->ticket, "s", &it->open), MEMOS_DENIED);
    job_free(&job);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_reads_as_the_client),
        CASE(test_path),
        CASE(test_writes_captures_and_receipts),
        CASE(test_external_ids),
        CASE(test_no_other_requests),
        CASE(test_unknown_ticket),
        CASE(test_ends_with_the_job),
        CASE(test_ends_with_the_worker),
        CASE(test_grants_as_of_now),
        CASE(test_no_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
