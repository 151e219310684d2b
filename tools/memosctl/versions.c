#include "tools/memosctl/versions.h"

#include "tools/memosctl/diff.h"
#include "tools/memosctl/text.h"

#include <stdlib.h>
#include <string.h>

enum { CONTEXT_PRESET = 3, CONTEXT_MAX = 100000 };

enum memos_status ctl_version_get(struct ctl *ctl, const struct memos_id *id, uint32_t number,
    Memos__AsOf *as_of, struct memos_message **out_reply, const Memos__Cube **out_cube,
    struct memos_error *err)
{
    ProtobufCBinaryData ids[] = {ctl_id_field(id)};
    Memos__Get get = MEMOS__GET__INIT;
    Memos__Request request = CTL_REQUEST(GET, get, &get);
    get.space = ctl_field(ctl_operand(ctl, 0));
    get.ids = ids;
    get.n_ids = 1;
    get.number = number;
    get.as_of = as_of;
    get.peek = true;
    get.behaviour = number == 0 && !as_of;
    *out_reply = NULL;
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, out_reply, err);
    if (status == MEMOS_FORGOTTEN) { /* its header is still there */
        get.no_payload = true;
        ctl->hint = NULL;
        status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, out_reply, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__Cubes *cubes = memos_message_reply(*out_reply)->cubes;
    if (cubes->n_cubes != 1) {
        status =
            memos_fail(err, MEMOS_CORRUPT, "the broker gave %zu cubes for one id", cubes->n_cubes);
        memos_message_free(out_reply);
        return status;
    }
    *out_cube = cubes->cubes[0];
    return MEMOS_OK;
}

/* What a correction may change, in the names of the JSON. */
static const char *const fields[] = {"state", "stale", "title", "subtype", "tags", "speaker",
    "language", "event_time", "external_id", "codec", "derived_from", "sources", "attributes",
    "readers", "valid_from", "valid_to", "expires", "retain_until", "priority", "sensitivity",
    "model"};

static json_t *fields_json(const Memos__Cube *a, const Memos__Cube *b)
{
    json_t *array = json_array();
    json_t *from = a ? ctl_json_cube(a, false, memos_bytes_make(NULL, 0)) : json_object();
    json_t *to = b ? ctl_json_cube(b, false, memos_bytes_make(NULL, 0)) : json_object();
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        json_t *before = json_object_get(from, fields[i]), *after = json_object_get(to, fields[i]);
        if (a && b && !json_equal(before, after)) {
            json_array_append_new(
                array, json_pack("{ss,sO,sO}", "name", fields[i], "from", before, "to", after));
        }
    }
    json_decref(from);
    json_decref(to);
    return array;
}

/* A text without its quotes, anything else as JSON. */
static char *value_text(const json_t *value)
{
    const char *text = json_string_value(value);
    return text ? strdup(text) : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
}

static void print_fields(const struct ctl_paper *paper, const json_t *array)
{
    size_t i;
    const json_t *field;
    json_array_foreach(array, i, field)
    {
        char *from = value_text(json_object_get(field, "from"));
        char *to = value_text(json_object_get(field, "to"));
        const char *name = json_string_value(json_object_get(field, "name"));
        ctl_paper_fieldf(paper, name, "%.400s -> %.400s", from ? from : "?", to ? to : "?");
        free(from);
        free(to);
    }
}

static bool is_text(struct memos_bytes payload)
{
    return payload.size == 0 || memos_bytes_utf8(payload);
}

enum memos_status ctl_versions_diff(struct ctl *ctl, const Memos__Cube *a,
    struct memos_bytes a_payload, const Memos__Cube *b, struct memos_bytes b_payload,
    struct memos_error *err)
{
    struct ctl_diff diff;
    uint64_t context;
    bool by_words = ctl_args_has(ctl->args, CTL_WORDS);
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_CONTEXT, CONTEXT_PRESET, 0, CONTEXT_MAX, &context, err);
    if (status != MEMOS_OK) {
        return status;
    }
    json_t *changed = fields_json(a, b);
    print_fields(&ctl->paper, changed);
    json_decref(changed);
    if (!is_text(a_payload) || !is_text(b_payload)) {
        if (!memos_bytes_equal(a_payload, b_payload)) {
            printf("payloads of %zu and %zu bytes differ\n", a_payload.size, b_payload.size);
        }
        return MEMOS_OK;
    }
    status = ctl_diff_make(a_payload, b_payload, by_words, &diff, err);
    if (status == MEMOS_OK && ctl_diff_differs(&diff)) {
        ctl_diff_print(&diff, by_words, (size_t)context, &ctl->paper);
    }
    ctl_diff_free(&diff);
    return status;
}

json_t *ctl_versions_diff_json(const struct ctl *ctl, const Memos__Cube *a,
    struct memos_bytes a_payload, const Memos__Cube *b, struct memos_bytes b_payload)
{
    struct ctl_diff diff = {0};
    json_t *text = json_null();
    if (is_text(a_payload) && is_text(b_payload) &&
        ctl_diff_make(a_payload, b_payload, ctl_args_has(ctl->args, CTL_WORDS), &diff, NULL) ==
            MEMOS_OK) {
        text = ctl_diff_json(&diff);
        ctl_diff_free(&diff);
    }
    return json_pack("{so,so,sb}", "fields", fields_json(a, b), "text", text, "payload_changed",
        (int)!memos_bytes_equal(a_payload, b_payload));
}
