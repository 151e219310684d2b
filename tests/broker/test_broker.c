/* If this failed, somebody could read what is not theirs, learn that it is there, or keep others
 * from being served. */
#include "tests/broker/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int start(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture_start(fixture, "curve = true\nwatch_lease = \"60s\"\n");
    *state = fixture;
    return 0;
}

static int end(void **state)
{
    fixture_end(*state);
    free(*state);
    return 0;
}

/* ---- every request, every wrong grant ---- */

/* Room for a request of any type on one space and one cube. */
struct any {
    Memos__Request request;
    union {
        Memos__Put put;
        Memos__Update update;
        Memos__Get get;
        Memos__List list;
        Memos__Search search;
        Memos__Log log;
        Memos__History history;
        Memos__Merge merge;
        Memos__Transition transition;
        Memos__Rollback rollback;
        Memos__Forget forget;
        Memos__Verify verify;
        Memos__Checkpoint checkpoint;
        Memos__Export export;
        Memos__Import import;
        Memos__Watch watch;
        Memos__Feedback feedback;
    };
    Memos__Draft draft, *drafts[1];
    Memos__Change change, *changes[1];
    ProtobufCBinaryData ids[2];
    uint8_t other[16];
};

static void any_change(struct any *any, Memos__Request__BodyCase type, char *space)
{
    switch (type) {
    case MEMOS__REQUEST__BODY_PUT:
        memos__put__init(&any->put);
        any->put.space = space;
        any->put.drafts = any->drafts;
        any->put.n_drafts = 1;
        break;
    case MEMOS__REQUEST__BODY_UPDATE:
        memos__update__init(&any->update);
        any->update.space = space;
        any->update.changes = any->changes;
        any->update.n_changes = 1;
        break;
    case MEMOS__REQUEST__BODY_MERGE:
        memos__merge__init(&any->merge);
        any->merge.space = space;
        any->merge.sources = any->ids;
        any->merge.n_sources = 2;
        any->merge.draft = &any->draft;
        break;
    case MEMOS__REQUEST__BODY_TRANSITION:
        memos__transition__init(&any->transition);
        any->transition.space = space;
        any->transition.ids = any->ids;
        any->transition.n_ids = 1;
        any->transition.state = 2;
        break;
    case MEMOS__REQUEST__BODY_ROLLBACK:
        memos__rollback__init(&any->rollback);
        any->rollback.space = space;
        any->rollback.ids = any->ids;
        any->rollback.n_ids = 1;
        any->rollback.to_version = 1;
        break;
    case MEMOS__REQUEST__BODY_FORGET:
        memos__forget__init(&any->forget);
        any->forget.space = space;
        any->forget.ids = any->ids;
        any->forget.n_ids = 1;
        any->forget.dry_run = 1;
        break;
    case MEMOS__REQUEST__BODY_IMPORT:
        memos__import__init(&any->import);
        any->import.space = space;
        any->import.begin = 1;
        any->import.bytes_total = 100;
        break;
    default:
        memos__feedback__init(&any->feedback);
        any->feedback.space = space;
        any->feedback.id = any->ids[0];
    }
}

static void any_read(struct any *any, Memos__Request__BodyCase type, char *space)
{
    switch (type) {
    case MEMOS__REQUEST__BODY_GET:
        memos__get__init(&any->get);
        any->get.space = space;
        any->get.ids = any->ids;
        any->get.n_ids = 1;
        break;
    case MEMOS__REQUEST__BODY_LIST:
        memos__list__init(&any->list);
        any->list.space = space;
        break;
    case MEMOS__REQUEST__BODY_SEARCH:
        memos__search__init(&any->search);
        any->search.space = space;
        any->search.text = (char *)(uintptr_t) "suitcase";
        break;
    case MEMOS__REQUEST__BODY_LOG:
        memos__log__init(&any->log);
        any->log.space = space;
        break;
    case MEMOS__REQUEST__BODY_HISTORY:
        memos__history__init(&any->history);
        any->history.space = space;
        any->history.id = any->ids[0];
        break;
    case MEMOS__REQUEST__BODY_VERIFY:
        memos__verify__init(&any->verify);
        any->verify.space = space;
        break;
    case MEMOS__REQUEST__BODY_CHECKPOINT:
        memos__checkpoint__init(&any->checkpoint);
        any->checkpoint.space = space;
        any->checkpoint.list = 1;
        break;
    case MEMOS__REQUEST__BODY_EXPORT:
        memos__export__init(&any->export);
        any->export.space = space;
        any->export.id = any->ids[0];
        break;
    default:
        memos__watch__init(&any->watch);
        any->watch.space = space;
    }
}

static const struct {
    Memos__Request__BodyCase type;
    bool changes, names_a_cube;
} types[] = {
    {MEMOS__REQUEST__BODY_PUT, true, false},
    {MEMOS__REQUEST__BODY_UPDATE, true, true},
    {MEMOS__REQUEST__BODY_GET, false, true},
    {MEMOS__REQUEST__BODY_LIST, false, false},
    {MEMOS__REQUEST__BODY_SEARCH, false, false},
    {MEMOS__REQUEST__BODY_LOG, false, false},
    {MEMOS__REQUEST__BODY_HISTORY, false, true},
    {MEMOS__REQUEST__BODY_MERGE, true, true},
    {MEMOS__REQUEST__BODY_TRANSITION, true, true},
    {MEMOS__REQUEST__BODY_ROLLBACK, true, true},
    {MEMOS__REQUEST__BODY_FORGET, true, false}, /* administrators only: nothing is hidden */
    {MEMOS__REQUEST__BODY_VERIFY, false, false},
    {MEMOS__REQUEST__BODY_CHECKPOINT, false, false},
    {MEMOS__REQUEST__BODY_EXPORT, false, true},
    {MEMOS__REQUEST__BODY_IMPORT, true, false},
    {MEMOS__REQUEST__BODY_WATCH, false, false},
    {MEMOS__REQUEST__BODY_FEEDBACK, true, true},
};

static struct answer ask_any(
    struct memos_client *client, size_t type, const char *space, const struct memos_id *id)
{
    struct any any = {0};
    struct memos_id copy = *id;
    char name[64];

    (void)snprintf(name, sizeof name, "%s", space);
    memos__draft__init(&any.draft);
    any.draft.frame = 1;
    any.drafts[0] = &any.draft;
    memos__change__init(&any.change);
    any.change.id = (ProtobufCBinaryData){16, copy.bytes};
    any.change.fields = 1;
    any.change.draft = &any.draft;
    any.changes[0] = &any.change;
    any.ids[0] = any.change.id;
    any.ids[1] = (ProtobufCBinaryData){16, any.other};
    memos__request__init(&any.request);
    any.request.body_case = types[type].type;
    any.request.put = &any.put;
    if (types[type].changes) {
        any_change(&any, types[type].type, name);
    } else {
        any_read(&any, types[type].type, name);
    }
    return ask(client, &any.request, "a text");
}

/* Two answers must say the same; where they name a space, `here` and `gone` stand for each other.
 */
static void assert_same(
    size_t type, const struct answer *a, const struct answer *b, enum memos_status status)
{
    char left[512], right[512];
    (void)snprintf(left, sizeof left, "%s", a->reply->message);
    (void)snprintf(right, sizeof right, "%s", b->reply->message);
    char *at = strstr(right, "gone");
    if (at) {
        memcpy(at, "here", 4);
    }
    if (a->status != status || b->status != status || strcmp(left, right) != 0 ||
        a->reply->body_case != b->reply->body_case ||
        memos_message_frames_count(a->message) != memos_message_frames_count(b->message)) {
        fail_msg("request %d: %s '%s', %s '%s'", (int)types[type].type,
            memos_status_name(a->status), a->reply->message, memos_status_name(b->status),
            b->reply->message);
    }
}

static void test_without_a_grant_nothing_shows(void **state)
{
    struct fixture *fixture = *state;
    struct memos_id id = put_text(fixture->owner, "acme/here", "the blue suitcase", NULL);
    struct memos_client *client = fixture_client(fixture, "nobody");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct answer here = ask_any(client, i, "acme/here", &id);
        struct answer gone = ask_any(client, i, "acme/gone", &id);
        assert_same(i, &here, &gone, MEMOS_DENIED);
        assert_int_equal(here.reply->body_case, MEMOS__REPLY__BODY__NOT_SET);
        answer_free(&here);
        answer_free(&gone);
    }
    memos_client_close(&client);
}

static void test_a_reader_cannot_change(void **state)
{
    struct fixture *fixture = *state;
    struct memos_id id = put_text(fixture->owner, "acme/here", "the blue suitcase", NULL);
    struct memos_client *client = fixture_client(fixture, "reader");
    grant(fixture, "reader", "acme/*", "read");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct answer here = ask_any(client, i, "acme/here", &id);
        if (types[i].changes) {
            struct answer gone = ask_any(client, i, "acme/gone", &id);
            assert_same(i, &here, &gone, MEMOS_DENIED);
            answer_free(&gone);
        } else if (here.status != MEMOS_OK) {
            fail_msg("request %d: %s", (int)types[i].type, here.reply->message);
        }
        answer_free(&here);
    }
    memos_client_close(&client);
}

/* A cube that an access list hides is like one that is not there, for who may write to the space.
 */
static void test_a_hidden_cube_is_not_there(void **state)
{
    struct fixture *fixture = *state;
    struct memos_id none = {{1, 2, 3}};
    struct memos_id hidden = put_text(fixture->owner, "acme/here", "the blue suitcase", "carol");
    struct memos_client *client = fixture_client(fixture, "writer");
    struct memos_client *carol = fixture_client(fixture, "carol");

    grant(fixture, "writer", "acme/here", "write");
    grant(fixture, "carol", "acme/here", "read");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].names_a_cube) {
            struct answer one = ask_any(client, i, "acme/here", &hidden);
            struct answer other = ask_any(client, i, "acme/here", &none);
            assert_same(i, &one, &other, MEMOS_NOT_FOUND);
            answer_free(&one);
            answer_free(&other);
        }
    }
    struct answer found = ask_any(client, 4, "acme/here", &hidden); /* search */
    assert_int_equal(found.status, MEMOS_OK);
    assert_int_equal(found.reply->hits->n_hits, 0);
    answer_free(&found);
    struct answer log = ask_any(client, 5, "acme/here", &hidden);
    assert_int_equal(log.status, MEMOS_OK);
    assert_int_equal(log.reply->log_records->records[0]->n_entries, 0);
    answer_free(&log);
    found = ask_any(carol, 4, "acme/here", &hidden);
    assert_int_equal(found.reply->hits->n_hits, 1);
    answer_free(&found);
    memos_client_close(&client);
    memos_client_close(&carol);
}

static void test_rights_change_at_once(void **state)
{
    struct fixture *fixture = *state;
    struct memos_id id = put_text(fixture->owner, "acme/here", "the blue suitcase", NULL);
    struct memos_client *client = fixture_client(fixture, "bob");
    for (int turn = 0; turn < 5; turn++) {
        struct answer before = ask_any(client, 2, "acme/here", &id);
        assert_int_equal(before.status, MEMOS_DENIED);
        answer_free(&before);
        grant(fixture, "bob", "acme/*", "read");
        struct answer during = ask_any(client, 2, "acme/here", &id);
        assert_int_equal(during.status, MEMOS_OK);
        answer_free(&during);
        grant(fixture, "bob", "acme/*", "");
    }
    memos_client_close(&client);
}

static void test_grants_outlive_the_broker(void **state)
{
    struct fixture *fixture = *state;
    grant(fixture, "bob", "acme/*", "read");
    fixture_stop(fixture);
    fixture_start(fixture, "curve = true\n");
    Memos__GrantList body = MEMOS__GRANT_LIST__INIT;
    Memos__Request request;
    REQUEST(request, GRANT_LIST, grant_list, body);
    struct answer answer = ask(fixture->owner, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->grants->n_grants, 1);
    assert_string_equal(answer.reply->grants->grants[0]->principal, "bob");
    answer_free(&answer);
}

/* ---- events ---- */

static struct memos_watch *watch(struct memos_client *client, const char *space)
{
    struct memos_watch *watch = NULL;
    struct memos_error err = {0};
    if (memos_watch_open(client, space, &watch, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return watch;
}

static void assert_event(struct memos_watch *watch, uint64_t seq)
{
    Memos__Event *event = NULL;
    struct memos_error err = {0};
    if (memos_watch_next(watch, 20000, &event, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(event->seq, seq);
    assert_string_equal(event->author, "owner");
    memos__event__free_unpacked(event, NULL);
}

static void test_events_come_and_end_with_the_right(void **state)
{
    struct fixture *fixture = *state;
    (void)put_text(fixture->owner, "acme/here", "first", NULL);
    struct memos_client *client = fixture_client(fixture, "bob");
    grant(fixture, "bob", "acme/*", "read");
    struct memos_watch *his = watch(client, "acme/here");
    (void)put_text(fixture->owner, "acme/here", "second", NULL);
    assert_event(his, 2);
    (void)put_text(fixture->owner, "acme/here", "third", NULL);
    assert_event(his, 3);
    memos_watch_close(&his);
    grant(fixture, "bob", "acme/*", "");
    assert_int_equal(memos_watch_open(client, "acme/here", &his, NULL), MEMOS_DENIED);
    memos_client_close(&client);
}

/* Where the broker publishes on TCP. */
static void events_address(struct memos_client *client, char *out, size_t size)
{
    Memos__Hello body = MEMOS__HELLO__INIT;
    Memos__Request request;
    REQUEST(request, HELLO, hello, body);
    struct answer answer = ask(client, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    (void)snprintf(out, size, "%s", answer.reply->welcome->events);
    answer_free(&answer);
}

static double metric_of(struct memos_client *client, const char *name, const char *labels)
{
    Memos__Stats body = MEMOS__STATS__INIT;
    Memos__Request request;
    double value = 0;
    REQUEST(request, STATS, stats, body);
    struct answer answer = ask(client, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    for (size_t i = 0; i < answer.reply->stats_result->n_metrics; i++) {
        const Memos__Metric *metric = answer.reply->stats_result->metrics[i];
        if (strcmp(metric->name, name) == 0 && strcmp(metric->labels, labels) == 0) {
            value = metric->value;
        }
    }
    answer_free(&answer);
    return value;
}

/* A message that is no subscription, from a peer that may connect: the socket is opened anew, and
 * good watchers find it again. */
static void test_a_broken_subscriber_harms_nobody(void **state)
{
    struct fixture *fixture = *state;
    char address[256];
    struct memos_client *client;

    fixture_stop(fixture);
    fixture_start(fixture, ""); /* without CURVE: anybody on the loopback */
    (void)put_text(fixture->owner, "acme/here", "first", NULL);
    client = fixture_client(fixture, NULL);
    grant(fixture, "loopback", "acme/*", "read");
    struct memos_watch *his = watch(client, "acme/here");
    (void)put_text(fixture->owner, "acme/here", "second", NULL);
    assert_event(his, 2);

    events_address(client, address, sizeof address);
    void *context = zmq_ctx_new(), *rude = zmq_socket(context, ZMQ_XSUB);
    assert_int_equal(zmq_connect(rude, address), 0);
    assert_int_equal(zmq_send(rude, "\2rude", 5, 0), 5);
    while (metric_of(fixture->owner, "memos_events_closed_total", "") == 0) {
    }
    for (uint64_t seq = 3; seq < 6; seq++) {
        (void)put_text(fixture->owner, "acme/here", "more", NULL);
        assert_event(his, seq);
    }
    int linger = 0;
    assert_int_equal(zmq_setsockopt(rude, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal(zmq_close(rude), 0);
    assert_int_equal(zmq_ctx_term(context), 0);
    memos_watch_close(&his);
    memos_client_close(&client);
}

/* ---- archives ---- */

struct archive {
    struct memos_buffer bytes;
    size_t parts;
};

static void archive_take(void *self, const struct memos_message *reply)
{
    struct archive *archive = self;
    const Memos__ExportPart *part = memos_message_reply(reply)->export_part;
    assert_non_null(part);
    assert_int_equal(part->offset, archive->bytes.size);
    struct memos_bytes bytes = memos_message_frame(reply, part->frame);
    memos_buffer_bytes(&archive->bytes, bytes.data, bytes.size);
    archive->parts++;
}

static void export_space(struct memos_client *client, const char *space, struct archive *out)
{
    Memos__Export body = MEMOS__EXPORT__INIT;
    Memos__Request request;
    out->bytes = memos_buffer_make(64 << 20);
    memos_client_on_more(client, archive_take, out);
    body.space = (char *)(uintptr_t)space;
    REQUEST(request, EXPORT, export, body);
    struct answer answer = ask(client, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_non_null(answer.reply->export_part->summary);
    assert_int_equal(answer.reply->export_part->summary->bytes, out->bytes.size);
    answer_free(&answer);
    memos_client_on_more(client, NULL, NULL);
}

/* One step of an import; the token is kept from the first. */
static enum memos_status import_step(struct memos_client *client, Memos__Import *body,
    struct memos_bytes part, uint8_t token[16], uint64_t *out_added)
{
    Memos__Request request;
    struct memos_message *reply = NULL;
    struct memos_error err;
    body->space = (char *)(uintptr_t) "acme/copy";
    body->token = (ProtobufCBinaryData){body->begin ? 0 : 16, token};
    body->frame = part.size > 0 ? 1 : 0;
    REQUEST(request, IMPORT, import, *body);
    enum memos_status status =
        memos_client_call(client, &request, &part, body->frame, &reply, &err);
    if (status == MEMOS_OK && !body->commit) {
        assert_int_equal(memos_message_reply(reply)->body_case, MEMOS__REPLY__BODY_IMPORT_READY);
        memcpy(token, memos_message_reply(reply)->import_ready->token.data, 16);
    }
    if (status == MEMOS_OK && body->commit) {
        *out_added = memos_message_reply(reply)->outcome->archive->added;
    }
    memos_message_free(&reply);
    return status;
}

static uint64_t import_all(struct memos_client *client, struct memos_bytes archive)
{
    Memos__Import begin = MEMOS__IMPORT__INIT, commit = MEMOS__IMPORT__INIT;
    const struct memos_bytes none = {NULL, 0};
    uint8_t token[16] = {0};
    uint64_t added = 0;
    begin.begin = 1;
    begin.bytes_total = archive.size;
    assert_int_equal(import_step(client, &begin, none, token, &added), MEMOS_OK);
    for (size_t offset = 0; offset < archive.size;) {
        Memos__Import body = MEMOS__IMPORT__INIT;
        size_t left = archive.size - offset, size = left < 700000 ? left : 700000;
        struct memos_bytes part = {(const char *)archive.data + offset, size};
        body.offset = offset + 1;
        assert_int_equal(import_step(client, &body, part, token, &added), MEMOS_CONFLICT);
        body.offset = offset;
        assert_int_equal(import_step(client, &body, part, token, &added), MEMOS_OK);
        offset += size;
    }
    commit.commit = 1;
    assert_int_equal(import_step(client, &commit, none, token, &added), MEMOS_OK);
    assert_int_equal(import_step(client, &commit, none, token, &added), MEMOS_NOT_FOUND);
    return added;
}

static void test_an_archive_goes_out_and_in(void **state)
{
    struct fixture *fixture = *state;
    struct archive archive = {0};
    char *large = malloc(3 << 20);
    assert_non_null(large);
    for (int i = 0; i < 3; i++) {
        memset(large, 'a' + i, (3 << 20) - 1);
        large[(3 << 20) - 1] = '\0';
        (void)put_text(fixture->owner, "acme/here", large, NULL);
    }
    export_space(fixture->owner, "acme/here", &archive);
    assert_true(archive.parts >= 9);
    assert_true(import_all(fixture->owner, memos_buffer_view(&archive.bytes)) > 0);
    assert_int_equal(import_all(fixture->owner, memos_buffer_view(&archive.bytes)), 0);
    memos_buffer_free(&archive.bytes);
    free(large);
}

/* ---- bounds ---- */

static void test_too_many_at_once_are_told_so(void **state)
{
    enum { REQUESTS = 400 };
    struct fixture *fixture = *state;
    Memos__Draft draft = MEMOS__DRAFT__INIT, *drafts[] = {&draft};
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request;
    const struct memos_bytes frame = memos_bytes_of("text");
    size_t counts[MEMOS_STALE + 1] = {0};

    fixture_stop(fixture);
    fixture_start(fixture, "client_queue_max = 2\n");
    draft.frame = 1;
    body.space = (char *)(uintptr_t) "acme/here";
    body.drafts = drafts;
    body.n_drafts = 1;
    for (int i = 0; i < REQUESTS; i++) {
        uint64_t id;
        REQUEST(request, PUT, put, body);
        assert_int_equal(
            memos_client_send(fixture->owner, &request, &frame, 1, &id, NULL), MEMOS_OK);
    }
    for (int i = 0; i < REQUESTS; i++) {
        struct memos_message *reply = NULL;
        assert_int_equal(memos_client_receive(fixture->owner, 20000, &reply, NULL), MEMOS_OK);
        counts[memos_message_reply(reply)->status]++;
        memos_message_free(&reply);
    }
    assert_int_equal(counts[MEMOS_OK] + counts[MEMOS_BUSY], REQUESTS);
    assert_true(counts[MEMOS_OK] > 0);
    assert_true(counts[MEMOS_BUSY] > 0);
}

static void test_a_reply_that_is_too_large_is_refused(void **state)
{
    struct fixture *fixture = *state;
    Memos__List body = MEMOS__LIST__INIT;
    Memos__Request request;
    char *large = malloc(40000);
    fixture_stop(fixture);
    fixture_start(fixture, "message_bytes_max = \"64K\"\npayload_bytes_max = \"60K\"\n");
    assert_non_null(large);
    memset(large, 'x', 39999);
    large[39999] = '\0';
    for (int i = 0; i < 3; i++) {
        large[0] = (char)('a' + i);
        (void)put_text(fixture->owner, "acme/here", large, NULL);
    }
    body.space = (char *)(uintptr_t) "acme/here";
    body.payload = 1;
    REQUEST(request, LIST, list, body);
    struct answer answer = ask(fixture->owner, &request, NULL);
    assert_int_equal(answer.status, MEMOS_TOO_LARGE);
    assert_int_equal(memos_message_frames_count(answer.message), 0);
    answer_free(&answer);
    free(large);
}

/* ---- garbage ---- */

static void send_frames(void *socket, const struct memos_bytes *frames, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int more = i + 1 < count ? ZMQ_SNDMORE : 0;
        assert_true(zmq_send(socket, frames[i].data, frames[i].size, more) >= 0);
    }
}

static enum memos_status receive_status(void *socket)
{
    struct memos_frames frames;
    struct memos_arena arena;
    struct memos_error err = {0};
    Memos__Reply *reply = NULL;
    memos_arena_init(&arena, 1 << 20);
    if (memos_frames_receive(socket, 0, false, 16, 1 << 20, &frames, &err) != MEMOS_OK ||
        memos_reply_unpack(memos_frames_envelope(&frames), &arena, &reply, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    enum memos_status status = (enum memos_status)reply->status;
    memos_frames_free(&frames);
    memos_arena_finish(&arena);
    return status;
}

static void test_garbage_then_a_good_peer(void **state)
{
    struct fixture *fixture = *state;
    const struct memos_bytes protocol = memos_protocol_frame();
    const struct memos_bytes lone[] = {memos_bytes_of("hello")};
    const struct memos_bytes wrong[] = {memos_bytes_of("MEMOS\x09"), memos_bytes_of("x")};
    const struct memos_bytes broken[] = {protocol, memos_bytes_of("\xff\xff\xff")};
    const struct memos_bytes empty[] = {protocol, memos_bytes_make("", 0)};
    int linger = 0, wait_ms = 20000;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    void *named = zmq_socket(context, ZMQ_DEALER);

    assert_int_equal(zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms), 0);
    assert_int_equal(zmq_setsockopt(named, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms), 0);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal(zmq_setsockopt(named, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal(zmq_connect(socket, broker_address(fixture->broker, 0)), 0);
    send_frames(socket, lone, 1);
    assert_int_equal(receive_status(socket), MEMOS_INVALID);
    send_frames(socket, wrong, 2);
    assert_int_equal(receive_status(socket), MEMOS_UNSUPPORTED);
    send_frames(socket, broken, 2);
    assert_int_equal(receive_status(socket), MEMOS_INVALID);
    send_frames(socket, empty, 2);
    assert_int_equal(receive_status(socket), MEMOS_UNSUPPORTED);

    /* A routing id of one's own could be another client's next. */
    assert_int_equal(zmq_setsockopt(named, ZMQ_ROUTING_ID, "alice", 5), 0);
    assert_int_equal(zmq_connect(named, broker_address(fixture->broker, 0)), 0);
    send_frames(named, empty, 2);
    assert_int_equal(receive_status(named), MEMOS_INVALID);

    (void)put_text(fixture->owner, "acme/here", "still served", NULL);
    assert_int_equal(zmq_close(socket), 0);
    assert_int_equal(zmq_close(named), 0);
    assert_int_equal(zmq_ctx_term(context), 0);
}

static void test_statistics_are_for_administrators(void **state)
{
    struct fixture *fixture = *state;
    Memos__Stats body = MEMOS__STATS__INIT;
    Memos__Request request;
    struct memos_client *client = fixture_client(fixture, "nobody");
    REQUEST(request, STATS, stats, body);
    struct answer denied = ask(client, &request, NULL);
    assert_int_equal(denied.status, MEMOS_DENIED);
    answer_free(&denied);
    const char *labels = "type=\"stats\",status=\"DENIED\"";
    assert_true(metric_of(fixture->owner, "memos_requests_total", labels) == 1);
    memos_client_close(&client);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, start, end)

/* A payload that is a file of its own is lent to ZeroMQ as the file's pages: they must be the right
 * ones, also when it is asked for twice. */
static void test_large_payloads_are_lent(void **state)
{
    enum { LARGE = 1 << 20 };
    struct fixture *fixture = *state;
    struct memos_client *far = fixture_client(fixture, "alice");
    struct memos_client *const clients[] = {fixture->owner, far};
    char *text = malloc(LARGE);
    assert_non_null(text);
    for (size_t i = 0; i < LARGE; i++) {
        text[i] = (char)('a' + i % 23);
    }
    text[LARGE - 1] = '\0';
    grant(fixture, "alice", "lent", "read");
    struct memos_id id = put_text(fixture->owner, "lent", text, NULL);
    ProtobufCBinaryData ids[2] = {{16, id.bytes}, {16, id.bytes}};
    Memos__Get body = MEMOS__GET__INIT;
    Memos__Request request;
    body.space = (char[]){"lent"};
    body.ids = ids;
    body.n_ids = 2;
    REQUEST(request, GET, get, body);
    for (size_t client = 0; client < 2; client++) {
        struct answer answer = ask(clients[client], &request, NULL);
        assert_int_equal(answer.status, MEMOS_OK);
        for (size_t i = 0; i < 2; i++) {
            const Memos__Cube *cube = answer.reply->cubes->cubes[i];
            assert_true(memos_bytes_equal(
                memos_message_frame(answer.message, cube->frame), memos_bytes_of(text)));
        }
        answer_free(&answer);
    }
    memos_client_close(&far);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_without_a_grant_nothing_shows),
        CASE(test_a_reader_cannot_change),
        CASE(test_a_hidden_cube_is_not_there),
        CASE(test_rights_change_at_once),
        CASE(test_grants_outlive_the_broker),
        CASE(test_events_come_and_end_with_the_right),
        CASE(test_a_broken_subscriber_harms_nobody),
        CASE(test_an_archive_goes_out_and_in),
        CASE(test_too_many_at_once_are_told_so),
        CASE(test_a_reply_that_is_too_large_is_refused),
        CASE(test_garbage_then_a_good_peer),
        CASE(test_statistics_are_for_administrators),
        CASE(test_large_payloads_are_lent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
