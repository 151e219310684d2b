/* A ChatGPT data export (conversations.json): each conversation is a tree of messages, of which the
 * branch that ends in current_node is what was last seen. */
#include "tools/memosctl/import.h"

#include "tools/memosctl/import_chat.h"
#include "tools/memosctl/import_json.h"

#include <stdlib.h>
#include <string.h>

struct conversation {
    const struct ctl_import_sink *sink;
    struct memos_bytes id, title;
    int64_t event_us;
    uint64_t number; /* in the file; what messages about bad ones say instead of a line */
};

/* Without current_node: the newest end of a branch. */
static const char *find_end(json_t *mapping)
{
    const char *name, *end = NULL;
    json_t *node;
    double newest = -1;
    json_object_foreach(mapping, name, node)
    {
        const json_t *message = json_object_get(node, "message");
        double moment = json_number_value(json_object_get(message, "create_time"));
        if (json_array_size(json_object_get(node, "children")) == 0 && moment > newest) {
            newest = moment;
            end = name;
        }
    }
    return end;
}

/* The branch, first message first. A branch that goes in circles ends where it has all nodes. */
static size_t walk(json_t *mapping, const char *end, const json_t **out, size_t most)
{
    size_t count = 0;
    const json_t *node = end ? json_object_get(mapping, end) : NULL;
    while (node && count < most) {
        const char *parent = json_string_value(json_object_get(node, "parent"));
        out[count++] = node;
        node = parent ? json_object_get(mapping, parent) : NULL;
    }
    for (size_t i = 0; i < count / 2; i++) {
        const json_t *other = out[i];
        out[i] = out[count - 1 - i];
        out[count - 1 - i] = other;
    }
    return count;
}

/* Messages that nobody saw: the system's, and those that say so. */
static bool is_hidden(const json_t *message, struct memos_bytes role)
{
    const json_t *metadata = json_object_get(message, "metadata");
    const json_t *weight = json_object_get(message, "weight");
    return memos_bytes_equal(role, memos_bytes_of("system")) ||
           json_is_true(json_object_get(metadata, "is_visually_hidden_from_conversation")) ||
           (json_is_number(weight) && json_number_value(weight) == 0);
}

static bool read_text(const json_t *message, struct memos_buffer *out)
{
    const json_t *content = json_object_get(message, "content");
    struct memos_bytes text = ctl_import_json_text(content, "text"); /* code, output of a tool */
    memos_buffer_bytes(out, text.data, text.size);
    return ctl_import_content(json_object_get(content, "parts"), out) && !out->failed;
}

static enum memos_status read_node(
    struct conversation *conversation, const json_t *node, struct memos_error *err)
{
    const struct ctl_import_sink *sink = conversation->sink;
    const json_t *message = json_object_get(node, "message");
    const json_t *author = json_object_get(message, "author");
    struct memos_bytes role = ctl_import_json_text(author, "role");
    struct memos_bytes name = ctl_import_json_text(author, "name");
    struct memos_bytes model =
        ctl_import_json_text(json_object_get(message, "metadata"), "model_slug");
    struct memos_buffer text = memos_buffer_make(CTL_IMPORT_JSON_BYTES_MAX);
    struct ctl_import_item item = {
        .session = conversation->id,
        .title = conversation->title,
        .speaker = name.size ? name : role,
        .id = ctl_import_json_text(message, "id"),
        .source_type = memos_bytes_of("message"),
        .source_uri = conversation->id,
        .subtype = "message",
        .line = conversation->number,
    };
    if (!json_is_object(message) || is_hidden(message, role)) {
        return MEMOS_OK;
    }
    item.pairs[item.pairs_count++] =
        (struct ctl_import_pair){memos_bytes_of("session"), conversation->id};
    if (model.size > 0) {
        item.pairs[item.pairs_count++] = (struct ctl_import_pair){memos_bytes_of("model"), model};
    }
    enum memos_status status = MEMOS_OK;
    if (!read_text(message, &text)) {
        status = sink->bad(sink->self, conversation->number, "a message that is too long", err);
    } else if (!ctl_import_moment(message, &item.event_us)) {
        status = sink->bad(sink->self, conversation->number, "a time is not understood", err);
    } else if (text.size > 0) {
        item.event_us = item.event_us ? item.event_us : conversation->event_us;
        item.text = memos_buffer_view(&text);
        status = sink->take(sink->self, &item, err);
    }
    memos_buffer_free(&text);
    return status;
}

static enum memos_status read_conversation(
    struct conversation *conversation, const json_t *value, struct memos_error *err)
{
    const struct ctl_import_sink *sink = conversation->sink;
    json_t *mapping = json_object_get(value, "mapping");
    const char *end = json_string_value(json_object_get(value, "current_node"));
    if (!json_is_object(mapping)) {
        return sink->bad(sink->self, conversation->number, "a conversation without a mapping", err);
    }
    conversation->title = ctl_import_json_text(value, "title");
    conversation->id = ctl_import_json_text(value, "conversation_id");
    if (conversation->id.size == 0) {
        conversation->id = ctl_import_json_text(value, "id");
    }
    if (conversation->id.size == 0) {
        conversation->id = conversation->title;
    }
    if (!ctl_import_moment(value, &conversation->event_us)) {
        return sink->bad(sink->self, conversation->number, "its time is not understood", err);
    }
    size_t most = json_object_size(mapping);
    const json_t **nodes = calloc(most + 1, sizeof *nodes);
    if (!nodes) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a conversation");
    }
    size_t count =
        walk(mapping, end && json_object_get(mapping, end) ? end : find_end(mapping), nodes, most);
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = read_node(conversation, nodes[i], err);
    }
    free(nodes);
    return status;
}

enum memos_status ctl_import_chatgpt(struct memos_bytes bytes,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err)
{
    struct ctl_import_json json = ctl_import_json_begin(bytes, true);
    (void)options;
    for (uint64_t number = 1;; number++) {
        struct memos_bytes one;
        json_t *value = NULL;
        struct memos_error why = {0};
        struct conversation conversation = {.sink = sink, .number = number};
        enum memos_status status = ctl_import_json_next(&json, &one, err);
        if (status != MEMOS_OK || one.size == 0) {
            return status;
        }
        if (ctl_import_json_parse(one, &value, &why) != MEMOS_OK) {
            status = sink->bad(sink->self, number, why.text, err);
        } else {
            status = read_conversation(&conversation, value, err);
        }
        json_decref(value);
        if (status != MEMOS_OK) {
            return status;
        }
    }
}
