/* What people give: texts, files, times, drafts and filters, as the requests want them.
 *
 * Everything made lies in the arena of ctl, or views argv. */
#ifndef TOOLS_MEMOSCTL_INPUT_H
#define TOOLS_MEMOSCTL_INPUT_H

#include "tools/memosctl/ctl.h"

#define CTL_FILE_BYTES_MAX ((uint64_t)1024 * 1024 * 1024)

/* A whole file ("-": standard input) of at most size_max bytes. Free with memos_buffer_free. */
MEMOS_MUST_USE enum memos_status ctl_file_read(
    const char *path, size_t size_max, struct memos_buffer *out, struct memos_error *err);

/* What TEXT, @FILE or - means. Free *out with memos_buffer_free. */
MEMOS_MUST_USE enum memos_status ctl_payload_read(
    const char *given, struct memos_buffer *out, struct memos_error *err);

/* A file that is written beside its name and takes its place when all of it is there; "-" is
 * standard output. */
struct ctl_file {
    const char *path;
    char beside[4096];
    FILE *stream;
};
MEMOS_MUST_USE enum memos_status ctl_file_create(
    const char *path, struct ctl_file *out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status ctl_file_write(
    struct ctl_file *file, struct memos_bytes bytes, struct memos_error *err);
/* Sync and rename; on failure nothing is left. */
MEMOS_MUST_USE enum memos_status ctl_file_commit(struct ctl_file *file, struct memos_error *err);
/* Leave nothing; after a commit it does nothing. */
void ctl_file_abort(struct ctl_file *file);

/* An option's time in microseconds; 0 when it was not given. */
MEMOS_MUST_USE enum memos_status ctl_time_option(
    const struct ctl *ctl, enum ctl_option option, int64_t *out_us, struct memos_error *err);

/* "120" is a record, anything else a time. */
MEMOS_MUST_USE enum memos_status ctl_point_parse(
    const struct ctl *ctl, const char *text, Memos__AsOf *out, struct memos_error *err);

/* --as-of: *out_given is out, or NULL when it was not given. */
MEMOS_MUST_USE enum memos_status ctl_as_of(
    const struct ctl *ctl, Memos__AsOf *out, Memos__AsOf **out_given, struct memos_error *err);

/* The options that say what a cube is. *out_fields has the bits of enum memcube_field of those that
 * were given (without the payload). */
MEMOS_MUST_USE enum memos_status ctl_draft_make(
    struct ctl *ctl, Memos__Draft *out, uint32_t *out_fields, struct memos_error *err);

/* A cube of a space, or a version of it: "ID", "ID@3" (without one, number 0). Its id lies in the
 * arena. */
MEMOS_MUST_USE enum memos_status ctl_ref_parse(
    struct ctl *ctl, const char *space, const char *text, Memos__Ref *out, struct memos_error *err);

/* The options that say which cubes. */
MEMOS_MUST_USE enum memos_status ctl_filter_make(
    struct ctl *ctl, Memos__Filter *out, struct memos_error *err);

/* All values of an option, for a field of the schema. */
MEMOS_MUST_USE enum memos_status ctl_values(struct ctl *ctl, enum ctl_option option, char ***out,
    size_t *out_count, struct memos_error *err);

#endif
