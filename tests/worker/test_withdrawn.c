/* What a user would lose: the certainty that what he took back is not used any more, whatever was
 * captured, cached or under way when he took it back.
 *
 * Random changes of a space, captures and answers, one after the other and into one another; a
 * plain model of what each cube said after each record of the history decides what an answer may
 * use. */
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

enum { CUBES_MAX = 8, SAID_MAX = 400, STEPS = 220, TEXT_BYTES = 160, NOTHING = -1, FORGOTTEN = -2 };

/* From record seq on, a cube says text `said`, or nothing. */
struct fact {
    uint64_t seq;
    int cube, said;
};

struct world {
    struct scene *scene;
    uint64_t random;
    struct memos_id ids[CUBES_MAX];
    int cubes;
    char texts[SAID_MAX][TEXT_BYTES];
    int said;
    struct fact facts[STEPS * 2 * CUBES_MAX];
    size_t facts_count;
    /* what happened */
    size_t answers, reused, continued, captured, conflicts, changed_under_way;
};

static size_t below(struct world *w, size_t end)
{
    return tiny_below(&w->random, end);
}

/* ---- the model ------------------------------------------------------------------------------- */

/* What a cube said as of a record. */
static int said_at(const struct world *w, int cube, uint64_t seq)
{
    int said = NOTHING;
    for (size_t i = 0; i < w->facts_count; i++) {
        if (w->facts[i].cube == cube && w->facts[i].seq <= seq) {
            said = w->facts[i].said;
        }
    }
    return said;
}

static int said_now(const struct world *w, int cube)
{
    return said_at(w, cube, UINT64_MAX);
}

static void tell(struct world *w, int cube, int said)
{
    assert_true(w->facts_count < sizeof w->facts / sizeof w->facts[0]);
    w->facts[w->facts_count++] = (struct fact){scene_seq(w->scene), cube, said};
}

/* A text that nobody has said; its number is in it. */
static int text_new(struct world *w)
{
    static const char *const words[] = {"the river", "a folder", "blue almonds", "north",
        "my sister", "Porto", "dancing", "at noon", "nobody knows", "cake"};
    assert_true(w->said < SAID_MAX);
    char *text = w->texts[w->said];
    size_t size = (size_t)snprintf(text, TEXT_BYTES, "word%dend", w->said);
    for (size_t n = below(w, 9); n > 0 && size + 20 < TEXT_BYTES; n--) {
        size += (size_t)snprintf(text + size, TEXT_BYTES - size, " %s", words[below(w, 10)]);
    }
    return w->said++;
}

/* ---- changes --------------------------------------------------------------------------------- */

static void change_put(struct world *w)
{
    if (w->cubes < CUBES_MAX) {
        const int said = text_new(w);
        w->ids[w->cubes] = scene_put(w->scene, w->texts[said], w->cubes + 1);
        tell(w, w->cubes++, said);
    }
}

static void change_update(struct world *w)
{
    const int cube = w->cubes > 0 ? (int)below(w, (size_t)w->cubes) : 0;
    if (w->cubes > 0 && said_now(w, cube) >= 0) {
        const int said = text_new(w);
        scene_update(w->scene, &w->ids[cube], w->texts[said]);
        tell(w, cube, said);
    }
}

static void change_rollback(struct world *w, bool all)
{
    const uint64_t now = w->cubes > 0 ? scene_seq(w->scene) : 0;
    const uint64_t to = now > 1 ? now - below(w, now < 8 ? now - 1 : 8) : 0;
    const int cube = w->cubes > 0 ? (int)below(w, (size_t)w->cubes) : 0;
    if (to == 0 || (!all && said_now(w, cube) == FORGOTTEN)) {
        return;
    }
    scene_rollback(w->scene, all ? NULL : &w->ids[cube], to);
    for (int i = 0; i < w->cubes; i++) {
        if ((all || i == cube) && said_now(w, i) != FORGOTTEN) {
            tell(w, i, said_at(w, i, to));
        }
    }
}

static void change_forget(struct world *w)
{
    const int cube = w->cubes > 0 ? (int)below(w, (size_t)w->cubes) : 0;
    if (w->cubes > 0 && said_now(w, cube) >= 0 && below(w, 3) == 0) {
        scene_forget(w->scene, &w->ids[cube]);
        tell(w, cube, FORGOTTEN);
    }
}

static void change(struct world *w)
{
    switch (below(w, 8)) {
    case 0:
    case 1:
        change_put(w);
        break;
    case 2:
    case 3:
    case 4:
        change_update(w);
        break;
    case 5:
        change_rollback(w, false);
        break;
    case 6:
        change_rollback(w, true);
        break;
    default:
        change_forget(w);
        break;
    }
}

/* Some of the cubes that say something now. */
static size_t choose(struct world *w, struct memos_id out[CUBES_MAX])
{
    const bool is_beginning = below(w, 3) > 0; /* of others', so that captures continue others */
    const int end = is_beginning ? 1 + (int)below(w, CUBES_MAX) : w->cubes;
    size_t count = 0;
    for (int i = 0; i < w->cubes && i < end; i++) {
        if (said_now(w, i) >= 0 && (is_beginning || below(w, 4) > 0)) {
            out[count++] = w->ids[i];
        }
    }
    return count;
}

/* ---- captures -------------------------------------------------------------------------------- */

static void capture(struct world *w)
{
    struct scene *scene = w->scene;
    struct memos_id ids[CUBES_MAX];
    ProtobufCBinaryData bytes[CUBES_MAX];
    struct worker_capture **made = NULL;
    Memos__CaptureMade **existing, told;
    size_t count, existing_count;
    Memos__Capture body = MEMOS__CAPTURE__INIT;
    char space[] = SCENE_SPACE;
    struct memos_error err = {0};
    body.n_ids = choose(w, ids);
    for (size_t i = 0; i < body.n_ids; i++) {
        bytes[i] = (ProtobufCBinaryData){.len = 16, .data = ids[i].bytes};
    }
    body.space = space;
    body.ids = bytes;
    body.independent = below(w, 2);
    if (body.n_ids == 0) {
        return;
    }
    OK(worker_capture_plan(scene->memory, &scene->tiny.host, &scene->fetch, &body, NULL, 0, &made,
        &count, &existing, &existing_count, &scene->arena, &err));
    if (below(w, 3) == 0) {
        change(w);
    }
    for (size_t i = 0; i < count; i++) {
        OK(worker_capture_read(&scene->tiny.host, made[i], &err));
        const enum memos_status status = worker_capture_put(
            scene->memory, &scene->tiny.host, &scene->fetch, made[i], &scene->arena, &told, &err);
        if (status != MEMOS_OK && status != MEMOS_CONFLICT) {
            fail_msg("%s: %s", memos_status_name(status), err.text);
        }
        w->captured += status == MEMOS_OK;
        w->conflicts += status == MEMOS_CONFLICT;
        worker_capture_free(&made[i]);
    }
    free(made);
}

/* ---- answers --------------------------------------------------------------------------------- */

/* Every text in the prompt was said as of the receipt's record, and no other. */
static void check_texts(struct world *w, const struct scene_round *round)
{
    const struct worker_prompt *prompt = round->prompt;
    const Memos__Receipt *receipt = prompt->receipt;
    char *text = tiny_host_text(&w->scene->tiny, prompt->ids.ids, prompt->ids.count);
    for (int said = 0; said < w->said; said++) {
        char word[32];
        bool may = false;
        (void)snprintf(word, sizeof word, "word%dend", said);
        for (int cube = 0; cube < w->cubes; cube++) {
            may = may || said_at(w, cube, receipt->seq) == said;
        }
        if (!may && strstr(text, word)) {
            fail_msg(
                "%s was taken back before record %llu", word, (unsigned long long)receipt->seq);
        }
    }
    free(text);
}

/* The captures that hold as of the receipt's record, says the store. */
static struct answer captures_then(struct world *w, const struct scene_round *round)
{
    char kv[] = "kv", *subtypes[] = {kv};
    Memos__Filter filter = MEMOS__FILTER__INIT;
    Memos__AsOf as_of = MEMOS__AS_OF__INIT;
    Memos__List body = MEMOS__LIST__INIT;
    Memos__Request request;
    filter.subtypes = subtypes;
    filter.n_subtypes = 1;
    as_of.seq = round->prompt->receipt->seq;
    body.space = round->prompt->receipt->space;
    body.filter = &filter;
    body.as_of = &as_of;
    body.count_max = 1000;
    REQUEST(request, LIST, list, body);
    return ask(w->scene->fixture.owner, &request, NULL);
}

static void check_captures(const struct scene_round *round, const struct answer *then)
{
    const Memos__Receipt *receipt = round->prompt->receipt;
    for (size_t i = 0; i < receipt->n_items; i++) {
        const Memos__ReceiptItem *item = receipt->items[i];
        bool held = item->used_as == 1 || item->used_as == 3;
        for (size_t j = 0; j < then->reply->cubes->n_cubes && !held; j++) {
            const Memos__Cube *cube = then->reply->cubes->cubes[j];
            held = memcmp(cube->id.data, item->ref->id.data, 16) == 0 &&
                   cube->number == item->ref->number; /* stale ones are not listed */
        }
        assert_true(held);
    }
}

/* Of how many captures the prompt's beginning is. */
static size_t links_of(const struct scene_round *round)
{
    const Memos__Receipt *receipt = round->prompt->receipt;
    size_t links = 0;
    for (size_t i = 0; i < receipt->n_items; i++) {
        links += receipt->items[i]->used_as == WORKER_USED_KV;
    }
    return links;
}

static void check_answer(struct world *w, const struct scene_round *round)
{
    struct tiny_answer plain;
    const struct worker_prompt *prompt = round->prompt;
    if (prompt->placed_count > 0 || below(w, 3) > 0) {
        return; /* an approximation; or not this time */
    }
    tiny_host_forget(&w->scene->tiny);
    tiny_host_answer(
        &w->scene->tiny, prompt->ids.ids, prompt->ids.count, NULL, 0, SCENE_TOKENS, &plain);
    assert_memory_equal(plain.ids, round->answer.ids, plain.count * sizeof *plain.ids);
}

static void answer(struct world *w)
{
    struct scene *scene = w->scene;
    struct memos_id ids[CUBES_MAX];
    struct scene_round round;
    struct memos_error err = {0};
    struct memcube_ref ref;
    struct scene_wish wish = {.question = "What of the river and the cake?",
        .named = ids,
        .capture = below(w, 3) == 0,
        .independent = below(w, 4) == 0,
        .captures = below(w, 2) ? 2 : 0};
    wish.search = below(w, 3) == 0;
    wish.named_count = wish.search ? 0 : choose(w, ids);
    if (scene_prepare(scene, &wish, &round, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    struct answer then = captures_then(w, &round);
    if (below(w, 4) == 0) {
        change(w);
        w->changed_under_way++;
    }
    scene_finish(scene, &round);
    check_texts(w, &round);
    check_captures(&round, &then);
    answer_free(&then);
    check_answer(w, &round);
    w->answers++;
    w->reused += scene_from_kv(&round) > 0;
    w->continued += links_of(&round) > 1;
    w->captured += scene_keep(scene, &round, &ref) ? 1 : 0;
    scene_free(scene, &round);
}

static void step(struct world *w)
{
    switch (below(w, 10)) {
    case 0:
    case 1:
    case 2:
        change(w);
        break;
    case 3:
    case 4:
        capture(w);
        break;
    case 5:
        if (below(w, 4) == 0) {
            scene_restart(w->scene);
        } else {
            tiny_host_forget(&w->scene->tiny);
        }
        break;
    default:
        if (w->cubes > 0) {
            answer(w);
        }
        break;
    }
}

static void nothing_withdrawn_is_used(void **state)
{
    static struct world w;
    static struct scene scene;
    (void)state;
    const char *given = getenv("MEMOS_TEST_SEED");
    w = (struct world){.scene = &scene, .random = given ? strtoull(given, NULL, 10) : 1};
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)w.random);
    scene_begin(&scene, &(struct tiny_host_options){0});
    for (int i = 0; i < STEPS; i++) {
        step(&w);
    }
    print_message("%zu answers, %zu with captures, %zu with several of one text, %zu changes under "
                  "way; %zu captures, %zu came too late\n",
        w.answers, w.reused, w.continued, w.changed_under_way, w.captured, w.conflicts);
    assert_true(w.answers > 20 && w.captured > 5 && (given || w.continued > 0));
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_withdrawn_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
