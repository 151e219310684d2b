/* Sending an archive to the broker. */
#ifndef TOOLS_MEMOSCTL_ARCHIVE_H
#define TOOLS_MEMOSCTL_ARCHIVE_H

#include "tools/memosctl/ctl.h"

/* Records of a space, or versions of a cube: what the archive has, and what was not there yet. */
struct ctl_archive_counts {
    uint64_t total, added;
};

/* Send an archive in parts and have it imported; all or nothing. */
MEMOS_MUST_USE enum memos_status ctl_archive_import(struct ctl *ctl, const char *space,
    struct memos_bytes archive, struct ctl_archive_counts *out, struct memos_error *err);

#endif
