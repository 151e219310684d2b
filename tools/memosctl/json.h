/* The messages of the schema as JSON, in the shape that memosctl(1) documents.
 *
 * Every key of an object is always there; what is not set is null, "" or an empty array. Times are
 * RFC 3339 text, ids are UUID text, hashes and keys are hexadecimal.
 *
 * Everything returns a new reference, or NULL without memory. */
#ifndef TOOLS_MEMOSCTL_JSON_H
#define TOOLS_MEMOSCTL_JSON_H

#include "proto/client.h"

#include <jansson.h>

/* Bytes that may not be UTF-8 become U+FFFD there. */
json_t *ctl_json_text(struct memos_bytes text);
json_t *ctl_json_string(const char *text);
json_t *ctl_json_time(int64_t time_us); /* 0: null */
json_t *ctl_json_hex(ProtobufCBinaryData data);
json_t *ctl_json_id(ProtobufCBinaryData data);
json_t *ctl_json_ids(const ProtobufCBinaryData *ids, size_t count);
json_t *ctl_json_refs(Memos__Ref *const *refs, size_t count);

/* payload: "text" when it is UTF-8, else "data" in base64; neither when with_payload is false. */
json_t *ctl_json_cube(const Memos__Cube *cube, bool with_payload, struct memos_bytes payload);
json_t *ctl_json_outcome(const Memos__Outcome *outcome);
json_t *ctl_json_record(const Memos__LogRecord *record);
json_t *ctl_json_summary(const Memos__ArchiveSummary *summary);
json_t *ctl_json_checkpoint(const Memos__CheckpointInfo *checkpoint);
json_t *ctl_json_event(const Memos__Event *event);

/* "plaintext" and so on; "unknown" for a number outside the table. */
const char *ctl_kind_name(uint32_t kind);
const char *ctl_state_name(uint32_t state);
const char *ctl_operation_name(uint32_t operation);
const char *ctl_sensitivity_name(uint32_t sensitivity);

/* Append data as hexadecimal digits. */
void ctl_hex_append(struct memos_buffer *out, struct memos_bytes data);

/* An even number of hexadecimal digits to at most size_max bytes at out. */
bool ctl_hex_parse(const char *text, uint8_t *out, size_t size_max, size_t *out_size);

#endif
