/* The lexical index: what of a version counts as its words, and what is done with them. */
#include "retrieval/lexical.h"

#include "retrieval/lexical_internal.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define K1_DEFAULT 1.2
#define B_DEFAULT 0.75

/* ---- what counts as a content's words ------------------------------------------------------ */

/* The day of an event as people write it, so that "in May 2023" finds what was said then. */
static enum memos_status day_add(
    struct retrieval_terms *terms, int64_t event_us, struct memos_error *err)
{
    static const char *const months[] = {"January", "February", "March", "April", "May", "June",
        "July", "August", "September", "October", "November", "December"};
    time_t seconds = (time_t)(event_us / 1000000 - (event_us % 1000000 < 0));
    struct tm day;
    char text[64];

    if (event_us == 0 || !gmtime_r(&seconds, &day)) {
        return MEMOS_OK;
    }
    (void)snprintf(
        text, sizeof text, "%d %s %d", day.tm_mday, months[day.tm_mon], day.tm_year + 1900);
    return retrieval_terms_add(terms, memos_bytes_of(text), err);
}

/* Count everything of a doc in: title, speaker, day, captions, text. */
static enum memos_status doc_count(struct retrieval_terms *terms,
    const struct memcube_index_doc *doc, struct retrieval_entry *out_entry, struct memos_error *err)
{
    const struct memcube_description *description = &doc->version->description;

    retrieval_terms_begin(terms, doc->secret, description->language, false);
    enum memos_status status = retrieval_terms_add(terms, description->title, err);
    if (status == MEMOS_OK) {
        status = retrieval_terms_add(terms, description->speaker, err);
    }
    if (status == MEMOS_OK) {
        status = day_add(terms, description->event_us, err);
    }
    for (size_t i = 0; i < description->attributes_count && status == MEMOS_OK; i++) {
        if (memos_bytes_equal(description->attributes[i].name, memos_bytes_of("caption"))) {
            status = retrieval_terms_add(terms, description->attributes[i].value, err);
        }
    }
    if (status == MEMOS_OK) {
        status = retrieval_terms_add(terms, doc->text, err);
    }
    if (status == MEMOS_OK) {
        *out_entry = (struct retrieval_entry){.space = doc->space, .doc = doc->doc};
        out_entry->terms =
            retrieval_terms_finish(terms, &out_entry->terms_count, &out_entry->length);
    }
    return status;
}

/* ---- the index ----------------------------------------------------------------------------- */

static enum memos_status index_open(void *self, struct memcube_db *db, struct memos_error *err)
{
    struct retrieval_lexical *lexical = self;
    return retrieval_tables_open(db, &lexical->tables, err);
}

static enum memos_status index_add(void *self, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, struct memos_error *err)
{
    struct retrieval_lexical *lexical = self;
    struct retrieval_entry entry;
    struct retrieval_terms *terms;

    enum memos_status status = retrieval_terms_take(&lexical->pool, &terms, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = doc_count(terms, doc, &entry, err);
    if (status == MEMOS_OK) {
        status = retrieval_entry_add(&lexical->tables, txn, &entry, err);
    }
    retrieval_terms_give(&lexical->pool, terms);
    return status;
}

static enum memos_status index_erase(
    void *self, struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err)
{
    struct retrieval_lexical *lexical = self;
    return retrieval_entry_erase(&lexical->tables, txn, space, doc, err);
}

static enum memos_status index_check(void *self, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, struct memos_error *err)
{
    struct retrieval_lexical *lexical = self;
    struct retrieval_entry entry;
    struct retrieval_terms *terms;

    enum memos_status status = retrieval_terms_take(&lexical->pool, &terms, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = doc_count(terms, doc, &entry, err);
    if (status == MEMOS_OK) {
        status = retrieval_entry_check(&lexical->tables, txn, &entry, err);
    }
    retrieval_terms_give(&lexical->pool, terms);
    return status;
}

enum memos_status retrieval_lexical_create(const struct retrieval_lexical_options *options,
    struct retrieval_lexical **out_lexical, struct memos_error *err)
{
    float k1 = options ? options->k1 : 0.0f, b = options ? options->b : 0.0f;
    if (!(k1 >= 0.0f && k1 <= 100.0f && b >= 0.0f && b <= 1.0f)) {
        return memos_fail(err, MEMOS_INVALID, "BM25 wants k1 in 0..100 and b in 0..1, not %g, %g",
            (double)k1, (double)b);
    }
    if (sodium_init() < 0) {
        return memos_fail(err, MEMOS_INTERNAL, "libsodium does not start");
    }
    struct retrieval_lexical *lexical = calloc(1, sizeof *lexical);
    if (!lexical) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the lexical index");
    }
    enum memos_status status = retrieval_terms_pool_init(&lexical->pool, err);
    if (status != MEMOS_OK) {
        free(lexical);
        return status;
    }
    lexical->k1 = k1 > 0.0f ? (double)k1 : K1_DEFAULT;
    lexical->b = b > 0.0f ? (double)b : B_DEFAULT;
    lexical->index = (struct memcube_index){
        .name = "lex",
        .self = lexical,
        .open = index_open,
        .add = index_add,
        .erase = index_erase,
        .check = index_check,
    };
    *out_lexical = lexical;
    return MEMOS_OK;
}

void retrieval_lexical_destroy(struct retrieval_lexical **lexical_in)
{
    struct retrieval_lexical *lexical = *lexical_in;
    *lexical_in = NULL;
    if (!lexical) {
        return;
    }
    retrieval_terms_pool_finish(&lexical->pool);
    free(lexical);
}

struct memcube_index *retrieval_lexical_index(struct retrieval_lexical *lexical)
{
    return &lexical->index;
}
