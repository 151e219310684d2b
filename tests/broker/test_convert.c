/* If this failed, a client could hand the store what the store does not expect, or get back other
 * words than were kept. */
#include "memos/broker/convert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* One request on its way in: what a test fills, and what comes of it. */
struct fixture {
    struct memos_arena arena;
    struct memos_frames frames;
    struct memos_error err;
    struct broker_call call;
    Memos__Request request;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    uint8_t *envelope;
    memos_arena_init(&fixture->arena, 1 << 20);
    assert_int_equal(
        memos_frames_begin(&fixture->frames, memos_bytes_make(NULL, 0), 0, &envelope, NULL),
        MEMOS_OK);
    assert_int_equal(memos_frames_add(&fixture->frames, memos_bytes_of("one"), NULL), MEMOS_OK);
    assert_int_equal(memos_frames_add(&fixture->frames, memos_bytes_of("two"), NULL), MEMOS_OK);
    memos__request__init(&fixture->request);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    memos_frames_free(&fixture->frames);
    memos_arena_finish(&fixture->arena);
    free(fixture);
    return 0;
}

static enum memos_status make(struct fixture *fixture)
{
    fixture->err = (struct memos_error){0};
    return broker_call_make(
        &fixture->request, &fixture->frames, &fixture->arena, &fixture->call, &fixture->err);
}

/* It must be refused, with these words. */
static void refused(struct fixture *fixture, enum memos_status expected, const char *says)
{
    enum memos_status status = make(fixture);
    if (status != expected || !strstr(fixture->err.text, says)) {
        fail_msg("%s: %s; expected %s", memos_status_name(status), fixture->err.text, says);
    }
}

#define BODY(fixture, NAME, member, variable)                                                      \
    do {                                                                                           \
        (fixture)->request.body_case = MEMOS__REQUEST__BODY_##NAME;                                \
        (fixture)->request.member = &(variable);                                                   \
        (variable).space = (char *)"acme/alice";                                                   \
    } while (0)

static char space_text[] = "acme/alice";

static ProtobufCBinaryData id_of(uint8_t bytes[16], uint8_t fill)
{
    memset(bytes, fill, 16);
    return (ProtobufCBinaryData){16, bytes};
}

static void test_a_draft_comes_through(void **state)
{
    struct fixture *fixture = *state;
    uint8_t bytes[16];
    Memos__Ref ref = MEMOS__REF__INIT;
    Memos__Source source = MEMOS__SOURCE__INIT;
    Memos__Attribute attribute = MEMOS__ATTRIBUTE__INIT;
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Put put = MEMOS__PUT__INIT;
    Memos__Ref *refs[] = {&ref};
    Memos__Source *sources[] = {&source};
    Memos__Attribute *attributes[] = {&attribute};
    Memos__Draft *drafts[] = {&draft};
    char tag[] = "travel", subtype[] = "fact", title[] = "Lisbon", reader[] = "bob", type[] = "uri";

    ref.id = id_of(bytes, 7);
    ref.number = 3;
    source.type = type;
    source.offset = 5;
    attribute.name = tag;
    attribute.value = title;
    draft.subtype = subtype;
    draft.frame = 2;
    draft.title = title;
    draft.tags = (char *[]){tag};
    draft.n_tags = 1;
    draft.readers = (char *[]){reader};
    draft.n_readers = 1;
    draft.derived_from = refs;
    draft.n_derived_from = 1;
    draft.sources = sources;
    draft.n_sources = 1;
    draft.attributes = attributes;
    draft.n_attributes = 1;
    draft.priority = 200;
    draft.event_us = 12345;
    put.drafts = drafts;
    put.n_drafts = 1;
    BODY(fixture, PUT, put, put);
    put.space = space_text;
    assert_int_equal(make(fixture), MEMOS_OK);

    const struct memcube_draft *out = &fixture->call.put.drafts[0];
    assert_true(memos_bytes_equal(fixture->call.change.space, memos_bytes_of("acme/alice")));
    assert_int_equal(fixture->call.put.count, 1);
    assert_int_equal(out->kind, MEMCUBE_PLAINTEXT);
    assert_true(memos_bytes_equal(out->payload, memos_bytes_of("two")));
    assert_true(memos_bytes_equal(out->codec, memos_bytes_of("text/plain; charset=utf-8")));
    assert_true(memos_bytes_equal(out->description.title, memos_bytes_of("Lisbon")));
    assert_true(memos_bytes_equal(out->description.tags[0], memos_bytes_of("travel")));
    assert_true(memos_bytes_equal(out->description.readers[0], memos_bytes_of("bob")));
    assert_int_equal(out->description.sources[0].offset, 5);
    assert_int_equal(out->derived_from[0].number, 3);
    assert_int_equal(out->derived_from[0].id.bytes[15], 7);
    assert_int_equal(out->governance.priority, 200);
    assert_int_equal(out->description.event_us, 12345);
}

static void test_bad_drafts(void **state)
{
    struct fixture *fixture = *state;
    Memos__Draft draft = MEMOS__DRAFT__INIT, second = MEMOS__DRAFT__INIT;
    Memos__Put put = MEMOS__PUT__INIT;
    Memos__Draft *drafts[] = {&draft, &second};
    char wrong[] = "\xff", bad_space[] = "../etc";

    BODY(fixture, PUT, put, put);
    put.drafts = drafts;
    refused(fixture, MEMOS_INVALID, "no drafts");
    put.n_drafts = 1001;
    refused(fixture, MEMOS_TOO_LARGE, "1001 drafts");
    put.n_drafts = 2;
    draft.frame = 3;
    refused(fixture, MEMOS_INVALID, "frame 3 is named, and 2 came");
    draft.frame = UINT32_MAX;
    refused(fixture, MEMOS_INVALID, "is named, and 2 came");
    draft.frame = second.frame = 1;
    refused(fixture, MEMOS_INVALID, "frame 1 is named twice");
    second.frame = 2;
    draft.kind = 9;
    refused(fixture, MEMOS_INVALID, "no kind 9");
    draft.kind = UINT32_MAX;
    refused(fixture, MEMOS_INVALID, "no kind");
    draft.kind = 0;
    draft.priority = 256;
    refused(fixture, MEMOS_INVALID, "priority");
    draft.priority = 0;
    draft.sensitivity = 5;
    refused(fixture, MEMOS_INVALID, "sensitivity");
    draft.sensitivity = 0;
    draft.title = wrong;
    refused(fixture, MEMOS_INVALID, "title is not UTF-8");
    draft.title = (char *)protobuf_c_empty_string;
    put.reason = wrong;
    refused(fixture, MEMOS_INVALID, "reason is not UTF-8");
    put.reason = (char *)protobuf_c_empty_string;
    put.space = bad_space;
    refused(fixture, MEMOS_INVALID, "");
    put.space = space_text;
    assert_int_equal(make(fixture), MEMOS_OK);
}

static void test_ids_have_sixteen_bytes(void **state)
{
    struct fixture *fixture = *state;
    uint8_t bytes[16];
    Memos__Get get = MEMOS__GET__INIT;
    Memos__History history = MEMOS__HISTORY__INIT;
    Memos__Transition transition = MEMOS__TRANSITION__INIT;
    ProtobufCBinaryData ids[] = {id_of(bytes, 1), {15, bytes}};

    BODY(fixture, GET, get, get);
    refused(fixture, MEMOS_INVALID, "one of the three");
    get.ids = ids;
    get.n_ids = 2;
    refused(fixture, MEMOS_INVALID, "16 bytes, not 15");
    get.n_ids = 1;
    assert_int_equal(make(fixture), MEMOS_OK);
    get.external_id = space_text;
    refused(fixture, MEMOS_INVALID, "one of the three");

    BODY(fixture, HISTORY, history, history);
    refused(fixture, MEMOS_INVALID, "16 bytes, not 0");
    history.id = ids[0];
    history.count_max = 1001;
    refused(fixture, MEMOS_INVALID, "at most 1000");

    BODY(fixture, TRANSITION, transition, transition);
    refused(fixture, MEMOS_INVALID, "no ids");
    transition.ids = ids;
    transition.n_ids = 1;
    transition.state = 77;
    refused(fixture, MEMOS_INVALID, "no state 77");
}

static void test_filters(void **state)
{
    struct fixture *fixture = *state;
    Memos__Filter filter = MEMOS__FILTER__INIT;
    Memos__List list = MEMOS__LIST__INIT;
    uint32_t kinds[] = {MEMCUBE_PLAINTEXT, MEMCUBE_PARAMETRIC}, states[] = {40};

    BODY(fixture, LIST, list, list);
    assert_int_equal(make(fixture), MEMOS_OK);
    assert_int_equal(fixture->call.list.count_max, 100);
    list.filter = &filter;
    filter.kinds = kinds;
    filter.n_kinds = 2;
    assert_int_equal(make(fixture), MEMOS_OK);
    assert_int_equal(fixture->call.list.filter.kinds, 1u << 1 | 1u << 3);
    filter.states = states;
    filter.n_states = 1;
    refused(fixture, MEMOS_INVALID, "no state 40");
}

static void test_rollbacks_have_one_aim(void **state)
{
    struct fixture *fixture = *state;
    uint8_t bytes[16];
    ProtobufCBinaryData id = id_of(bytes, 1);
    Memos__AsOf to = MEMOS__AS_OF__INIT;
    Memos__Rollback rollback = MEMOS__ROLLBACK__INIT;

    BODY(fixture, ROLLBACK, rollback, rollback);
    refused(fixture, MEMOS_INVALID, "one of the three");
    rollback.to_version = 2;
    refused(fixture, MEMOS_INVALID, "of one cube");
    rollback.ids = &id;
    rollback.n_ids = 1;
    assert_int_equal(make(fixture), MEMOS_OK);
    to.seq = 4;
    rollback.to = &to;
    refused(fixture, MEMOS_INVALID, "one of the three");
    rollback.to_version = 0;
    assert_int_equal(make(fixture), MEMOS_OK);
    assert_int_equal(fixture->call.rollback.to.seq, 4);
    to.seq = 0;
    to.time_us = -1;
    refused(fixture, MEMOS_INVALID, "before 1970");
}

static void test_grants_and_keys(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *principal, *spaces, *rights;
        enum memos_status status;
    } cases[] = {
        {"alice", "acme/*", "read", MEMOS_OK},
        {"alice@example.org", "*", "admin", MEMOS_OK},
        {"a", "acme/alice", "", MEMOS_OK},
        {"", "acme/alice", "read", MEMOS_INVALID},
        {"al:ice", "acme/alice", "read", MEMOS_INVALID},
        {"al ice", "acme/alice", "read", MEMOS_INVALID},
        {"alice", "", "read", MEMOS_INVALID},
        {"alice", "acme*", "read", MEMOS_INVALID},
        {"alice", "*/acme", "read", MEMOS_INVALID},
        {"alice", "/*", "read", MEMOS_INVALID},
        {"alice", "acme/../*", "read", MEMOS_INVALID},
        {"alice", "acme", "owner", MEMOS_INVALID},
        {"alice", "acme", "READ", MEMOS_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Memos__GrantSet grant = MEMOS__GRANT_SET__INIT;
        grant.principal = (char *)cases[i].principal;
        grant.spaces = (char *)cases[i].spaces;
        grant.rights = (char *)cases[i].rights;
        fixture->request.body_case = MEMOS__REQUEST__BODY_GRANT_SET;
        fixture->request.grant_set = &grant;
        if (make(fixture) != cases[i].status) {
            fail_msg("%s %s %s: %s", cases[i].principal, cases[i].spaces, cases[i].rights,
                fixture->err.text);
        }
    }
    Memos__KeySet key = MEMOS__KEY_SET__INIT;
    char good[] = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", wrong[] = "rq:rM>}U?@Lns47E1%kR";
    char alice[] = "alice";
    fixture->request.body_case = MEMOS__REQUEST__BODY_KEY_SET;
    fixture->request.key_set = &key;
    key.principal = alice;
    key.public_key = good;
    assert_int_equal(make(fixture), MEMOS_OK);
    key.public_key = wrong;
    refused(fixture, MEMOS_INVALID, "40 characters");
}

static void test_what_is_not_known_is_unsupported(void **state)
{
    struct fixture *fixture = *state;
    fixture->request.body_case = MEMOS__REQUEST__BODY__NOT_SET;
    refused(fixture, MEMOS_UNSUPPORTED, "no body");
    uint8_t key[65] = {0};
    fixture->request.idempotency_key = (ProtobufCBinaryData){sizeof key, key};
    refused(fixture, MEMOS_INVALID, "at most 64");
}

/* ---- out ---- */

static void test_a_version_goes_out_and_back(void **state)
{
    struct fixture *fixture = *state;
    struct memos_bytes tags[] = {memos_bytes_of("a"), memos_bytes_of("b")};
    struct memcube_source sources[] = {{memos_bytes_of("file"), memos_bytes_of("/x"), 1, 2}};
    struct memcube_ref refs[] = {{{{9}}, 4}};
    const struct memcube_version version = {
        .id = {{1, 2, 3}},
        .number = 5,
        .parent = 4,
        .operation = MEMCUBE_OP_MERGE,
        .kind = MEMCUBE_PLAINTEXT,
        .state = MEMCUBE_STATE_ACTIVATED,
        .author = memos_bytes_make("alice, and more", 5),
        .derived_from = refs,
        .derived_count = 1,
        .payload_bytes = 77,
        .description = {.title = memos_bytes_of("T"),
            .tags = tags,
            .tags_count = 2,
            .sources = sources,
            .sources_count = 1},
        .seq = 99,
        .stale = true,
    };
    Memos__Cube cube;
    uint8_t packed[1024];
    assert_int_equal(broker_cube_make(&fixture->arena, &version, &cube, &fixture->err), MEMOS_OK);
    size_t size = memos__cube__get_packed_size(&cube);
    assert_true(size < sizeof packed);
    (void)memos__cube__pack(&cube, packed);
    Memos__Cube *back = memos__cube__unpack(NULL, size, packed);
    assert_non_null(back);
    assert_string_equal(back->author, "alice");
    assert_string_equal(back->title, "T");
    assert_int_equal(back->n_tags, 2);
    assert_string_equal(back->tags[1], "b");
    assert_string_equal(back->sources[0]->uri, "/x");
    assert_int_equal(back->derived_from[0]->number, 4);
    assert_int_equal(back->derived_from[0]->id.data[0], 9);
    assert_int_equal(back->operation, MEMCUBE_OP_MERGE);
    assert_int_equal(back->seq, 99);
    assert_true(back->stale);
    assert_int_equal(back->id.len, 16);
    memos__cube__free_unpacked(back, NULL);
}

static void test_a_full_arena_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    struct memos_arena small;
    Memos__Cube cube;
    const struct memcube_version version = {.author = memos_bytes_of("alice")};
    memos_arena_init(&small, 64);
    assert_int_equal(broker_cube_make(&small, &version, &cube, &fixture->err), MEMOS_TOO_LARGE);
    memos_arena_finish(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_draft_comes_through, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_drafts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ids_have_sixteen_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_filters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rollbacks_have_one_aim, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grants_and_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_known_is_unsupported, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_version_goes_out_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_arena_is_an_error, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
