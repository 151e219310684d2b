/* What verify, fsck and the checkpoints share. Not for use outside memcube/. */
#ifndef MEMCUBE_PROOF_H
#define MEMCUBE_PROOF_H

#include "memcube/store_internal.h"

/* Does this status of a lower layer say that something stored is damaged (a finding), rather than
 * that we could not look (a failure)? */
bool memcube_verify_is_finding(enum memos_status status);

/* A checkpoint from its key and value. CORRUPT; out->seq is filled as far as it could be read. */
MEMOS_MUST_USE enum memos_status memcube_checkpoint_decode(const struct memos_id *space_id,
    struct memos_bytes key, struct memos_bytes value, struct memcube_checkpoint *out,
    struct memos_error *err);

#endif
