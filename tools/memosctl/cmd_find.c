/* Finding cubes: lists, and searches, one or many. */
#include "tools/memosctl/input.h"

#include "memcube/cube.h"
#include "tools/memosctl/find.h"
#include "tools/memosctl/text.h"

#include <string.h>

enum { PAGE_MAX = 500, ROWS_AT_ONCE = 5000, TOP_K_MAX = 1000, TOP_K_PRESET = 10 };
enum { NEIGHBOURS_MAX = 8, WITHOUT_MAX = 64 };

/* Whole: cubes made together differ only at the end. */
static void cell_id(struct ctl_table *table, ProtobufCBinaryData data)
{
    char text[MEMOS_ID_TEXT_BYTES];
    struct memos_id id = ctl_id_of(data);
    ctl_table_cell(table, CTL_YELLOW, memos_bytes_of(memos_id_format(&id, text)));
}

static void cell_day(struct ctl_table *table, int64_t time_us)
{
    char text[MEMOS_TIME_TEXT_BYTES];
    ctl_table_printf(table, CTL_DIM, "%.10s", memos_time_format(time_us, text));
}

/* ---- list ---- */

static const struct ctl_column list_columns[] = {
    {"ID", false, false},
    {"V", true, false},
    {"WHEN", false, false},
    {"STATE", false, false},
    {"TAGS", false, true},
    {"TEXT", false, true},
};

static void add_list_row(
    struct ctl_table *table, const Memos__Cube *cube, struct memos_bytes payload)
{
    cell_id(table, cube->id);
    ctl_table_printf(table, CTL_PLAIN, "%u", cube->number);
    cell_day(table, cube->event_us ? cube->event_us : cube->time_us);
    ctl_table_printf(table, cube->stale ? CTL_RED : CTL_PLAIN, "%s%s", ctl_state_name(cube->state),
        cube->stale ? ", stale" : "");
    struct memos_buffer tags = memos_buffer_make(4096);
    for (size_t i = 0; i < cube->n_tags; i++) {
        memos_buffer_printf(&tags, "%s%s", i ? " " : "", cube->tags[i]);
    }
    ctl_table_cell(table, CTL_BLUE, memos_buffer_view(&tags));
    memos_buffer_free(&tags);
    struct memos_buffer words = memos_buffer_make(4096);
    ctl_cube_words(&words, cube, payload);
    ctl_table_cell(table, CTL_PLAIN, memos_buffer_view(&words));
    memos_buffer_free(&words);
}

/* A listing on its way: as JSON, or rows that are printed from time to time. */
struct listing {
    struct ctl_json_stream stream;
    struct ctl_table table;
    uint64_t left; /* cubes that are still wanted */
};

static enum memos_status take_cube(struct ctl *ctl, struct listing *listing,
    const Memos__Cube *cube, struct memos_bytes payload, struct memos_error *err)
{
    struct ctl_table *table = &listing->table;
    listing->left -= listing->left > 0;
    if (ctl->json) {
        return ctl_json_stream_add(
            &listing->stream, ctl_json_cube(cube, cube->frame != 0, payload), err);
    }
    add_list_row(table, cube, payload);
    if (table->cells_count / table->columns_count < ROWS_AT_ONCE) {
        return MEMOS_OK;
    }
    enum memos_status status = ctl_table_print(table, &ctl->paper, err);
    ctl_table_free(table);
    return status;
}

static enum memos_status list_page(
    struct ctl *ctl, Memos__List *list, struct listing *listing, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    Memos__Request request = CTL_REQUEST(LIST, list, list);
    list->count_max = (uint32_t)(listing->left < PAGE_MAX ? listing->left : PAGE_MAX);
    enum memos_status status =
        ctl_call_page(ctl, &request, &list->count_max, &list->payload, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__Cubes *cubes = memos_message_reply(reply)->cubes;
    for (size_t i = 0; i < cubes->n_cubes && status == MEMOS_OK; i++) {
        status = take_cube(
            ctl, listing, cubes->cubes[i], memos_message_frame(reply, cubes->cubes[i]->frame), err);
    }
    list->cursor = cubes->next;
    memos_message_free(&reply);
    return status;
}

static enum memos_status list_all(
    struct ctl *ctl, Memos__List *list, uint64_t limit, struct memos_error *err)
{
    enum memos_status status;
    struct listing listing = {
        .stream = {.name = "cubes"},
        .table = ctl_table_make(list_columns, sizeof list_columns / sizeof list_columns[0]),
        .left = limit ? limit : UINT64_MAX,
    };
    do {
        status = list_page(ctl, list, &listing, err);
    } while (status == MEMOS_OK && list->cursor != 0 && listing.left > 0);
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_stream_end(&listing.stream, list->cursor != 0, err);
    } else if (status == MEMOS_OK) {
        status = ctl_table_print(&listing.table, &ctl->paper, err);
        if (list->cursor != 0) {
            ctl_note(ctl, "there are more; --limit 0 shows all");
        }
    }
    ctl_table_free(&listing.table);
    return status;
}

enum memos_status ctl_run_list(struct ctl *ctl, struct memos_error *err)
{
    uint64_t limit;
    Memos__AsOf as_of;
    Memos__Filter filter;
    Memos__List list = MEMOS__LIST__INIT;
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_LIMIT, 100, 0, UINT32_MAX, &limit, err);
    if (status == MEMOS_OK) {
        status = ctl_filter_make(ctl, &filter, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_as_of(ctl, &as_of, &list.as_of, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    list.space = ctl_field(ctl_operand(ctl, 0));
    list.filter = &filter;
    list.oldest_first = ctl_args_has(ctl->args, CTL_OLDEST);
    list.payload = true;
    return list_all(ctl, &list, limit, err);
}

/* ---- search ---- */

/* All operands after the space, with blanks between them: a query needs no quotes. */
static enum memos_status join_words(struct ctl *ctl, char **out, struct memos_error *err)
{
    struct memos_buffer text = memos_buffer_make(1024 * 1024);
    for (size_t i = 1; i < ctl->args->operands_count; i++) {
        memos_buffer_printf(&text, "%s%s", i > 1 ? " " : "", ctl_operand(ctl, i));
    }
    *out = text.failed ? NULL : memos_arena_copy(&ctl->arena, memos_buffer_view(&text));
    memos_buffer_free(&text);
    return *out ? MEMOS_OK : memos_fail(err, MEMOS_TOO_LARGE, "the query is longer than 1 MiB");
}

/* The values of --without, of which each may be several with commas. */
static enum memos_status take_without(
    struct ctl *ctl, Memos__Search *search, struct memos_error *err)
{
    size_t at = 0, count = 0;
    const char *value;
    char **names = memos_arena_take(&ctl->arena, WITHOUT_MAX, sizeof *names);
    while (names && (value = ctl_args_next(ctl->args, CTL_WITHOUT, &at))) {
        while (*value) {
            size_t size = strcspn(value, ",");
            if (size > 0 && count == WITHOUT_MAX) {
                return memos_fail(
                    err, MEMOS_INVALID, "more than %d parts to leave out", WITHOUT_MAX);
            }
            if (size > 0) {
                names[count++] = memos_arena_copy(&ctl->arena, memos_bytes_make(value, size));
            }
            value += size + (value[size] == ',');
        }
    }
    if (!names || (count > 0 && !names[count - 1])) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the options");
    }
    search->without = names;
    search->n_without = count;
    return MEMOS_OK;
}

static enum memos_status take_ranking(
    struct ctl *ctl, Memos__Search *search, struct memos_error *err)
{
    uint64_t neighbours;
    bool by_words = ctl_args_has(ctl->args, CTL_BY_WORDS);
    bool by_vectors = ctl_args_has(ctl->args, CTL_BY_VECTORS);
    if (by_words && by_vectors) {
        return memos_fail(
            err, MEMOS_INVALID, "--words and --vectors; without either it is by both");
    }
    search->mode = by_words ? CTL_MODE_WORDS : by_vectors ? CTL_MODE_VECTORS : 0;
    search->explain = ctl_args_has(ctl->args, CTL_EXPLAIN);
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_NEIGHBOURS, 0, 0, NEIGHBOURS_MAX, &neighbours, err);
    search->neighbours = (uint32_t)neighbours;
    if (status == MEMOS_OK) {
        status = ctl_time_option(ctl, CTL_NOW, &search->now_us, err);
    }
    return status == MEMOS_OK ? take_without(ctl, search, err) : status;
}

enum memos_status ctl_search_make(struct ctl *ctl, struct ctl_search *out, struct memos_error *err)
{
    uint64_t top_k;
    out->search = (Memos__Search)MEMOS__SEARCH__INIT;
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_TOP_K, TOP_K_PRESET, 1, TOP_K_MAX, &top_k, err);
    if (status == MEMOS_OK) {
        status = ctl_filter_make(ctl, &out->filter, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_as_of(ctl, &out->as_of, &out->search.as_of, err);
    }
    if (status == MEMOS_OK) {
        status = take_ranking(ctl, &out->search, err);
    }
    out->search.filter = &out->filter;
    out->search.top_k = (uint32_t)top_k;
    out->search.language = ctl_field(ctl_args_value(ctl->args, CTL_SEARCH_LANGUAGE));
    out->search.ids_only = ctl_args_has(ctl->args, CTL_IDS_ONLY);
    out->search.space = ctl_field(ctl_operand(ctl, 0));
    return status;
}

enum memos_status ctl_run_search(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_search search;
    struct memos_message *reply = NULL;
    enum memos_status status = ctl_search_make(ctl, &search, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (ctl_args_has(ctl->args, CTL_QUERIES)) {
        return ctl_queries_answer(ctl, &search, err);
    }
    if (ctl->args->operands_count < 2) {
        return memos_fail(err, MEMOS_INVALID, "'search' needs SPACE TEXT, or --queries");
    }
    Memos__Request request = CTL_REQUEST(SEARCH, search, &search.search);
    status = join_words(ctl, &search.search.text, err);
    if (status == MEMOS_OK) {
        status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_HITS, &reply, err);
    }
    if (status == MEMOS_TOO_LARGE && !search.search.ids_only) {
        ctl->hint = NULL;
        search.search.no_payload = true;
        status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_HITS, &reply, err);
        if (status == MEMOS_OK) {
            ctl_note(ctl, "the texts are too large together, and left out");
        }
    }
    if (status == MEMOS_OK) {
        status = ctl_hits_print(ctl, reply, &search.search, err);
    }
    memos_message_free(&reply);
    return status;
}
