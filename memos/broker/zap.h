/* Who may connect over CURVE: the ZeroMQ Authentication Protocol (RFC 27) inside the broker.
 *
 * The thread answers at inproc://zeromq.zap.01 for the domain "memos": a public key that is allowed
 * gets in, and its Z85 form goes with every message as "User-Id". Whom the key stands for is looked
 * up with every request, so that a key that is revoked loses its rights at once, connected or not.
 *
 * Threads: the table may be set from any. */
#ifndef MEMOS_BROKER_ZAP_H
#define MEMOS_BROKER_ZAP_H

#include "memos/broker/access.h"

#define BROKER_ZAP_DOMAIN "memos"

struct broker_zap;

/* Returns when the thread answers. */
MEMOS_MUST_USE enum memos_status broker_zap_create(
    void *context, struct broker_zap **out_zap, struct memos_error *err);
void broker_zap_destroy(struct broker_zap **zap);

/* Use this table from now on; keeps a reference. */
void broker_zap_allow(struct broker_zap *zap, struct broker_access *access);

#endif
