/* What a user would lose: captures that are there and are not found, or found ones that a prompt
 * does not begin with; a capture that went stale and is still believed. */
#include "memos/worker/catalogue.h"

#include "tests/worker/scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

static const uint8_t fingerprint[32] = {0xfe, 0xed, 0x01};

/* A capture of these ids, one layer of one head; free its bytes. */
static struct paramem_kv_cube cube_make(const uint32_t *ids, size_t count, enum kern_dtype dtype)
{
    const struct paramem_kv_cube_shape shape = {
        .dtype = dtype, .layers = 1, .heads = 1, .head_dim = 8, .tokens = count};
    const size_t size = (size_t)paramem_kv_cube_bytes(&shape);
    struct paramem_kv_cube cube;
    void *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    assert_non_null(memory);
    paramem_kv_cube_begin(&shape, fingerprint, NULL, ids, memory, &cube);
    memset((uint8_t *)(uintptr_t)cube.data, 0, cube.blocks * cube.block_bytes);
    paramem_kv_cube_seal(&cube, memory, NULL);
    return cube;
}

static void cube_free(struct paramem_kv_cube *cube)
{
    free((void *)(uintptr_t)cube->bytes.data);
}

/* Put it as the worker does; `value` stands in the place of attribute `name`, if given. */
static struct memos_id put_capture(struct scene *scene, const struct paramem_kv_cube *cube,
    const struct memos_id *source, const char *name, const char *value)
{
    struct worker_description says;
    uint32_t *ids = calloc(cube->tokens, sizeof *ids);
    assert_non_null(ids);
    paramem_kv_cube_ids(cube, 0, cube->tokens, ids);
    const struct paramem_capture capture = {
        .ids = ids, .count = cube->tokens, .dtype = cube->dtype};
    OK(worker_description_make(cube->fingerprint, &capture, &says, NULL));
    free(ids);
    const char *const names[] = {"tokens", "dtype", "stride", "marks"};
    const char *const values[] = {
        says.tokens, says.dtype, says.stride, (const char *)says.marks.data};
    Memos__Attribute attributes[4], *pointers[4];
    Memos__Draft draft = MEMOS__DRAFT__INIT, *drafts[] = {&draft};
    Memos__Ref ref = MEMOS__REF__INIT, *refs[] = {&ref};
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request;
    char space[] = SCENE_SPACE, subtype[] = WORKER_KV_SUBTYPE, *tags[] = {says.tag};
    for (size_t i = 0; i < 4; i++) {
        memos__attribute__init(&attributes[i]);
        attributes[i].name = (char *)(uintptr_t)names[i];
        attributes[i].value = (char *)(uintptr_t)values[i];
        if (name && strcmp(names[i], name) == 0) {
            attributes[i].value = (char *)(uintptr_t)value;
        }
        pointers[i] = &attributes[i];
    }
    ref.id = (ProtobufCBinaryData){
        .len = 16, .data = source ? (uint8_t *)(uintptr_t)source->bytes : NULL};
    ref.number = 1;
    draft.kind = MEMCUBE_ACTIVATION;
    draft.subtype = subtype;
    draft.frame = 1;
    draft.model = (ProtobufCBinaryData){.len = 64, .data = (uint8_t *)says.model};
    draft.external_id = says.external_id;
    draft.tags = tags;
    draft.n_tags = 1;
    draft.attributes = pointers;
    draft.n_attributes = 4;
    draft.derived_from = refs;
    draft.n_derived_from = source ? 1 : 0;
    body.space = space;
    body.drafts = drafts;
    body.n_drafts = 1;
    REQUEST(request, PUT, put, body);
    struct answer answer = ask(scene->fixture.owner, &request, "payload");
    if (answer.status != MEMOS_OK) {
        fail_msg("%s", answer.reply->message);
    }
    struct memos_id id;
    memcpy(id.bytes, answer.reply->outcome->refs[0]->id.data, sizeof id.bytes);
    answer_free(&answer);
    worker_description_free(&says);
    return id;
}

static const struct worker_view *look(
    struct scene *scene, struct worker_catalogue *catalogue, bool *out_is_new)
{
    const struct worker_view *view = NULL;
    struct memos_error err;
    if (worker_catalogue_view(catalogue, &scene->fetch, SCENE_SPACE, fingerprint, scene_seq(scene),
            &view, out_is_new, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return view;
}

/* Ids that begin as others do: 0, 1, 2 ... up to `same`, then others. */
static void ids_make(uint32_t *out, size_t count, size_t same, uint32_t other)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = i < same ? (uint32_t)i : other + (uint32_t)i;
    }
}

/* What marks say is never more than what is common, and less by no more than a stride. */
static void as_much_as_is_common(void **state)
{
    enum { MOST = 20000, CAPTURES = 6 };
    static const size_t sizes[CAPTURES] = {32, 95, 640, 8159, 8192, MOST};
    struct scene *scene = *state;
    struct worker_catalogue *catalogue = NULL;
    uint32_t *ids = calloc(MOST, sizeof *ids);
    uint64_t random = 3;
    bool is_new;
    assert_non_null(ids);
    ids_make(ids, MOST, MOST, 0);
    OK(worker_catalogue_create(&catalogue, NULL));
    for (size_t i = 0; i < CAPTURES; i++) {
        struct paramem_kv_cube cube = cube_make(ids, sizes[i], KERN_F32);
        (void)put_capture(scene, &cube, NULL, NULL, NULL);
        cube_free(&cube);
    }
    const struct worker_view *view = look(scene, catalogue, &is_new);
    assert_int_equal(view->count, CAPTURES);
    assert_int_equal(view->not_read, 0);
    for (int round = 0; round < 60; round++) {
        const size_t count = 32 + tiny_below(&random, MOST - 32);
        const size_t same = tiny_below(&random, 2) ? tiny_below(&random, count) : count;
        struct memos_arena arena;
        size_t blocks;
        ids_make(ids, count, same, 1 << 20);
        memos_arena_init(&arena, (size_t)1 << 22);
        const struct paramem_key *keys =
            worker_keys_of(&arena, fingerprint, KERN_F32, ids, count, &blocks);
        assert_non_null(keys);
        for (size_t i = 0; i < view->count; i++) {
            const struct worker_known *known = &view->items[i];
            const size_t common = (same < known->tokens ? same : known->tokens) / 32 * 32;
            const size_t covers = worker_known_covers(known, keys, blocks);
            assert_true(covers <= common);
            assert_true(common - covers < 32 * known->stride);
            assert_true(known->tokens % 32 != 0 || same < known->tokens || covers == common);
        }
        memos_arena_finish(&arena);
    }
    worker_view_release(catalogue, view);
    worker_catalogue_destroy(&catalogue);
    free(ids);
}

/* Of another type or model nothing matches: keys are of both. */
static void of_this_type_and_model(void **state)
{
    (void)state;
    uint32_t ids[64];
    uint8_t other[32] = {0};
    ids_make(ids, 64, 64, 0);
    const struct paramem_key key = worker_key_of(fingerprint, KERN_F32, ids, 64);
    const struct paramem_key typed = worker_key_of(fingerprint, KERN_BF16, ids, 64);
    const struct paramem_key modelled = worker_key_of(other, KERN_F32, ids, 64);
    const struct paramem_key shorter = worker_key_of(fingerprint, KERN_F32, ids, 63);
    assert_memory_not_equal(&key, &typed, sizeof key);
    assert_memory_not_equal(&key, &modelled, sizeof key);
    assert_memory_not_equal(&key, &shorter, sizeof key);
}

static void asked_again_when_history_went_on(void **state)
{
    struct scene *scene = *state;
    struct worker_catalogue *catalogue = NULL;
    uint32_t ids[64];
    bool is_new;
    ids_make(ids, 64, 64, 0);
    OK(worker_catalogue_create(&catalogue, NULL));
    const struct memos_id source = scene_put(scene, "what it is of", 1);
    struct paramem_kv_cube cube = cube_make(ids, 64, KERN_F16);
    (void)put_capture(scene, &cube, &source, NULL, NULL);
    cube_free(&cube);
    const struct worker_view *first = look(scene, catalogue, &is_new);
    assert_true(is_new && first->count == 1 && !first->items[0].is_stale);
    assert_int_equal(first->items[0].dtype, KERN_F16);
    assert_int_equal(first->items[0].sources_count, 1);
    assert_memory_equal(first->items[0].sources[0].id.bytes, source.bytes, 16);
    const struct worker_view *second = look(scene, catalogue, &is_new);
    assert_false(is_new);
    assert_ptr_equal(first, second);
    const uint64_t before = scene_seq(scene);
    scene_update(scene, &source, "what it is not of");
    const struct worker_view *third = look(scene, catalogue, &is_new);
    assert_true(is_new && third->items[0].is_stale);
    assert_false(first->items[0].is_stale); /* what is held does not change */
    scene_rollback(scene, &source, before);
    const struct worker_view *fourth = look(scene, catalogue, &is_new);
    assert_true(is_new && !fourth->items[0].is_stale);
    worker_view_release(catalogue, first);
    worker_view_release(catalogue, second);
    worker_view_release(catalogue, third);
    worker_view_release(catalogue, fourth);
    worker_catalogue_destroy(&catalogue);
}

/* What is described otherwise is counted and left alone. */
static void strange_ones_are_passed_over(void **state)
{
    static const struct {
        const char *name, *value;
    } strange[] = {{"tokens", ""}, {"tokens", "0"}, {"tokens", "-1"},
        {"tokens", "18446744073709551617"}, {"tokens", "6x"}, {"dtype", "f99"}, {"dtype", "int8"},
        {"stride", "0"}, {"marks", "0"}, {"marks", "zzzzzzzzzzzzzzzz"},
        {"marks", "ABCDEF0123456789"}};
    enum { STRANGE = sizeof strange / sizeof strange[0] };
    struct scene *scene = *state;
    struct worker_catalogue *catalogue = NULL;
    uint32_t ids[64];
    bool is_new;
    OK(worker_catalogue_create(&catalogue, NULL));
    for (size_t i = 0; i <= STRANGE; i++) {
        ids_make(ids, 64, 0, (uint32_t)(1000 * i));
        struct paramem_kv_cube cube = cube_make(ids, 64, KERN_F32);
        (void)put_capture(scene, &cube, NULL, i < STRANGE ? strange[i].name : NULL,
            i < STRANGE ? strange[i].value : NULL);
        cube_free(&cube);
    }
    const struct worker_view *view = look(scene, catalogue, &is_new);
    assert_int_equal(view->count, 1);
    assert_int_equal(view->not_read, STRANGE);
    worker_view_release(catalogue, view);
    worker_catalogue_destroy(&catalogue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE_TEST(as_much_as_is_common),
        cmocka_unit_test(of_this_type_and_model),
        SCENE_TEST(asked_again_when_history_went_on),
        SCENE_TEST(strange_ones_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
