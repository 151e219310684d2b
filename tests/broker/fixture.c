#include "tests/broker/fixture.h"

#include "proto/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CALL_MS 60000 /* under a sanitizer, beside others, a model takes its time */

static void *serve(void *self)
{
    struct memos_error err;
    enum memos_status status = broker_run(self, &err);
    return (void *)(uintptr_t)status;
}

void fixture_start(struct fixture *fixture, const char *settings)
{
    char text[4096];
    struct memos_error err = {0};
    const struct memos_log_options quiet = {.level = MEMOS_LOG_ERROR};
    assert_int_equal(memos_log_open(&quiet, &err), MEMOS_OK);
    if (!fixture->folder[0]) {
        folder_make(fixture->folder);
    }
    (void)snprintf(text, sizeof text,
        "data_dir = \"%s/data\"\n"
        "listen = [\"ipc://%s/b\", \"tcp://127.0.0.1:*\"]\n"
        "%s%s",
        fixture->folder, fixture->folder,
        strstr(settings, "encoder =") ? "" : "encoder = \"ngrams\"\n", settings);
    assert_int_equal(broker_config_init(&fixture->config, NULL), MEMOS_OK);
    if (broker_config_parse(&fixture->config, "test", memos_bytes_of(text), &err) != MEMOS_OK ||
        broker_config_check(&fixture->config, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    const struct broker_options options = {
        .config = &fixture->config,
        .signal_fd = -1,
        .sync_off = true,
    };
    if (broker_create(&options, &fixture->broker, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(pthread_create(&fixture->thread, NULL, serve, fixture->broker), 0);
    const struct memos_client_options client = {
        .address = broker_address(fixture->broker, 0), .timeout_ms = CALL_MS};
    assert_int_equal(memos_client_open(&client, &fixture->owner, &err), MEMOS_OK);
}

void fixture_stop(struct fixture *fixture)
{
    void *status;
    memos_client_close(&fixture->owner);
    broker_stop(fixture->broker);
    assert_int_equal(pthread_join(fixture->thread, &status), 0);
    assert_null(status);
    broker_destroy(&fixture->broker);
    broker_config_finish(&fixture->config);
}

void fixture_end(struct fixture *fixture)
{
    fixture_stop(fixture);
    folder_remove(fixture->folder);
}

struct memos_client *fixture_client(struct fixture *fixture, const char *principal)
{
    struct memos_key_pair pair;
    struct memos_client *client = NULL;
    struct memos_error err = {0};
    char path[FOLDER_PATH_BYTES + 32];
    const char *server_key = broker_public_key(fixture->broker);

    (void)snprintf(path, sizeof path, "%s/%s.key", fixture->folder, principal ? principal : "none");
    if (server_key) {
        assert_int_equal(memos_key_pair_new(&pair, &err), MEMOS_OK);
        (void)remove(path);
        assert_int_equal(memos_key_pair_write(path, &pair, &err), MEMOS_OK);
    }
    if (server_key && principal) {
        Memos__KeySet body = MEMOS__KEY_SET__INIT;
        Memos__Request request;
        body.public_key = pair.public_key;
        body.principal = (char *)(uintptr_t)principal;
        REQUEST(request, KEY_SET, key_set, body);
        struct answer answer = ask(fixture->owner, &request, NULL);
        assert_int_equal(answer.status, MEMOS_OK);
        answer_free(&answer);
    }
    const struct memos_client_options options = {
        .address = broker_address(fixture->broker, 1),
        .server_key = server_key,
        .key_file = server_key ? path : NULL,
        .timeout_ms = CALL_MS,
    };
    if (memos_client_open(&options, &client, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return client;
}

void answer_free(struct answer *answer)
{
    memos_message_free(&answer->message);
    answer->reply = NULL;
}

struct answer ask(struct memos_client *client, Memos__Request *request, const char *text)
{
    const struct memos_bytes frame = memos_bytes_of(text);
    struct answer answer = {0};
    struct memos_error err = {0};
    answer.status = memos_client_call(client, request, &frame, text ? 1 : 0, &answer.message, &err);
    if (!answer.message) {
        fail_msg("no answer: %s: %s", memos_status_name(answer.status), err.text);
    }
    answer.reply = memos_message_reply(answer.message);
    assert_int_equal(answer.reply->status, answer.status);
    return answer;
}

struct memos_id put_text(
    struct memos_client *client, const char *space, const char *text, const char *reader)
{
    Memos__Draft draft = MEMOS__DRAFT__INIT, *drafts[] = {&draft};
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request;
    struct memos_id id;
    char *readers[] = {(char *)(uintptr_t)reader};

    draft.frame = 1;
    draft.readers = readers;
    draft.n_readers = reader ? 1 : 0;
    body.space = (char *)(uintptr_t)space;
    body.drafts = drafts;
    body.n_drafts = 1;
    REQUEST(request, PUT, put, body);
    struct answer answer = ask(client, &request, text);
    if (answer.status != MEMOS_OK) {
        fail_msg("put: %s", answer.reply->message);
    }
    memcpy(id.bytes, answer.reply->outcome->refs[0]->id.data, sizeof id.bytes);
    answer_free(&answer);
    return id;
}

void forget_text(struct memos_client *client, const char *space, const struct memos_id *id)
{
    ProtobufCBinaryData own = {.len = 16, .data = (uint8_t *)(uintptr_t)id->bytes};
    Memos__Forget body = MEMOS__FORGET__INIT;
    Memos__Request request;
    body.space = (char *)(uintptr_t)space;
    body.ids = &own;
    body.n_ids = 1;
    REQUEST(request, FORGET, forget, body);
    struct answer answer = ask(client, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    answer_free(&answer);
}

void cancel(struct memos_client *client, uint64_t id)
{
    Memos__Cancel body = MEMOS__CANCEL__INIT;
    Memos__Request request;
    body.request_id = id;
    REQUEST(request, CANCEL, cancel, body);
    struct answer answer = ask(client, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    answer_free(&answer);
}

void grant(struct fixture *fixture, const char *principal, const char *spaces, const char *rights)
{
    Memos__GrantSet body = MEMOS__GRANT_SET__INIT;
    Memos__Request request;
    body.principal = (char *)(uintptr_t)principal;
    body.spaces = (char *)(uintptr_t)spaces;
    body.rights = (char *)(uintptr_t)rights;
    REQUEST(request, GRANT_SET, grant_set, body);
    struct answer answer = ask(fixture->owner, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    answer_free(&answer);
}
