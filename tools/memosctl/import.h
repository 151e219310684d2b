/* Reading what others wrote: conversations and texts, as items that become cubes.
 *
 * A reader goes over the bytes of a file once and gives each item to a sink. Memory is bounded by
 * the largest single item (a line, a conversation of a ChatGPT export: 64 MiB of JSON), not by the
 * file.
 *
 * Errors: what a reader cannot make sense of it tells the sink (`bad`), with the line it is on, and
 * goes on if the sink says so. TOO_LARGE and INVALID where there is no going on. */
#ifndef TOOLS_MEMOSCTL_IMPORT_H
#define TOOLS_MEMOSCTL_IMPORT_H

#include "proto/bytes.h"

enum ctl_import_format {
    CTL_IMPORT_UNKNOWN,
    CTL_IMPORT_JSONL,    /* a chat turn on each line */
    CTL_IMPORT_MESSAGES, /* arrays of {role, content} */
    CTL_IMPORT_CHATGPT,  /* conversations.json of a data export */
    CTL_IMPORT_TEXT,
    CTL_IMPORT_MARKDOWN,
    CTL_IMPORT_ARCHIVE, /* an export of memosctl */
};

/* "jsonl" and so on; CTL_IMPORT_UNKNOWN for another word. */
enum ctl_import_format ctl_import_format_of(const char *word);
const char *ctl_import_format_name(enum ctl_import_format format);

/* What a file is, from its name and its beginning. */
enum ctl_import_format ctl_import_detect(struct memos_bytes bytes, const char *name);

struct ctl_import_pair {
    struct memos_bytes name, value;
};

enum { CTL_IMPORT_PAIRS_MAX = 64, CTL_IMPORT_TAGS_MAX = 64 };

/* One thing to remember. All views live until `take` returns; all text is UTF-8. */
struct ctl_import_item {
    struct memos_bytes space; /* empty: the command's */
    struct memos_bytes session;
    struct memos_bytes speaker;
    struct memos_bytes text;
    struct memos_bytes title;
    struct memos_bytes language;
    struct memos_bytes id; /* the sender's own; empty: one is made from the content */
    struct memos_bytes source_type, source_uri;
    uint64_t offset, length;                            /* in the source */
    int64_t event_us;                                   /* 0: not known */
    struct ctl_import_pair pairs[CTL_IMPORT_PAIRS_MAX]; /* anything else */
    size_t pairs_count;
    struct memos_bytes tags[CTL_IMPORT_TAGS_MAX];
    size_t tags_count;
    const char *subtype; /* "message", "document" */
    uint64_t line;       /* where it is, for messages; counted from 1 */
};

struct ctl_import_sink {
    enum memos_status (*take)(
        void *self, const struct ctl_import_item *item, struct memos_error *err);
    /* Something cannot be read. OK: go on without it. */
    enum memos_status (*bad)(void *self, uint64_t line, const char *why, struct memos_error *err);
    void *self;
};

/* Which members of a line are what. Names are views; an empty one means the usual names. */
enum ctl_import_field {
    CTL_IMPORT_SPACE,
    CTL_IMPORT_SESSION,
    CTL_IMPORT_TIME,
    CTL_IMPORT_SPEAKER,
    CTL_IMPORT_BODY,
    CTL_IMPORT_ID,
    CTL_IMPORT_TITLE,
    CTL_IMPORT_CAPTION,
    CTL_IMPORT_LANGUAGE,
    CTL_IMPORT_TAG,
    CTL_IMPORT_IGNORE, /* may be repeated */
    CTL_IMPORT_FIELDS_END,
};
enum { CTL_IMPORT_NAME_BYTES_MAX = 64, CTL_IMPORT_IGNORED_MAX = 32 };

struct ctl_import_map {
    char names[CTL_IMPORT_FIELDS_END][CTL_IMPORT_NAME_BYTES_MAX];
    char ignored[CTL_IMPORT_IGNORED_MAX][CTL_IMPORT_NAME_BYTES_MAX];
    size_t ignored_count;
};

/* Add "time=date_time,id=dia_id". INVALID. */
MEMOS_MUST_USE enum memos_status ctl_import_map_parse(
    const char *text, struct ctl_import_map *map, struct memos_error *err);

struct ctl_import_options {
    const char *name;                 /* of the file, without its folder */
    const struct ctl_import_map *map; /* for jsonl */
    size_t chunk_bytes;               /* for text and markdown: at most so long; 0: 1200 */
};

/* Read all of bytes in this format (not an archive). */
MEMOS_MUST_USE enum memos_status ctl_import_read(enum ctl_import_format format,
    struct memos_bytes bytes, const struct ctl_import_options *options,
    const struct ctl_import_sink *sink, struct memos_error *err);

/* What ctl_import_read chooses from. */
MEMOS_MUST_USE enum memos_status ctl_import_lines(struct memos_bytes bytes,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err);
MEMOS_MUST_USE enum memos_status ctl_import_messages(struct memos_bytes bytes,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err);
MEMOS_MUST_USE enum memos_status ctl_import_chatgpt(struct memos_bytes bytes,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err);
MEMOS_MUST_USE enum memos_status ctl_import_text(struct memos_bytes bytes, bool is_markdown,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err);

/* A moment as people and programs write it: RFC 3339, "2023/05/20 (Sat) 02:21", "1:56 pm on 8 May,
 * 2023", "May 8, 2023", seconds, milliseconds or microseconds since 1970. UTC where it does not
 * say. INVALID. */
MEMOS_MUST_USE enum memos_status ctl_import_time(
    struct memos_bytes text, int64_t *out_us, struct memos_error *err);

#endif
