/* What happens now: changes as they come, and counters as they move. */
#include "tools/memosctl/ctl.h"

#include "tools/memosctl/text.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { WATCH_STEP_MS = 500, METRICS_MAX = 4096, REFS_SHOWN = 3 };

/* ---- watch ---- */

static void print_event(struct ctl *ctl, const Memos__Event *event)
{
    char time[MEMOS_TIME_TEXT_BYTES], text[MEMOS_ID_TEXT_BYTES];
    struct memos_buffer author = memos_buffer_make(4096);
    ctl_text_clean(&author, memos_bytes_of(event->author), false);
    printf("%s%s%s %llu %s%s%s by %.*s:", ctl_style_on(&ctl->paper, CTL_DIM),
        memos_time_format(event->time_us, time), ctl_style_off(&ctl->paper),
        (unsigned long long)event->seq, ctl_style_on(&ctl->paper, CTL_BOLD),
        ctl_operation_name(event->operation), ctl_style_off(&ctl->paper), (int)author.size,
        author.data ? (const char *)author.data : "");
    memos_buffer_free(&author);
    for (size_t i = 0; i < event->n_refs && i < REFS_SHOWN; i++) {
        struct memos_id id = ctl_id_of(event->refs[i]->id);
        printf(" %s@%u", memos_id_format(&id, text), event->refs[i]->number);
    }
    if (event->refs_total > REFS_SHOWN) {
        printf(" and %u more", event->refs_total - REFS_SHOWN);
    }
    if (event->n_affected > 0) {
        printf(" (%zu derived affected)", event->n_affected);
    }
    putchar('\n');
    fflush(stdout);
}

enum memos_status ctl_run_watch(struct ctl *ctl, struct memos_error *err)
{
    uint64_t count, seen = 0;
    struct memos_watch *watch = NULL;
    enum memos_status status = ctl_args_number(ctl->args, CTL_COUNT, 0, 0, UINT64_MAX, &count, err);
    if (status == MEMOS_OK) {
        status = ctl_connect(ctl, err);
    }
    if (status == MEMOS_OK) {
        status = memos_watch_open(ctl->client, ctl_operand(ctl, 0), &watch, err);
    }
    if (status == MEMOS_OK) {
        ctl_note(ctl, "watching %s", ctl_operand(ctl, 0));
    }
    ctl_catch_stops();
    while (status == MEMOS_OK && !ctl_stopped() && (count == 0 || seen < count)) {
        Memos__Event *event = NULL;
        status = memos_watch_next(watch, WATCH_STEP_MS, &event, err);
        if (status == MEMOS_DEADLINE) {
            status = MEMOS_OK;
            continue;
        }
        if (status == MEMOS_OK && ctl->json) {
            status = ctl_json_line(ctl_json_event(event), err);
        } else if (status == MEMOS_OK) {
            print_event(ctl, event);
        }
        seen += status == MEMOS_OK;
        memos__event__free_unpacked(event, NULL);
    }
    memos_watch_close(&watch);
    return status;
}

/* ---- top ---- */

struct sample {
    char *name; /* with its labels */
    double value;
    bool is_counter;
};

struct samples {
    struct sample rows[METRICS_MAX];
    size_t count;
    int64_t at_us;
};

static void samples_clear(struct samples *samples)
{
    for (size_t i = 0; i < samples->count; i++) {
        free(samples->rows[i].name);
    }
    samples->count = 0;
}

static enum memos_status samples_take(struct ctl *ctl, struct samples *out, struct memos_error *err)
{
    Memos__Stats body = MEMOS__STATS__INIT;
    Memos__Request request = CTL_REQUEST(STATS, stats, &body);
    struct memos_message *reply = NULL;
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_STATS_RESULT, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__StatsResult *result = memos_message_reply(reply)->stats_result;
    samples_clear(out);
    out->at_us = ctl->clock.mono_us(ctl->clock.self);
    for (size_t i = 0; i < result->n_metrics && out->count < METRICS_MAX; i++) {
        const Memos__Metric *metric = result->metrics[i];
        struct sample *row = &out->rows[out->count];
        bool has_labels = metric->labels[0] != '\0';
        if (strstr(metric->name, "_bucket")) {
            continue;
        }
        if (asprintf(&row->name, "%s%s%s%s", metric->name, has_labels ? "{" : "", metric->labels,
                has_labels ? "}" : "") < 0) {
            status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for counters");
            break;
        }
        row->value = metric->value;
        row->is_counter = strcmp(metric->type, "counter") == 0;
        out->count++;
    }
    memos_message_free(&reply);
    return status;
}

/* What a counter gained a second since `before`; 0 without a value there. */
static double rate_of(const struct sample *row, const struct samples *before, int64_t now_us)
{
    double seconds = (double)(now_us - before->at_us) / 1e6;
    for (size_t i = 0; i < before->count && seconds > 0; i++) {
        if (strcmp(before->rows[i].name, row->name) == 0) {
            return (row->value - before->rows[i].value) / seconds;
        }
    }
    return 0;
}

static const struct ctl_column top_columns[] = {
    {"METRIC", false, true},
    {"VALUE", true, false},
    {"PER SECOND", true, false},
};

/* Counters that move, then gauges, then the rest, as many as there is room for. */
static enum memos_status print_samples(struct ctl *ctl, const struct samples *before,
    const struct samples *now, size_t rows_max, struct memos_error *err)
{
    struct ctl_table table =
        ctl_table_make(top_columns, sizeof top_columns / sizeof top_columns[0]);
    size_t rows = 0;
    for (int turn = 0; turn < 3; turn++) {
        for (size_t i = 0; i < now->count && rows < rows_max; i++) {
            const struct sample *row = &now->rows[i];
            double rate = row->is_counter ? rate_of(row, before, now->at_us) : 0;
            int its_turn = rate > 0 ? 0 : !row->is_counter ? 1 : 2;
            if (its_turn != turn || (turn == 2 && row->value == 0)) {
                continue;
            }
            rows++;
            ctl_table_cell(&table, turn == 0 ? CTL_GREEN : CTL_PLAIN, memos_bytes_of(row->name));
            ctl_table_printf(&table, CTL_PLAIN, "%.15g", row->value);
            if (rate > 0) {
                ctl_table_printf(&table, CTL_YELLOW, "%.1f", rate);
            } else {
                ctl_table_cell(&table, CTL_PLAIN, memos_bytes_make(NULL, 0));
            }
        }
    }
    enum memos_status status = ctl_table_print(&table, &ctl->paper, err);
    ctl_table_free(&table);
    return status;
}

static json_t *samples_json(
    const struct ctl *ctl, const struct samples *before, const struct samples *now)
{
    json_t *values = json_object(), *rates = json_object();
    for (size_t i = 0; i < now->count; i++) {
        const struct sample *row = &now->rows[i];
        (void)json_object_set_new(values, row->name, json_real(row->value));
        if (row->is_counter) {
            (void)json_object_set_new(
                rates, row->name, json_real(rate_of(row, before, now->at_us)));
        }
    }
    return json_pack("{so,so,so}", "time", ctl_json_time(ctl->clock.wall_us(ctl->clock.self)),
        "values", values, "rates", rates);
}

/* Keys come one by one and unseen while this is on. */
static bool keys_begin(struct termios *kept)
{
    struct termios raw;
    if (isatty(STDIN_FILENO) != 1 || tcgetattr(STDIN_FILENO, kept) != 0) {
        return false;
    }
    raw = *kept;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    return tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

/* Wait for the next look; false when q was pressed. */
static bool wait_for_key(bool has_keys, int64_t interval_ms)
{
    struct pollfd keys = {.fd = has_keys ? STDIN_FILENO : -1, .events = POLLIN};
    char key = 0;
    if (poll(&keys, 1, (int)interval_ms) > 0 && read(STDIN_FILENO, &key, 1) == 1) {
        return key != 'q' && key != 'Q';
    }
    return true;
}

static size_t rows_of_terminal(const struct ctl *ctl)
{
    struct winsize size;
    bool known = ctl->paper.is_terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
    return known && size.ws_row > 6 ? size.ws_row - 4u : ctl->paper.is_terminal ? 20 : METRICS_MAX;
}

static enum memos_status show_look(struct ctl *ctl, const struct samples *before,
    const struct samples *now, struct memos_error *err)
{
    char time[MEMOS_TIME_TEXT_BYTES];
    if (ctl->json) {
        return ctl_json_line(samples_json(ctl, before, now), err);
    }
    if (ctl->paper.is_terminal) {
        fputs("\x1b[H\x1b[2J", stdout);
    }
    memos_time_format(ctl->clock.wall_us(ctl->clock.self), time);
    printf("memosctl top  %.10s %.8s%s\n\n", time, time + 11,
        ctl->paper.is_terminal ? "  (q quits)" : "");
    enum memos_status status = print_samples(ctl, before, now, rows_of_terminal(ctl), err);
    fflush(stdout);
    return status;
}

enum memos_status ctl_run_top(struct ctl *ctl, struct memos_error *err)
{
    uint64_t count = 0;
    int64_t interval_ms = 0;
    struct termios kept;
    struct samples *looks = calloc(2, sizeof *looks);
    enum memos_status status =
        looks ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for counters");
    if (status == MEMOS_OK) {
        status = ctl_args_number(ctl->args, CTL_COUNT, 0, 0, UINT64_MAX, &count, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_args_duration(ctl->args, CTL_INTERVAL, 1000, &interval_ms, err);
    }
    if (status == MEMOS_OK) {
        status = samples_take(ctl, &looks[0], err);
    }
    bool has_keys = status == MEMOS_OK && keys_begin(&kept);
    ctl_catch_stops();
    for (uint64_t i = 1; status == MEMOS_OK && !ctl_stopped(); i++) {
        if (!wait_for_key(has_keys, interval_ms) || ctl_stopped()) {
            break;
        }
        status = samples_take(ctl, &looks[i % 2], err);
        if (status == MEMOS_OK) {
            status = show_look(ctl, &looks[1 - i % 2], &looks[i % 2], err);
        }
        if (i == count) {
            break;
        }
    }
    if (has_keys) {
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &kept);
    }
    for (size_t i = 0; looks && i < 2; i++) {
        samples_clear(&looks[i]);
    }
    free(looks);
    return status;
}
