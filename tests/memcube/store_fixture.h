/* A store in a folder of its own with a clock that the test moves, and short words for what tests
 * do with it again and again. What cannot be done fails the test. */
#ifndef TESTS_MEMCUBE_STORE_FIXTURE_H
#define TESTS_MEMCUBE_STORE_FIXTURE_H

#include "memcube/store.h"
#include "tests/memcube/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* OK, or fail the test with the error's text. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        const enum memos_status assert_status = (call);                                            \
        if (assert_status != MEMOS_OK) {                                                           \
            fail_msg("%s: %s: %s", #call, memos_status_name(assert_status),                        \
                fixture_error()->text);                                                            \
        }                                                                                          \
    } while (0)

struct fixture {
    char path[FOLDER_PATH_BYTES];
    int64_t now_us;
    struct memcube_store_options options;
    struct memcube_store *store;
    struct memcube_write *write; /* while one is open */
    struct memcube_read *read;   /* likewise */
};

/* Where every call below leaves its error. */
struct memos_error *fixture_error(void);

/* A new store, open; sync is off, inline payloads up to 4096 bytes. */
void fixture_make(struct fixture *f);
void fixture_drop(struct fixture *f);
void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);
void fixture_reopen(struct fixture *f);

struct memos_bytes text_of(const char *text);
struct memcube_draft draft_of(const char *text);
struct memcube_change change_of(const char *space);

/* Begin, or go on with, a write; commit it. */
struct memcube_write *fixture_write(struct fixture *f);
void fixture_commit(struct fixture *f);
/* A fresh snapshot (inside the write while one is open). */
struct memcube_read *fixture_read(struct fixture *f);
struct memcube_space fixture_space(struct fixture *f, const char *space);

/* One cube, one commit. */
struct memcube_ref fixture_put(struct fixture *f, const char *space, const char *text);
struct memcube_ref fixture_put_draft(
    struct fixture *f, const char *space, const struct memcube_draft *draft);
/* Derived from one version. */
struct memcube_ref fixture_derive(
    struct fixture *f, const char *space, const char *text, struct memcube_ref source);
struct memcube_ref fixture_update(
    struct fixture *f, const char *space, const struct memos_id *id, const char *text);
enum memos_status fixture_transition(struct fixture *f, const char *space,
    const struct memos_id *id, enum memcube_state to);

struct memcube_version fixture_get(
    struct fixture *f, const char *space, const struct memos_id *id, uint32_t number);
enum memos_status fixture_get_status(
    struct fixture *f, const char *space, const struct memos_id *id, uint32_t number);
/* Is this the payload of that version (0: of the head)? */
void assert_text(struct fixture *f, const char *space, const struct memos_id *id, uint32_t number,
    const char *text);

/* How many docs does a filter select? */
uint32_t fixture_select(struct fixture *f, const char *space, const struct memcube_filter *filter,
    const struct memcube_as_of *as_of);

#endif
