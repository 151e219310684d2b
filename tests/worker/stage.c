#include "tests/worker/stage.h"

#include "proto/log.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

enum { WAIT_MS = 60000 };

/* ---- broker and worker ---------------------------------------------------------------------- */

static void *run(void *self)
{
    struct stage *stage = self;
    return (void *)(uintptr_t)worker_run(stage->worker, &stage->err);
}

void stage_worker_start(struct stage *stage)
{
    struct memos_error err = {0};
    stage->host = &stage->tiny.host;
    const struct worker_options options = {
        .client.address = broker_address(stage->broker.broker, 0),
        .name = "stage",
        .hosts = &stage->host,
        .hosts_count = 1,
        .signal_fd = -1,
    };
    if (worker_create(&options, &stage->worker, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(pthread_create(&stage->thread, NULL, run, stage), 0);
}

enum memos_status stage_worker_end(struct stage *stage)
{
    void *status = NULL;
    assert_int_equal(pthread_join(stage->thread, &status), 0);
    worker_destroy(&stage->worker);
    return (enum memos_status)(uintptr_t)status;
}

static size_t workers_count(struct stage *stage)
{
    Memos__Workers body = MEMOS__WORKERS__INIT;
    Memos__Request request;
    REQUEST(request, WORKERS, workers, body);
    struct answer answer = ask(stage->broker.owner, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    size_t count = answer.reply->worker_infos->n_workers;
    answer_free(&answer);
    return count;
}

void stage_await_workers(struct stage *stage, size_t count)
{
    while (workers_count(stage) != count) {
    }
}

void stage_begin(struct stage *stage, const struct tiny_host_options *options)
{
    memset(stage, 0, sizeof *stage);
    fixture_start(&stage->broker, "");
    tiny_host_make(&stage->tiny, options);
    tiny_host_make(&stage->same, options);
    stage_worker_start(stage);
    stage_await_workers(stage, 1);
}

void stage_end(struct stage *stage)
{
    if (stage->worker) {
        worker_stop(stage->worker);
        OK(stage_worker_end(stage));
    }
    fixture_end(&stage->broker);
    tiny_host_free(&stage->tiny);
    tiny_host_free(&stage->same);
}

/* ---- asking --------------------------------------------------------------------------------- */

void stage_generate_make(struct stage_generate *out, const char *text, uint32_t tokens)
{
    memset(out, 0, sizeof *out);
    memos__generate__init(&out->generate);
    memos__sampling__init(&out->sampling);
    memos__token_bias__init(&out->bias);
    REQUEST(out->request, GENERATE, generate, out->generate);
    out->bias.id = STAGE_STOP_ID;
    out->bias.bias = -INFINITY;
    out->biases[0] = &out->bias;
    out->sampling.biases = out->biases;
    out->sampling.n_biases = 1;
    out->generate.sampling = &out->sampling;
    out->generate.max_tokens = tokens;
    out->generate.prompt_frame = 1;
    out->frames[0] = memos_bytes_of(text);
    out->frames_count = 1;
}

uint64_t stage_send(struct memos_client *client, struct stage_generate *generate)
{
    struct memos_error err = {0};
    uint64_t id = 0;
    generate->request.generate = &generate->generate;
    if (memos_client_send(client, &generate->request, generate->frames, generate->frames_count, &id,
            &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return id;
}

static void hear_token(struct stage_heard *heard, const Memos__TokenLogprob *token)
{
    size_t count = heard->count + 1;
    heard->ids = realloc(heard->ids, count * sizeof *heard->ids);
    heard->logprobs = realloc(heard->logprobs, count * sizeof *heard->logprobs);
    assert_non_null(heard->ids);
    assert_non_null(heard->logprobs);
    heard->ids[heard->count] = token->id;
    heard->logprobs[heard->count++] = token->logprob;
}

void stage_hear(struct stage_heard *heard, struct memos_message *message)
{
    const Memos__Reply *reply = memos_message_reply(message);
    assert_null(heard->reply);
    if (!reply->more) {
        heard->last = message;
        heard->reply = reply;
        return;
    }
    assert_int_equal(reply->body_case, MEMOS__REPLY__BODY_TOKENS);
    const Memos__Tokens *tokens = reply->tokens;
    heard->text.size_max = (size_t)1 << 24;
    heard->updates++;
    heard->top_count += tokens->n_top;
    for (size_t i = 0; i < tokens->n_tokens; i++) {
        hear_token(heard, tokens->tokens[i]);
    }
    memos_buffer_bytes(&heard->text, tokens->text, strlen(tokens->text));
    memos_message_free(&message);
}

static struct memos_message *receive(struct memos_client *client)
{
    struct memos_message *message = NULL;
    struct memos_error err = {0};
    if (memos_client_receive(client, WAIT_MS, &message, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return message;
}

void stage_await(struct memos_client *client, uint64_t id, struct stage_heard *heard)
{
    while (!heard->reply) {
        struct memos_message *message = receive(client);
        assert_int_equal(memos_message_reply(message)->id, id);
        stage_hear(heard, message);
    }
}

void stage_cancel(struct memos_client *client, uint64_t id, struct stage_heard *heard)
{
    Memos__Cancel body = MEMOS__CANCEL__INIT;
    Memos__Request request;
    struct memos_error err = {0};
    uint64_t own = 0;
    bool is_told = false;
    body.request_id = id;
    REQUEST(request, CANCEL, cancel, body);
    OK(memos_client_send(client, &request, NULL, 0, &own, &err));
    while (!heard->reply || !is_told) {
        struct memos_message *message = receive(client);
        const Memos__Reply *reply = memos_message_reply(message);
        if (reply->id == own) {
            assert_int_equal(reply->status, MEMOS_OK);
            is_told = true;
            memos_message_free(&message);
        } else {
            assert_int_equal(reply->id, id);
            stage_hear(heard, message);
        }
    }
}

void stage_ask(
    struct memos_client *client, struct stage_generate *generate, struct stage_heard *out)
{
    *out = (struct stage_heard){0};
    stage_await(client, stage_send(client, generate), out);
}

void stage_heard_free(struct stage_heard *heard)
{
    free(heard->ids);
    free(heard->logprobs);
    memos_buffer_free(&heard->text);
    memos_message_free(&heard->last);
    *heard = (struct stage_heard){0};
}

/* ---- the engine directly -------------------------------------------------------------------- */

static void direct_token(void *self, const struct paramem_token *token)
{
    struct stage_direct *direct = self;
    direct->ids[direct->count] = token->id;
    direct->logprobs[direct->count++] = token->logprob;
}

static void direct_done(void *self, const struct paramem_result *result)
{
    (void)self;
    assert_int_equal(result->finish, PARAMEM_FINISH_LENGTH);
}

void stage_direct(struct stage *stage, const char *text, size_t tokens, struct stage_direct *out)
{
    const struct paramem_bias bias = {STAGE_STOP_ID, -INFINITY};
    struct paramem_ids ids = {0};
    uint64_t id;
    *out = (struct stage_direct){
        .ids = calloc(tokens, sizeof *out->ids), .logprobs = calloc(tokens, sizeof *out->logprobs)};
    OK(paramem_tokenizer_encode(stage->same.tokenizer, memos_bytes_of(text),
        PARAMEM_ADD_SPECIAL | PARAMEM_PLAIN_TEXT, &ids, NULL));
    const struct paramem_request request = {
        .prompt = ids.ids,
        .prompt_count = ids.count,
        .max_tokens = tokens,
        .sampling = {.biases = &bias, .biases_count = 1},
        .on_token = direct_token,
        .on_done = direct_done,
        .self = out,
    };
    OK(paramem_engine_submit(stage->same.host.engine, &request, &id, NULL));
    for (bool more = true; more;) {
        OK(paramem_engine_step(stage->same.host.engine, &more, NULL));
    }
    assert_int_equal(out->count, tokens);
    free(ids.ids);
}

void stage_direct_free(struct stage_direct *direct)
{
    free(direct->ids);
    free(direct->logprobs);
}

void stage_assert_same(const struct stage_heard *heard, const struct stage_direct *direct)
{
    if (heard->reply->status != MEMOS_OK) {
        fail_msg("%s", heard->reply->message);
    }
    assert_int_equal(heard->count, direct->count);
    assert_memory_equal(heard->ids, direct->ids, direct->count * sizeof *direct->ids);
    assert_memory_equal(
        heard->logprobs, direct->logprobs, direct->count * sizeof *direct->logprobs);
    const Memos__Generated *made = heard->reply->generated;
    struct memos_bytes whole = memos_message_frame(heard->last, made->frame);
    assert_int_equal(made->tokens, direct->count);
    assert_int_equal(whole.size, heard->text.size);
    assert_memory_equal(whole.data, heard->text.data, whole.size);
}
