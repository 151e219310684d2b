/* Proof: verify, checkpoints, fsck. */
#include "tools/memosctl/input.h"

#include "memcube/record.h"
#include "tools/memosctl/import_json.h"
#include "tools/memosctl/text.h"

#include <sodium.h>
#include <string.h>

#define CHECKPOINT_FILE_BYTES_MAX ((size_t)65536)

/* Replies on the way say how far it is. */
static void on_progress(void *self, const struct memos_message *message)
{
    const Memos__Reply *reply = memos_message_reply(message);
    if (reply->body_case == MEMOS__REPLY__BODY_PROGRESS) {
        ctl_progress(self, "checked", reply->progress->done, reply->progress->total);
    }
}

static enum memos_status call_with_progress(struct ctl *ctl, Memos__Request *request, int want,
    struct memos_message **out, struct memos_error *err)
{
    enum memos_status status = ctl_connect(ctl, err);
    if (status == MEMOS_OK) {
        memos_client_on_more(ctl->client, on_progress, ctl);
        status = ctl_call(ctl, request, NULL, 0, want, out, err);
        memos_client_on_more(ctl->client, NULL, NULL);
        ctl_progress_end(ctl);
    }
    return status;
}

/* ---- verify ---- */

static void print_hash(const char *name, ProtobufCBinaryData hash)
{
    struct memos_buffer text = memos_buffer_make(256);
    ctl_hex_append(&text, memos_bytes_make(hash.data, hash.len));
    printf("%s %.*s\n", name, (int)text.size, (const char *)text.data);
    memos_buffer_free(&text);
}

static void print_verified(struct ctl *ctl, const Memos__VerifyResult *result)
{
    printf("%s%s%s: %llu records, %llu versions, %llu payloads checked, %llu forgotten\n",
        ctl_style_on(&ctl->paper, result->intact ? CTL_GREEN : CTL_RED),
        result->intact ? "intact" : "BROKEN", ctl_style_off(&ctl->paper),
        (unsigned long long)result->records, (unsigned long long)result->versions,
        (unsigned long long)result->payloads, (unsigned long long)result->forgotten);
    if (result->intact) {
        printf("record %llu, ", (unsigned long long)result->seq);
        print_hash("head", result->head);
        return;
    }
    char text[MEMOS_ID_TEXT_BYTES];
    printf("first bad record: %llu\n", (unsigned long long)result->bad_seq);
    if (result->bad_ref && result->bad_ref->number > 0) {
        struct memos_id id = ctl_id_of(result->bad_ref->id);
        printf("in it: %s version %u\n", memos_id_format(&id, text), result->bad_ref->number);
    }
}

static json_t *verified_json(const Memos__VerifyResult *result)
{
    bool has_ref = !result->intact && result->bad_ref && result->bad_ref->number > 0;
    return json_pack("{sb,sI,sI,sI,sI,sI,so,so,so,so}", "intact", (int)result->intact, "records",
        (json_int_t)result->records, "versions", (json_int_t)result->versions, "payloads",
        (json_int_t)result->payloads, "forgotten", (json_int_t)result->forgotten, "seq",
        (json_int_t)result->seq, "head", ctl_json_hex(result->head), "bad_seq",
        result->intact ? json_null() : json_integer((json_int_t)result->bad_seq), "bad_cube",
        has_ref ? json_pack("{so,sI}", "id", ctl_json_id(result->bad_ref->id), "version",
                      (json_int_t)result->bad_ref->number)
                : json_null(),
        "what", ctl_json_string(result->what));
}

enum memos_status ctl_run_verify(struct ctl *ctl, struct memos_error *err)
{
    uint64_t from;
    Memos__Verify body = MEMOS__VERIFY__INIT;
    Memos__Request request = CTL_REQUEST(VERIFY, verify, &body);
    struct memos_message *reply = NULL;
    enum memos_status status = ctl_args_number(ctl->args, CTL_FROM, 0, 1, UINT64_MAX, &from, err);
    if (status != MEMOS_OK) {
        return status;
    }
    body.space = ctl_field(ctl_operand(ctl, 0));
    body.from = from;
    status = call_with_progress(ctl, &request, MEMOS__REPLY__BODY_VERIFY_RESULT, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__VerifyResult *result = memos_message_reply(reply)->verify_result;
    if (ctl->json) {
        status = ctl_json_print(verified_json(result), err);
    } else {
        print_verified(ctl, result);
    }
    if (status == MEMOS_OK && !result->intact) {
        status = memos_fail(err, MEMOS_CORRUPT, "record %llu: %s",
            (unsigned long long)result->bad_seq, result->what);
    }
    memos_message_free(&reply);
    return status;
}

/* ---- fsck ---- */

static json_t *fsck_json(const Memos__FsckResult *result)
{
    json_t *first = json_array();
    for (size_t i = 0; i < result->n_first; i++) {
        json_array_append_new(first, ctl_json_string(result->first[i]));
    }
    return json_pack("{sI,sI,sI,sI,sI,sI,sI,sI,so}", "spaces", (json_int_t)result->spaces, "cubes",
        (json_int_t)result->cubes, "versions", (json_int_t)result->versions, "docs",
        (json_int_t)result->docs, "payloads", (json_int_t)result->payloads, "blobs",
        (json_int_t)result->blobs, "problems", (json_int_t)result->problems, "repaired",
        (json_int_t)result->repaired, "first", first);
}

static void print_fsck(struct ctl *ctl, const Memos__FsckResult *result)
{
    printf(
        "%llu spaces, %llu cubes, %llu versions, %llu contents, %llu payloads, %llu blob files\n",
        (unsigned long long)result->spaces, (unsigned long long)result->cubes,
        (unsigned long long)result->versions, (unsigned long long)result->docs,
        (unsigned long long)result->payloads, (unsigned long long)result->blobs);
    for (size_t i = 0; i < result->n_first; i++) {
        ctl_paper_text(&ctl->paper, memos_bytes_of(result->first[i]), 2);
    }
    if (result->problems == 0) {
        printf(
            "%sno problems%s\n", ctl_style_on(&ctl->paper, CTL_GREEN), ctl_style_off(&ctl->paper));
    } else {
        printf("%s%llu problems%s, %llu repaired\n", ctl_style_on(&ctl->paper, CTL_RED),
            (unsigned long long)result->problems, ctl_style_off(&ctl->paper),
            (unsigned long long)result->repaired);
    }
}

enum memos_status ctl_run_fsck(struct ctl *ctl, struct memos_error *err)
{
    Memos__Fsck body = MEMOS__FSCK__INIT;
    Memos__Request request = CTL_REQUEST(FSCK, fsck, &body);
    struct memos_message *reply = NULL;
    body.repair = ctl_args_has(ctl->args, CTL_REPAIR);
    enum memos_status status =
        call_with_progress(ctl, &request, MEMOS__REPLY__BODY_FSCK_RESULT, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__FsckResult *result = memos_message_reply(reply)->fsck_result;
    if (ctl->json) {
        status = ctl_json_print(fsck_json(result), err);
    } else {
        print_fsck(ctl, result);
    }
    if (status == MEMOS_OK && result->problems > result->repaired) {
        ctl->hint = body.repair ? NULL : "memosctl fsck --repair rebuilds what can be rebuilt";
        status = memos_fail(err, MEMOS_CORRUPT, "%llu problems",
            (unsigned long long)(result->problems - result->repaired));
    }
    memos_message_free(&reply);
    return status;
}

/* ---- checkpoints ---- */

static bool take_hex(const json_t *object, const char *name, uint8_t *out, size_t size)
{
    size_t got = 0;
    const char *text = json_string_value(json_object_get(object, name));
    return text && ctl_hex_parse(text, out, size, &got) && got == size;
}

static enum memos_status parse_checkpoint(struct memos_bytes text, const char *path,
    struct memcube_checkpoint *out, struct memos_error *err)
{
    json_t *object = NULL;
    struct memos_error why = {0};
    enum memos_status status = ctl_import_json_parse(text, &object, &why);
    if (status != MEMOS_OK) {
        return memos_fail(err, MEMOS_INVALID, "'%.80s' is no checkpoint: %s", path, why.text);
    }
    const char *id = json_string_value(json_object_get(object, "space_id"));
    const json_t *seq = json_object_get(object, "seq"), *time = json_object_get(object, "time_us");
    *out = (struct memcube_checkpoint){0};
    bool is_one = id && memos_id_parse(memos_bytes_of(id), &out->space_id, NULL) == MEMOS_OK &&
                  json_is_integer(seq) && json_integer_value(seq) > 0 && json_is_integer(time) &&
                  take_hex(object, "head", out->head.bytes, sizeof out->head.bytes) &&
                  take_hex(object, "public_key", out->public_key, sizeof out->public_key) &&
                  take_hex(object, "signature", out->signature, sizeof out->signature);
    out->seq = is_one ? (uint64_t)json_integer_value(seq) : 0;
    out->time_us = is_one ? json_integer_value(time) : 0;
    json_decref(object);
    return is_one ? MEMOS_OK
                  : memos_fail(err, MEMOS_INVALID,
                        "'%.80s' is no checkpoint: space_id, seq, head, time_us, public_key and "
                        "signature must be there",
                        path);
}

/* The signature alone, without any broker. */
static enum memos_status check_signature(
    struct ctl *ctl, const struct memcube_checkpoint *checkpoint, struct memos_error *err)
{
    uint8_t key[32];
    size_t size = 0;
    const char *wanted = ctl_args_value(ctl->args, CTL_PUBLIC_KEY);
    if (wanted && (!ctl_hex_parse(wanted, key, sizeof key, &size) || size != sizeof key)) {
        return memos_fail(err, MEMOS_INVALID, "--public-key takes 64 hexadecimal digits");
    }
    if (wanted && memcmp(key, checkpoint->public_key, sizeof key) != 0) {
        return memos_fail(err, MEMOS_CONFLICT, "it was signed with another key");
    }
    if (sodium_init() < 0) {
        return memos_fail(err, MEMOS_INTERNAL, "libsodium cannot be set up");
    }
    struct memos_buffer bytes = memos_buffer_make(4096);
    memcube_checkpoint_encode(checkpoint, &bytes);
    bool holds = !bytes.failed && crypto_sign_verify_detached(checkpoint->signature, bytes.data,
                                      bytes.size, checkpoint->public_key) == 0;
    memos_buffer_free(&bytes);
    return holds ? MEMOS_OK
                 : memos_fail(err, MEMOS_CORRUPT, "the signature is not of this checkpoint");
}

/* Does the broker's history still have that head? */
static enum memos_status check_head(
    struct ctl *ctl, struct memcube_checkpoint *checkpoint, struct memos_error *err)
{
    Memos__CheckpointInfo info = MEMOS__CHECKPOINT_INFO__INIT;
    Memos__Checkpoint body = MEMOS__CHECKPOINT__INIT;
    Memos__Request request = CTL_REQUEST(CHECKPOINT, checkpoint, &body);
    struct memos_message *reply = NULL;
    if (!ctl_operand(ctl, 0)) {
        return memos_fail(
            err, MEMOS_INVALID, "'checkpoint --check' needs SPACE, unless it is --offline");
    }
    info.space_id = ctl_id_field(&checkpoint->space_id);
    info.seq = checkpoint->seq;
    info.time_us = checkpoint->time_us;
    info.head = (ProtobufCBinaryData){sizeof checkpoint->head.bytes, checkpoint->head.bytes};
    info.public_key = (ProtobufCBinaryData){32, checkpoint->public_key};
    info.signature = (ProtobufCBinaryData){64, checkpoint->signature};
    body.space = ctl_field(ctl_operand(ctl, 0));
    body.check = &info;
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CHECKPOINTS, &reply, err);
    memos_message_free(&reply);
    return status;
}

static enum memos_status check_file(struct ctl *ctl, struct memos_error *err)
{
    struct memcube_checkpoint checkpoint;
    struct memos_buffer text;
    const char *path = ctl_args_value(ctl->args, CTL_CHECK);
    bool is_offline = ctl_args_has(ctl->args, CTL_OFFLINE);
    enum memos_status status = ctl_file_read(path, CHECKPOINT_FILE_BYTES_MAX, &text, err);
    if (status == MEMOS_OK) {
        status = parse_checkpoint(memos_buffer_view(&text), path, &checkpoint, err);
    }
    memos_buffer_free(&text);
    if (status == MEMOS_OK) {
        status = check_signature(ctl, &checkpoint, err);
    }
    if (status == MEMOS_OK && !is_offline) {
        status = check_head(ctl, &checkpoint, err);
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(json_pack("{sb,sb,sI}", "signature", 1, "head", !is_offline, "seq",
                                    (json_int_t)checkpoint.seq),
            err);
    } else if (status == MEMOS_OK) {
        printf("%sholds%s: record %llu%s\n", ctl_style_on(&ctl->paper, CTL_GREEN),
            ctl_style_off(&ctl->paper), (unsigned long long)checkpoint.seq,
            is_offline ? " (the signature; the history was not looked at)" : "");
    }
    return status;
}

static const struct ctl_column checkpoint_columns[] = {
    {"RECORD", true, false},
    {"TIME", false, false},
    {"HEAD", false, true},
    {"KEY", false, true},
};

static void add_checkpoint(struct ctl_table *table, const Memos__CheckpointInfo *checkpoint)
{
    char time[MEMOS_TIME_TEXT_BYTES];
    struct memos_buffer hex = memos_buffer_make(512);
    ctl_table_printf(table, CTL_YELLOW, "%llu", (unsigned long long)checkpoint->seq);
    ctl_table_cell(table, CTL_DIM, memos_bytes_of(memos_time_format(checkpoint->time_us, time)));
    ctl_hex_append(&hex, memos_bytes_make(checkpoint->head.data, checkpoint->head.len));
    ctl_table_cell(table, CTL_PLAIN, memos_buffer_view(&hex));
    memos_buffer_reset(&hex);
    ctl_hex_append(&hex, memos_bytes_make(checkpoint->public_key.data, checkpoint->public_key.len));
    ctl_table_cell(table, CTL_PLAIN, memos_buffer_view(&hex));
    memos_buffer_free(&hex);
}

/* Write it to --out, where a later --check can read it. */
static enum memos_status keep_checkpoint(
    const struct ctl *ctl, const Memos__CheckpointInfo *checkpoint, struct memos_error *err)
{
    struct ctl_file file;
    const char *path = ctl_args_value(ctl->args, CTL_CHECKPOINT_OUT);
    if (!path) {
        return MEMOS_OK;
    }
    json_t *object = ctl_json_checkpoint(checkpoint);
    char *text = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
    json_decref(object);
    enum memos_status status = text ? ctl_file_create(path, &file, err)
                                    : memos_fail(err, MEMOS_NO_MEMORY, "no memory for it");
    if (status == MEMOS_OK) {
        status = ctl_file_write(&file, memos_bytes_of(text), err);
        if (status == MEMOS_OK) {
            status = ctl_file_write(&file, memos_bytes_of("\n"), err);
        }
        if (status == MEMOS_OK) {
            status = ctl_file_commit(&file, err);
        }
        ctl_file_abort(&file);
    }
    free(text);
    return status;
}

static enum memos_status print_checkpoints(
    struct ctl *ctl, const Memos__Checkpoints *checkpoints, bool is_list, struct memos_error *err)
{
    struct ctl_table table = ctl_table_make(
        checkpoint_columns, sizeof checkpoint_columns / sizeof checkpoint_columns[0]);
    json_t *array = json_array();
    for (size_t i = 0; i < checkpoints->n_checkpoints; i++) {
        json_array_append_new(array, ctl_json_checkpoint(checkpoints->checkpoints[i]));
        add_checkpoint(&table, checkpoints->checkpoints[i]);
    }
    enum memos_status status;
    if (ctl->json && is_list) {
        status = ctl_json_print(json_pack("{sO}", "checkpoints", array), err);
    } else if (ctl->json) {
        json_t *one = json_incref(json_array_get(array, 0));
        status = ctl_json_print(one, err);
    } else {
        status = ctl_table_print(&table, &ctl->paper, err);
    }
    json_decref(array);
    ctl_table_free(&table);
    return status;
}

enum memos_status ctl_run_checkpoint(struct ctl *ctl, struct memos_error *err)
{
    Memos__Checkpoint body = MEMOS__CHECKPOINT__INIT;
    Memos__Request request = CTL_REQUEST(CHECKPOINT, checkpoint, &body);
    struct memos_message *reply = NULL;
    if (ctl_args_has(ctl->args, CTL_CHECK)) {
        return check_file(ctl, err);
    }
    if (!ctl_operand(ctl, 0)) {
        return memos_fail(
            err, MEMOS_INVALID, "'checkpoint' needs SPACE, or --check FILE --offline");
    }
    body.space = ctl_field(ctl_operand(ctl, 0));
    body.list = ctl_args_has(ctl->args, CTL_CHECKPOINT_LIST);
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CHECKPOINTS, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__Checkpoints *checkpoints = memos_message_reply(reply)->checkpoints;
    if (!body.list && checkpoints->n_checkpoints != 1) {
        status = memos_fail(
            err, MEMOS_CORRUPT, "the broker made %zu checkpoints", checkpoints->n_checkpoints);
    } else if (!body.list) {
        status = keep_checkpoint(ctl, checkpoints->checkpoints[0], err);
    }
    if (status == MEMOS_OK) {
        status = print_checkpoints(ctl, checkpoints, body.list, err);
    }
    memos_message_free(&reply);
    return status;
}
