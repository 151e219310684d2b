/* Fetching the usual encoder, all-MiniLM-L6-v2, with pip: what pip is configured with decides from
 * where and through which proxy. The version is fixed, and pip refuses what has another hash. */
#ifndef TOOLS_MEMOSCTL_FETCH_H
#define TOOLS_MEMOSCTL_FETCH_H

#include "tools/memosctl/ctl.h"

#include <limits.h>

/* Fetch it into a folder that exists; out: where the model is then, below it. What pip says goes to
 * standard error. NOT_FOUND: there is no python3 with pip. UNAVAILABLE: pip could not fetch it.
 * Sets ctl->hint. */
MEMOS_MUST_USE enum memos_status ctl_fetch_minilm(
    struct ctl *ctl, const char *folder, char out[PATH_MAX], struct memos_error *err);

#endif
