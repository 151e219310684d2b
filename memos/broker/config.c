/* The table of keys, and how a value gets into its field. */
#include "memos/broker/config.h"

#include "memos/broker/config_keys.h"
#include "memos/broker/config_value.h"
#include "memos/quantity.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BYTES_MAX = 4 << 20 };

static const struct broker_config_key keys[] = {
#define X(name, type, field, min, max, preset, reloads, help)                                      \
    {name, BROKER_CONFIG_##type, offsetof(struct broker_config, field), min, max, preset, reloads, \
        help},
    BROKER_CONFIG_TABLE(X)
#undef X
};

/* In the order of enum memos_log_level and enum memos_log_format. */
static const char *const level_names[] = {"debug", "info", "warning", "error", NULL};
static const char *const format_names[] = {"text", "json", NULL};

const struct broker_config_key *broker_config_keys(size_t *out_count)
{
    *out_count = sizeof keys / sizeof keys[0];
    return keys;
}

static const struct broker_config_key *key_find(const char *name)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strcmp(keys[i].name, name) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

char *broker_config_place_text(const struct broker_config_place *place, char *out, size_t size)
{
    if (place->line > 0) {
        (void)snprintf(out, size, "%s:%u: ", place->name, place->line);
    } else {
        (void)snprintf(out, size, "%s: ", place->name);
    }
    return out;
}

static enum quantity quantity_of(enum broker_config_type type)
{
    return type == BROKER_CONFIG_SIZE   ? QUANTITY_BYTES
           : type == BROKER_CONFIG_TIME ? QUANTITY_MS
                                        : QUANTITY_COUNT;
}

static const char *type_text(enum broker_config_type type)
{
    switch (type) {
    case BROKER_CONFIG_TEXT:
        return "a text in double quotes";
    case BROKER_CONFIG_LIST:
        return "an array of texts";
    case BROKER_CONFIG_FLAG:
        return "true or false";
    case BROKER_CONFIG_SIZE:
        return "bytes, such as 65536, \"64K\" or \"1G\"";
    case BROKER_CONFIG_COUNT:
        return "a number";
    case BROKER_CONFIG_TIME:
        return "a time with its unit, such as \"1500ms\", \"30s\", \"5m\"";
    case BROKER_CONFIG_LEVEL:
        return "\"debug\", \"info\", \"warning\" or \"error\"";
    case BROKER_CONFIG_FORMAT:
        return "\"text\" or \"json\"";
    }
    return "";
}

static bool name_read(const char *const *names, const char *text, int *out)
{
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], text) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool list_assign(
    struct broker_config *config, struct broker_list *list, const struct broker_config_value *value)
{
    const char **items = memos_arena_take(&config->arena, value->count, sizeof *items);
    if (!items) {
        return false;
    }
    for (size_t i = 0; i < value->count; i++) {
        items[i] = memos_arena_copy(&config->arena, memos_bytes_of(value->items[i]));
        if (!items[i] || items[i][0] == '\0') {
            return false;
        }
    }
    *list = (struct broker_list){items, value->count};
    return true;
}

static bool text_assign(struct broker_config *config, const char **field, const char *text)
{
    const char *copy = memos_arena_copy(&config->arena, memos_bytes_of(text));
    if (copy) {
        *field = copy;
    }
    return copy != NULL;
}

/* Put a value that has the right form into its field; false when it does not fit. */
static bool field_assign(struct broker_config *config, const struct broker_config_key *key,
    const struct broker_config_value *value)
{
    void *field = (char *)config + key->offset;
    const char *text = value->count > 0 ? value->items[0] : "";
    uint64_t quantity = 0;

    switch (key->type) {
    case BROKER_CONFIG_TEXT:
        return text_assign(config, field, text);
    case BROKER_CONFIG_LIST:
        return value->count <= key->max && list_assign(config, field, value);
    case BROKER_CONFIG_FLAG:
        *(bool *)field = strcmp(text, "true") == 0;
        return *(bool *)field || strcmp(text, "false") == 0;
    case BROKER_CONFIG_LEVEL:
        return name_read(level_names, text, field);
    case BROKER_CONFIG_FORMAT:
        return name_read(format_names, text, field);
    case BROKER_CONFIG_SIZE:
    case BROKER_CONFIG_COUNT:
    case BROKER_CONFIG_TIME:
        break;
    }
    if (!quantity_parse(quantity_of(key->type), text, &quantity) || quantity < key->min ||
        quantity > key->max) {
        return false;
    }
    if (key->type == BROKER_CONFIG_TIME) {
        *(int64_t *)field = (int64_t)quantity;
    } else {
        *(uint64_t *)field = quantity;
    }
    return true;
}

/* What a key takes, with its bounds. */
static void allowed_text(const struct broker_config_key *key, char *out, size_t size)
{
    const char *what = type_text(key->type);
    if (key->type == BROKER_CONFIG_SIZE || key->type == BROKER_CONFIG_COUNT) {
        (void)snprintf(out, size, "%s, from %" PRIu64 " to %" PRIu64, what, key->min, key->max);
    } else if (key->type == BROKER_CONFIG_TIME) {
        (void)snprintf(
            out, size, "%s, from %" PRIu64 "ms to %" PRIu64 "s", what, key->min, key->max / 1000);
    } else {
        (void)snprintf(out, size, "%s", what);
    }
}

enum memos_status broker_config_assign(struct broker_config *config,
    const struct broker_config_place *place, const char *name,
    const struct broker_config_value *value, struct memos_error *err)
{
    const struct broker_config_key *key = key_find(name);
    char where[128], allowed[160];

    (void)broker_config_place_text(place, where, sizeof where);
    if (!key) {
        return memos_fail(err, MEMOS_INVALID, "%sthere is no key '%.64s'", where, name);
    }
    bool array = value->form == BROKER_CONFIG_ARRAY;
    bool bare_text =
        value->form == BROKER_CONFIG_BARE && place->line > 0 && key->type == BROKER_CONFIG_TEXT;
    if (array != (key->type == BROKER_CONFIG_LIST) || bare_text ||
        !field_assign(config, key, value)) {
        allowed_text(key, allowed, sizeof allowed);
        return memos_fail(err, MEMOS_INVALID, "%s%s must be %s", where, name, allowed);
    }
    return MEMOS_OK;
}

enum memos_status broker_config_set(struct broker_config *config,
    const struct broker_config_place *place, const char *name, const char *text,
    struct memos_error *err)
{
    const struct broker_config_key *key = key_find(name);
    struct broker_config_value value = {.items = {text}, .count = 1};
    char copy[BROKER_CONFIG_TEXT_BYTES_MAX], *rest = copy;

    if (strlen(text) >= sizeof copy) {
        return memos_fail(err, MEMOS_INVALID, "%s: the value of %s is longer than %zu bytes",
            place->name, name, sizeof copy - 1);
    }
    if (key && key->type == BROKER_CONFIG_LIST) {
        memcpy(copy, text, strlen(text) + 1);
        value.form = BROKER_CONFIG_ARRAY;
        value.count = 0;
        for (char *item; *text && (item = strsep(&rest, ",")) != NULL;) {
            if (value.count == BROKER_CONFIG_ITEMS_MAX) {
                return memos_fail(
                    err, MEMOS_INVALID, "%s: %s has too many items", place->name, name);
            }
            value.items[value.count++] = item;
        }
    }
    return broker_config_assign(config, place, name, &value, err);
}

enum memos_status broker_config_init(struct broker_config *config, struct memos_error *err)
{
    static const struct broker_config_place place = {.name = "preset"};

    *config = (struct broker_config){.data_dir = ""};
    memos_arena_init(&config->arena, ARENA_BYTES_MAX);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        enum memos_status status =
            broker_config_set(config, &place, keys[i].name, keys[i].preset, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    return MEMOS_OK;
}

void broker_config_finish(struct broker_config *config)
{
    memos_arena_finish(&config->arena);
}

static void quoted_print(const char *text, FILE *out)
{
    (void)fputc('"', out);
    for (; *text; text++) {
        const char *escape = strchr("\"\"\\\\\tt\nn", *text);
        if (*text == '"' || *text == '\\') {
            (void)fprintf(out, "\\%c", *text);
        } else if (*text == '\t' || *text == '\n') {
            (void)fprintf(out, "\\%c", escape[1]);
        } else {
            (void)fputc(*text, out);
        }
    }
    (void)fputc('"', out);
}

static void list_print(const struct broker_list *list, FILE *out)
{
    (void)fputc('[', out);
    for (size_t i = 0; i < list->count; i++) {
        (void)fputs(i > 0 ? ", " : "", out);
        quoted_print(list->items[i], out);
    }
    (void)fputc(']', out);
}

static void value_print(const struct broker_config_key *key, const void *field, FILE *out)
{
    switch (key->type) {
    case BROKER_CONFIG_TEXT:
        quoted_print(*(const char *const *)field, out);
        break;
    case BROKER_CONFIG_LIST:
        list_print(field, out);
        break;
    case BROKER_CONFIG_FLAG:
        (void)fputs(*(const bool *)field ? "true" : "false", out);
        break;
    case BROKER_CONFIG_SIZE:
    case BROKER_CONFIG_COUNT:
        (void)fprintf(out, "%" PRIu64, *(const uint64_t *)field);
        break;
    case BROKER_CONFIG_TIME:
        (void)fprintf(out, "\"%" PRId64 "ms\"", *(const int64_t *)field);
        break;
    case BROKER_CONFIG_LEVEL:
        quoted_print(level_names[*(const int *)field], out);
        break;
    case BROKER_CONFIG_FORMAT:
        quoted_print(format_names[*(const int *)field], out);
        break;
    }
}

void broker_config_print(const struct broker_config *config, FILE *out)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        (void)fprintf(out, "%s = ", keys[i].name);
        value_print(&keys[i], (const char *)config + keys[i].offset, out);
        (void)fputc('\n', out);
    }
}
