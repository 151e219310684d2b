/* Scores, captures and receipts through broker and worker; and what goes wrong below them: no
 * memory, a device that fails.
 *
 * If these failed, a user would be told another likelihood than the model's, lose what was to be
 * kept, or lose the worker over one request that was too much. */
#include "tests/worker/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

static const struct tiny_host_options usual = {.context = 1024, .sequences = 16};

/* ---- what is made to fail ------------------------------------------------------------------- */

static atomic_size_t block_max; /* larger ones are refused; 0: none is */
static atomic_bool device_fails;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
enum memos_status __real_kern_download(
    struct kern_ctx *ctx, void *host, const void *device, size_t bytes, struct memos_error *err);
enum memos_status __wrap_kern_download(
    struct kern_ctx *ctx, void *host, const void *device, size_t bytes, struct memos_error *err);

void *__wrap_malloc(size_t size)
{
    size_t most = atomic_load(&block_max);
    return most > 0 && size > most ? NULL : __real_malloc(size);
}

enum memos_status __wrap_kern_download(
    struct kern_ctx *ctx, void *host, const void *device, size_t bytes, struct memos_error *err)
{
    return atomic_load(&device_fails) ? memos_fail(err, MEMOS_IO, "the device fell off the bus")
                                      : __real_kern_download(ctx, host, device, bytes, err);
}

/* ---- scores --------------------------------------------------------------------------------- */

static struct answer ask_frames(struct memos_client *client, Memos__Request *request,
    const struct memos_bytes *frames, size_t count)
{
    struct answer answer = {0};
    struct memos_error err = {0};
    answer.status = memos_client_call(client, request, frames, count, &answer.message, &err);
    if (!answer.message) {
        fail_msg("%s", err.text);
    }
    answer.reply = memos_message_reply(answer.message);
    return answer;
}

/* Log probabilities of all tokens but the first, as the engine says; free with free. */
static float *score_directly(struct stage *stage, const char *text, size_t overlap, size_t *count)
{
    struct paramem_ids ids = {0};
    OK(paramem_tokenizer_encode(stage->same.tokenizer, memos_bytes_of(text),
        PARAMEM_ADD_SPECIAL | PARAMEM_PLAIN_TEXT, &ids, NULL));
    float *out = calloc(ids.count, sizeof *out);
    assert_non_null(out);
    OK(paramem_engine_score(stage->same.host.engine, ids.ids, ids.count, overlap, out, NULL));
    *count = ids.count - 1;
    free(ids.ids);
    return out;
}

static char *long_text(size_t size)
{
    char *text = malloc(size + 1);
    assert_non_null(text);
    for (size_t i = 0; i < size; i++) {
        text[i] = (char)('a' + (i * i + i / 7) % 26);
    }
    text[size] = '\0';
    return text;
}

/* A text within the context, and one of several windows. */
static void scores_are_the_engine(void **unused)
{
    (void)unused;
    struct stage stage;
    stage_begin(&stage, &usual);
    for (size_t size = 100; size < 5000; size += 2300) {
        uint32_t numbers[] = {1};
        Memos__Score score = MEMOS__SCORE__INIT;
        Memos__Request request;
        char *text = long_text(size);
        size_t count;
        float *direct = score_directly(&stage, text, 256, &count);
        const struct memos_bytes frame = memos_bytes_of(text);
        REQUEST(request, SCORE, score, score);
        score.frames = numbers;
        score.n_frames = 1;
        score.logprobs = true;
        score.overlap = size > 1000 ? 256 : 0;
        struct answer answer = ask_frames(stage.broker.owner, &request, &frame, 1);
        OK(answer.status);
        const Memos__TextScore *told = answer.reply->scored->texts[0];
        double sum = 0;
        assert_int_equal(told->tokens, count);
        assert_int_equal(told->n_logprobs, count);
        assert_memory_equal(told->logprobs, direct, count * sizeof *direct);
        for (size_t i = 0; i < count; i++) {
            sum += (double)direct[i];
        }
        assert_true(told->logprob == sum);
        answer_free(&answer);
        free(direct);
        free(text);
    }
    stage_end(&stage);
}

static void choices_follow_their_prompt(void **unused)
{
    (void)unused;
    struct stage stage;
    uint32_t numbers[] = {2, 3};
    const char *const texts[] = {"The sky is", " blue", " made of cheese"};
    Memos__Score score = MEMOS__SCORE__INIT;
    Memos__Request request;
    struct memos_bytes frames[3];
    stage_begin(&stage, &usual);
    for (size_t i = 0; i < 3; i++) {
        frames[i] = memos_bytes_of(texts[i]);
    }
    REQUEST(request, SCORE, score, score);
    score.prompt_frame = 1;
    score.frames = numbers;
    score.n_frames = 2;
    struct answer answer = ask_frames(stage.broker.owner, &request, frames, 3);
    OK(answer.status);
    assert_int_equal(answer.reply->scored->n_texts, 2);
    for (size_t i = 1; i < 3; i++) {
        char both[64];
        size_t count;
        double sum = 0;
        const Memos__TextScore *told = answer.reply->scored->texts[i - 1];
        (void)snprintf(both, sizeof both, "%s%s", texts[0], texts[i]);
        float *direct = score_directly(&stage, both, 0, &count);
        for (size_t at = count - (size_t)told->tokens; at < count; at++) {
            sum += (double)direct[at];
        }
        assert_int_equal(told->bytes, strlen(texts[i]));
        assert_true(told->logprob == sum);
        free(direct);
    }
    answer_free(&answer);
    numbers[0] = 9; /* a frame that is not there */
    answer = ask_frames(stage.broker.owner, &request, frames, 3);
    assert_int_equal(answer.status, MEMOS_INVALID);
    answer_free(&answer);
    stage_end(&stage);
}

/* ---- memory --------------------------------------------------------------------------------- */

/* What stands before a bare text with this cube is kept, or was already. */
static void assert_captured(struct memos_client *client, ProtobufCBinaryData ids[1], bool existed)
{
    Memos__Capture capture = MEMOS__CAPTURE__INIT;
    Memos__Request request;
    REQUEST(request, CAPTURE, capture, capture);
    capture.space = (char *)(uintptr_t) "home";
    capture.ids = ids;
    capture.n_ids = 1;
    capture.bare = true;
    struct answer answer = ask(client, &request, NULL);
    if (answer.status != MEMOS_OK) {
        fail_msg("%s", answer.reply->message);
    }
    assert_int_equal(answer.reply->captured->n_captures, 1);
    assert_int_equal(answer.reply->captured->captures[0]->existed, existed);
    assert_true(answer.reply->captured->captures[0]->tokens >= 300);
    answer_free(&answer);
}

static void capture_is_kept_and_used(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard with, without;
    Memos__Memory memory = MEMOS__MEMORY__INIT;
    Memos__Ref ref = MEMOS__REF__INIT, *refs[] = {&ref};
    Memos__Request request;
    ProtobufCBinaryData ids[1];
    stage_begin(&stage, &usual);
    char *text = long_text(300);
    struct memos_id id = put_text(stage.broker.owner, "home", text, NULL);
    free(text);
    ids[0] = (ProtobufCBinaryData){.len = 16, .data = id.bytes};
    assert_captured(stage.broker.owner, ids, false);
    assert_captured(stage.broker.owner, ids, true);

    ref.id = ids[0];
    memory.cubes = refs;
    memory.n_cubes = 1;
    memory.budget_tokens = 600;
    memory.captures = 1; /* never */
    stage_generate_make(&generate, "and then?", 30);
    generate.generate.space = (char *)(uintptr_t) "home";
    generate.generate.memory = &memory;
    generate.generate.keep_receipt = true;
    tiny_host_forget(&stage.same);
    stage_ask(stage.broker.owner, &generate, &without);
    memory.captures = 2; /* wherever there is one */
    stage_ask(stage.broker.owner, &generate, &with);
    OK(without.reply->status);
    OK(with.reply->status);
    assert_int_equal(with.count, 30);
    assert_memory_equal(with.ids, without.ids, 30 * sizeof *with.ids);
    const Memos__Receipt *receipt = with.reply->generated->receipt;
    assert_non_null(receipt);
    assert_true(receipt->n_items >= 1);
    assert_memory_equal(receipt->items[0]->ref->id.data, id.bytes, 16);
    assert_non_null(with.reply->generated->receipt_ref);
    assert_int_equal(with.reply->generated->receipt_ref->number, 1);
    stage_heard_free(&with);
    stage_heard_free(&without);

    /* memory before a text that is scored */
    uint32_t numbers[] = {1};
    Memos__Score score = MEMOS__SCORE__INIT;
    REQUEST(request, SCORE, score, score);
    score.space = (char *)(uintptr_t) "home";
    score.memory = &memory;
    score.frames = numbers;
    score.n_frames = 1;
    struct answer answer = ask(stage.broker.owner, &request, "and then?");
    if (answer.status != MEMOS_OK) {
        fail_msg("%s", answer.reply->message);
    }
    assert_int_equal(answer.reply->scored->texts[0]->bytes, 9);
    assert_int_equal(answer.reply->scored->receipt->n_items, 1);
    answer_free(&answer);
    stage_end(&stage);
}

/* A space that the client may not read is not read for him, and he is told as everywhere. */
static void memory_needs_its_right(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard;
    Memos__Memory memory = MEMOS__MEMORY__INIT;
    stage_begin(&stage, &usual);
    struct memos_client *guest = fixture_client(&stage.broker, "guest");
    (void)put_text(stage.broker.owner, "home", "a secret", NULL);
    memory.search = true;
    stage_generate_make(&generate, "what?", 5);
    generate.generate.space = (char *)(uintptr_t) "home";
    generate.generate.memory = &memory;
    stage_ask(guest, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_DENIED);
    stage_heard_free(&heard);
    memos_client_close(&guest);
    stage_end(&stage);
}

/* ---- what goes wrong below ------------------------------------------------------------------ */

static void without_memory_the_job_fails(void **unused)
{
    (void)unused;
    const struct tiny_host_options wide = {.context = 1 << 16, .sequences = 2};
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard;
    stage_begin(&stage, &wide);
    stage_generate_make(&generate, "a", 1 << 15); /* its ids alone are 128 KiB */
    atomic_store(&block_max, 100000);
    stage_ask(stage.broker.owner, &generate, &heard);
    atomic_store(&block_max, 0);
    assert_int_equal(heard.reply->status, MEMOS_NO_MEMORY);
    assert_true(heard.reply->message[0] && heard.reply->hint[0]);
    stage_heard_free(&heard);
    stage_generate_make(&generate, "a", 20);
    stage_ask(stage.broker.owner, &generate, &heard);
    OK(heard.reply->status);
    stage_heard_free(&heard);
    stage_end(&stage);
}

static void a_lost_device_is_told_and_ends_the_worker(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard = {0};
    stage_begin(&stage, &usual);
    stage_generate_make(&generate, "a", 900);
    uint64_t id = stage_send(stage.broker.owner, &generate);
    while (heard.count == 0) {
        struct memos_message *message = NULL;
        OK(memos_client_receive(stage.broker.owner, 60000, &message, NULL));
        stage_hear(&heard, message);
    }
    atomic_store(&device_fails, true);
    stage_await(stage.broker.owner, id, &heard);
    assert_int_equal(heard.reply->status, MEMOS_IO);
    assert_non_null(strstr(heard.reply->message, "fell off the bus"));
    assert_int_equal(stage_worker_end(&stage), MEMOS_IO);
    assert_non_null(strstr(stage.err.text, "fell off the bus"));
    atomic_store(&device_fails, false);
    stage_heard_free(&heard);
    stage_end(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_engine),
        cmocka_unit_test(choices_follow_their_prompt),
        cmocka_unit_test(capture_is_kept_and_used),
        cmocka_unit_test(memory_needs_its_right),
        cmocka_unit_test(without_memory_the_job_fails),
        cmocka_unit_test(a_lost_device_is_told_and_ends_the_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
