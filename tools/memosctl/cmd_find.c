/* Finding cubes: lists, and searches by words, one or many. */
#include "tools/memosctl/input.h"

#include "memcube/cube.h"
#include "tools/memosctl/find.h"
#include "tools/memosctl/text.h"

#include <string.h>

enum { PAGE_MAX = 500, ROWS_AT_ONCE = 5000, TOP_K_MAX = 1000, TOP_K_PRESET = 10 };

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

/* The title and the text, as far as there is room. */
static void cell_words(struct ctl_table *table, const Memos__Cube *cube, struct memos_bytes payload)
{
    struct memos_buffer words = memos_buffer_make(4096);
    if (cube->speaker[0]) {
        memos_buffer_printf(&words, "%.100s: ", cube->speaker);
    }
    if (!memos_bytes_utf8(ctl_text_head(payload, 2048))) {
        memos_buffer_printf(&words, "(%.100s, %zu bytes)", cube->codec, payload.size);
    } else if (payload.size > 0) {
        struct memos_bytes head = ctl_text_head(payload, 1500);
        memos_buffer_bytes(&words, head.data, head.size);
    } else {
        memos_buffer_printf(&words, "%.1000s", cube->title);
    }
    ctl_table_cell(table, CTL_PLAIN, memos_buffer_view(&words));
    memos_buffer_free(&words);
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
    cell_words(table, cube, payload);
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

json_t *ctl_hit_json(const Memos__Hit *hit, bool with_payload, struct memos_bytes payload)
{
    json_t *object = hit->cube ? ctl_json_cube(hit->cube, with_payload, payload) : json_object();
    json_object_set_new(object, "score", json_real((double)hit->score));
    return object;
}

static const struct ctl_column hit_columns[] = {
    {"SCORE", true, false},
    {"ID", false, false},
    {"WHEN", false, false},
    {"TEXT", false, true},
};

static enum memos_status print_hits(
    struct ctl *ctl, const struct memos_message *reply, bool ids_only, struct memos_error *err)
{
    const Memos__Hits *hits = memos_message_reply(reply)->hits;
    struct ctl_table table =
        ctl_table_make(hit_columns, sizeof hit_columns / sizeof hit_columns[0]);
    json_t *array = json_array();
    for (size_t i = 0; i < hits->n_hits; i++) {
        const Memos__Hit *hit = hits->hits[i];
        if (!hit->cube) {
            continue;
        }
        struct memos_bytes payload = memos_message_frame(reply, hit->cube->frame);
        if (ctl->json) {
            json_array_append_new(array, ids_only
                                             ? ctl_hit_short_json(hit)
                                             : ctl_hit_json(hit, hit->cube->frame != 0, payload));
            continue;
        }
        ctl_table_printf(&table, CTL_GREEN, "%.2f", (double)hit->score);
        cell_id(&table, hit->cube->id);
        cell_day(&table, hit->cube->event_us ? hit->cube->event_us : hit->cube->time_us);
        cell_words(&table, hit->cube, payload);
    }
    enum memos_status status;
    if (ctl->json) {
        status = ctl_json_print(json_pack("{sO,sI,sI}", "hits", array, "seq", (json_int_t)hits->seq,
                                    "micros", (json_int_t)hits->micros),
            err);
    } else {
        status = ctl_table_print(&table, &ctl->paper, err);
        if (hits->n_hits == 0) {
            ctl_note(ctl, "nothing found");
        }
    }
    json_decref(array);
    ctl_table_free(&table);
    return status;
}

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
        status = print_hits(ctl, reply, search.search.ids_only, err);
    }
    memos_message_free(&reply);
    return status;
}
