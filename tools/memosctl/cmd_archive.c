/* Archives: a space or a cube as one file, out and in. */
#include "tools/memosctl/archive.h"

#include "tools/memosctl/input.h"
#include "tools/memosctl/text.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define PART_BYTES ((size_t)1024 * 1024)

/* ---- export ---- */

struct export
{
    struct ctl *ctl;
    struct ctl_file file;
    uint64_t bytes;
    enum memos_status status;
    struct memos_error err;
};

/* Parts come in order; one that does not fit to the last says that something was lost. */
static void on_part(void *self, const struct memos_message *message)
{
    struct export *export = self;
    const Memos__Reply *reply = memos_message_reply(message);
    if (reply->body_case != MEMOS__REPLY__BODY_EXPORT_PART || export->status != MEMOS_OK) {
        return;
    }
    struct memos_bytes part = memos_message_frame(message, reply->export_part->frame);
    if (reply->export_part->offset != export->bytes) {
        export->status = memos_fail(&export->err, MEMOS_CORRUPT,
            "a part of the archive is missing at byte %llu", (unsigned long long)export->bytes);
        return;
    }
    export->status = ctl_file_write(&export->file, part, &export->err);
    export->bytes += part.size;
    ctl_progress(export->ctl, "bytes written:", export->bytes, 0);
}

static void print_summary(const Memos__ArchiveSummary *summary)
{
    char size[16];
    printf("%s: %llu cubes in %llu versions, %llu records, %llu payloads, %s\n",
        summary->single_cube ? "cube" : "space", (unsigned long long)summary->cubes,
        (unsigned long long)summary->versions, (unsigned long long)summary->records,
        (unsigned long long)summary->payloads, ctl_text_size(summary->bytes, size));
}

static enum memos_status receive_archive(
    struct ctl *ctl, Memos__Export *body, struct export *export, struct memos_error *err)
{
    Memos__Request request = CTL_REQUEST(EXPORT, export, body);
    struct memos_message *reply = NULL;
    bool to_output = strcmp(export->file.path, "-") == 0;
    memos_client_on_more(ctl->client, on_part, export);
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_EXPORT_PART, &reply, err);
    memos_client_on_more(ctl->client, NULL, NULL);
    if (status == MEMOS_OK) {
        on_part(export, reply);
    }
    ctl_progress_end(ctl);
    if (status == MEMOS_OK && export->status != MEMOS_OK) {
        *err = export->err;
        status = export->status;
    }
    if (status == MEMOS_OK) {
        status = ctl_file_commit(&export->file, err);
    }
    const Memos__ArchiveSummary *summary =
        status == MEMOS_OK ? memos_message_reply(reply)->export_part->summary : NULL;
    if (summary && !to_output && ctl->json) {
        status = ctl_json_print(ctl_json_summary(summary), err);
    } else if (summary && !to_output) {
        print_summary(summary);
    }
    memos_message_free(&reply);
    return status;
}

enum memos_status ctl_run_export(struct ctl *ctl, struct memos_error *err)
{
    struct memos_id id;
    struct export export = {.ctl = ctl};
    Memos__Export body = MEMOS__EXPORT__INIT;
    const char *path = ctl_args_value(ctl->args, CTL_OUTPUT), *cube = ctl_operand(ctl, 1);
    if (!path) {
        return memos_fail(err, MEMOS_INVALID, "say where to: --output FILE, or - for the output");
    }
    if (strcmp(path, "-") == 0 && ctl->paper.is_terminal) {
        return memos_fail(err, MEMOS_INVALID, "an archive is not written to a terminal");
    }
    enum memos_status status = ctl_connect(ctl, err);
    if (status == MEMOS_OK && cube) {
        status = ctl_id_resolve(ctl, ctl_operand(ctl, 0), cube, &id, err);
        body.id = ctl_id_field(&id);
    }
    if (status == MEMOS_OK) {
        status = ctl_file_create(path, &export.file, err);
    }
    if (status == MEMOS_OK) {
        body.space = ctl_field(ctl_operand(ctl, 0));
        status = receive_archive(ctl, &body, &export, err);
    }
    ctl_file_abort(&export.file);
    return status;
}

/* ---- import ---- */

static enum memos_status send_part(struct ctl *ctl, Memos__Import *body, struct memos_bytes part,
    int want, struct memos_message **out, struct memos_error *err)
{
    Memos__Request request = CTL_REQUEST(IMPORT, import, body);
    body->frame = part.size > 0 ? 1 : 0;
    return ctl_call(ctl, &request, &part, part.size > 0 ? 1 : 0, want, out, err);
}

enum memos_status ctl_archive_import(struct ctl *ctl, const char *space, struct memos_bytes archive,
    struct ctl_archive_counts *out, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    uint8_t token[64];
    Memos__Import body = MEMOS__IMPORT__INIT;
    body.space = ctl_field(space);
    body.reason = ctl_field(ctl_args_value(ctl->args, CTL_REASON));
    body.begin = true;
    body.bytes_total = archive.size;
    enum memos_status status = send_part(
        ctl, &body, memos_bytes_make(NULL, 0), MEMOS__REPLY__BODY_IMPORT_READY, &reply, err);
    if (status == MEMOS_OK) {
        ProtobufCBinaryData given = memos_message_reply(reply)->import_ready->token;
        body.token =
            (ProtobufCBinaryData){given.len < sizeof token ? given.len : sizeof token, token};
        memcpy(token, given.data, body.token.len);
    }
    memos_message_free(&reply);
    body.begin = false;
    while (status == MEMOS_OK && body.offset < archive.size) {
        size_t left = archive.size - (size_t)body.offset;
        struct memos_bytes part = memos_bytes_make(
            (const uint8_t *)archive.data + body.offset, left < PART_BYTES ? left : PART_BYTES);
        status = send_part(ctl, &body, part, MEMOS__REPLY__BODY_IMPORT_READY, &reply, err);
        memos_message_free(&reply);
        body.offset += part.size;
        ctl_progress(ctl, "bytes sent:", body.offset, archive.size);
    }
    if (status == MEMOS_OK) {
        body.commit = true;
        status = send_part(
            ctl, &body, memos_bytes_make(NULL, 0), MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    }
    if (status == MEMOS_OK) {
        const Memos__ArchiveSummary *summary = memos_message_reply(reply)->outcome->archive;
        out->total = summary ? (summary->single_cube ? summary->versions : summary->records) : 0;
        out->added = summary ? summary->added : 0;
    }
    ctl_progress_end(ctl);
    memos_message_free(&reply);
    return status;
}
