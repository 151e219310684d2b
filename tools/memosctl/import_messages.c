/* Arrays of messages as chat interfaces take them: [{"role", "content"}], {"messages": [...]}, or
 * several of these one after the other. */
#include "tools/memosctl/import.h"

#include "tools/memosctl/import_chat.h"
#include "tools/memosctl/import_json.h"

#include <string.h>

struct reader {
    const struct ctl_import_options *options;
    const struct ctl_import_sink *sink;
    uint64_t conversations, messages;
};

bool ctl_import_content(const json_t *content, struct memos_buffer *out)
{
    size_t i;
    const json_t *part;
    if (json_is_string(content)) {
        memos_buffer_bytes(out, json_string_value(content), json_string_length(content));
        return !out->failed;
    }
    json_array_foreach(content, i, part)
    {
        struct memos_bytes text = json_is_string(part) ? memos_bytes_make(json_string_value(part),
                                                             json_string_length(part))
                                                       : ctl_import_json_text(part, "text");
        if (text.size > 0 && out->size > 0) {
            memos_buffer_u8(out, '\n');
        }
        memos_buffer_bytes(out, text.data, text.size);
    }
    return !out->failed;
}

bool ctl_import_moment(const json_t *object, int64_t *out_us)
{
    static const char *const names[] = {"create_time", "created_at", "timestamp", "time"};
    char text[64];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_t *value = json_object_get(object, names[i]);
        if (json_is_string(value)) {
            return ctl_import_time(
                       memos_bytes_make(json_string_value(value), json_string_length(value)),
                       out_us, NULL) == MEMOS_OK;
        } else if (json_is_number(value)) {
            double number = json_number_value(value);
            if (!(number >= 0 && number < 1e17)) {
                return false;
            }
            int size = snprintf(text, sizeof text, "%.6f", number);
            *out_us = 0;
            return number == 0 ||
                   ctl_import_time(memos_bytes_make(text, (size_t)size), out_us, NULL) == MEMOS_OK;
        }
    }
    *out_us = 0;
    return true;
}

static enum memos_status read_message(struct reader *reader, const json_t *message,
    struct memos_bytes session, struct memos_bytes title, struct memos_error *err)
{
    const struct ctl_import_sink *sink = reader->sink;
    struct memos_buffer text = memos_buffer_make(CTL_IMPORT_JSON_BYTES_MAX);
    struct ctl_import_item item = {.session = session, .title = title, .subtype = "message"};
    item.line = ++reader->messages;
    struct memos_bytes role = ctl_import_json_text(message, "role");
    item.speaker = ctl_import_json_text(message, "name");
    item.speaker = item.speaker.size ? item.speaker : role;
    item.id = ctl_import_json_text(message, "id");
    item.source_type = memos_bytes_of("message");
    item.source_uri = session;
    item.pairs[item.pairs_count++] = (struct ctl_import_pair){memos_bytes_of("session"), session};
    enum memos_status status;
    if (!json_is_object(message) || role.size == 0) {
        status = sink->bad(sink->self, item.line, "a message without a role", err);
    } else if (!ctl_import_content(json_object_get(message, "content"), &text)) {
        status = sink->bad(sink->self, item.line, "a message that is too long", err);
    } else if (!ctl_import_moment(message, &item.event_us)) {
        status = sink->bad(sink->self, item.line, "its time is not understood", err);
    } else if (text.size == 0) {
        status = MEMOS_OK; /* a call of a tool, a picture: nothing to remember as text */
    } else {
        item.text = memos_buffer_view(&text);
        status = sink->take(sink->self, &item, err);
    }
    memos_buffer_free(&text);
    return status;
}

static enum memos_status read_conversation(
    struct reader *reader, const json_t *value, struct memos_error *err)
{
    const json_t *messages = json_is_array(value) ? value : json_object_get(value, "messages");
    struct memos_bytes session = ctl_import_json_text(value, "id");
    struct memos_bytes title = ctl_import_json_text(value, "title");
    char made[512];
    size_t i;
    json_t *message;
    reader->conversations++;
    if (!json_is_array(messages)) {
        return reader->sink->bad(
            reader->sink->self, reader->messages + 1, "neither messages nor an array of them", err);
    }
    if (session.size == 0 && reader->conversations == 1) {
        session = memos_bytes_of(reader->options->name);
    } else if (session.size == 0) {
        snprintf(made, sizeof made, "%.400s %llu", reader->options->name,
            (unsigned long long)reader->conversations);
        session = memos_bytes_of(made);
    }
    json_array_foreach(messages, i, message)
    {
        enum memos_status status = read_message(reader, message, session, title, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    return MEMOS_OK;
}

/* An array whose elements are conversations, not messages. */
static bool holds_conversations(const json_t *value)
{
    const json_t *first = json_array_get(value, 0);
    return json_is_array(first) || json_is_array(json_object_get(first, "messages"));
}

static enum memos_status read_value(
    struct reader *reader, struct memos_bytes bytes, struct memos_error *err)
{
    json_t *value = NULL, *conversation;
    size_t i;
    struct memos_error why = {0};
    enum memos_status status = ctl_import_json_parse(bytes, &value, &why);
    if (status != MEMOS_OK) {
        return reader->sink->bad(reader->sink->self, reader->messages + 1, why.text, err);
    }
    if (holds_conversations(value)) {
        json_array_foreach(value, i, conversation)
        {
            status = read_conversation(reader, conversation, err);
            if (status != MEMOS_OK) {
                break;
            }
        }
    } else {
        status = read_conversation(reader, value, err);
    }
    json_decref(value);
    return status;
}

enum memos_status ctl_import_messages(struct memos_bytes bytes,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err)
{
    struct reader reader = {.options = options, .sink = sink};
    struct ctl_import_json json = ctl_import_json_begin(bytes, false);
    for (;;) {
        struct memos_bytes value;
        enum memos_status status = ctl_import_json_next(&json, &value, err);
        if (status != MEMOS_OK || value.size == 0) {
            return status;
        }
        status = read_value(&reader, value, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
}
