/* What the readers of chats share. */
#ifndef TOOLS_MEMOSCTL_IMPORT_CHAT_H
#define TOOLS_MEMOSCTL_IMPORT_CHAT_H

#include "proto/bytes.h"

#include <jansson.h>

/* Append the text of a message's content: a string, or parts, of which those that are text count.
 * False when it does not fit. */
bool ctl_import_content(const json_t *content, struct memos_buffer *out);

/* The time of a message or a conversation under one of its usual names; 0 when it has none. False
 * when it is not understood. */
bool ctl_import_moment(const json_t *object, int64_t *out_us);

#endif
