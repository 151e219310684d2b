/* Captures: what a model makes of cubes, kept, so that it need not read them again. */
#include "tools/memosctl/ask.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/text.h"

static const struct ctl_column columns[] = {
    {"ID", false, false},
    {"V", true, false},
    {"TOKENS", true, false},
    {"BYTES", true, false},
    {"READ MS", true, false},
    {"KEPT MS", true, false},
    {"", false, true},
};

static json_t *made_json(const Memos__CaptureMade *made)
{
    const ProtobufCBinaryData none = {0};
    return json_pack("{so,sI,sI,sI,sI,sf,sf,sb}", "id",
        ctl_json_id(made->ref ? made->ref->id : none), "version",
        (json_int_t)(made->ref ? made->ref->number : 0), "tokens", (json_int_t)made->tokens,
        "shared_tokens", (json_int_t)made->shared_tokens, "bytes", (json_int_t)made->bytes,
        "read_seconds", (double)made->read_us / 1e6, "store_seconds", (double)made->store_us / 1e6,
        "existed", (int)made->existed);
}

static void add_row(struct ctl_table *table, const Memos__CaptureMade *made)
{
    char id[MEMOS_ID_TEXT_BYTES], size[16];
    const ProtobufCBinaryData none = {0};
    struct memos_id name = ctl_id_of(made->ref ? made->ref->id : none);
    ctl_table_cell(table, CTL_YELLOW, memos_bytes_of(memos_id_format(&name, id)));
    ctl_table_printf(table, CTL_PLAIN, "%u", made->ref ? made->ref->number : 0);
    ctl_table_printf(table, CTL_PLAIN, "%u", made->tokens);
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(ctl_text_size(made->bytes, size)));
    if (made->existed) {
        ctl_table_cell(table, CTL_PLAIN, memos_bytes_of("-"));
        ctl_table_cell(table, CTL_PLAIN, memos_bytes_of("-"));
    } else {
        ctl_table_printf(table, CTL_PLAIN, "%.1f", (double)made->read_us / 1e3);
        ctl_table_printf(table, CTL_PLAIN, "%.1f", (double)made->store_us / 1e3);
    }
    const char *what = made->existed ? "was there, and holds" : "new";
    if (made->shared_tokens > 0) {
        ctl_table_printf(
            table, CTL_DIM, "%s; %u tokens lie in another one", what, made->shared_tokens);
    } else {
        ctl_table_cell(table, CTL_DIM, memos_bytes_of(what));
    }
}

static enum memos_status print_captured(struct ctl *ctl, const struct ctl_ask_model *model,
    const Memos__Captured *captured, struct memos_error *err)
{
    json_t *array = json_array();
    struct ctl_table table = ctl_table_make(columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < captured->n_captures; i++) {
        if (ctl->json) {
            (void)json_array_append_new(array, made_json(captured->captures[i]));
        } else {
            add_row(&table, captured->captures[i]);
        }
    }
    enum memos_status status;
    if (ctl->json) {
        status =
            ctl_json_print(json_pack("{so,so,sO}", "model", ctl_json_string(model->name),
                               "fingerprint", ctl_json_hex(model->fingerprint), "captures", array),
                err);
    } else {
        status = ctl_table_print(&table, &ctl->paper, err);
    }
    ctl_table_free(&table);
    json_decref(array);
    return status;
}

enum memos_status ctl_run_capture(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_ask_model model;
    struct memos_message *reply = NULL;
    struct memos_buffer system = memos_buffer_make(0);
    Memos__ChatMessage message = MEMOS__CHAT_MESSAGE__INIT, *messages[] = {&message};
    Memos__Capture capture = MEMOS__CAPTURE__INIT;
    Memos__Request request = CTL_REQUEST(CAPTURE, capture, &capture);
    bool has_system = false;
    enum memos_status status = ctl_ask_dtype(ctl, CTL_DTYPE, &capture.dtype, err);
    if (status == MEMOS_OK) {
        status = ctl_system_read(ctl, &system, &has_system, err);
    }
    if (status == MEMOS_OK && ctl->args->operands_count < 2 && !has_system) {
        status = memos_fail(err, MEMOS_INVALID, "'capture' needs cubes, or --system, or both");
    }
    if (status == MEMOS_OK) {
        status = ctl_ask_model(ctl, &model, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_ids_resolve(ctl, 1, &capture.ids, &capture.n_ids, err);
    }
    if (status == MEMOS_OK) {
        struct memos_bytes frame = memos_buffer_view(&system);
        message.role = ctl_field("system");
        message.frame = 1;
        capture.messages = messages;
        capture.n_messages = has_system;
        capture.space = ctl_field(ctl_operand(ctl, 0));
        capture.model = ctl_field(model.name);
        capture.independent = ctl_args_has(ctl->args, CTL_ALONE);
        capture.bare = ctl_args_has(ctl->args, CTL_BARE);
        capture.template_ = ctl_field(ctl_args_value(ctl->args, CTL_TEMPLATE));
        capture.reason = ctl_field(ctl_args_value(ctl->args, CTL_REASON));
        status = ctl_ask_call(ctl,
            &(struct ctl_ask){.request = &request,
                .frames = &frame,
                .frames_count = has_system,
                .want = MEMOS__REPLY__BODY_CAPTURED},
            &reply, err);
    }
    if (status == MEMOS_OK) {
        status = print_captured(ctl, &model, memos_message_reply(reply)->captured, err);
    }
    memos_message_free(&reply);
    memos_buffer_free(&system);
    return status;
}
