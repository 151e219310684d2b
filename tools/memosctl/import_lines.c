/* JSON lines of chat turns. */
#include "tools/memosctl/import.h"

#include "memcube/cube.h"
#include "tools/memosctl/import_json.h"

#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES_MAX = 16 * 1024 * 1024, USUAL_MAX = 5 };

/* The name of a field in --map, and what it is usually called. */
static const struct {
    const char *word;
    const char *usual[USUAL_MAX];
} fields[CTL_IMPORT_FIELDS_END] = {
    [CTL_IMPORT_SPACE] = {"space", {NULL}},
    [CTL_IMPORT_SESSION] = {"session", {"session", "session_id", "conversation_id"}},
    [CTL_IMPORT_TIME] = {"time", {"time", "timestamp", "date_time", "created_at"}},
    [CTL_IMPORT_SPEAKER] = {"speaker", {"speaker", "role", "author"}},
    [CTL_IMPORT_BODY] = {"text", {"text", "content"}},
    [CTL_IMPORT_ID] = {"id", {"id"}},
    [CTL_IMPORT_TITLE] = {"title", {"title"}},
    [CTL_IMPORT_CAPTION] = {"caption", {"caption"}},
    [CTL_IMPORT_LANGUAGE] = {"language", {"language"}},
    [CTL_IMPORT_TAG] = {"tag", {"tag", "tags"}},
    [CTL_IMPORT_IGNORE] = {"ignore", {NULL}},
};

/* ---- the map ---- */

static enum memos_status map_one(struct ctl_import_map *map, const char *word, size_t word_size,
    const char *name, size_t name_size, struct memos_error *err)
{
    if (name_size == 0 || name_size >= CTL_IMPORT_NAME_BYTES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "--map: a name of %zu bytes; 1 to %d are taken",
            name_size, CTL_IMPORT_NAME_BYTES_MAX - 1);
    }
    for (size_t i = 0; i < CTL_IMPORT_FIELDS_END; i++) {
        if (strlen(fields[i].word) != word_size || memcmp(fields[i].word, word, word_size) != 0) {
            continue;
        }
        char *to = map->names[i];
        if (i == CTL_IMPORT_IGNORE) {
            if (map->ignored_count == CTL_IMPORT_IGNORED_MAX) {
                return memos_fail(err, MEMOS_INVALID, "--map: more than %d fields to ignore",
                    CTL_IMPORT_IGNORED_MAX);
            }
            to = map->ignored[map->ignored_count++];
        }
        memcpy(to, name, name_size);
        to[name_size] = '\0';
        return MEMOS_OK;
    }
    return memos_fail(err, MEMOS_INVALID,
        "--map: there is no field '%.*s'; there are space, session, time, speaker, text, id, "
        "title, "
        "caption, language, tag and ignore",
        (int)(word_size < 40 ? word_size : 40), word);
}

enum memos_status ctl_import_map_parse(
    const char *text, struct ctl_import_map *map, struct memos_error *err)
{
    while (*text) {
        size_t size = strcspn(text, ",");
        const char *equals = memchr(text, '=', size);
        if (!equals) {
            return memos_fail(err, MEMOS_INVALID, "--map takes FIELD=NAME,..., not '%.60s'", text);
        }
        size_t word_size = (size_t)(equals - text);
        enum memos_status status =
            map_one(map, text, word_size, equals + 1, size - word_size - 1, err);
        if (status != MEMOS_OK) {
            return status;
        }
        text += size + (text[size] == ',');
    }
    return MEMOS_OK;
}

/* ---- one line ---- */

enum { TEXTS_MAX = CTL_IMPORT_PAIRS_MAX + 16 };

/* A line on its way to an item. What was not text in it was written out, and is freed with it. */
struct turn {
    struct ctl_import_item item;
    struct memos_bytes caption;
    char *made[TEXTS_MAX];
    size_t made_count;
    char uri[640];
};

/* Which field a member is; CTL_IMPORT_FIELDS_END for none. */
static enum ctl_import_field field_of(const struct ctl_import_map *map, const char *name)
{
    for (size_t i = 0; i < map->ignored_count; i++) {
        if (strcmp(map->ignored[i], name) == 0) {
            return CTL_IMPORT_IGNORE;
        }
    }
    for (int i = 0; i < CTL_IMPORT_IGNORE; i++) {
        if (map->names[i][0] && strcmp(map->names[i], name) == 0) {
            return (enum ctl_import_field)i;
        }
    }
    for (int i = 0; i < CTL_IMPORT_IGNORE; i++) {
        for (size_t u = 0; !map->names[i][0] && u < USUAL_MAX && fields[i].usual[u]; u++) {
            if (strcmp(fields[i].usual[u], name) == 0) {
                return (enum ctl_import_field)i;
            }
        }
    }
    return CTL_IMPORT_FIELDS_END;
}

/* A member as text: strings as they are, the rest as JSON; empty for null. */
static struct memos_bytes text_of(struct turn *turn, const json_t *value)
{
    if (json_is_string(value)) {
        return memos_bytes_make(json_string_value(value), json_string_length(value));
    }
    if (json_is_null(value) || turn->made_count == TEXTS_MAX) {
        return memos_bytes_make(NULL, 0);
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    turn->made[turn->made_count++] = text;
    return memos_bytes_of(text);
}

static bool add_tags(struct turn *turn, const json_t *value, const char **why)
{
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < count; i++) {
        const json_t *tag = json_is_array(value) ? json_array_get(value, i) : value;
        struct memos_bytes text = text_of(turn, tag);
        if (text.size == 0) {
            continue;
        }
        if (turn->item.tags_count == CTL_IMPORT_TAGS_MAX) {
            *why = "more than 64 tags";
            return false;
        }
        turn->item.tags[turn->item.tags_count++] = text;
    }
    return true;
}

static bool add_pair(
    struct turn *turn, const char *name, struct memos_bytes value, const char **why)
{
    size_t name_size = strlen(name);
    if (value.size == 0 || name_size == 0) {
        return true;
    }
    if (name_size > MEMCUBE_ATTRIBUTE_BYTES_MAX ||
        value.size > MEMCUBE_ATTRIBUTE_BYTES_MAX - name_size) {
        *why = "a field is longer than 4096 bytes (--map ignore=NAME leaves it out)";
        return false;
    }
    if (turn->item.pairs_count == CTL_IMPORT_PAIRS_MAX) {
        *why = "more than 64 fields";
        return false;
    }
    turn->item.pairs[turn->item.pairs_count++] =
        (struct ctl_import_pair){memos_bytes_make(name, name_size), value};
    return true;
}

static bool add_time(struct turn *turn, const json_t *value, const char **why)
{
    struct memos_bytes text = text_of(turn, value);
    if (text.size > 0 && ctl_import_time(text, &turn->item.event_us, NULL) != MEMOS_OK) {
        *why = "its time is not understood";
        return false;
    }
    return true;
}

static bool take_member(struct turn *turn, const struct ctl_import_map *map, const char *name,
    const json_t *value, const char **why)
{
    struct ctl_import_item *item = &turn->item;
    struct memos_bytes *const texts[CTL_IMPORT_FIELDS_END] = {
        [CTL_IMPORT_SPACE] = &item->space,
        [CTL_IMPORT_SESSION] = &item->session,
        [CTL_IMPORT_SPEAKER] = &item->speaker,
        [CTL_IMPORT_BODY] = &item->text,
        [CTL_IMPORT_ID] = &item->id,
        [CTL_IMPORT_TITLE] = &item->title,
        [CTL_IMPORT_CAPTION] = &turn->caption,
        [CTL_IMPORT_LANGUAGE] = &item->language,
    };
    enum ctl_import_field field = field_of(map, name);
    if (field == CTL_IMPORT_IGNORE) {
        return true;
    } else if (field == CTL_IMPORT_TIME) {
        return add_time(turn, value, why);
    } else if (field == CTL_IMPORT_TAG) {
        return add_tags(turn, value, why);
    } else if (field == CTL_IMPORT_FIELDS_END) {
        return add_pair(turn, name, text_of(turn, value), why);
    }
    if (texts[field]->size == 0) { /* of several usual names the first one counts */
        *texts[field] = text_of(turn, value);
    }
    return true;
}

/* What every item of a chat has: where it is from, in words that do not change when the file does.
 */
static void name_source(struct turn *turn, const char *file)
{
    struct ctl_import_item *item = &turn->item;
    item->source_type = memos_bytes_of("message");
    if (item->session.size == 0) {
        item->session = memos_bytes_of(file);
    }
    int size = snprintf(turn->uri, sizeof turn->uri, "%.*s%s%.*s",
        (int)(item->session.size < 256 ? item->session.size : 256),
        (const char *)item->session.data, item->id.size ? "/" : "",
        (int)(item->id.size < 256 ? item->id.size : 256),
        item->id.data ? (const char *)item->id.data : "");
    struct memos_bytes uri = memos_bytes_make(turn->uri, size > 0 ? (size_t)size : 0);
    item->source_uri = memos_bytes_utf8(uri) ? uri : item->session;
}

static bool read_turn(
    struct turn *turn, json_t *object, const struct ctl_import_options *options, const char **why)
{
    const char *name;
    json_t *value;
    if (!json_is_object(object)) {
        *why = "it is no JSON object";
        return false;
    }
    json_object_foreach(object, name, value)
    {
        if (!take_member(turn, options->map, name, value, why)) {
            return false;
        }
    }
    if (turn->item.text.size == 0) {
        turn->item.text = turn->caption;
    } else if (!add_pair(turn, "caption", turn->caption, why)) {
        return false;
    }
    if (turn->item.text.size == 0) {
        *why = "it has no text";
        return false;
    }
    name_source(turn, options->name);
    if (!add_pair(turn, "session", turn->item.session, why)) {
        return false;
    }
    turn->item.subtype = "message";
    return true;
}

/* One line: an item, or a bad line. */
static enum memos_status read_line(struct memos_bytes line, uint64_t number,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err)
{
    json_t *object = NULL;
    struct memos_error parse_err = {0};
    const char *why = parse_err.text;
    struct turn *turn = calloc(1, sizeof *turn);
    if (!turn) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a line");
    }
    bool is_good = ctl_import_json_parse(line, &object, &parse_err) == MEMOS_OK &&
                   read_turn(turn, object, options, &why);
    turn->item.line = number;
    enum memos_status status = is_good ? sink->take(sink->self, &turn->item, err)
                                       : sink->bad(sink->self, number, why, err);
    for (size_t i = 0; i < turn->made_count; i++) {
        free(turn->made[i]);
    }
    free(turn);
    json_decref(object);
    return status;
}

static bool is_blank(struct memos_bytes line)
{
    const char *text = line.data;
    for (size_t i = 0; i < line.size; i++) {
        if (!strchr(" \t\r", text[i]) || text[i] == '\0') {
            return false;
        }
    }
    return true;
}

enum memos_status ctl_import_lines(struct memos_bytes bytes,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err)
{
    const uint8_t *at = bytes.data;
    size_t left = bytes.size;
    enum memos_status status = MEMOS_OK;
    for (uint64_t number = 1; left > 0 && status == MEMOS_OK; number++) {
        const uint8_t *end = memchr(at, '\n', left);
        size_t size = end ? (size_t)(end - at) : left;
        struct memos_bytes line = memos_bytes_make(at, size);
        if (size > LINE_BYTES_MAX) {
            status = sink->bad(sink->self, number, "it is longer than 16 MiB", err);
        } else if (!is_blank(line)) {
            status = read_line(line, number, options, sink, err);
        }
        size += end != NULL;
        at += size;
        left -= size;
    }
    return status;
}
