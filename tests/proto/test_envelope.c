/* If this failed, a request of a few bytes could make the broker take gigabytes, or an honest
 * one would be refused. */
#include "proto/clock.h"
#include "proto/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum memos_status unpack_event(struct memos_bytes bytes)
{
    struct memos_arena arena;
    struct memos_error err = { 0 };
    Memos__Event *event;
    memos_arena_init(&arena, memos_envelope_memory(bytes.size));
    enum memos_status status = memos_event_unpack(bytes, &arena, &event, &err);
    memos_arena_finish(&arena);
    return status;
}

/* A put of count drafts that say nothing: what costs most memory for its size among honest
 * requests. */
static struct memos_bytes pack_put(size_t count)
{
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Draft **drafts = calloc(count, sizeof *drafts);
    Memos__Put put = MEMOS__PUT__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    assert_non_null(drafts);
    for (size_t i = 0; i < count; i++) {
        drafts[i] = &draft;
    }
    char space[] = "acme/alice";
    put.space = space;
    put.drafts = drafts;
    put.n_drafts = count;
    request.id = 7;
    request.body_case = MEMOS__REQUEST__BODY_PUT;
    request.put = &put;
    size_t size = memos__request__get_packed_size(&request);
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    memos__request__pack(&request, bytes);
    free(drafts);
    return memos_bytes_make(bytes, size);
}

static void honest_requests_fit(void **state)
{
    (void)state;
    struct memos_bytes bytes = pack_put(1000);
    struct memos_arena arena;
    struct memos_error err = { 0 };
    Memos__Request *request = NULL;
    memos_arena_init(&arena, memos_envelope_memory(bytes.size));
    assert_int_equal(memos_request_unpack(bytes, &arena, &request, &err), MEMOS_OK);
    assert_int_equal(request->id, 7);
    assert_int_equal(request->body_case, MEMOS__REQUEST__BODY_PUT);
    assert_int_equal(request->put->n_drafts, 1000);
    assert_string_equal(request->put->space, "acme/alice");
    memos_arena_finish(&arena);
    free((void *)(uintptr_t)bytes.data);
}

/* Ids and scores alone, 256 searches of 1000 hits each: the leanest of large replies. */
static void honest_replies_fit(void **state)
{
    (void)state;
    enum { HITS = 1000, SEARCHES = 256 };
    uint8_t id[16] = { 1 };
    Memos__Cube cube = MEMOS__CUBE__INIT;
    Memos__Hit hit = MEMOS__HIT__INIT;
    Memos__Hits hits = MEMOS__HITS__INIT;
    Memos__HitsOrError one = MEMOS__HITS_OR_ERROR__INIT;
    Memos__HitsMany many = MEMOS__HITS_MANY__INIT;
    Memos__Reply reply = MEMOS__REPLY__INIT;
    Memos__Hit *hit_pointers[HITS];
    Memos__HitsOrError *one_pointers[SEARCHES];
    cube.id = (ProtobufCBinaryData){ sizeof id, id };
    hit.cube = &cube;
    hit.score = 1.5F;
    for (size_t i = 0; i < HITS; i++) {
        hit_pointers[i] = &hit;
    }
    for (size_t i = 0; i < SEARCHES; i++) {
        one_pointers[i] = &one;
    }
    hits.hits = hit_pointers;
    hits.n_hits = HITS;
    one.hits = &hits;
    many.results = one_pointers;
    many.n_results = SEARCHES;
    reply.body_case = MEMOS__REPLY__BODY_HITS_MANY;
    reply.hits_many = &many;

    size_t size = memos__reply__get_packed_size(&reply);
    uint8_t *bytes = malloc(size);
    struct memos_arena arena;
    struct memos_error err = { 0 };
    Memos__Reply *back = NULL;
    assert_non_null(bytes);
    memos__reply__pack(&reply, bytes);
    memos_arena_init(&arena, memos_envelope_memory(size));
    assert_int_equal(
        memos_reply_unpack(memos_bytes_make(bytes, size), &arena, &back, &err), MEMOS_OK);
    assert_int_equal(back->hits_many->results[SEARCHES - 1]->hits->n_hits, HITS);
    memos_arena_finish(&arena);
    free(bytes);
}

/* A megabyte of empty references asks for 40 megabytes of structs and pointers. */
static void hostile_ones_do_not(void **state)
{
    (void)state;
    size_t count = 512 * 1024;
    uint8_t *bytes = malloc(count * 2);
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++) {
        bytes[2 * i] = 6 << 3 | 2; /* refs, with a length */
        bytes[2 * i + 1] = 0;
    }
    assert_int_equal(unpack_event(memos_bytes_make(bytes, 1000)), MEMOS_OK);
    assert_int_equal(unpack_event(memos_bytes_make(bytes, count * 2)), MEMOS_INVALID);
    free(bytes);
}

static void ill_formed_ones_are_refused(void **state)
{
    (void)state;
    static const struct memos_bytes cases[] = {
        { "\x0a", 1 },                             /* a string without its length */
        { "\x0a\x05" "a", 3 },                     /* one that ends too soon */
        { "\x0a\xff\xff\xff\xff\x0f", 6 },         /* one of 4 GiB */
        { "\x32\x02\x0a\x05", 4 },                 /* a nested message that ends too soon */
        { "\xff\xff\xff\xff\xff\xff\xff\xff", 8 }, /* a tag without end */
        { "\x08\x01", 2 },                         /* a number where the space stands */
        { "\x0b\x0c", 2 },                         /* a group, which nobody sends */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t *copy = malloc(cases[i].size);
        assert_non_null(copy);
        memcpy(copy, cases[i].data, cases[i].size);
        if (unpack_event(memos_bytes_make(copy, cases[i].size)) != MEMOS_INVALID) {
            fail_msg("case %zu was taken", i);
        }
        free(copy);
    }
    assert_int_equal(unpack_event(memos_bytes_make(NULL, 0)), MEMOS_OK);
}

/* A later version of us sends what we do not know. */
static void what_is_unknown_is_left_out(void **state)
{
    (void)state;
    /* id 42, then field 1023. */
    static const uint8_t bytes[] = { 0x08, 0x2a, 0xfa, 0x3f, 0x02, 'h', 'i' };
    struct memos_arena arena;
    struct memos_error err = { 0 };
    Memos__Request *request = NULL;
    memos_arena_init(&arena, memos_envelope_memory(sizeof bytes));
    assert_int_equal(
        memos_request_unpack(memos_bytes_make(bytes, sizeof bytes), &arena, &request, &err),
        MEMOS_OK);
    assert_int_equal(request->id, 42);
    assert_int_equal(request->body_case, MEMOS__REQUEST__BODY__NOT_SET);
    memos_arena_finish(&arena);
}

/* Every truncation and many random changes of a real request: nothing crashes, and whatever is
 * taken can be packed again. */
static void damage_does_no_harm(void **state)
{
    (void)state;
    const char *given = getenv("MEMOS_TEST_SEED");
    struct memos_clock clock = memos_clock_system();
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)clock.wall_us(NULL);
    print_message("MEMOS_TEST_SEED=%u\n", seed);
    struct memos_bytes whole = pack_put(5);
    size_t taken = 0;
    for (size_t round = 0; round < whole.size + 5000; round++) {
        size_t size = round < whole.size ? round : whole.size;
        uint8_t *copy = malloc(size + 1);
        assert_non_null(copy);
        memcpy(copy, whole.data, size);
        for (int hits = 0; round >= whole.size && hits < 3; hits++) {
            copy[(unsigned)rand_r(&seed) % size] = (uint8_t)rand_r(&seed);
        }
        struct memos_arena arena;
        struct memos_error err = { 0 };
        Memos__Request *request = NULL;
        memos_arena_init(&arena, memos_envelope_memory(size));
        if (memos_request_unpack(memos_bytes_make(copy, size), &arena, &request, &err) ==
            MEMOS_OK) {
            struct memos_frames frames;
            assert_int_equal(memos_envelope_begin(
                                 &frames, memos_bytes_make(NULL, 0), &request->base, &err),
                MEMOS_OK);
            memos_frames_free(&frames);
            taken++;
        }
        memos_arena_finish(&arena);
        free(copy);
    }
    assert_true(taken > 0);
    free((void *)(uintptr_t)whole.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_requests_fit),
        cmocka_unit_test(honest_replies_fit),
        cmocka_unit_test(hostile_ones_do_not),
        cmocka_unit_test(ill_formed_ones_are_refused),
        cmocka_unit_test(what_is_unknown_is_left_out),
        cmocka_unit_test(damage_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
