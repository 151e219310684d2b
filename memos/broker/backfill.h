/* Vectors for docs that have none of the encoder in use, made in the background, and the upkeep of
 * approximate indexes.
 *
 * A round takes a few docs of the list of what is to be done, reads their texts in a snapshot that
 * ends at once, has them encoded behind everything that somebody waits for, and hands them to the
 * writer. An encoder that fails is tried again after a while; a doc whose text cannot be read is
 * passed over until the next start.
 *
 * Threads: kick and status from any; create and destroy from one. */
#ifndef MEMOS_BROKER_BACKFILL_H
#define MEMOS_BROKER_BACKFILL_H

#include "memos/broker/meaning.h"

struct broker_backfill;

/* Borrows all until destroy. */
MEMOS_MUST_USE enum memos_status broker_backfill_create(struct broker *broker,
    struct retrieval_embedder *embedder, const struct retrieval_encoder_info *info,
    struct broker_backfill **out_backfill, struct memos_error *err);

/* Ends the thread after the step that it is in. Takes NULL. */
void broker_backfill_destroy(struct broker_backfill **backfill);

void broker_backfill_kick(struct broker_backfill *backfill);

/* Fills all but the embedder's part. */
void broker_backfill_status(struct broker_backfill *backfill, struct broker_meaning_status *out);

#endif
