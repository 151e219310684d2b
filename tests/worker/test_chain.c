/* What a user would lose: the disk, to captures that keep their common beginning again and again;
 * or, with that kept once, the truth, to answers made of half a text, or of one that has changed.
 */
#include "memos/worker/catalogue.h"
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

enum { TURNS = 12 };

/* A conversation that grows. */
struct talk {
    struct scene *scene;
    struct memos_id turns[TURNS];
    size_t count;
};

static void say(struct talk *talk)
{
    static const char *const what[] = {"the train to Porto leaves at noon",
        "Bo cannot eat the cake", "there will be a dance by the river"};
    char text[160];
    (void)snprintf(
        text, sizeof text, "Number %zu of that day: %s.", talk->count, what[talk->count % 3]);
    talk->turns[talk->count] = scene_put(talk->scene, text, 1 + (int64_t)talk->count);
    talk->count++;
}

static struct scene_wish wish_of(const struct talk *talk, bool capture)
{
    return (struct scene_wish){.question = "And then?",
        .named = talk->turns,
        .named_count = talk->count,
        .capture = capture};
}

/* Ask with all that was said in mind, and keep what the model made of it. */
static struct memcube_ref keep(struct talk *talk)
{
    const struct scene_wish wish = wish_of(talk, true);
    struct scene_round round;
    struct memcube_ref ref;
    scene_run(talk->scene, &wish, &round);
    scene_assert_plain(talk->scene, &round);
    assert_true(scene_keep(talk->scene, &round, &ref));
    scene_free(talk->scene, &round);
    return ref;
}

/* Three turns in two captures, the second of which continues the first; of how many tokens that is.
 */
static size_t keep_two(struct talk *talk)
{
    say(talk);
    say(talk);
    (void)keep(talk);
    const size_t tokens = talk->scene->kept.tokens;
    say(talk);
    (void)keep(talk);
    return tokens;
}

/* Ask a worker that has just been started: how many captures the answer has, of how many tokens. */
static size_t links_of(struct talk *talk, size_t *out_tokens, bool *out_is_all)
{
    const struct scene_wish wish = wish_of(talk, false);
    struct scene_round round;
    size_t links = 0, at = 0;
    scene_restart(talk->scene);
    scene_run(talk->scene, &wish, &round);
    const Memos__Receipt *receipt = round.prompt->receipt;
    for (size_t i = 0; i < receipt->n_items; i++) {
        if (receipt->items[i]->used_as == WORKER_USED_KV) {
            assert_int_equal(receipt->items[i]->first_token, at);
            at += receipt->items[i]->tokens;
            links++;
        }
    }
    assert_int_equal(round.answer.result.cached_tokens, at);
    *out_tokens = at;
    *out_is_all = at == round.prompt->memory_tokens / KERN_PAGE_TOKENS * KERN_PAGE_TOKENS;
    scene_assert_plain(talk->scene, &round);
    scene_free(talk->scene, &round);
    return links;
}

static void a_longer_one_keeps_the_rest(void **state)
{
    struct talk talk = {.scene = *state};
    size_t tokens;
    bool is_all;
    say(&talk);
    say(&talk);
    (void)keep(&talk);
    assert_int_equal(talk.scene->kept.shared_tokens, 0);
    const uint64_t first_bytes = talk.scene->kept.bytes;
    const size_t first_tokens = talk.scene->kept.tokens;
    say(&talk);
    (void)keep(&talk);
    assert_int_equal(talk.scene->kept.shared_tokens, first_tokens);
    assert_true(talk.scene->kept.bytes < first_bytes);
    for (int sent = 0; sent < 2; sent++) { /* mapped, then over the socket */
        talk.scene->fetch.same_host = !sent;
        assert_int_equal(links_of(&talk, &tokens, &is_all), 2);
        assert_true(is_all);
    }
    talk.count = 2;
    assert_int_equal(links_of(&talk, &tokens, &is_all), 1); /* the first one alone */
    assert_true(is_all);
}

/* However long it gets: all of it is found, in at most so many pieces, and kept about once. */
static void a_growing_conversation(void **state)
{
    struct talk talk = {.scene = *state};
    uint64_t bytes = 0, whole = 0;
    size_t tokens;
    bool is_all;
    while (talk.count < TURNS) {
        say(&talk);
        say(&talk);
        (void)keep(&talk);
        const Memos__CaptureMade *kept = &talk.scene->kept;
        bytes += kept->bytes;
        whole += kept->bytes / (kept->tokens - kept->shared_tokens) * kept->tokens;
        const size_t links = links_of(&talk, &tokens, &is_all);
        assert_in_range(links, 1, WORKER_CHAIN_MAX);
        assert_int_equal(links, talk.count / 2);
        assert_true(is_all);
    }
    print_message(
        "%llu bytes; %llu without sharing\n", (unsigned long long)bytes, (unsigned long long)whole);
    assert_true(2 * bytes < whole);
}

static void an_end_of_chains(void **state)
{
    struct talk talk = {.scene = *state};
    size_t tokens, longest = 0, shared = 0;
    bool is_all;
    say(&talk);
    while (talk.count < TURNS) {
        say(&talk);
        (void)keep(&talk);
        shared += talk.scene->kept.shared_tokens > 0;
        const size_t links = links_of(&talk, &tokens, &is_all);
        assert_in_range(links, 1, WORKER_CHAIN_MAX);
        assert_true(is_all);
        longest = links > longest ? links : longest;
    }
    assert_int_equal(longest, WORKER_CHAIN_MAX);
    assert_true(shared < TURNS - 2); /* one began anew */
}

/* A beginning that has changed takes with it what continues it; what follows it, only itself. */
static void stale_with_its_beginning(void **state)
{
    struct talk talk = {.scene = *state};
    size_t tokens, first_tokens;
    bool is_all;
    first_tokens = keep_two(&talk);
    const uint64_t before = scene_seq(talk.scene);
    scene_update(talk.scene, &talk.turns[2], "It was not said like this.");
    assert_int_equal(links_of(&talk, &tokens, &is_all), 1);
    assert_in_range(tokens, first_tokens, first_tokens);
    scene_rollback(talk.scene, &talk.turns[2], before);
    assert_int_equal(links_of(&talk, &tokens, &is_all), 2);
    assert_true(is_all);
    scene_update(talk.scene, &talk.turns[0], "Nor was this.");
    assert_int_equal(links_of(&talk, &tokens, &is_all), 0);
    scene_rollback(talk.scene, &talk.turns[0], before);
    assert_int_equal(links_of(&talk, &tokens, &is_all), 2);
    assert_true(is_all);
}

/* Another capture of the same tokens: what is refused once is refused by its hash. */
static void seal_anew(struct memos_bytes bytes)
{
    struct paramem_kv_cube cube;
    void *memory = aligned_alloc(256, (bytes.size + 255) / 256 * 256);
    assert_non_null(memory);
    memcpy(memory, bytes.data, bytes.size);
    OK(paramem_kv_cube_read(memos_bytes_make(memory, bytes.size), &cube, NULL));
    memset((uint8_t *)memory + (cube.data - (uint8_t *)memory), 0, 16);
    paramem_kv_cube_seal(&cube, memory, NULL);
    memcpy((void *)(uintptr_t)bytes.data, memory, bytes.size);
    free(memory);
}

/* The bytes that a capture continues are wrong, others', or gone: its own are of no use then. */
static void a_damaged_beginning(void **state)
{
    struct talk talk = {.scene = *state};
    size_t tokens;
    bool is_all;
    say(&talk);
    say(&talk);
    const struct memcube_ref first = keep(&talk);
    const struct memos_bytes good = scene_payload(talk.scene, &first.id);
    say(&talk);
    const struct memcube_ref second = keep(&talk);
    const struct memos_bytes rest = scene_payload(talk.scene, &second.id);
    const uint64_t before = scene_seq(talk.scene);
    seal_anew(good);
    scene_damage(talk.scene, &second.id, good); /* begins a context: continues nothing */
    assert_int_equal(links_of(&talk, &tokens, &is_all), 1);
    scene_rollback(talk.scene, &second.id, before);
    scene_damage(talk.scene, &first.id, rest); /* and this one does: alone, it is in no place */
    assert_int_equal(links_of(&talk, &tokens, &is_all), 0);
    scene_rollback(talk.scene, &first.id, before);
    assert_int_equal(links_of(&talk, &tokens, &is_all), 2);
    scene_forget(talk.scene, &first.id);
    assert_int_equal(links_of(&talk, &tokens, &is_all), 0);
    free((void *)(uintptr_t)good.data);
    free((void *)(uintptr_t)rest.data);
}

/* Another cube between them: what follows is not what was read. */
static void what_comes_between(void **state)
{
    struct talk talk = {.scene = *state};
    size_t tokens, first_tokens;
    bool is_all;
    first_tokens = keep_two(&talk);
    const struct memos_id third = talk.turns[2];
    talk.turns[2] = scene_put(talk.scene, "Something else altogether, which was said by Bo.", 9);
    talk.turns[3] = third;
    talk.count = 4;
    (void)links_of(&talk, &tokens, &is_all);
    assert_in_range(tokens, first_tokens, first_tokens + KERN_PAGE_TOKENS);
    assert_false(is_all);
}

/* Who asks for answers without captures, of cubes that are hot, does not replace what is there by
 * the same in other pieces, which would make stale what continues it. */
static void who_loads_none_spoils_none(void **state)
{
    struct talk talk = {.scene = *state};
    struct scene_round round;
    struct memcube_ref ref;
    size_t tokens;
    bool is_all;
    for (int i = 0; i < 3; i++) {
        say(&talk);
        if (i > 0) {
            (void)keep(&talk);
        }
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(links_of(&talk, &tokens, &is_all), 2);
    }
    for (int i = 0; i < 6; i++) {
        struct scene_wish wish = wish_of(&talk, i % 3 == 2);
        tiny_host_forget(&talk.scene->tiny);
        wish.captures = i % 3 == 0 ? 0 : 1; /* now and then, so that they are hot */
        scene_run(talk.scene, &wish, &round);
        assert_false(scene_keep(talk.scene, &round, &ref));
        scene_free(talk.scene, &round);
    }
    assert_int_equal(links_of(&talk, &tokens, &is_all), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE_TEST(a_longer_one_keeps_the_rest),
        SCENE_TEST(a_growing_conversation),
        SCENE_TEST(an_end_of_chains),
        SCENE_TEST(stale_with_its_beginning),
        SCENE_TEST(a_damaged_beginning),
        SCENE_TEST(what_comes_between),
        SCENE_TEST(who_loads_none_spoils_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
