/* What a search found, for people and as JSON.
 *
 * Plain hits are a table, a line each. With explanations or neighbours a hit is a paragraph:
 *
 *   0.93  01a0fbc2-...  2023-05-08
 *             Ben: What did you buy?
 *         > Ada: I bought a red bicycle in Utrecht.
 *         = words 0.41 (BM25 7.31), vectors 0.52 (cosine 0.62) */
#include "tools/memosctl/find.h"

#include "memcube/cube.h"
#include "tools/memosctl/text.h"

#include <string.h>

enum { INDENT = 6, LINE_BYTES_MAX = 4096 };

/* ---- JSON ---- */

static json_t *parts_json(const Memos__Hit *hit)
{
    json_t *array = json_array();
    for (size_t i = 0; i < hit->n_parts; i++) {
        const Memos__HitPart *part = hit->parts[i];
        json_array_append_new(
            array, json_pack("{so,sf,so}", "name", ctl_json_string(part->name), "value",
                       (double)part->value, "note", ctl_json_string(part->note)));
    }
    return array;
}

static json_t *cube_json(const struct memos_message *reply, const Memos__Cube *cube)
{
    return ctl_json_cube(cube, cube->frame != 0, memos_message_frame(reply, cube->frame));
}

static json_t *cubes_json(
    const struct memos_message *reply, Memos__Cube *const *cubes, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(array, cube_json(reply, cubes[i]));
    }
    return array;
}

static json_t *hit_json(const struct memos_message *reply, const Memos__Hit *hit)
{
    json_t *object = cube_json(reply, hit->cube);
    json_object_set_new(object, "score", json_real((double)hit->score));
    json_object_set_new(object, "parts", parts_json(hit));
    json_object_set_new(object, "before", cubes_json(reply, hit->before, hit->n_before));
    json_object_set_new(object, "after", cubes_json(reply, hit->after, hit->n_after));
    return object;
}

static json_t *hit_short_json(const Memos__Hit *hit)
{
    json_t *object = json_pack("{so,sI,so,sf}", "id", ctl_json_id(hit->cube->id), "version",
        (json_int_t)hit->cube->number, "external_id", ctl_json_string(hit->cube->external_id),
        "score", (double)hit->score);
    if (hit->n_parts > 0) {
        json_object_set_new(object, "parts", parts_json(hit));
    }
    return object;
}

json_t *ctl_hits_json(const struct memos_message *reply, const Memos__Hits *hits, bool is_short)
{
    json_t *array = json_array(), *notes = json_array();
    for (size_t i = 0; i < hits->n_hits; i++) {
        const Memos__Hit *hit = hits->hits[i];
        if (hit->cube) {
            json_array_append_new(array, is_short ? hit_short_json(hit) : hit_json(reply, hit));
        }
    }
    for (size_t i = 0; i < hits->n_notes; i++) {
        json_array_append_new(notes, ctl_json_string(hits->notes[i]));
    }
    return json_pack("{so,sI,sI,so,sI,so}", "hits", array, "seq", (json_int_t)hits->seq, "micros",
        (json_int_t)hits->micros, "encoder", ctl_json_string(hits->encoder), "missing",
        (json_int_t)hits->missing, "notes", notes);
}

/* ---- a table ---- */

void ctl_cube_words(struct memos_buffer *out, const Memos__Cube *cube, struct memos_bytes payload)
{
    if (cube->speaker[0]) {
        memos_buffer_printf(out, "%.100s: ", cube->speaker);
    }
    if (!memos_bytes_utf8(ctl_text_head(payload, 2048))) {
        memos_buffer_printf(out, "(%.100s, %zu bytes)", cube->codec, payload.size);
    } else if (payload.size > 0) {
        struct memos_bytes head = ctl_text_head(payload, 1500);
        memos_buffer_bytes(out, head.data, head.size);
    } else {
        memos_buffer_printf(out, "%.1000s", cube->title);
    }
}

static const struct ctl_column hit_columns[] = {
    {"SCORE", true, false},
    {"ID", false, false},
    {"WHEN", false, false},
    {"TEXT", false, true},
};

/* Of the event, else of the version. */
static const char *day_of(const Memos__Cube *cube, char out[MEMOS_TIME_TEXT_BYTES])
{
    return memos_time_format(cube->event_us ? cube->event_us : cube->time_us, out);
}

static const char *id_of(const Memos__Cube *cube, char out[MEMOS_ID_TEXT_BYTES])
{
    struct memos_id id = ctl_id_of(cube->id);
    return memos_id_format(&id, out);
}

static void add_hit(
    struct ctl_table *table, const struct memos_message *reply, const Memos__Hit *hit)
{
    char id[MEMOS_ID_TEXT_BYTES], time[MEMOS_TIME_TEXT_BYTES];
    struct memos_buffer words = memos_buffer_make(LINE_BYTES_MAX);
    ctl_cube_words(&words, hit->cube, memos_message_frame(reply, hit->cube->frame));
    ctl_table_printf(table, CTL_GREEN, "%.2f", (double)hit->score);
    ctl_table_cell(table, CTL_YELLOW, memos_bytes_of(id_of(hit->cube, id)));
    ctl_table_printf(table, CTL_DIM, "%.10s", day_of(hit->cube, time));
    ctl_table_cell(table, CTL_PLAIN, memos_buffer_view(&words));
    memos_buffer_free(&words);
}

static enum memos_status print_table(const struct ctl_paper *paper,
    const struct memos_message *reply, const Memos__Hits *hits, struct memos_error *err)
{
    struct ctl_table table =
        ctl_table_make(hit_columns, sizeof hit_columns / sizeof hit_columns[0]);
    for (size_t i = 0; i < hits->n_hits; i++) {
        if (hits->hits[i]->cube) {
            add_hit(&table, reply, hits->hits[i]);
        }
    }
    enum memos_status status = ctl_table_print(&table, paper, err);
    ctl_table_free(&table);
    return status;
}

/* ---- paragraphs ---- */

/* One line, made safe and cut to the paper, after a mark. */
static void print_line(const struct ctl_paper *paper, enum ctl_style style, const char *mark,
    const struct memos_buffer *text)
{
    struct memos_buffer clean = memos_buffer_make(16 * (size_t)LINE_BYTES_MAX);
    struct memos_buffer fitted = memos_buffer_make(16 * (size_t)LINE_BYTES_MAX);
    size_t room = paper->columns > INDENT + 12 ? paper->columns - INDENT - strlen(mark) : SIZE_MAX;
    ctl_text_clean(&clean, memos_buffer_view(text), false);
    (void)ctl_text_fit(&fitted, memos_buffer_view(&clean), room);
    fprintf(paper->out, "%*s%s%s%.*s%s\n", INDENT, "", ctl_style_on(paper, style), mark,
        (int)fitted.size, (const char *)fitted.data, ctl_style_off(paper));
    memos_buffer_free(&clean);
    memos_buffer_free(&fitted);
}

static void print_turn(const struct ctl_paper *paper, const struct memos_message *reply,
    enum ctl_style style, const char *mark, const Memos__Cube *cube)
{
    struct memos_buffer words = memos_buffer_make(LINE_BYTES_MAX);
    ctl_cube_words(&words, cube, memos_message_frame(reply, cube->frame));
    print_line(paper, style, mark, &words);
    memos_buffer_free(&words);
}

/* "words 0.41 (BM25 7.31), vectors 0.52 (cosine 0.62)". */
static void print_parts(const struct ctl_paper *paper, const Memos__Hit *hit)
{
    struct memos_buffer text = memos_buffer_make(LINE_BYTES_MAX);
    for (size_t i = 0; i < hit->n_parts; i++) {
        const Memos__HitPart *part = hit->parts[i];
        memos_buffer_printf(&text, "%s%.60s %.2f", i ? ", " : "", part->name, (double)part->value);
        if (part->note[0]) {
            memos_buffer_printf(&text, " (%.200s)", part->note);
        }
    }
    print_line(paper, CTL_BLUE, "= ", &text);
    memos_buffer_free(&text);
}

static void print_paragraph(
    const struct ctl_paper *paper, const struct memos_message *reply, const Memos__Hit *hit)
{
    char id[MEMOS_ID_TEXT_BYTES], time[MEMOS_TIME_TEXT_BYTES];
    const char *off = ctl_style_off(paper);
    fprintf(paper->out, "%s%.2f%s  %s%s%s  %s%.10s%s\n", ctl_style_on(paper, CTL_GREEN),
        (double)hit->score, off, ctl_style_on(paper, CTL_YELLOW), id_of(hit->cube, id), off,
        ctl_style_on(paper, CTL_DIM), day_of(hit->cube, time), off);
    for (size_t i = 0; i < hit->n_before; i++) {
        print_turn(paper, reply, CTL_DIM, "    ", hit->before[i]);
    }
    print_turn(paper, reply, CTL_PLAIN, hit->n_before + hit->n_after > 0 ? "> " : "", hit->cube);
    for (size_t i = 0; i < hit->n_after; i++) {
        print_turn(paper, reply, CTL_DIM, "    ", hit->after[i]);
    }
    if (hit->n_parts > 0) {
        print_parts(paper, hit);
    }
}

/* ---- either ---- */

void ctl_meaning_note(
    struct ctl *ctl, const Memos__Search *search, const char *encoder, uint64_t missing)
{
    if (search->mode == CTL_MODE_WORDS) {
        return;
    }
    if (!encoder[0]) {
        ctl_note(ctl, "the broker has no vector of this question: searched by words alone");
    } else if (missing > 0) {
        ctl_note(ctl, "%llu cubes have no vector yet: those are found by words alone",
            (unsigned long long)missing);
    }
}

enum memos_status ctl_hits_print(struct ctl *ctl, const struct memos_message *reply,
    const Memos__Search *search, struct memos_error *err)
{
    const Memos__Hits *hits = memos_message_reply(reply)->hits;
    enum memos_status status = MEMOS_OK;
    if (ctl->json) {
        status = ctl_json_print(ctl_hits_json(reply, hits, search->ids_only), err);
    } else if (!search->explain && search->neighbours == 0) {
        status = print_table(&ctl->paper, reply, hits, err);
    } else {
        for (size_t i = 0; i < hits->n_hits; i++) {
            if (hits->hits[i]->cube) {
                print_paragraph(&ctl->paper, reply, hits->hits[i]);
            }
        }
    }
    for (size_t i = 0; !ctl->json && i < hits->n_notes; i++) {
        ctl_note(ctl, "%.200s", hits->notes[i]);
    }
    if (!ctl->json && hits->n_hits == 0) {
        ctl_note(ctl, "nothing found");
    }
    ctl_meaning_note(ctl, search, hits->encoder, hits->missing);
    return status;
}
