/* What a user would lose: an answer that uses what he took back; one that differs because memory
 * was loaded instead of read; a worker that a damaged capture stops; receipts that say what was
 * not. */
#include "memos/worker/memory_internal.h"
#include "memos/worker/receipt_json.h"

#include "tests/worker/scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

static const char wedding[] =
    "My sister Lea is getting married on 14 June in Porto, and there will be a dance in the old "
    "market hall by the river, which opens at six.";
static const char train[] =
    "The train to Porto leaves at noon from the north station; the tickets are in the blue folder "
    "on the shelf, behind the plant that never flowers.";
static const char cousin[] =
    "Our cousin Bo cannot eat nuts, and the cake for the wedding is made with almonds unless "
    "somebody calls the baker before the first of June.";

/* The three of them, in their order. */
struct three {
    struct memos_id ids[3];
};

static struct three three_put(struct scene *scene)
{
    return (struct three){
        {scene_put(scene, wedding, 1), scene_put(scene, train, 2), scene_put(scene, cousin, 3)}};
}

static struct scene_wish wish_of(const struct three *three, const char *question)
{
    return (struct scene_wish){.question = question, .named = three->ids, .named_count = 3};
}

/* ---- texts ----------------------------------------------------------------------------------- */

static void found_placed_and_told(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    const struct three three = three_put(scene);
    const struct scene_wish wish = {
        .question = "When does the train to Porto leave?", .search = true};
    scene_run(scene, &wish, &round);
    const Memos__Receipt *receipt = round.prompt->receipt;
    assert_in_range(receipt->n_items, 1, 3);
    bool has_train = false;
    for (size_t i = 0; i < receipt->n_items; i++) {
        const Memos__ReceiptItem *item = receipt->items[i];
        assert_int_equal(item->used_as, 1);
        assert_int_equal(item->ref->number, 1);
        assert_true(item->score != 0 && item->tokens > 0 && item->mark[0] == '[');
        assert_true(item->first_token + item->tokens <= round.prompt->memory_tokens);
        has_train = has_train || memcmp(item->ref->id.data, three.ids[1].bytes, 16) == 0;
    }
    assert_true(has_train);
    assert_int_equal(receipt->seq, scene_seq(scene));
    assert_string_equal(receipt->space, SCENE_SPACE);
    assert_string_equal(receipt->principal, "owner");
    assert_string_equal(receipt->worker, "test/1");
    assert_int_equal(receipt->prompt_hash.len, 32);
    assert_int_equal(receipt->answer_hash.len, 32);
    scene_free(scene, &round);
}

/* The head's hash is the log's own: who has a receipt can hold it against the history. */
static void the_receipt_names_a_record(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    const struct three three = three_put(scene);
    const struct scene_wish wish = wish_of(&three, "What?");
    scene_run(scene, &wish, &round);
    const Memos__Receipt *receipt = round.prompt->receipt;
    Memos__Log body = MEMOS__LOG__INIT;
    Memos__Request request;
    body.space = receipt->space;
    body.from = receipt->seq;
    body.count_max = 1;
    REQUEST(request, LOG, log, body);
    struct answer answer = ask(scene->fixture.owner, &request, NULL);
    assert_int_equal(answer.reply->log_records->n_records, 1);
    assert_memory_equal(answer.reply->log_records->records[0]->hash.data, receipt->head.data, 32);
    answer_free(&answer);
    scene_free(scene, &round);
}

static void a_space_that_is_not_there(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct memos_error err;
    struct scene_wish wish = {.question = "Anything?", .search = true};
    scene_run(scene, &wish, &round);
    assert_int_equal(round.prompt->memory_tokens, 0);
    assert_true(scene_noted(&round, "there is no space"));
    scene_free(scene, &round);
    const struct memos_id nobody = {{1}};
    wish.named = &nobody;
    wish.named_count = 1;
    assert_int_equal(scene_prepare(scene, &wish, &round, &err), MEMOS_NOT_FOUND);
}

static void withdrawn_ones_are_refused(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct memos_error err;
    const struct memos_id id = scene_put(scene, wedding, 1);
    Memos__Ref ref = MEMOS__REF__INIT, *refs[] = {&ref};
    Memos__Memory memory = MEMOS__MEMORY__INIT;
    Memos__Generate generate = MEMOS__GENERATE__INIT;
    const struct memos_bytes frame = memos_bytes_of("?");
    char space[] = SCENE_SPACE;
    ref.id = (ProtobufCBinaryData){.len = 16, .data = (uint8_t *)(uintptr_t)id.bytes};
    ref.number = 1;
    memory.cubes = refs;
    memory.n_cubes = 1;
    generate.space = space;
    generate.memory = &memory;
    generate.prompt_frame = 1;
    OK(worker_memory_prepare(scene->memory, &scene->tiny.host, &scene->fetch, &generate, &frame, 1,
        &round.prompt, &err));
    scene_free(scene, &round);
    scene_update(scene, &id, train);
    assert_int_equal(worker_memory_prepare(scene->memory, &scene->tiny.host, &scene->fetch,
                         &generate, &frame, 1, &round.prompt, &err),
        MEMOS_STALE);
    assert_null(round.prompt);
    ref.number = 0;
    scene_forget(scene, &id);
    assert_int_equal(worker_memory_prepare(scene->memory, &scene->tiny.host, &scene->fetch,
                         &generate, &frame, 1, &round.prompt, &err),
        MEMOS_FORGOTTEN);
}

static void the_past_is_asked_for(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    const struct memos_id id = scene_put(scene, wedding, 1);
    const uint64_t before = scene_seq(scene);
    struct scene_wish wish = {.question = "?", .named = &id, .named_count = 1, .capture = true};
    struct memcube_ref ref;
    scene_update(scene, &id, train);
    wish.as_of = before;
    scene_run(scene, &wish, &round);
    assert_int_equal(round.prompt->receipt->seq, before);
    assert_int_equal(round.prompt->receipt->items[0]->ref->number, 1);
    assert_false(scene_keep(scene, &round, &ref)); /* it would be stale at once */
    scene_free(scene, &round);
    wish.as_of = 0;
    scene_run(scene, &wish, &round);
    assert_int_equal(round.prompt->receipt->items[0]->ref->number, 2);
    scene_free(scene, &round);
}

static void a_job_ends_when_nobody_waits(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct memos_error err;
    atomic_bool cancelled = true;
    const struct memos_clock clock = memos_clock_system();
    const struct three three = three_put(scene);
    const struct scene_wish wish = wish_of(&three, "?");
    scene->fetch.cancelled = &cancelled;
    assert_int_equal(scene_prepare(scene, &wish, &round, &err), MEMOS_CANCELLED);
    atomic_store(&cancelled, false);
    scene->fetch.deadline_us = clock.mono_us(clock.self) - 1;
    assert_int_equal(scene_prepare(scene, &wish, &round, &err), MEMOS_DEADLINE);
    scene->fetch.deadline_us = 0;
    scene->fetch.cancelled = NULL;
}

/* Ask as wished, and keep what the model made of the memory. */
static struct memcube_ref capture(struct scene *scene, struct scene_wish wish)
{
    struct scene_round round;
    struct memcube_ref ref;
    wish.capture = true;
    scene_run(scene, &wish, &round);
    assert_true(scene_keep(scene, &round, &ref));
    scene_free(scene, &round);
    return ref;
}

/* ---- captures -------------------------------------------------------------------------------- */

static void captured_and_reused(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct memcube_ref ref;
    const struct three three = three_put(scene);
    struct scene_wish wish = wish_of(&three, "What is there to do?");
    wish.capture = true;
    scene_run(scene, &wish, &round);
    assert_int_equal(scene_from_kv(&round), 0);
    assert_true(scene_keep(scene, &round, &ref));
    scene_free(scene, &round);
    for (int sent = 0; sent < 2; sent++) { /* mapped, then over the socket */
        scene_restart(scene);
        scene->fetch.same_host = !sent;
        wish.question = sent ? "Who?" : "Another question";
        scene_run(scene, &wish, &round);
        const size_t whole = round.prompt->memory_tokens / KERN_PAGE_TOKENS * KERN_PAGE_TOKENS;
        assert_int_equal(scene_from_kv(&round), whole);
        assert_int_equal(round.answer.result.cached_tokens, whole);
        struct worker_capture *none = NULL;
        OK(worker_memory_wanted(scene->memory, &scene->tiny.host, round.prompt, &none, NULL));
        assert_null(none); /* there is one */
        const Memos__ReceiptItem *item = round.prompt->receipt->items[3];
        assert_int_equal(item->used_as, WORKER_USED_KV);
        assert_memory_equal(item->ref->id.data, ref.id.bytes, 16);
        assert_true(item->bytes > whole && !item->approximate);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(round.prompt->receipt->items[i]->used_as, WORKER_USED_TEXT_IN_KV);
        }
        scene_assert_plain(scene, &round);
        scene_free(scene, &round);
    }
    struct worker_memory_stats stats;
    worker_memory_stats(scene->memory, &stats);
    assert_int_equal(stats.loaded, 1);
    assert_int_equal(stats.attached, 1);
    assert_true(stats.bytes_held > 0);
}

/* Other cubes at the end, fewer of them, or a capture that is longer: what is common is used. */
static void a_common_beginning_is_reused(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct memcube_ref ref;
    struct three three = three_put(scene);
    struct scene_wish wish = wish_of(&three, "?");
    wish.capture = true;
    scene_run(scene, &wish, &round);
    assert_true(scene_keep(scene, &round, &ref));
    const size_t end_of_second = round.prompt->receipt->items[2]->first_token;
    scene_free(scene, &round);
    scene_restart(scene);
    wish.capture = false;
    wish.named_count = 2;
    scene_run(scene, &wish, &round);
    assert_in_range(scene_from_kv(&round), end_of_second - KERN_PAGE_TOKENS + 1, end_of_second);
    scene_assert_plain(scene, &round);
    scene_free(scene, &round);
    scene_restart(scene);
    three.ids[2] = scene_put(scene, "Something else altogether was said, at length, by Bo.", 4);
    wish.named_count = 3;
    scene_run(scene, &wish, &round);
    assert_in_range(scene_from_kv(&round), end_of_second - KERN_PAGE_TOKENS + 1,
        end_of_second + KERN_PAGE_TOKENS);
    scene_assert_plain(scene, &round);
    scene_free(scene, &round);
}

static void stale_until_it_is_taken_back(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    const struct three three = three_put(scene);
    const struct scene_wish wish = wish_of(&three, "?");
    (void)capture(scene, wish);
    const uint64_t before = scene_seq(scene);
    scene_update(scene, &three.ids[1], "The train leaves at one.");
    scene_restart(scene);
    scene_run(scene, &wish, &round);
    assert_int_equal(scene_from_kv(&round), 0); /* even of the first cube, which still stands */
    assert_true(scene_noted(&round, "is stale"));
    assert_int_equal(round.prompt->receipt->items[1]->ref->number, 2);
    scene_assert_plain(scene, &round);
    scene_free(scene, &round);
    scene_rollback(scene, &three.ids[1], before);
    scene_restart(scene);
    scene_run(scene, &wish, &round);
    assert_true(scene_from_kv(&round) > 0);
    assert_int_equal(round.prompt->receipt->items[1]->ref->number, 3);
    assert_false(scene_noted(&round, "is stale"));
    scene_assert_plain(scene, &round);
    scene_free(scene, &round);
}

/* The cache must not remember what the store has withdrawn. */
static void a_warm_worker_hears_of_it(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct worker_memory_stats stats;
    const struct three three = three_put(scene);
    struct scene_wish wish = wish_of(&three, "?");
    (void)capture(scene, wish);
    tiny_host_forget(&scene->tiny);
    scene_run(scene, &wish, &round);
    assert_true(scene_from_kv(&round) > 0);
    scene_free(scene, &round);
    scene_forget(scene, &three.ids[2]);
    wish.named_count = 2;
    tiny_host_forget(&scene->tiny);
    scene_run(scene, &wish, &round);
    assert_int_equal(scene_from_kv(&round), 0);
    worker_memory_stats(scene->memory, &stats);
    assert_int_equal(stats.bytes_held, 0);
    scene_free(scene, &round);
}

/* Its file is overwritten while the engine has it mapped: what may have been read of zeros is not
 * used, and not kept. */
static void destroyed_while_it_is_attached(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct memos_error err;
    const struct three three = three_put(scene);
    const struct scene_wish wish = wish_of(&three, "?");
    const struct memcube_ref ref = capture(scene, wish);
    scene_restart(scene);
    if (scene_prepare(scene, &wish, &round, &err) != MEMOS_OK) { /* mapped, not attached yet */
        fail_msg("%s", err.text);
    }
    scene_forget(scene, &ref.id);
    scene_finish(scene, &round);
    assert_true(scene_noted(&round, "was destroyed while it was used"));
    assert_int_equal(scene_from_kv(&round), 0);
    assert_int_equal(round.answer.result.cached_tokens, 0);
    scene_assert_plain(scene, &round);
    scene_free(scene, &round);
}

static void hot_ones_are_made_anew(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct memcube_ref ref, again;
    const struct three three = three_put(scene);
    const struct scene_wish wish = wish_of(&three, "?");
    ref = capture(scene, wish);
    for (int use = 0; use < 2; use++) {
        tiny_host_forget(&scene->tiny);
        scene_run(scene, &wish, &round);
        assert_true(scene_from_kv(&round) > 0);
        assert_false(scene_keep(scene, &round, &again));
        scene_free(scene, &round);
    }
    scene_update(scene, &three.ids[0], "My sister Lea does not marry after all, she says now.");
    scene_run(scene, &wish, &round);
    assert_int_equal(scene_from_kv(&round), 0);
    assert_true(scene_keep(scene, &round, &again)); /* nobody asked for it */
    assert_memory_not_equal(again.id.bytes, ref.id.bytes, 16);
    scene_free(scene, &round);
    scene_restart(scene);
    scene_run(scene, &wish, &round);
    assert_true(scene_from_kv(&round) > 0);
    scene_assert_plain(scene, &round);
    scene_free(scene, &round);
}

/* Loading would cost more than it spares; what lies here would not. So it is brought, for the next.
 */
static void what_is_too_slow_comes_later(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    const struct three three = three_put(scene);
    const struct scene_wish wish = wish_of(&three, "?");
    (void)capture(scene, wish);
    scene_restart(scene);
    struct worker_cost *cost = worker_memory_cost(scene->memory, &scene->tiny.host);
    for (int i = 0; i < 20; i++) {
        worker_cost_saw_read(cost, 512, 500000); /* half a second */
        worker_cost_saw_load(cost, WORKER_MAPPED, 1 << 17, 900000);
    }
    scene_run(scene, &wish, &round);
    assert_int_equal(scene_from_kv(&round), 0);
    assert_true(scene_noted(&round, "was not loaded"));
    assert_true(worker_memory_has_later(round.prompt));
    worker_memory_bring_later(scene->memory, &scene->tiny.host, &scene->fetch, round.prompt);
    assert_false(worker_memory_has_later(round.prompt));
    scene_free(scene, &round);
    tiny_host_forget(&scene->tiny);
    scene_run(scene, &wish, &round);
    assert_true(scene_from_kv(&round) > 0);
    assert_int_equal(round.prompt->receipt->items[3]->bytes, 0); /* it was here */
    scene_free(scene, &round);
}

/* ---- what others did to them ----------------------------------------------------------------- */

/* A payload in the place of a capture's: read instead, noted, same answer. */
static void assert_refused(struct scene *scene, const struct scene_wish *wish,
    const struct memos_id *id, struct memos_bytes payload, const char *note)
{
    struct scene_round round;
    scene_damage(scene, id, payload);
    scene_restart(scene);
    scene_run(scene, wish, &round);
    assert_int_equal(scene_from_kv(&round), 0);
    if (!scene_noted(&round, note)) {
        fail_msg("no note says \"%s\"", note);
    }
    scene_assert_plain(scene, &round);
    scene_free(scene, &round);
    struct worker_memory_stats first, second;
    worker_memory_stats(scene->memory, &first);
    scene_run(scene, wish, &round); /* it is not fetched again to be refused again */
    worker_memory_stats(scene->memory, &second);
    assert_int_equal(first.refused, 1);
    assert_int_equal(second.refused, 1);
    assert_int_equal(second.bytes_fetched, first.bytes_fetched);
    assert_true(scene_noted(&round, note));
    scene_free(scene, &round);
}

static void damaged_ones_are_read_instead(void **state)
{
    struct scene *scene = *state;
    const struct three three = three_put(scene);
    const struct scene_wish wish = wish_of(&three, "?");
    const struct memcube_ref ref = capture(scene, wish);
    const struct memos_bytes good = scene_payload(scene, &ref.id);
    uint8_t *bytes = (uint8_t *)(uintptr_t)good.data;
    struct paramem_kv_cube cube;
    OK(paramem_kv_cube_read(good, &cube, NULL));
    assert_refused(scene, &wish, &ref.id, memos_bytes_make(bytes, good.size - 1), "was not used");
    assert_refused(scene, &wish, &ref.id, memos_bytes_make(bytes, 100), "was not used");
    assert_refused(scene, &wish, &ref.id, memos_bytes_of("no capture at all"), "was not used");
    bytes[good.size - 9] ^= 1;
    assert_refused(scene, &wish, &ref.id, good, "was not used");
    bytes[good.size - 9] ^= 1;
    memset((uint8_t *)(uintptr_t)cube.data, 0xff, 4); /* NaN, with checksums that are right */
    paramem_kv_cube_seal(&cube, bytes, NULL);
    assert_refused(scene, &wish, &ref.id, good, "was not used");
    memset((uint8_t *)(uintptr_t)cube.data, 0, 4);
    memset((uint8_t *)(uintptr_t)cube.fingerprint, 7, 32); /* another model's */
    assert_refused(scene, &wish, &ref.id, good, "was not used");
    free(bytes);
}

static void another_models_are_not_seen(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct memcube_ref ref;
    struct tiny_host other, own;
    const struct three three = three_put(scene);
    struct scene_wish wish = wish_of(&three, "?");
    wish.capture = true;
    ref = capture(scene, wish);
    tiny_host_make(&other, &(struct tiny_host_options){.seed = 2});
    own = scene->tiny;
    scene->tiny = other;
    scene_run(scene, &wish, &round);
    assert_int_equal(scene_from_kv(&round), 0);
    assert_true(scene_keep(scene, &round, &ref)); /* its own, beside the other */
    scene_free(scene, &round);
    struct memos_message *captures = scene_captures(scene);
    assert_int_equal(memos_message_reply(captures)->cubes->n_cubes, 2);
    memos_message_free(&captures);
    tiny_host_free(&scene->tiny);
    scene->tiny = own;
}

/* ---- a Capture job --------------------------------------------------------------------------- */

struct made {
    struct worker_capture **captures;
    Memos__CaptureMade **existing;
    size_t count, existing_count;
};

static enum memos_status plan(struct scene *scene, const struct three *three, size_t count,
    bool independent, struct made *out, struct memos_error *err)
{
    ProtobufCBinaryData ids[3];
    Memos__Capture capture = MEMOS__CAPTURE__INIT;
    char space[] = SCENE_SPACE;
    for (size_t i = 0; i < count; i++) {
        ids[i] =
            (ProtobufCBinaryData){.len = 16, .data = (uint8_t *)(uintptr_t)three->ids[i].bytes};
    }
    capture.space = space;
    capture.ids = ids;
    capture.n_ids = count;
    capture.independent = independent;
    return worker_capture_plan(scene->memory, &scene->tiny.host, &scene->fetch, &capture, NULL, 0,
        &out->captures, &out->count, &out->existing, &out->existing_count, &scene->arena, err);
}

static void made_free(struct made *made)
{
    for (size_t i = 0; i < made->count; i++) {
        worker_capture_free(&made->captures[i]);
    }
    free(made->captures);
}

static enum memos_status put_all(struct scene *scene, struct made *made, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < made->count && status == MEMOS_OK; i++) {
        Memos__CaptureMade told;
        OK(worker_capture_read(&scene->tiny.host, made->captures[i], err));
        status = worker_capture_put(scene->memory, &scene->tiny.host, &scene->fetch,
            made->captures[i], &scene->arena, &told, err);
    }
    return status;
}

static void captured_before_anybody_asks(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct made made;
    struct memos_error err = {0};
    const struct three three = three_put(scene);
    OK(plan(scene, &three, 3, false, &made, &err));
    assert_int_equal(made.count, 1);
    OK(put_all(scene, &made, &err));
    made_free(&made);
    OK(plan(scene, &three, 3, false, &made, &err));
    assert_int_equal(made.count, 0);
    assert_int_equal(made.existing_count, 1);
    assert_true(made.existing[0]->existed);
    made_free(&made);
    scene_restart(scene);
    const struct scene_wish wish = wish_of(&three, "What do you know?");
    scene_run(scene, &wish, &round);
    assert_int_equal(
        scene_from_kv(&round), round.prompt->memory_tokens / KERN_PAGE_TOKENS * KERN_PAGE_TOKENS);
    scene_assert_plain(scene, &round);
    scene_free(scene, &round);
    OK(plan(scene, &three, 0, false, &made, &err) == MEMOS_INVALID ? MEMOS_OK : MEMOS_INTERNAL);
}

static void what_changed_meanwhile_is_not_kept(void **state)
{
    struct scene *scene = *state;
    struct made made;
    struct memos_error err = {0};
    const struct three three = three_put(scene);
    OK(plan(scene, &three, 3, false, &made, &err));
    scene_update(scene, &three.ids[2], "Bo eats everything.");
    assert_int_equal(put_all(scene, &made, &err), MEMOS_CONFLICT);
    made_free(&made);
    struct memos_message *captures = scene_captures(scene);
    assert_int_equal(memos_message_reply(captures)->cubes->n_cubes, 0);
    memos_message_free(&captures);
}

static void readers_of_all_sources_alone(void **state)
{
    struct scene *scene = *state;
    struct made made;
    struct memos_error err = {0};
    struct three three = {.ids = {scene_put(scene, wedding, 1),
                              put_text(scene->fixture.owner, SCENE_SPACE, train, "bob")}};
    OK(plan(scene, &three, 2, false, &made, &err));
    OK(put_all(scene, &made, &err));
    made_free(&made);
    struct memos_message *captures = scene_captures(scene);
    const Memos__Cubes *cubes = memos_message_reply(captures)->cubes;
    assert_int_equal(cubes->n_cubes, 1);
    assert_int_equal(cubes->cubes[0]->n_readers, 1);
    assert_string_equal(cubes->cubes[0]->readers[0], "bob");
    memos_message_free(&captures);
    three.ids[0] = put_text(scene->fixture.owner, SCENE_SPACE, cousin, "carol");
    assert_int_equal(plan(scene, &three, 2, false, &made, &err), MEMOS_CONFLICT);
}

static void independent_ones_only_when_asked(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct made made;
    struct memos_error err = {0};
    const struct three three = three_put(scene);
    OK(plan(scene, &three, 3, true, &made, &err));
    assert_int_equal(made.count, 3);
    OK(put_all(scene, &made, &err));
    made_free(&made);
    scene_restart(scene);
    struct scene_wish wish = wish_of(&three, "?");
    scene_run(scene, &wish, &round);
    assert_int_equal(scene_from_kv(&round), 0);
    scene_assert_plain(scene, &round);
    scene_free(scene, &round);
    scene_restart(scene);
    wish.independent = true;
    wish.recompute = 8;
    scene_run(scene, &wish, &round);
    const Memos__Receipt *receipt = round.prompt->receipt;
    assert_int_equal(receipt->n_items, 6);
    size_t apart = 0;
    for (size_t i = 0; i < 6; i++) {
        const Memos__ReceiptItem *item = receipt->items[i];
        assert_true(item->approximate);
        assert_int_equal(item->used_as, i < 3 ? WORKER_USED_TEXT_IN_KV : WORKER_USED_KV_APART);
        apart += i < 3 ? 0 : item->tokens;
    }
    assert_int_equal(round.answer.result.placed_tokens, apart);
    scene_free(scene, &round);
}

/* ---- receipts -------------------------------------------------------------------------------- */

/* The files of such captures are read as long as the answer is made. */
static void destroyed_while_they_are_read(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct made made;
    struct memos_error err = {0};
    struct three three = three_put(scene);
    three.ids[1] = scene_put(scene, /* long enough for a file of its own */
        "The train to Porto leaves at noon from the north station; the tickets are in the blue "
        "folder on the shelf, behind the plant that never flowers, which is what the cousin of "
        "the baker said when somebody called about the cake.",
        2);
    OK(plan(scene, &three, 3, true, &made, &err));
    OK(put_all(scene, &made, &err));
    made_free(&made);
    scene_restart(scene);
    struct scene_wish wish = wish_of(&three, "?");
    wish.independent = true;
    scene_run(scene, &wish, &round);
    assert_int_equal(round.prompt->placed_count, 3);
    OK(worker_memory_stands(round.prompt, &err));
    scene_forget(scene, &three.ids[1]); /* and its capture with it */
    assert_int_equal(worker_memory_stands(round.prompt, &err), MEMOS_CONFLICT);
    assert_non_null(strstr(err.text, "was destroyed while it was used"));
    scene_free(scene, &round);
}

static void receipts_are_kept_and_not_remembered(void **state)
{
    struct scene *scene = *state;
    struct scene_round round;
    struct memcube_ref ref;
    struct memos_arena arena;
    Memos__Receipt *read = NULL;
    struct memos_error err = {0};
    const struct three three = three_put(scene);
    struct scene_wish wish = wish_of(&three, "receipt of what?");
    scene_run(scene, &wish, &round);
    OK(worker_receipt_put(&scene->fetch, round.prompt, &ref, &err));
    const struct memos_bytes json = scene_payload(scene, &ref.id);
    memos_arena_init(&arena, (size_t)1 << 20);
    OK(worker_receipt_read(json, &arena, &read, &err));
    assert_int_equal(memos__receipt__get_packed_size(read),
        memos__receipt__get_packed_size(round.prompt->receipt));
    assert_null(memmem(json.data, json.size, "Porto", 5)); /* names, no words */
    memos_arena_finish(&arena);
    free((void *)(uintptr_t)json.data);
    scene_free(scene, &round);
    wish.search = true;
    wish.named_count = 0;
    wish.question = "receipt text tokens micros version capture";
    scene_run(scene, &wish, &round);
    for (size_t i = 0; i < round.prompt->receipt->n_items; i++) {
        assert_memory_not_equal(round.prompt->receipt->items[i]->ref->id.data, ref.id.bytes, 16);
    }
    scene_free(scene, &round);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE_TEST(found_placed_and_told),
        SCENE_TEST(the_receipt_names_a_record),
        SCENE_TEST(a_space_that_is_not_there),
        SCENE_TEST(withdrawn_ones_are_refused),
        SCENE_TEST(the_past_is_asked_for),
        SCENE_TEST(a_job_ends_when_nobody_waits),
        SCENE_TEST(captured_and_reused),
        SCENE_TEST(a_common_beginning_is_reused),
        SCENE_TEST(stale_until_it_is_taken_back),
        SCENE_TEST(a_warm_worker_hears_of_it),
        SCENE_TEST(destroyed_while_it_is_attached),
        SCENE_TEST(hot_ones_are_made_anew),
        SCENE_TEST(what_is_too_slow_comes_later),
        SCENE_TEST(damaged_ones_are_read_instead),
        SCENE_TEST(another_models_are_not_seen),
        SCENE_TEST(captured_before_anybody_asks),
        SCENE_TEST(what_changed_meanwhile_is_not_kept),
        SCENE_TEST(readers_of_all_sources_alone),
        SCENE_TEST(independent_ones_only_when_asked),
        SCENE_TEST(destroyed_while_they_are_read),
        SCENE_TEST(receipts_are_kept_and_not_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
