/* What a search index is to the store: something that is written in the store's own transaction.
 *
 * The store numbers the *contents* of a space: every version of a cube that has new words (payload,
 * title, speaker, language, event time or attributes) gets a new doc number, 1, 2, 3 ...; a version
 * that only changes state or tags, or rolls back to older words, keeps or gets back the number of
 * those words. So an index never moves entries when cubes change state or are rolled back: it
 * writes each content once, and asks the store which docs may be found (memcube_docs_select in
 * memcube/store.h).
 *
 * An index lives above memcube/ (retrieval/ has one) and is handed to memcube_store_open. */
#ifndef MEMCUBE_INDEX_H
#define MEMCUBE_INDEX_H

#include "memcube/cube.h"
#include "memcube/db.h"

enum { MEMCUBE_DOC_KEY_BYTES = 32 };

struct memcube_index_doc {
    uint32_t space; /* number of the space */
    uint32_t doc;
    uint32_t replaces; /* the doc of the version that this one was made from; 0: none */
    const struct memcube_version *version;
    struct memos_bytes text; /* the payload when it is plaintext, else empty */
    const uint8_t *secret;   /* 32 bytes, one key per space: to hash words with, so that no word can
                                be read in the files */
    const uint8_t *key;      /* MEMCUBE_DOC_KEY_BYTES: a key per doc, that forget destroys: what an
                                index keeps of a doc encrypted under it is unreadable afterwards,
                                wherever a copy lies. memcube_doc_key (memcube/store.h) gives it
                                again. Of a write that was never committed the same key may come
                                back for another content, so a nonce must be random */
};

struct memcube_index {
    const char *name; /* prefix of its tables' names */
    void *self;

    /* Open its tables. Called once, at memcube_store_open. */
    enum memos_status (*open)(void *self, struct memcube_db *db, struct memos_error *err);

    /* A new content. Failing here fails the write. */
    enum memos_status (*add)(void *self, struct memcube_txn *txn,
        const struct memcube_index_doc *doc, struct memos_error *err);

    /* A content is forgotten: leave no trace of it. `version` and `text` are not given any more. */
    enum memos_status (*erase)(void *self, struct memcube_txn *txn, uint32_t space, uint32_t doc,
        struct memos_error *err);

    /* fsck: is the entry of this doc complete, and as add would make it? CORRUPT says what is not.
     * May be NULL. */
    enum memos_status (*check)(void *self, struct memcube_txn *txn,
        const struct memcube_index_doc *doc, struct memos_error *err);
};

#endif
