/* The list of docs without vectors, for vectors.c. Not for use outside retrieval/. */
#ifndef RETRIEVAL_VECTORS_DUE_H
#define RETRIEVAL_VECTORS_DUE_H

#include "retrieval/vectors_internal.h"

/* Put a doc on the list, with the hash of its text as an entry would have it (NULL: not known). */
enum memos_status retrieval_vec_due_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, const uint8_t *hash,
    struct memos_error *err);
/* Strike it off; OK when it is not there. */
enum memos_status retrieval_vec_due_remove(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err);

#endif
