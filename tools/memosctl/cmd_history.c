/* What happened: the log, one cube with its provenance and versions, and differences. */
#include "tools/memosctl/input.h"
#include "tools/memosctl/versions.h"

#include "memcube/cube.h"
#include "tools/memosctl/text.h"

#include <string.h>

enum { PAGE_MAX = 500, ROWS_AT_ONCE = 5000 };

static const char *id_text(ProtobufCBinaryData data, char out[MEMOS_ID_TEXT_BYTES])
{
    struct memos_id id = ctl_id_of(data);
    return memos_id_format(&id, out);
}

/* ---- log ---- */

static const struct ctl_column log_columns[] = {
    {"SEQ", true, false},
    {"TIME", false, false},
    {"OPERATION", false, false},
    {"CUBES", true, false},
    {"AUTHOR", false, true},
    {"REASON", false, true},
};

static void add_record(struct ctl_table *table, const Memos__LogRecord *record)
{
    char time[MEMOS_TIME_TEXT_BYTES];
    ctl_table_printf(table, CTL_YELLOW, "%llu", (unsigned long long)record->seq);
    memos_time_format(record->time_us, time);
    ctl_table_printf(table, CTL_DIM, "%.10s %.8s", time, time + 11);
    if (record->rollback_to) {
        ctl_table_printf(table, CTL_PLAIN, "%s to %llu", ctl_operation_name(record->operation),
            (unsigned long long)record->rollback_to - 1);
    } else {
        ctl_table_printf(table, CTL_PLAIN, "%s", ctl_operation_name(record->operation));
    }
    ctl_table_printf(table, CTL_PLAIN, "%u", record->entries_total);
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(record->author));
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(record->reason));
}

/* A log on its way: as JSON, or rows that are printed from time to time. */
struct listing {
    struct ctl_json_stream stream;
    struct ctl_table table;
    uint64_t left; /* records that are still wanted */
    uint64_t next; /* the one to go on with; 0: that was the last */
};

static enum memos_status take_record(struct ctl *ctl, struct listing *listing,
    const Memos__LogRecord *record, struct memos_error *err)
{
    struct ctl_table *table = &listing->table;
    listing->left -= listing->left > 0;
    if (ctl->json) {
        return ctl_json_stream_add(&listing->stream, ctl_json_record(record), err);
    }
    add_record(table, record);
    if (table->cells_count / table->columns_count < ROWS_AT_ONCE) {
        return MEMOS_OK;
    }
    enum memos_status status = ctl_table_print(table, &ctl->paper, err);
    ctl_table_free(table);
    return status;
}

static enum memos_status log_page(
    struct ctl *ctl, Memos__Log *log, struct listing *listing, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    Memos__Request request = CTL_REQUEST(LOG, log, log);
    log->from = listing->next;
    log->count_max = (uint32_t)(listing->left < PAGE_MAX ? listing->left : PAGE_MAX);
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_LOG_RECORDS, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__LogRecords *records = memos_message_reply(reply)->log_records;
    listing->next = 0;
    for (size_t i = 0; i < records->n_records && status == MEMOS_OK; i++) {
        status = take_record(ctl, listing, records->records[i], err);
    }
    if (records->n_records > 0) {
        uint64_t last = records->records[records->n_records - 1]->seq;
        bool at_end = log->newest_first ? last <= 1 : last >= records->head_seq;
        listing->next = at_end ? 0 : log->newest_first ? last - 1 : last + 1;
    }
    memos_message_free(&reply);
    return status;
}

enum memos_status ctl_run_log(struct ctl *ctl, struct memos_error *err)
{
    uint64_t limit;
    Memos__Log log = MEMOS__LOG__INIT;
    struct listing listing = {
        .stream = {.name = "records"},
        .table = ctl_table_make(log_columns, sizeof log_columns / sizeof log_columns[0]),
    };
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_LIMIT, 100, 0, UINT32_MAX, &limit, err);
    if (status == MEMOS_OK) {
        status = ctl_args_number(ctl->args, CTL_FROM, 0, 1, UINT64_MAX, &listing.next, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    log.space = ctl_field(ctl_operand(ctl, 0));
    log.newest_first = !ctl_args_has(ctl->args, CTL_OLDEST);
    listing.left = limit ? limit : UINT64_MAX;
    do {
        status = log_page(ctl, &log, &listing, err);
    } while (status == MEMOS_OK && listing.next != 0 && listing.left > 0);
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_stream_end(&listing.stream, listing.next != 0, err);
    } else if (status == MEMOS_OK) {
        status = ctl_table_print(&listing.table, &ctl->paper, err);
    }
    ctl_table_free(&listing.table);
    return status;
}

/* ---- versions of a cube ---- */

static const struct ctl_column version_columns[] = {
    {"V", true, false},
    {"RECORD", true, false},
    {"TIME", false, false},
    {"OPERATION", false, false},
    {"STATE", false, false},
    {"AUTHOR", false, true},
    {"REASON", false, true},
    {"TEXT", false, true},
};

static void add_version(
    struct ctl_table *table, const Memos__Cube *cube, struct memos_bytes payload)
{
    char time[MEMOS_TIME_TEXT_BYTES];
    memos_time_format(cube->time_us, time);
    ctl_table_printf(table, CTL_YELLOW, "%u", cube->number);
    ctl_table_printf(table, CTL_PLAIN, "%llu", (unsigned long long)cube->seq);
    ctl_table_printf(table, CTL_DIM, "%.10s %.8s", time, time + 11);
    if (cube->equals) {
        ctl_table_printf(
            table, CTL_PLAIN, "%s to %u", ctl_operation_name(cube->operation), cube->equals);
    } else {
        ctl_table_printf(table, CTL_PLAIN, "%s", ctl_operation_name(cube->operation));
    }
    ctl_table_printf(table, cube->stale ? CTL_RED : CTL_PLAIN, "%s%s", ctl_state_name(cube->state),
        cube->stale ? ", stale" : "");
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(cube->author));
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(cube->reason));
    struct memos_bytes head = ctl_text_head(payload, 1500);
    bool is_text = head.size == 0 || memos_bytes_utf8(head);
    ctl_table_cell(table, CTL_PLAIN, is_text ? head : memos_bytes_of("(not text)"));
}

/* All versions up to limit (0: all), as JSON or rows. */
static enum memos_status read_versions(struct ctl *ctl, const struct memos_id *id, uint64_t limit,
    json_t *array, struct ctl_table *table, struct memos_error *err)
{
    Memos__History history = MEMOS__HISTORY__INIT;
    uint64_t left = limit ? limit : UINT64_MAX;
    history.space = ctl_field(ctl_operand(ctl, 0));
    history.id = ctl_id_field(id);
    history.payload = true;
    history.from = 1;
    for (bool more = true; more && left > 0;) {
        struct memos_message *reply = NULL;
        Memos__Request request = CTL_REQUEST(HISTORY, history, &history);
        history.count_max = (uint32_t)(left < PAGE_MAX ? left : PAGE_MAX);
        enum memos_status status =
            ctl_call_page(ctl, &request, &history.count_max, &history.payload, &reply, err);
        if (status != MEMOS_OK) {
            return status;
        }
        const Memos__Cubes *cubes = memos_message_reply(reply)->cubes;
        for (size_t i = 0; i < cubes->n_cubes; i++) {
            const Memos__Cube *cube = cubes->cubes[i];
            struct memos_bytes payload = memos_message_frame(reply, cube->frame);
            history.from = cube->number + 1;
            if (ctl->json) {
                json_array_append_new(array, ctl_json_cube(cube, cube->frame != 0, payload));
            } else {
                add_version(table, cube, payload);
            }
        }
        left -= cubes->n_cubes < left ? cubes->n_cubes : left;
        more = cubes->n_cubes > 0 && cubes->next != 0;
        memos_message_free(&reply);
    }
    return MEMOS_OK;
}

enum memos_status ctl_run_history(struct ctl *ctl, struct memos_error *err)
{
    uint64_t limit;
    struct memos_id id;
    struct ctl_table table =
        ctl_table_make(version_columns, sizeof version_columns / sizeof version_columns[0]);
    json_t *array = json_array();
    enum memos_status status = ctl_args_number(ctl->args, CTL_LIMIT, 0, 0, UINT32_MAX, &limit, err);
    if (status == MEMOS_OK) {
        status = ctl_id_resolve(ctl, ctl_operand(ctl, 0), ctl_operand(ctl, 1), &id, err);
    }
    if (status == MEMOS_OK) {
        status = read_versions(ctl, &id, limit, array, &table, err);
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(json_pack("{sO}", "versions", array), err);
    } else if (status == MEMOS_OK) {
        status = ctl_table_print(&table, &ctl->paper, err);
    }
    json_decref(array);
    ctl_table_free(&table);
    return status;
}

/* ---- show ---- */

static void print_time(const struct ctl_paper *paper, const char *name, int64_t time_us)
{
    char text[MEMOS_TIME_TEXT_BYTES];
    if (time_us != 0) {
        ctl_paper_fieldf(paper, name, "%s", memos_time_format(time_us, text));
    }
}

static void print_provenance(const struct ctl_paper *paper, const Memos__Cube *cube)
{
    char id[MEMOS_ID_TEXT_BYTES];
    for (size_t i = 0; i < cube->n_sources; i++) {
        const Memos__Source *source = cube->sources[i];
        if (source->length) {
            ctl_paper_fieldf(paper, "source", "%s %s, bytes %llu to %llu", source->type,
                source->uri, (unsigned long long)source->offset,
                (unsigned long long)(source->offset + source->length));
        } else {
            ctl_paper_fieldf(paper, "source", "%s %s", source->type, source->uri);
        }
    }
    for (size_t i = 0; i < cube->n_derived_from; i++) {
        ctl_paper_fieldf(paper, "derived from", "%s version %u",
            id_text(cube->derived_from[i]->id, id), cube->derived_from[i]->number);
    }
    for (size_t i = 0; i < cube->n_attributes; i++) {
        ctl_paper_fieldf(paper, "attribute", "%.200s = %.700s", cube->attributes[i]->name,
            cube->attributes[i]->value);
    }
    for (size_t i = 0; i < cube->n_readers; i++) {
        ctl_paper_field(paper, "reader", memos_bytes_of(cube->readers[i]));
    }
}

static void print_cube(const struct ctl_paper *paper, const Memos__Cube *cube)
{
    char id[MEMOS_ID_TEXT_BYTES];
    ctl_paper_fieldf(paper, "id", "%s", id_text(cube->id, id));
    ctl_paper_fieldf(paper, "version", "%u, record %llu, by %s%s%s", cube->number,
        (unsigned long long)cube->seq, cube->author, cube->reason[0] ? ": " : "", cube->reason);
    ctl_paper_fieldf(paper, "kind", "%s%s%s, %llu bytes, %s", ctl_kind_name(cube->kind),
        cube->subtype[0] ? ", " : "", cube->subtype, (unsigned long long)cube->payload_bytes,
        cube->codec);
    ctl_paper_fieldf(paper, "state", "%s%s", ctl_state_name(cube->state),
        cube->stale ? ", stale: something that it was derived from no longer stands" : "");
    print_time(paper, "recorded", cube->time_us);
    print_time(paper, "happened", cube->event_us);
    ctl_paper_field(paper, "title", memos_bytes_of(cube->title));
    ctl_paper_field(paper, "speaker", memos_bytes_of(cube->speaker));
    ctl_paper_field(paper, "language", memos_bytes_of(cube->language));
    ctl_paper_field(paper, "external id", memos_bytes_of(cube->external_id));
    for (size_t i = 0; i < cube->n_tags; i++) {
        ctl_paper_field(paper, "tag", memos_bytes_of(cube->tags[i]));
    }
    print_time(paper, "valid from", cube->valid_from_us);
    print_time(paper, "valid to", cube->valid_to_us);
    print_time(paper, "expires", cube->expires_us);
    print_time(paper, "retained until", cube->retain_until_us);
    if (cube->priority != 128 && cube->priority != 0) {
        ctl_paper_fieldf(paper, "priority", "%u", cube->priority);
    }
    if (cube->sensitivity != 2 && cube->sensitivity != 0) {
        ctl_paper_fieldf(paper, "sensitivity", "%s", ctl_sensitivity_name(cube->sensitivity));
    }
    if (cube->reads > 0) {
        ctl_paper_fieldf(paper, "read", "%llu times, usefulness %.2f",
            (unsigned long long)cube->reads, (double)cube->usefulness);
    }
    print_provenance(paper, cube);
}

static enum memos_status print_shown(struct ctl *ctl, const Memos__Cube *cube,
    struct memos_bytes payload, json_t *versions, const struct ctl_table *table,
    struct memos_error *err)
{
    if (ctl->json) {
        json_t *object = ctl_json_cube(cube, cube->frame != 0, payload);
        json_object_set(object, "versions", versions);
        return ctl_json_print(object, err);
    }
    print_cube(&ctl->paper, cube);
    if (cube->state == MEMCUBE_STATE_FORGOTTEN) {
        puts("\n  (what it said was destroyed)\n");
    } else if (memos_bytes_utf8(payload)) {
        putchar('\n');
        ctl_paper_text(&ctl->paper, payload, 2);
        putchar('\n');
    } else {
        printf("\n  (not text)\n\n");
    }
    return ctl_table_print(table, &ctl->paper, err);
}

enum memos_status ctl_run_show(struct ctl *ctl, struct memos_error *err)
{
    uint64_t number;
    struct memos_id id;
    Memos__AsOf as_of, *as_of_given;
    struct memos_message *reply = NULL;
    const Memos__Cube *cube = NULL;
    struct ctl_table table =
        ctl_table_make(version_columns, sizeof version_columns / sizeof version_columns[0]);
    json_t *versions = json_array();
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_VERSION_OF, 0, 1, UINT32_MAX, &number, err);
    if (status == MEMOS_OK) {
        status = ctl_as_of(ctl, &as_of, &as_of_given, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_id_resolve(ctl, ctl_operand(ctl, 0), ctl_operand(ctl, 1), &id, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_version_get(ctl, &id, (uint32_t)number, as_of_given, &reply, &cube, err);
    }
    if (status == MEMOS_OK) {
        status = read_versions(ctl, &id, 0, versions, &table, err);
    }
    if (status == MEMOS_OK) {
        status =
            print_shown(ctl, cube, memos_message_frame(reply, cube->frame), versions, &table, err);
    }
    memos_message_free(&reply);
    json_decref(versions);
    ctl_table_free(&table);
    return status;
}

/* ---- diff ---- */

/* "3" is a version, "r120" a record, anything else a time. */
static enum memos_status get_point(struct ctl *ctl, const struct memos_id *id, const char *text,
    struct memos_message **out_reply, const Memos__Cube **out_cube, struct memos_error *err)
{
    Memos__AsOf as_of = MEMOS__AS_OF__INIT;
    uint64_t number = 0;
    if (!text) {
        return ctl_version_get(ctl, id, 0, NULL, out_reply, out_cube, err);
    }
    if (ctl_number_parse(text, UINT32_MAX, &number) && number > 0) {
        return ctl_version_get(ctl, id, (uint32_t)number, NULL, out_reply, out_cube, err);
    }
    if (text[0] != 'r' || !ctl_number_parse(text + 1, UINT64_MAX, &as_of.seq)) {
        enum memos_status status = ctl_point_parse(ctl, text, &as_of, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    if (as_of.seq == 0 && as_of.time_us == 0) {
        return memos_fail(err, MEMOS_INVALID, "versions and records count from 1");
    }
    return ctl_version_get(ctl, id, 0, &as_of, out_reply, out_cube, err);
}

static enum memos_status print_diff(struct ctl *ctl, const struct memos_message *a_reply,
    const Memos__Cube *a, const struct memos_message *b_reply, const Memos__Cube *b,
    struct memos_error *err)
{
    struct memos_bytes a_payload =
        a ? memos_message_frame(a_reply, a->frame) : memos_bytes_make(NULL, 0);
    struct memos_bytes b_payload = memos_message_frame(b_reply, b->frame);
    if (ctl->json) {
        json_t *diff = ctl_versions_diff_json(ctl, a, a_payload, b, b_payload);
        json_object_set_new(diff, "id", ctl_json_id(b->id));
        json_object_set_new(diff, "from", json_integer(a ? a->number : 0));
        json_object_set_new(diff, "to", json_integer(b->number));
        return ctl_json_print(diff, err);
    }
    char id[MEMOS_ID_TEXT_BYTES];
    printf("%s%s: version %u -> %u%s\n", ctl_style_on(&ctl->paper, CTL_BOLD), id_text(b->id, id),
        a ? a->number : 0, b->number, ctl_style_off(&ctl->paper));
    return ctl_versions_diff(ctl, a, a_payload, b, b_payload, err);
}

enum memos_status ctl_run_diff(struct ctl *ctl, struct memos_error *err)
{
    struct memos_id id;
    struct memos_message *a_reply = NULL, *b_reply = NULL;
    const Memos__Cube *a = NULL, *b = NULL;
    const char *from = ctl_operand(ctl, 2), *to = ctl_operand(ctl, 3);
    enum memos_status status =
        ctl_id_resolve(ctl, ctl_operand(ctl, 0), ctl_operand(ctl, 1), &id, err);
    if (status == MEMOS_OK) {
        status = get_point(ctl, &id, to, &b_reply, &b, err);
    }
    if (status == MEMOS_OK && from) {
        status = get_point(ctl, &id, from, &a_reply, &a, err);
    } else if (status == MEMOS_OK && b->number > 1) {
        status = ctl_version_get(ctl, &id, b->number - 1, NULL, &a_reply, &a, err);
    }
    if (status == MEMOS_OK) {
        status = print_diff(ctl, a_reply, a, b_reply, b, err);
    }
    memos_message_free(&a_reply);
    memos_message_free(&b_reply);
    return status;
}
