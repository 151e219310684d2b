/* If this failed, one peer's garbage could take the broker down, or be taken for a request, or keep
 * the next peer from being served. */
#include "proto/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FRAMES_MAX 4
#define BYTES_MAX 1000

/* A broker's socket and two peers. inproc connections are there at once. */
struct wire {
    void *context, *router, *stranger, *friend;
};

static void *peer(struct wire *wire, const char *name)
{
    void *socket = zmq_socket(wire->context, ZMQ_DEALER);
    assert_non_null(socket);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_ROUTING_ID, name, strlen(name)), 0);
    assert_int_equal(zmq_connect(socket, "inproc://broker"), 0);
    return socket;
}

static int open_wire(void **state)
{
    static struct wire wire;
    int mandatory = 1, linger = 0, wait_ms = 10000;
    wire.context = zmq_ctx_new();
    wire.router = zmq_socket(wire.context, ZMQ_ROUTER);
    zmq_setsockopt(wire.router, ZMQ_ROUTER_MANDATORY, &mandatory, sizeof mandatory);
    zmq_setsockopt(wire.router, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(wire.router, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    assert_int_equal(zmq_bind(wire.router, "inproc://broker"), 0);
    wire.stranger = peer(&wire, "stranger");
    wire.friend = peer(&wire, "friend");
    *state = &wire;
    return 0;
}

static int close_wire(void **state)
{
    struct wire *wire = *state;
    zmq_close(wire->friend);
    zmq_close(wire->stranger);
    zmq_close(wire->router);
    zmq_ctx_term(wire->context);
    return 0;
}

static void send_raw(void *socket, const struct memos_bytes *frames, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int more = i + 1 < count ? ZMQ_SNDMORE : 0;
        assert_int_equal(
            zmq_send(socket, frames[i].data, frames[i].size, more), (int)frames[i].size);
    }
}

static enum memos_status receive(
    struct wire *wire, struct memos_frames *out, struct memos_error *err)
{
    return memos_frames_receive(wire->router, 0, true, FRAMES_MAX, BYTES_MAX, out, err);
}

static void assert_view(struct memos_bytes view, const char *text)
{
    assert_int_equal(view.size, strlen(text));
    assert_memory_equal(view.data, text, view.size);
}

static void friend_is_served(struct wire *wire)
{
    struct memos_frames frames, reply;
    struct memos_error err = { 0 };
    uint8_t *envelope;
    assert_int_equal(
        memos_frames_begin(&frames, memos_bytes_make(NULL, 0), 3, &envelope, &err), MEMOS_OK);
    memcpy(envelope, "abc", 3);
    assert_int_equal(memos_frames_add(&frames, memos_bytes_of("one"), &err), MEMOS_OK);
    assert_int_equal(memos_frames_add(&frames, memos_bytes_of(""), &err), MEMOS_OK);
    assert_int_equal(memos_frames_payload_count(&frames), 2);
    assert_int_equal(memos_frames_send(wire->friend, 0, &frames, &err), MEMOS_OK);
    assert_int_equal(frames.count, 0);

    assert_int_equal(receive(wire, &frames, &err), MEMOS_OK);
    assert_view(memos_frames_identity(&frames), "friend");
    assert_view(memos_frames_envelope(&frames), "abc");
    assert_int_equal(memos_frames_payload_count(&frames), 2);
    assert_view(memos_frames_payload(&frames, 0), "");
    assert_view(memos_frames_payload(&frames, 1), "one");
    assert_view(memos_frames_payload(&frames, 2), "");
    assert_view(memos_frames_payload(&frames, 3), "");
    assert_view(memos_frames_payload(&frames, UINT32_MAX), "");

    assert_int_equal(
        memos_frames_begin(&reply, memos_frames_identity(&frames), 2, &envelope, &err), MEMOS_OK);
    memcpy(envelope, "ok", 2);
    assert_int_equal(memos_frames_send(wire->router, 0, &reply, &err), MEMOS_OK);
    memos_frames_free(&frames);
    assert_int_equal(memos_frames_receive(wire->friend, 0, false, 0, 100, &frames, &err), MEMOS_OK);
    assert_view(memos_frames_envelope(&frames), "ok");
    assert_view(memos_frames_identity(&frames), "");
    memos_frames_free(&frames);
}

#define F(literal) { "" literal, sizeof literal - 1 }
#define GOOD F("MEMOS\1")

static void garbage_is_refused_and_others_are_served(void **state)
{
    static char large[BYTES_MAX + 1];
    const struct {
        struct memos_bytes frames[9];
        size_t count;
        enum memos_status status;
        const char *envelope_kept;
    } cases[] = {
        { { F("") }, 1, MEMOS_INVALID, "" },
        { { F("x") }, 1, MEMOS_INVALID, "" },
        { { GOOD }, 1, MEMOS_INVALID, "" },
        { { F(""), F("") }, 2, MEMOS_INVALID, "" },
        { { F(""), GOOD, F("e") }, 3, MEMOS_INVALID, "" }, /* as a REQ socket would */
        { { F("memos\1"), F("e") }, 2, MEMOS_INVALID, "" },
        { { F("MEMOS"), F("e") }, 2, MEMOS_INVALID, "" },
        { { F("MEMOS\1\1"), F("e") }, 2, MEMOS_INVALID, "" },
        { { F("MEMOS\0"), F("e") }, 2, MEMOS_UNSUPPORTED, "" },
        { { F("MEMOS\2"), F("e") }, 2, MEMOS_UNSUPPORTED, "" },
        { { F("MEMOS\xff"), F("e") }, 2, MEMOS_UNSUPPORTED, "" },
        { { GOOD, F("e"), F("1"), F("2"), F("3"), F("4"), F("5") }, 7, MEMOS_TOO_LARGE, "e" },
        { { GOOD, F("e"), F("1"), F("2"), F("3"), F("4"), F("5"), F("6"), F("7") }, 9,
            MEMOS_TOO_LARGE, "e" },
        { { GOOD, F("e"), { large, sizeof large } }, 3, MEMOS_TOO_LARGE, "e" },
        { { GOOD, F("e"), { large, BYTES_MAX - 6 - 1 - 8 + 1 }, F("tail") }, 4, MEMOS_TOO_LARGE,
            "e" },
        { { GOOD, { large, sizeof large }, F("1") }, 3, MEMOS_TOO_LARGE, "" },
        { { { large, sizeof large }, F("e") }, 2, MEMOS_TOO_LARGE, "" },
        { { F("bad"), F("e"), { large, sizeof large } }, 3, MEMOS_INVALID, "" },
    };
    struct wire *wire = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct memos_frames frames;
        struct memos_error err = { 0 };
        send_raw(wire->stranger, cases[i].frames, cases[i].count);
        enum memos_status status = receive(wire, &frames, &err);
        if (status != cases[i].status) {
            fail_msg("case %zu: %s (%s)", i, memos_status_name(status), err.text);
        }
        assert_int_equal(err.status, status);
        assert_view(memos_frames_identity(&frames), "stranger");
        assert_view(memos_frames_envelope(&frames), cases[i].envelope_kept);
        assert_int_equal(memos_frames_payload_count(&frames), 0);
        memos_frames_free(&frames);
        friend_is_served(wire);
    }
}

static void what_just_fits_is_taken(void **state)
{
    static char payload[BYTES_MAX];
    struct wire *wire = *state;
    struct memos_frames frames;
    struct memos_error err = { 0 };
    const struct memos_bytes exact[] = { GOOD, F("e"),
        { payload, BYTES_MAX - sizeof "stranger" + 1 - 6 - 1 } };
    send_raw(wire->stranger, exact, 3);
    assert_int_equal(receive(wire, &frames, &err), MEMOS_OK);
    memos_frames_free(&frames);
    const struct memos_bytes empty[] = { GOOD, F("") };
    send_raw(wire->stranger, empty, 2);
    assert_int_equal(receive(wire, &frames, &err), MEMOS_OK);
    assert_int_equal(memos_frames_envelope(&frames).size, 0);
    memos_frames_free(&frames);
}

static void nothing_there_is_busy(void **state)
{
    struct wire *wire = *state;
    struct memos_frames frames;
    struct memos_error err = { 0 };
    assert_int_equal(
        memos_frames_receive(wire->router, ZMQ_DONTWAIT, true, 1, 100, &frames, &err), MEMOS_BUSY);
    assert_int_equal(frames.count, 0);
    memos_frames_free(&frames);
}

static void a_peer_that_is_gone_is_not_found(void **state)
{
    struct wire *wire = *state;
    struct memos_frames frames;
    struct memos_error err = { 0 };
    uint8_t *envelope;
    assert_int_equal(
        memos_frames_begin(&frames, memos_bytes_of("nobody"), 0, &envelope, &err), MEMOS_OK);
    assert_int_equal(memos_frames_send(wire->router, 0, &frames, &err), MEMOS_NOT_FOUND);
    assert_int_equal(frames.count, 3); /* still whole */
    memos_frames_free(&frames);
}

static void count_release(void *data, void *hint)
{
    (void)data;
    ++*(int *)hint;
}

static void lent_bytes_come_back_once(void **state)
{
    struct wire *wire = *state;
    struct memos_frames frames, got;
    struct memos_error err = { 0 };
    uint8_t *envelope;
    int released = 0;
    static char text[100] = "lent";
    struct memos_bytes payload = { text, sizeof text };
    assert_int_equal(
        memos_frames_begin(&frames, memos_bytes_of("friend"), 0, &envelope, &err), MEMOS_OK);
    assert_int_equal(
        memos_frames_add_lent(&frames, payload, count_release, &released, &err), MEMOS_OK);
    assert_int_equal(memos_frames_send(wire->router, 0, &frames, &err), MEMOS_OK);
    assert_int_equal(memos_frames_receive(wire->friend, 0, false, 1, 1000, &got, &err), MEMOS_OK);
    assert_ptr_equal(memos_frames_payload(&got, 1).data, text); /* never copied, within a process */
    assert_int_equal(released, 0);
    memos_frames_free(&got);
    assert_int_equal(released, 1);

    assert_int_equal(
        memos_frames_begin(&frames, memos_bytes_of("friend"), 0, &envelope, &err), MEMOS_OK);
    assert_int_equal(
        memos_frames_add_lent(&frames, payload, count_release, &released, &err), MEMOS_OK);
    memos_frames_free(&frames); /* never sent */
    assert_int_equal(released, 2);
}

static void a_full_queue_keeps_the_message_whole(void **state)
{
    struct wire *wire = *state;
    struct memos_error err = { 0 };
    int one = 1;
    void *pull = zmq_socket(wire->context, ZMQ_PULL), *push = zmq_socket(wire->context, ZMQ_PUSH);
    zmq_setsockopt(pull, ZMQ_RCVHWM, &one, sizeof one);
    zmq_setsockopt(push, ZMQ_SNDHWM, &one, sizeof one);
    assert_int_equal(zmq_bind(pull, "inproc://narrow"), 0);
    assert_int_equal(zmq_connect(push, "inproc://narrow"), 0);
    struct memos_frames frames;
    enum memos_status status = MEMOS_OK;
    int sent = 0;
    while (status == MEMOS_OK && sent < 100) {
        uint8_t *envelope;
        assert_int_equal(
            memos_frames_begin(&frames, memos_bytes_make(NULL, 0), 1, &envelope, &err), MEMOS_OK);
        *envelope = (uint8_t)sent;
        status = memos_frames_send(push, ZMQ_DONTWAIT, &frames, &err);
        sent += status == MEMOS_OK;
    }
    assert_int_equal(status, MEMOS_BUSY);
    assert_int_equal(frames.count, 2);
    for (int i = 0; i <= sent; i++) {
        struct memos_frames got;
        assert_int_equal(memos_frames_receive(pull, 0, false, 0, 100, &got, &err), MEMOS_OK);
        assert_int_equal(*(const uint8_t *)memos_frames_envelope(&got).data, i);
        memos_frames_free(&got);
        if (i == 0) {
            assert_int_equal(memos_frames_send(push, 0, &frames, &err), MEMOS_OK);
        }
    }
    zmq_close(push);
    zmq_close(pull);
}

static void an_envelope_too_large_is_not_begun(void **state)
{
    (void)state;
    struct memos_frames frames;
    struct memos_error err = { 0 };
    uint8_t *envelope = NULL;
    assert_int_equal(memos_frames_begin(&frames, memos_bytes_make(NULL, 0),
                         MEMOS_ENVELOPE_BYTES_MAX + 1, &envelope, &err),
        MEMOS_TOO_LARGE);
    memos_frames_free(&frames);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            garbage_is_refused_and_others_are_served, open_wire, close_wire),
        cmocka_unit_test_setup_teardown(what_just_fits_is_taken, open_wire, close_wire),
        cmocka_unit_test_setup_teardown(nothing_there_is_busy, open_wire, close_wire),
        cmocka_unit_test_setup_teardown(a_peer_that_is_gone_is_not_found, open_wire, close_wire),
        cmocka_unit_test_setup_teardown(lent_bytes_come_back_once, open_wire, close_wire),
        cmocka_unit_test_setup_teardown(
            a_full_queue_keeps_the_message_whole, open_wire, close_wire),
        cmocka_unit_test(an_envelope_too_large_is_not_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
