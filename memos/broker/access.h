/* Who may do what: grants and keys, as they stand.
 *
 * Grants and keys are cubes of the space `_system` (subtypes "grant" and "key", the payload a JSON
 * object), so that they have a history, can be rolled back and are verified like everything else.
 * This is what they say, read once after every commit that touches `_system`, immutable and
 * counted.
 *
 * Rights: read < write < admin. A grant is on one space, on all below a prefix ("acme/" and a
 * star), or on all ("*"). A space whose name begins with '_' belongs to memos itself: only the
 * owner and a grant on exactly that name reach it. The owner, who is whoever can open the ipc
 * socket, may do everything.
 *
 * A cube in `_system` that is not a well-formed grant or key grants nothing.
 *
 * Threads: shared; keep and drop are atomic. */
#ifndef MEMOS_BROKER_ACCESS_H
#define MEMOS_BROKER_ACCESS_H

#include "memcube/store.h"

#define BROKER_OWNER "owner"       /* the principal of the ipc socket */
#define BROKER_LOOPBACK "loopback" /* of TCP without keys; no grants unless given */
#define BROKER_SYSTEM "_system"

enum broker_right {
    BROKER_RIGHT_NONE,
    BROKER_RIGHT_READ,
    BROKER_RIGHT_WRITE,
    BROKER_RIGHT_ADMIN,
};

struct broker_access;

struct broker_grant {
    struct memos_bytes principal, spaces;
    enum broker_right right;
    int64_t since_us;
};

struct broker_key {
    struct memos_bytes public_key, principal;
    int64_t since_us;
};

/* One that grants nothing to anybody but the owner. One reference. */
MEMOS_MUST_USE enum memos_status broker_access_create(
    struct broker_access **out_access, struct memos_error *err);

/* Copies. Before broker_access_seal. */
MEMOS_MUST_USE enum memos_status broker_access_add_grant(
    struct broker_access *access, const struct broker_grant *grant, struct memos_error *err);
MEMOS_MUST_USE enum memos_status broker_access_add_key(
    struct broker_access *access, const struct broker_key *key, struct memos_error *err);
void broker_access_seal(struct broker_access *access);

/* Read what `_system` says now; a store without that space gives one that grants nothing. */
MEMOS_MUST_USE enum memos_status broker_access_load(
    struct memcube_read *read, struct broker_access **out_access, struct memos_error *err);

struct broker_access *broker_access_keep(struct broker_access *access);
/* Drop a reference; takes NULL; sets *access to NULL. */
void broker_access_drop(struct broker_access **access);

enum broker_right broker_access_right(
    const struct broker_access *access, struct memos_bytes principal, struct memos_bytes space);

/* Has the principal this right on "*"? */
bool broker_access_global(
    const struct broker_access *access, struct memos_bytes principal, enum broker_right right);

/* Whom a public key stands for; empty for a key that is not allowed. */
struct memos_bytes broker_access_principal(
    const struct broker_access *access, struct memos_bytes public_key);

/* When time alone will change it (a grant that expires); 0: never. */
int64_t broker_access_until(const struct broker_access *access);

/* Views, as long as the access is kept. */
const struct broker_grant *broker_access_grants(
    const struct broker_access *access, size_t *out_count);
const struct broker_key *broker_access_keys(const struct broker_access *access, size_t *out_count);

/* "", "read", "write", "admin". */
const char *broker_right_text(enum broker_right right);
enum broker_right broker_right_of(struct memos_bytes text);

/* Does a grant's pattern cover a space? */
bool broker_pattern_covers(struct memos_bytes pattern, struct memos_bytes space);

#endif
