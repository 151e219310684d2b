/* Archives on their way in: a bounded number of unlinked files in the data folder.
 *
 * Threads: shared. Each import is used by one thread at a time: take it, give it back. */
#ifndef MEMOS_BROKER_IMPORTS_H
#define MEMOS_BROKER_IMPORTS_H

#include "memos/broker/request.h"

struct broker_imports;

struct broker_import {
    struct broker_import *next;
    uint8_t token[16];
    char space[MEMCUBE_SPACE_BYTES_MAX + 1];
    char principal[BROKER_PRINCIPAL_BYTES_MAX + 1];
    int fd;
    uint64_t bytes_total, bytes;
    int64_t touched_us;
    bool taken;
};

MEMOS_MUST_USE enum memos_status broker_imports_create(
    const char *folder, struct broker_imports **out_imports, struct memos_error *err);
void broker_imports_destroy(struct broker_imports **imports);
void broker_imports_limit(struct broker_imports *imports, uint64_t count_max, uint64_t bytes_max);

/* Begin one. BUSY when there are too many, TOO_LARGE, IO. */
MEMOS_MUST_USE enum memos_status broker_imports_begin(struct broker_imports *imports,
    const struct broker_request *rq, uint64_t bytes_total, int64_t now_us,
    struct broker_import **out_import, struct memos_error *err);

/* Take the one of this token, space and principal. NOT_FOUND; BUSY while another request has it. */
MEMOS_MUST_USE enum memos_status broker_imports_take(struct broker_imports *imports,
    const struct broker_request *rq, const uint8_t token[16], struct broker_import **out_import,
    struct memos_error *err);

/* Append bytes; CONFLICT when offset is not where it stands. */
MEMOS_MUST_USE enum memos_status broker_import_append(struct broker_import *import, uint64_t offset,
    struct memos_bytes bytes, struct memos_error *err);

void broker_imports_give_back(
    struct broker_imports *imports, struct broker_import *import, int64_t now_us);
/* Forget one that was taken. Sets *import to NULL. */
void broker_imports_end(struct broker_imports *imports, struct broker_import **import);

/* Forget those that nobody has touched for ten minutes. */
void broker_imports_expire(struct broker_imports *imports, int64_t now_us);

#endif
