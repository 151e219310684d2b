/* Making cubes, reading them, and changing them one by one. */
#include "tools/memosctl/input.h"

#include "memcube/store.h"
#include "tools/memosctl/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Send a change and print what it came to. */
static enum memos_status change(struct ctl *ctl, const char *verb, Memos__Request *request,
    const struct memos_buffer *payload, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    struct memos_bytes frame = payload ? memos_buffer_view(payload) : memos_bytes_make(NULL, 0);
    enum memos_status status =
        ctl_call(ctl, request, &frame, payload ? 1 : 0, MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    if (status == MEMOS_OK) {
        status = ctl_outcome_print(ctl, verb, memos_message_reply(reply)->outcome, err);
    }
    memos_message_free(&reply);
    return status;
}

static char *reason_of(const struct ctl *ctl)
{
    return ctl_field(ctl_args_value(ctl->args, CTL_REASON));
}

enum memos_status ctl_run_put(struct ctl *ctl, struct memos_error *err)
{
    uint32_t fields;
    Memos__Draft draft;
    Memos__Draft *drafts[] = {&draft};
    struct memos_buffer payload = {0};
    enum memos_status status = ctl_draft_make(ctl, &draft, &fields, err);
    if (status == MEMOS_OK) {
        status = ctl_payload_read(ctl_operand(ctl, 1), &payload, err);
    }
    if (status == MEMOS_OK) {
        Memos__Put put = MEMOS__PUT__INIT;
        Memos__Request request = CTL_REQUEST(PUT, put, &put);
        put.space = ctl_field(ctl_operand(ctl, 0));
        put.reason = reason_of(ctl);
        put.drafts = drafts;
        put.n_drafts = 1;
        draft.frame = 1;
        status = change(ctl, "remembered", &request, &payload, err);
    }
    memos_buffer_free(&payload);
    return status;
}

/* Send one change of the cube in operand 1. */
static enum memos_status update(struct ctl *ctl, const char *verb, Memos__Change *one,
    const struct memos_buffer *payload, struct memos_error *err)
{
    uint64_t expected;
    struct memos_id id;
    Memos__Change *changes[] = {one};
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_EXPECT, 0, 1, UINT32_MAX, &expected, err);
    if (status == MEMOS_OK) {
        status = ctl_id_resolve(ctl, ctl_operand(ctl, 0), ctl_operand(ctl, 1), &id, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    one->id = ctl_id_field(&id);
    one->expected = (uint32_t)expected;
    Memos__Update body = MEMOS__UPDATE__INIT;
    Memos__Request request = CTL_REQUEST(UPDATE, update, &body);
    body.space = ctl_field(ctl_operand(ctl, 0));
    body.reason = reason_of(ctl);
    body.changes = changes;
    body.n_changes = 1;
    return change(ctl, verb, &request, payload, err);
}

enum memos_status ctl_run_update(struct ctl *ctl, struct memos_error *err)
{
    Memos__Draft draft;
    Memos__Change one = MEMOS__CHANGE__INIT;
    struct memos_buffer payload = {0};
    const char *given = ctl_operand(ctl, 2);
    enum memos_status status = ctl_draft_make(ctl, &draft, &one.fields, err);
    if (status == MEMOS_OK && !given && one.fields == 0) {
        status = memos_fail(err, MEMOS_INVALID, "nothing to change was given");
    }
    if (status == MEMOS_OK && given) {
        status = ctl_payload_read(given, &payload, err);
        one.fields |= MEMCUBE_FIELD_PAYLOAD;
        draft.frame = 1;
    }
    if (status == MEMOS_OK) {
        one.draft = &draft;
        one.transform = ctl_args_has(ctl->args, CTL_TRANSFORM);
        status = update(ctl, "updated", &one, given ? &payload : NULL, err);
    }
    memos_buffer_free(&payload);
    return status;
}

enum memos_status ctl_run_tag(struct ctl *ctl, struct memos_error *err)
{
    Memos__Change one = MEMOS__CHANGE__INIT;
    char *add[CTL_OPERANDS_MAX];
    for (size_t i = 2; i < ctl->args->operands_count; i++) {
        add[one.n_tags_add++] = ctl_field(ctl_operand(ctl, i));
    }
    one.tags_add = add;
    enum memos_status status =
        ctl_values(ctl, CTL_REMOVE, &one.tags_remove, &one.n_tags_remove, err);
    if (status == MEMOS_OK && one.n_tags_add + one.n_tags_remove == 0) {
        return memos_fail(err, MEMOS_INVALID, "no tag to add, and none to --remove");
    }
    return status == MEMOS_OK ? update(ctl, "tagged", &one, NULL, err) : status;
}

enum memos_status ctl_run_merge(struct ctl *ctl, struct memos_error *err)
{
    uint32_t fields;
    Memos__Draft draft;
    Memos__Merge merge = MEMOS__MERGE__INIT;
    Memos__Request request = CTL_REQUEST(MERGE, merge, &merge);
    struct memos_buffer payload = {0};
    enum memos_status status = ctl_draft_make(ctl, &draft, &fields, err);
    if (status == MEMOS_OK) {
        status = ctl_ids_resolve(ctl, 2, &merge.sources, &merge.n_sources, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_payload_read(ctl_operand(ctl, 1), &payload, err);
    }
    if (status == MEMOS_OK) {
        merge.space = ctl_field(ctl_operand(ctl, 0));
        merge.reason = reason_of(ctl);
        merge.draft = &draft;
        draft.frame = 1;
        status = change(ctl, "merged", &request, &payload, err);
    }
    memos_buffer_free(&payload);
    return status;
}

/* ---- states ---- */

static enum memos_status transition(struct ctl *ctl, enum memcube_state state, const char *verb,
    size_t first, struct memos_error *err)
{
    Memos__Transition body = MEMOS__TRANSITION__INIT;
    Memos__Request request = CTL_REQUEST(TRANSITION, transition, &body);
    enum memos_status status = ctl_ids_resolve(ctl, first, &body.ids, &body.n_ids, err);
    if (status != MEMOS_OK) {
        return status;
    }
    body.space = ctl_field(ctl_operand(ctl, 0));
    body.reason = reason_of(ctl);
    body.state = (uint32_t)state;
    return change(ctl, verb, &request, NULL, err);
}

enum memos_status ctl_run_state(struct ctl *ctl, struct memos_error *err)
{
    const char *name = ctl_operand(ctl, 1);
    int state = memcube_state_of(memos_bytes_of(name));
    if (state == 0) {
        return memos_fail(err, MEMOS_INVALID,
            "there is no state '%.40s'; it may be activated, frozen, archived, expired or merged",
            name);
    }
    return transition(ctl, (enum memcube_state)state, name, 2, err);
}

enum memos_status ctl_run_freeze(struct ctl *ctl, struct memos_error *err)
{
    return transition(ctl, MEMCUBE_STATE_FROZEN, "frozen", 1, err);
}

enum memos_status ctl_run_thaw(struct ctl *ctl, struct memos_error *err)
{
    return transition(ctl, MEMCUBE_STATE_ACTIVATED, "thawed", 1, err);
}

enum memos_status ctl_run_archive(struct ctl *ctl, struct memos_error *err)
{
    return transition(ctl, MEMCUBE_STATE_ARCHIVED, "archived", 1, err);
}

enum memos_status ctl_run_restore(struct ctl *ctl, struct memos_error *err)
{
    return transition(ctl, MEMCUBE_STATE_ACTIVATED, "restored", 1, err);
}

enum memos_status ctl_run_feedback(struct ctl *ctl, struct memos_error *err)
{
    char *end;
    struct memos_id id;
    const char *text = ctl_operand(ctl, 2);
    Memos__Feedback feedback = MEMOS__FEEDBACK__INIT;
    Memos__Request request = CTL_REQUEST(FEEDBACK, feedback, &feedback);
    struct memos_message *reply = NULL;
    feedback.usefulness = strtof(text, &end);
    if (end == text || *end || !(fabsf(feedback.usefulness) <= 1.0f)) {
        return memos_fail(
            err, MEMOS_INVALID, "feedback is a number from -1 to 1, not '%.40s'", text);
    }
    enum memos_status status =
        ctl_id_resolve(ctl, ctl_operand(ctl, 0), ctl_operand(ctl, 1), &id, err);
    if (status == MEMOS_OK) {
        feedback.space = ctl_field(ctl_operand(ctl, 0));
        feedback.id = ctl_id_field(&id);
        status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(ctl_json_outcome(memos_message_reply(reply)->outcome), err);
    } else if (status == MEMOS_OK) {
        puts("counted");
    }
    memos_message_free(&reply);
    return status;
}

/* ---- reading ---- */

/* A payload goes out as it is, except to a terminal. */
static enum memos_status print_payload(
    struct ctl *ctl, struct ctl_file *file, struct memos_bytes payload, struct memos_error *err)
{
    if (file->stream == stdout && ctl->paper.is_terminal) {
        ctl_paper_text(&ctl->paper, payload, 0);
        return MEMOS_OK;
    }
    return ctl_file_write(file, payload, err);
}

static enum memos_status print_payloads(
    struct ctl *ctl, const struct memos_message *reply, struct memos_error *err)
{
    struct ctl_file file;
    const Memos__Cubes *cubes = memos_message_reply(reply)->cubes;
    const char *path = ctl_args_value(ctl->args, CTL_OUTPUT);
    enum memos_status status = ctl_file_create(path ? path : "-", &file, err);
    for (size_t i = 0; status == MEMOS_OK && i < cubes->n_cubes; i++) {
        struct memos_bytes payload = memos_message_frame(reply, cubes->cubes[i]->frame);
        if (cubes->cubes[i]->state == MEMCUBE_STATE_FORGOTTEN) {
            status = memos_fail(err, MEMOS_FORGOTTEN, "what it said was destroyed");
            break;
        }
        status = print_payload(ctl, &file, payload, err);
        if (status == MEMOS_OK && cubes->n_cubes > 1) {
            status = ctl_file_write(&file, memos_bytes_of("\n"), err);
        }
    }
    if (status == MEMOS_OK) {
        status = ctl_file_commit(&file, err);
    }
    ctl_file_abort(&file);
    return status;
}

/* One cube is an object, several are an array. */
static enum memos_status print_cubes(
    struct ctl *ctl, const struct memos_message *reply, struct memos_error *err)
{
    const Memos__Cubes *cubes = memos_message_reply(reply)->cubes;
    json_t *array = json_array();
    for (size_t i = 0; i < cubes->n_cubes; i++) {
        json_array_append_new(
            array, ctl_json_cube(cubes->cubes[i], cubes->cubes[i]->state != MEMCUBE_STATE_FORGOTTEN,
                       memos_message_frame(reply, cubes->cubes[i]->frame)));
    }
    if (ctl->args->operands_count > 2) {
        return ctl_json_print(array, err);
    }
    json_t *one = json_incref(json_array_get(array, 0));
    json_decref(array);
    return ctl_json_print(one, err);
}

enum memos_status ctl_run_get(struct ctl *ctl, struct memos_error *err)
{
    uint64_t number;
    Memos__AsOf as_of;
    Memos__Get get = MEMOS__GET__INIT;
    Memos__Request request = CTL_REQUEST(GET, get, &get);
    struct memos_message *reply = NULL;
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_VERSION_OF, 0, 1, UINT32_MAX, &number, err);
    if (status == MEMOS_OK) {
        status = ctl_as_of(ctl, &as_of, &get.as_of, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_ids_resolve(ctl, 1, &get.ids, &get.n_ids, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    get.space = ctl_field(ctl_operand(ctl, 0));
    get.number = (uint32_t)number;
    get.peek = ctl_args_has(ctl->args, CTL_PEEK);
    status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, &reply, err);
    if (status == MEMOS_OK) {
        status = ctl->json && !ctl_args_has(ctl->args, CTL_OUTPUT)
                     ? print_cubes(ctl, reply, err)
                     : print_payloads(ctl, reply, err);
    }
    memos_message_free(&reply);
    return status;
}
