/* Items of an import on their way to the broker: gathered into puts, several puts on their way at
 * once, in bounded memory.
 *
 * Every draft gets an external id: the item's own, or one made from its content, so that the same
 * file twice changes nothing.
 *
 * Threads: one. */
#ifndef TOOLS_MEMOSCTL_PIPELINE_H
#define TOOLS_MEMOSCTL_PIPELINE_H

#include "tools/memosctl/ctl.h"
#include "tools/memosctl/import.h"

struct ctl_pipeline;

struct ctl_import_counts {
    uint64_t created, updated, unchanged, failed;
};

struct ctl_pipeline_options {
    const char *space; /* for items that name none; or the beginning of their spaces' names; NULL */
    const char *language; /* for items that name none; NULL */
    const char *subtype;  /* for all; NULL: the items' own */
    char **tags;          /* for all, beside the items' own */
    size_t tags_count;
    bool skip_bad; /* count what fails, and go on */
    bool dry_run;  /* only count */
};

MEMOS_MUST_USE enum memos_status ctl_pipeline_create(struct ctl *ctl,
    const struct ctl_pipeline_options *options, struct ctl_pipeline **out_pipeline,
    struct memos_error *err);
void ctl_pipeline_destroy(struct ctl_pipeline **pipeline);

/* The sink for a reader of the file `name` (borrowed until the next call of this function). */
struct ctl_import_sink ctl_pipeline_sink(struct ctl_pipeline *pipeline, const char *name);

/* Send what is left, and wait for all answers. */
MEMOS_MUST_USE enum memos_status ctl_pipeline_finish(
    struct ctl_pipeline *pipeline, struct memos_error *err);

/* Did it end for an item that is no good? What came before it may still be sent. */
bool ctl_pipeline_is_refused(const struct ctl_pipeline *pipeline);

const struct ctl_import_counts *ctl_pipeline_counts(const struct ctl_pipeline *pipeline);

#endif
