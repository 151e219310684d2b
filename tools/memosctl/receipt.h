/* Receipts: which cubes an answer was made with, as JSON, for people, and held against the history.
 *
 * A receipt is believed in nothing: its record must have the hash that it names, and every cube the
 * version and the payload's hash, and must have stood when it was read.
 *
 * Threads: one. */
#ifndef TOOLS_MEMOSCTL_RECEIPT_H
#define TOOLS_MEMOSCTL_RECEIPT_H

#include "memos/worker/receipt_json.h"
#include "tools/memosctl/ctl.h"

enum { CTL_RECEIPT_BYTES_MAX = 16 * 1024 * 1024 };

/* The JSON of memos/worker/receipt_json.h; a new reference. */
json_t *ctl_receipt_json(const Memos__Receipt *receipt);

/* Read what ctl_receipt_json made, or an answer of `generate --json` that holds it; everything is
 * taken from the arena. INVALID says what is wrong. */
MEMOS_MUST_USE enum memos_status ctl_receipt_parse(struct memos_bytes text,
    struct memos_arena *arena, Memos__Receipt **out, struct memos_error *err);

enum ctl_receipt_verdict { CTL_RECEIPT_OK, CTL_RECEIPT_GONE, CTL_RECEIPT_WRONG };

/* What was found about a cube, or the record: text says why, or is empty. */
struct ctl_receipt_finding {
    enum ctl_receipt_verdict verdict;
    char text[160];
};
const char *ctl_receipt_verdict_name(enum ctl_receipt_verdict verdict);

/* Hold it against the history of its space at the broker. *out_items (one to each item) from the
 * arena. Errors are those of asking: what does not match is a finding. */
MEMOS_MUST_USE enum memos_status ctl_receipt_check(struct ctl *ctl, const Memos__Receipt *receipt,
    struct ctl_receipt_finding *out_record, struct ctl_receipt_finding **out_items,
    struct memos_error *err);

/* For people. findings: one to each item; NULL: nobody has looked. */
MEMOS_MUST_USE enum memos_status ctl_receipt_print(struct ctl *ctl, const Memos__Receipt *receipt,
    const struct ctl_receipt_finding *findings, struct memos_error *err);

#endif
