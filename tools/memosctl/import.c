#include "tools/memosctl/import.h"

#include "tools/memosctl/import_json.h"

#include <string.h>

#define ARCHIVE_MAGIC "memosarc" /* memcube/README.md, "Archives" */

static const char *const names[] = {
    [CTL_IMPORT_JSONL] = "jsonl",
    [CTL_IMPORT_MESSAGES] = "messages",
    [CTL_IMPORT_CHATGPT] = "chatgpt",
    [CTL_IMPORT_TEXT] = "text",
    [CTL_IMPORT_MARKDOWN] = "markdown",
    [CTL_IMPORT_ARCHIVE] = "archive",
};

enum ctl_import_format ctl_import_format_of(const char *word)
{
    for (int i = CTL_IMPORT_JSONL; i <= CTL_IMPORT_ARCHIVE; i++) {
        if (strcmp(names[i], word) == 0) {
            return (enum ctl_import_format)i;
        }
    }
    return CTL_IMPORT_UNKNOWN;
}

const char *ctl_import_format_name(enum ctl_import_format format)
{
    return names[format] ? names[format] : "unknown";
}

static bool ends_with(const char *name, const char *ending)
{
    size_t size = strlen(name), ending_size = strlen(ending);
    return size >= ending_size && strcmp(name + size - ending_size, ending) == 0;
}

/* The first conversation or message of an array tells what the array is. */
static enum ctl_import_format detect_array(struct memos_bytes bytes)
{
    struct memos_bytes first;
    json_t *value = NULL;
    struct ctl_import_json json = ctl_import_json_begin(bytes, true);
    enum ctl_import_format format = CTL_IMPORT_UNKNOWN;
    if (ctl_import_json_next(&json, &first, NULL) == MEMOS_OK && first.size > 0 &&
        ctl_import_json_parse(first, &value, NULL) == MEMOS_OK) {
        if (json_object_get(value, "mapping")) {
            format = CTL_IMPORT_CHATGPT;
        } else if (json_object_get(value, "role") || json_object_get(value, "messages") ||
                   json_is_array(value)) {
            format = CTL_IMPORT_MESSAGES;
        }
    }
    json_decref(value);
    return format;
}

static enum ctl_import_format detect_object(struct memos_bytes bytes)
{
    struct memos_bytes first;
    json_t *value = NULL;
    struct ctl_import_json json = ctl_import_json_begin(bytes, false);
    enum ctl_import_format format = CTL_IMPORT_UNKNOWN;
    if (ctl_import_json_next(&json, &first, NULL) == MEMOS_OK && first.size > 0 &&
        ctl_import_json_parse(first, &value, NULL) == MEMOS_OK) {
        format = json_is_array(json_object_get(value, "messages")) ? CTL_IMPORT_MESSAGES
                                                                   : CTL_IMPORT_JSONL;
    }
    json_decref(value);
    return format;
}

enum ctl_import_format ctl_import_detect(struct memos_bytes bytes, const char *name)
{
    const uint8_t *data = bytes.data;
    size_t at = 0;
    if (bytes.size >= strlen(ARCHIVE_MAGIC) &&
        memcmp(data, ARCHIVE_MAGIC, strlen(ARCHIVE_MAGIC)) == 0) {
        return CTL_IMPORT_ARCHIVE;
    } else if (ends_with(name, ".md") || ends_with(name, ".markdown")) {
        return CTL_IMPORT_MARKDOWN;
    } else if (ends_with(name, ".txt")) {
        return CTL_IMPORT_TEXT;
    }
    while (at < bytes.size && strchr(" \t\r\n", data[at]) && data[at]) {
        at++;
    }
    uint8_t first = at < bytes.size ? data[at] : 0;
    if (first == '[') {
        return detect_array(bytes);
    } else if (first == '{') {
        enum ctl_import_format format = detect_object(bytes);
        return format || !ends_with(name, ".jsonl") ? format : CTL_IMPORT_JSONL;
    }
    return ends_with(name, ".jsonl") ? CTL_IMPORT_JSONL : CTL_IMPORT_UNKNOWN;
}

enum memos_status ctl_import_read(enum ctl_import_format format, struct memos_bytes bytes,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err)
{
    switch (format) {
    case CTL_IMPORT_JSONL:
        return ctl_import_lines(bytes, options, sink, err);
    case CTL_IMPORT_MESSAGES:
        return ctl_import_messages(bytes, options, sink, err);
    case CTL_IMPORT_CHATGPT:
        return ctl_import_chatgpt(bytes, options, sink, err);
    case CTL_IMPORT_TEXT:
    case CTL_IMPORT_MARKDOWN:
        return ctl_import_text(bytes, format == CTL_IMPORT_MARKDOWN, options, sink, err);
    case CTL_IMPORT_UNKNOWN:
    case CTL_IMPORT_ARCHIVE:
        break;
    }
    return memos_fail(err, MEMOS_UNSUPPORTED, "the format '%s' is not one of texts",
        ctl_import_format_name(format));
}
