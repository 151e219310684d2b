#include "tests/worker/scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)
#define DAY INT64_C(86400000000)

static char *text_of(const char *text)
{
    return (char *)(uintptr_t)text;
}

static void memory_make(struct scene *scene)
{
    const struct worker_memory_options options = {.clock = memos_clock_system()};
    OK(worker_memory_create(&options, &scene->memory, NULL));
}

void scene_begin(struct scene *scene, const struct tiny_host_options *options)
{
    *scene = (struct scene){0};
    fixture_start(&scene->fixture, "");
    tiny_host_make(&scene->tiny, options);
    memory_make(scene);
    memos_arena_init(&scene->arena, (size_t)1 << 24);
    scene->fetch = (struct worker_fetch){.client = scene->fixture.owner,
        .same_host = true,
        .principal = "owner",
        .worker = "test/1"};
}

void scene_restart(struct scene *scene)
{
    worker_memory_destroy(&scene->memory);
    tiny_host_forget(&scene->tiny);
    memory_make(scene);
}

void scene_end(struct scene *scene)
{
    worker_prompt_free(scene->memory, &scene->open);
    worker_memory_destroy(&scene->memory);
    tiny_host_free(&scene->tiny);
    memos_arena_finish(&scene->arena);
    fixture_end(&scene->fixture);
}

int scene_setup(void **state)
{
    static struct scene scene;
    scene_begin(&scene, &(struct tiny_host_options){0});
    *state = &scene;
    return 0;
}

int scene_teardown(void **state)
{
    scene_end(*state);
    return 0;
}

/* ---- what is in the space -------------------------------------------------------------------- */

static struct answer asked(struct scene *scene, Memos__Request *request, const char *text)
{
    struct answer answer = ask(scene->fixture.owner, request, text);
    if (answer.status != MEMOS_OK) {
        fail_msg("%s", answer.reply->message);
    }
    return answer;
}

struct memos_id scene_put(struct scene *scene, const char *text, int64_t day)
{
    Memos__Draft draft = MEMOS__DRAFT__INIT, *drafts[] = {&draft};
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request;
    struct memos_id id;
    draft.frame = 1;
    draft.event_us = day * DAY;
    draft.speaker = text_of("Lea");
    body.space = text_of(SCENE_SPACE);
    body.drafts = drafts;
    body.n_drafts = 1;
    REQUEST(request, PUT, put, body);
    struct answer answer = asked(scene, &request, text);
    memcpy(id.bytes, answer.reply->outcome->refs[0]->id.data, sizeof id.bytes);
    answer_free(&answer);
    return id;
}

static void update(struct scene *scene, const struct memos_id *id, struct memos_bytes payload)
{
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Change change = MEMOS__CHANGE__INIT, *changes[] = {&change};
    Memos__Update body = MEMOS__UPDATE__INIT;
    Memos__Request request;
    struct memos_message *message = NULL;
    struct memos_error err;
    draft.frame = 1;
    change.id = (ProtobufCBinaryData){.len = 16, .data = (uint8_t *)(uintptr_t)id->bytes};
    change.fields = 1; /* the payload */
    change.draft = &draft;
    body.space = text_of(SCENE_SPACE);
    body.changes = changes;
    body.n_changes = 1;
    REQUEST(request, UPDATE, update, body);
    if (memos_client_call(scene->fixture.owner, &request, &payload, 1, &message, &err) !=
        MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    memos_message_free(&message);
}

void scene_update(struct scene *scene, const struct memos_id *id, const char *text)
{
    update(scene, id, memos_bytes_of(text));
}

void scene_damage(struct scene *scene, const struct memos_id *id, struct memos_bytes payload)
{
    update(scene, id, payload);
}

uint64_t scene_seq(struct scene *scene)
{
    Memos__Log body = MEMOS__LOG__INIT;
    Memos__Request request;
    body.space = text_of(SCENE_SPACE);
    body.newest_first = true;
    body.count_max = 1;
    REQUEST(request, LOG, log, body);
    struct answer answer = asked(scene, &request, NULL);
    const uint64_t seq = answer.reply->log_records->head_seq;
    answer_free(&answer);
    return seq;
}

void scene_rollback(struct scene *scene, const struct memos_id *id, uint64_t seq)
{
    ProtobufCBinaryData own = {.len = 16};
    Memos__Rollback body = MEMOS__ROLLBACK__INIT;
    Memos__AsOf to = MEMOS__AS_OF__INIT;
    Memos__Request request;
    own.data = id ? (uint8_t *)(uintptr_t)id->bytes : NULL;
    to.seq = seq;
    body.space = text_of(SCENE_SPACE);
    body.ids = &own;
    body.n_ids = id ? 1 : 0;
    body.to = &to;
    REQUEST(request, ROLLBACK, rollback, body);
    struct answer answer = asked(scene, &request, NULL);
    answer_free(&answer);
}

void scene_forget(struct scene *scene, const struct memos_id *id)
{
    forget_text(scene->fixture.owner, SCENE_SPACE, id);
}

struct memos_message *scene_captures(struct scene *scene)
{
    char *subtypes[] = {text_of("kv")};
    Memos__Filter filter = MEMOS__FILTER__INIT;
    Memos__List body = MEMOS__LIST__INIT;
    Memos__Request request;
    filter.subtypes = subtypes;
    filter.n_subtypes = 1;
    filter.include_stale = true;
    body.space = text_of(SCENE_SPACE);
    body.filter = &filter;
    REQUEST(request, LIST, list, body);
    return asked(scene, &request, NULL).message;
}

struct memos_bytes scene_payload(struct scene *scene, const struct memos_id *id)
{
    ProtobufCBinaryData own = {.len = 16, .data = (uint8_t *)(uintptr_t)id->bytes};
    Memos__Get body = MEMOS__GET__INIT;
    Memos__Request request;
    body.space = text_of(SCENE_SPACE);
    body.ids = &own;
    body.n_ids = 1;
    REQUEST(request, GET, get, body);
    struct answer answer = asked(scene, &request, NULL);
    const struct memos_bytes frame =
        memos_message_frame(answer.message, answer.reply->cubes->cubes[0]->frame);
    void *copy = malloc(frame.size);
    assert_non_null(copy);
    memcpy(copy, frame.data, frame.size);
    answer_free(&answer);
    return memos_bytes_make(copy, frame.size);
}

/* ---- what is asked --------------------------------------------------------------------------- */

enum memos_status scene_prepare(struct scene *scene, const struct scene_wish *wish,
    struct scene_round *out, struct memos_error *err)
{
    Memos__Generate generate = MEMOS__GENERATE__INIT;
    Memos__ChatMessage message = MEMOS__CHAT_MESSAGE__INIT, *messages[] = {&message};
    Memos__Memory memory = MEMOS__MEMORY__INIT;
    Memos__AsOf as_of = MEMOS__AS_OF__INIT;
    Memos__Ref refs[16], *pointers[16];
    const struct memos_bytes frame = memos_bytes_of(wish->question);
    *out = (struct scene_round){0};
    assert_true(wish->named_count <= 16);
    for (size_t i = 0; i < wish->named_count; i++) {
        memos__ref__init(&refs[i]);
        refs[i].id =
            (ProtobufCBinaryData){.len = 16, .data = (uint8_t *)(uintptr_t)wish->named[i].bytes};
        pointers[i] = &refs[i];
    }
    memory.budget_tokens = 1200;
    memory.search = wish->search;
    memory.cubes = pointers;
    memory.n_cubes = wish->named_count;
    memory.captures = wish->captures;
    memory.capture = wish->capture;
    memory.independent = wish->independent;
    as_of.seq = wish->as_of;
    memory.as_of = wish->as_of > 0 ? &as_of : NULL;
    memory.recompute_tokens = wish->recompute;
    message.role = text_of("user");
    message.frame = 1;
    generate.space = text_of(SCENE_SPACE);
    generate.memory = &memory;
    if (scene->tiny.host.chat) {
        generate.messages = messages;
        generate.n_messages = 1;
    } else {
        generate.prompt_frame = 1;
    }
    return worker_memory_prepare(
        scene->memory, &scene->tiny.host, &scene->fetch, &generate, &frame, 1, &out->prompt, err);
}

void scene_run(struct scene *scene, const struct scene_wish *wish, struct scene_round *out)
{
    struct memos_error err = {0};
    if (scene_prepare(scene, wish, out, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    scene_finish(scene, out);
}

void scene_finish(struct scene *scene, struct scene_round *out)
{
    struct worker_prompt *prompt = out->prompt;
    worker_memory_fuse(scene->memory, &scene->tiny.host, prompt);
    tiny_host_answer(&scene->tiny, prompt->ids.ids, prompt->ids.count, prompt->placed,
        prompt->placed_count, SCENE_TOKENS, &out->answer);
    worker_memory_told(scene->memory, &scene->tiny.host, prompt, &out->answer.result,
        out->answer.ids, out->answer.count);
}

void scene_assert_plain(struct scene *scene, const struct scene_round *round)
{
    struct tiny_answer plain;
    tiny_host_forget(&scene->tiny);
    tiny_host_answer(&scene->tiny, round->prompt->ids.ids, round->prompt->ids.count, NULL, 0,
        SCENE_TOKENS, &plain);
    assert_memory_equal(plain.ids, round->answer.ids, plain.count * sizeof *plain.ids);
}

void scene_free(struct scene *scene, struct scene_round *round)
{
    scene->open = NULL;
    worker_prompt_free(scene->memory, &round->prompt);
}

bool scene_keep(struct scene *scene, struct scene_round *round, struct memcube_ref *out)
{
    struct worker_capture *capture = NULL;
    Memos__CaptureMade *made = &scene->kept;
    struct memos_error err = {0};
    OK(worker_memory_wanted(scene->memory, &scene->tiny.host, round->prompt, &capture, &err));
    if (!capture) {
        return false;
    }
    OK(worker_capture_read(&scene->tiny.host, capture, &err));
    const enum memos_status status = worker_capture_put(
        scene->memory, &scene->tiny.host, &scene->fetch, capture, &scene->arena, made, &err);
    if (status == MEMOS_CONFLICT) {
        worker_capture_free(&capture);
        return false;
    }
    if (status != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(made->tokens, capture->asked.count);
    memcpy(out->id.bytes, made->ref->id.data, sizeof out->id.bytes);
    out->number = made->ref->number;
    worker_capture_free(&capture);
    return true;
}

bool scene_noted(const struct scene_round *round, const char *part)
{
    const Memos__Receipt *receipt = round->prompt->receipt;
    for (size_t i = 0; i < receipt->n_notes; i++) {
        if (strstr(receipt->notes[i], part)) {
            return true;
        }
    }
    return false;
}

size_t scene_from_kv(const struct scene_round *round)
{
    const Memos__Receipt *receipt = round->prompt->receipt;
    size_t tokens = 0;
    for (size_t i = 0; i < receipt->n_items; i++) {
        const uint32_t used_as = receipt->items[i]->used_as;
        tokens += used_as == 2 || used_as == 4 ? receipt->items[i]->tokens : 0;
    }
    return tokens;
}
