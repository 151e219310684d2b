/* What there is: status, spaces, counters. */
#include "tools/memosctl/ctl.h"

#include "tools/memosctl/text.h"

#include <string.h>

enum { PAGE_MAX = 500 };

/* ---- spaces ---- */

static json_t *space_json(const Memos__SpaceInfo *space)
{
    return json_pack("{so,so,sI,so,so,so,sI,sI,sI,so}", "name", ctl_json_string(space->name), "id",
        ctl_json_id(space->id), "seq", (json_int_t)space->seq, "head", ctl_json_hex(space->head),
        "created", ctl_json_time(space->created_us), "changed", ctl_json_time(space->changed_us),
        "cubes", (json_int_t)space->cubes, "versions", (json_int_t)space->versions, "payload_bytes",
        (json_int_t)space->payload_bytes, "rights", ctl_json_string(space->rights));
}

static const struct ctl_column space_columns[] = {
    {"SPACE", false, true},
    {"CUBES", true, false},
    {"VERSIONS", true, false},
    {"RECORDS", true, false},
    {"SIZE", true, false},
    {"CHANGED", false, false},
    {"RIGHTS", false, false},
};

static void add_space(struct ctl_table *table, const Memos__SpaceInfo *space)
{
    char time[MEMOS_TIME_TEXT_BYTES], size[16];
    memos_time_format(space->changed_us, time);
    ctl_table_cell(table, CTL_YELLOW, memos_bytes_of(space->name));
    ctl_table_printf(table, CTL_PLAIN, "%llu", (unsigned long long)space->cubes);
    ctl_table_printf(table, CTL_PLAIN, "%llu", (unsigned long long)space->versions);
    ctl_table_printf(table, CTL_PLAIN, "%llu", (unsigned long long)space->seq);
    ctl_table_printf(table, CTL_PLAIN, "%s", ctl_text_size(space->payload_bytes, size));
    ctl_table_printf(table, CTL_DIM, "%.10s %.5s", time, time + 11);
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(space->rights));
}

struct totals {
    uint64_t spaces, cubes, versions, payload_bytes;
};

/* All spaces up to limit, into what is not NULL. */
static enum memos_status read_spaces(struct ctl *ctl, uint64_t limit, json_t *array,
    struct ctl_table *table, struct totals *totals, bool *out_more, struct memos_error *err)
{
    Memos__Spaces body = MEMOS__SPACES__INIT;
    uint64_t left = limit ? limit : UINT64_MAX;
    *out_more = true;
    while (*out_more && left > 0) {
        struct memos_message *reply = NULL;
        Memos__Request request = CTL_REQUEST(SPACES, spaces, &body);
        body.count_max = (uint32_t)(left < PAGE_MAX ? left : PAGE_MAX);
        enum memos_status status =
            ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_SPACE_INFOS, &reply, err);
        if (status != MEMOS_OK) {
            return status;
        }
        const Memos__SpaceInfos *infos = memos_message_reply(reply)->space_infos;
        for (size_t i = 0; i < infos->n_spaces; i++) {
            const Memos__SpaceInfo *space = infos->spaces[i];
            totals->spaces++;
            totals->cubes += space->cubes;
            totals->versions += space->versions;
            totals->payload_bytes += space->payload_bytes;
            if (array) {
                json_array_append_new(array, space_json(space));
            }
            if (table) {
                add_space(table, space);
            }
            body.after = memos_arena_copy(&ctl->arena, memos_bytes_of(space->name));
        }
        left -= infos->n_spaces < left ? infos->n_spaces : left;
        *out_more = infos->more && infos->n_spaces > 0 && body.after;
        memos_message_free(&reply);
    }
    return MEMOS_OK;
}

enum memos_status ctl_run_spaces(struct ctl *ctl, struct memos_error *err)
{
    uint64_t limit;
    bool more = false;
    struct totals totals = {0};
    json_t *array = json_array();
    struct ctl_table table =
        ctl_table_make(space_columns, sizeof space_columns / sizeof space_columns[0]);
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_LIMIT, 100, 0, UINT32_MAX, &limit, err);
    if (status == MEMOS_OK) {
        status = read_spaces(ctl, limit, array, &table, &totals, &more, err);
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(json_pack("{sO,sb}", "spaces", array, "more", (int)more), err);
    } else if (status == MEMOS_OK) {
        status = ctl_table_print(&table, &ctl->paper, err);
    }
    json_decref(array);
    ctl_table_free(&table);
    return status;
}

/* ---- status ---- */

static json_t *status_json(const Memos__Welcome *welcome, const struct totals *totals)
{
    return json_pack("{so,sI,so,sb,so,sI,so,sI,sI,sI,sI}", "version",
        ctl_json_string(welcome->version), "protocol", (json_int_t)welcome->protocol, "principal",
        ctl_json_string(welcome->principal), "administrator", (int)welcome->administrator, "events",
        ctl_json_string(welcome->events), "message_bytes_max",
        (json_int_t)welcome->message_bytes_max, "server_key", ctl_json_hex(welcome->server_key),
        "spaces", (json_int_t)totals->spaces, "cubes", (json_int_t)totals->cubes, "versions",
        (json_int_t)totals->versions, "payload_bytes", (json_int_t)totals->payload_bytes);
}

enum memos_status ctl_run_status(struct ctl *ctl, struct memos_error *err)
{
    bool more;
    struct totals totals = {0};
    char size[16];
    Memos__Hello hello = MEMOS__HELLO__INIT;
    Memos__Request request = CTL_REQUEST(HELLO, hello, &hello);
    struct memos_message *reply = NULL;
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_WELCOME, &reply, err);
    if (status == MEMOS_OK) {
        status = read_spaces(ctl, 0, NULL, NULL, &totals, &more, err);
    }
    if (status != MEMOS_OK) {
        memos_message_free(&reply);
        return status;
    }
    const Memos__Welcome *welcome = memos_message_reply(reply)->welcome;
    const struct ctl_paper *paper = &ctl->paper;
    if (ctl->json) {
        status = ctl_json_print(status_json(welcome, &totals), err);
    } else {
        ctl_paper_fieldf(
            paper, "broker", "memosd %s, protocol %u", welcome->version, welcome->protocol);
        ctl_paper_fieldf(paper, "you are", "%s%s", welcome->principal,
            welcome->administrator ? ", administrator" : "");
        ctl_paper_field(paper, "events", memos_bytes_of(welcome->events));
        ctl_paper_fieldf(paper, "spaces", "%llu", (unsigned long long)totals.spaces);
        ctl_paper_fieldf(paper, "cubes", "%llu, in %llu versions", (unsigned long long)totals.cubes,
            (unsigned long long)totals.versions);
        ctl_paper_fieldf(paper, "payloads", "%s", ctl_text_size(totals.payload_bytes, size));
    }
    memos_message_free(&reply);
    return status;
}

/* ---- stats ---- */

static const struct ctl_column metric_columns[] = {
    {"METRIC", false, true},
    {"VALUE", true, false},
    {"WHAT", false, true},
};

static void print_prometheus(const Memos__Metric *metric, const char **last)
{
    if (!*last || strcmp(*last, metric->name) != 0) {
        printf(
            "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name, metric->type);
        *last = metric->name;
    }
    printf("%s%s%s%s %.17g\n", metric->name, metric->labels[0] ? "{" : "", metric->labels,
        metric->labels[0] ? "}" : "", metric->value);
}

static json_t *metric_json(const Memos__Metric *metric)
{
    return json_pack("{so,so,so,so,sf}", "name", ctl_json_string(metric->name), "labels",
        ctl_json_string(metric->labels), "type", ctl_json_string(metric->type), "help",
        ctl_json_string(metric->help), "value", metric->value);
}

enum memos_status ctl_run_stats(struct ctl *ctl, struct memos_error *err)
{
    Memos__Stats body = MEMOS__STATS__INIT;
    Memos__Request request = CTL_REQUEST(STATS, stats, &body);
    struct memos_message *reply = NULL;
    const char *filter = ctl_args_value(ctl->args, CTL_FILTER), *last = NULL;
    bool is_prometheus = ctl_args_has(ctl->args, CTL_PROMETHEUS);
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_STATS_RESULT, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    json_t *array = json_array();
    struct ctl_table table =
        ctl_table_make(metric_columns, sizeof metric_columns / sizeof metric_columns[0]);
    const Memos__StatsResult *result = memos_message_reply(reply)->stats_result;
    for (size_t i = 0; i < result->n_metrics; i++) {
        const Memos__Metric *metric = result->metrics[i];
        if (filter && !strstr(metric->name, filter)) {
            continue;
        } else if (ctl->json) {
            json_array_append_new(array, metric_json(metric));
        } else if (is_prometheus) {
            print_prometheus(metric, &last);
        } else {
            ctl_table_printf(&table, CTL_PLAIN, "%s%s%s%s", metric->name,
                metric->labels[0] ? "{" : "", metric->labels, metric->labels[0] ? "}" : "");
            ctl_table_printf(&table, CTL_YELLOW, "%.15g", metric->value);
            ctl_table_cell(&table, CTL_DIM, memos_bytes_of(metric->help));
        }
    }
    if (ctl->json) {
        status = ctl_json_print(json_pack("{sO}", "metrics", array), err);
    } else {
        status = ctl_table_print(&table, &ctl->paper, err);
    }
    json_decref(array);
    ctl_table_free(&table);
    memos_message_free(&reply);
    return status;
}
