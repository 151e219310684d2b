/* Vectors that wait for the write that will want them.
 *
 * A write may be repeated (the map grew, or another job of its group failed), and two cubes may
 * have one text: so what was taken is kept for a while, in an eighth of the room at most. */
#include "retrieval/vectors_internal.h"

#include <math.h>
#include <stdlib.h>

#define BUCKETS 4096u
#define USED_PART 8u

struct retrieval_vec_offer {
    struct retrieval_vec_offer *older, *newer; /* in its list */
    struct retrieval_vec_offer *next;          /* in its bucket */
    uint8_t hash[16];
    uint8_t fingerprint[32];
    size_t spans, dims;
    bool used;
    float values[];
};

struct retrieval_vec_known {
    uint8_t fingerprint[32];
    size_t dims;
};

bool retrieval_vec_finite(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) {
            return false;
        }
    }
    return true;
}

enum memos_status retrieval_vec_offers_init(
    struct retrieval_vec_offers *offers, uint64_t bytes_max, struct memos_error *err)
{
    *offers = (struct retrieval_vec_offers){.bytes_max = bytes_max};
    offers->buckets = calloc(BUCKETS, sizeof *offers->buckets);
    if (!offers->buckets) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for offered vectors");
    }
    (void)pthread_mutex_init(&offers->lock, NULL);
    return MEMOS_OK;
}

static size_t bytes_of(const struct retrieval_vec_offer *offer)
{
    return sizeof *offer + offer->spans * offer->dims * sizeof *offer->values;
}

/* Hashes of texts are even enough to take the bucket from. */
static struct retrieval_vec_offer **bucket_of(
    const struct retrieval_vec_offers *offers, const uint8_t hash[16])
{
    return &offers->buckets[((unsigned)hash[0] | (unsigned)hash[1] << 8) % BUCKETS];
}

static struct retrieval_vec_offer_list *list_of(
    struct retrieval_vec_offers *offers, const struct retrieval_vec_offer *offer)
{
    return offer->used ? &offers->used : &offers->fresh;
}

static void list_append(struct retrieval_vec_offer_list *list, struct retrieval_vec_offer *offer)
{
    offer->older = list->newest;
    offer->newer = NULL;
    *(list->newest ? &list->newest->newer : &list->oldest) = offer;
    list->newest = offer;
    list->count++;
    list->bytes += bytes_of(offer);
}

static void list_remove(struct retrieval_vec_offer_list *list, struct retrieval_vec_offer *offer)
{
    *(offer->older ? &offer->older->newer : &list->oldest) = offer->newer;
    *(offer->newer ? &offer->newer->older : &list->newest) = offer->older;
    list->count--;
    list->bytes -= bytes_of(offer);
}

static void offer_drop(struct retrieval_vec_offers *offers, struct retrieval_vec_offer *offer)
{
    struct retrieval_vec_offer **at = bucket_of(offers, offer->hash);
    while (*at != offer) {
        at = &(*at)->next;
    }
    *at = offer->next;
    list_remove(list_of(offers, offer), offer);
    free(offer);
}

static struct retrieval_vec_offer *offer_find(
    struct retrieval_vec_offers *offers, const uint8_t fingerprint[32], const uint8_t hash[16])
{
    struct retrieval_vec_offer *offer = *bucket_of(offers, hash);
    while (offer && (memcmp(offer->hash, hash, sizeof offer->hash) != 0 ||
                        memcmp(offer->fingerprint, fingerprint, 32) != 0)) {
        offer = offer->next;
    }
    return offer;
}

/* Drop used ones beyond their part, then the oldest of all, until `more` bytes fit. */
static void room_make(struct retrieval_vec_offers *offers, uint64_t more)
{
    while (offers->used.oldest &&
           (offers->used.bytes > offers->bytes_max / USED_PART ||
               offers->used.bytes + offers->fresh.bytes + more > offers->bytes_max)) {
        offer_drop(offers, offers->used.oldest);
    }
    while (offers->fresh.oldest && offers->fresh.bytes + more > offers->bytes_max) {
        offer_drop(offers, offers->fresh.oldest);
        offers->dropped++;
    }
}

void retrieval_vec_offers_finish(struct retrieval_vec_offers *offers)
{
    if (!offers->buckets) {
        return;
    }
    while (offers->used.oldest) {
        offer_drop(offers, offers->used.oldest);
    }
    while (offers->fresh.oldest) {
        offer_drop(offers, offers->fresh.oldest);
    }
    free(offers->buckets);
    free(offers->known);
    offers->buckets = NULL;
    (void)pthread_mutex_destroy(&offers->lock);
}

/* ---- encoders ------------------------------------------------------------------------------ */

static size_t dims_of(const struct retrieval_vec_offers *offers, const uint8_t fingerprint[32])
{
    for (size_t i = 0; i < offers->known_count; i++) {
        if (memcmp(offers->known[i].fingerprint, fingerprint, 32) == 0) {
            return offers->known[i].dims;
        }
    }
    return 0;
}

enum memos_status retrieval_vec_offers_know(struct retrieval_vec_offers *offers,
    const uint8_t fingerprint[32], size_t dims, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;

    (void)pthread_mutex_lock(&offers->lock);
    const size_t had = dims_of(offers, fingerprint);
    if (had != 0 && had != dims) {
        status = memos_fail(err, MEMOS_INVALID,
            "vectors of one fingerprint cannot have %zu dims now and %zu before", dims, had);
    } else if (had == 0 && offers->known_count == offers->known_max) {
        const size_t most = offers->known_max * 2 + 4;
        struct retrieval_vec_known *known = realloc(offers->known, most * sizeof *known);
        if (known) {
            offers->known = known;
            offers->known_max = most;
        } else {
            status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for one more encoder");
        }
    }
    if (status == MEMOS_OK && had == 0) {
        struct retrieval_vec_known *known = &offers->known[offers->known_count++];
        memcpy(known->fingerprint, fingerprint, sizeof known->fingerprint);
        known->dims = dims;
    }
    (void)pthread_mutex_unlock(&offers->lock);
    return status;
}

/* ---- offering and taking ------------------------------------------------------------------- */

static enum memos_status offer_make(struct retrieval_vec_offers *offers,
    const uint8_t fingerprint[32], const struct retrieval_spans *spans, const float *values,
    size_t dims, struct memos_error *err)
{
    const size_t count = spans->count * dims;
    struct retrieval_vec_offer *offer = malloc(sizeof *offer + count * sizeof *values);

    if (!offer) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for offered vectors");
    }
    *offer = (struct retrieval_vec_offer){.spans = spans->count, .dims = dims};
    memcpy(offer->hash, spans->hash, sizeof offer->hash);
    memcpy(offer->fingerprint, fingerprint, sizeof offer->fingerprint);
    memcpy(offer->values, values, count * sizeof *values);
    room_make(offers, bytes_of(offer));
    if (bytes_of(offer) > offers->bytes_max) {
        offers->dropped++;
        free(offer);
        return MEMOS_OK;
    }
    struct retrieval_vec_offer **bucket = bucket_of(offers, offer->hash);
    offer->next = *bucket;
    *bucket = offer;
    list_append(&offers->fresh, offer);
    return MEMOS_OK;
}

enum memos_status retrieval_vectors_offer(struct retrieval_vectors *vectors,
    const uint8_t fingerprint[32], const struct retrieval_spans *spans, const float *values,
    struct memos_error *err)
{
    struct retrieval_vec_offers *offers = &vectors->offers;
    enum memos_status status = MEMOS_OK;

    if (spans->count == 0) {
        return MEMOS_OK;
    }
    (void)pthread_mutex_lock(&offers->lock);
    const size_t dims = dims_of(offers, fingerprint);
    if (dims == 0) {
        status = memos_fail(err, MEMOS_INVALID, "vectors of an encoder that was never active");
    } else if (!retrieval_vec_finite(values, spans->count * dims)) {
        status = memos_fail(err, MEMOS_INVALID, "a vector with values that are not finite");
    } else {
        struct retrieval_vec_offer *before = offer_find(offers, fingerprint, spans->hash);
        if (before) {
            offer_drop(offers, before); /* the newer one lives longer */
        }
        status = offer_make(offers, fingerprint, spans, values, dims, err);
    }
    (void)pthread_mutex_unlock(&offers->lock);
    return status;
}

float *retrieval_vec_offers_take(struct retrieval_vec_offers *offers,
    const struct retrieval_vec_encoder *encoder, const struct retrieval_spans *spans)
{
    float *values = NULL;

    (void)pthread_mutex_lock(&offers->lock);
    struct retrieval_vec_offer *offer = offer_find(offers, encoder->fingerprint, spans->hash);
    if (offer && offer->spans == spans->count && offer->dims == encoder->dims) {
        const size_t bytes = offer->spans * offer->dims * sizeof *values;
        values = malloc(bytes);
        if (values) {
            memcpy(values, offer->values, bytes);
        }
        list_remove(list_of(offers, offer), offer);
        offer->used = true;
        list_append(&offers->used, offer);
        room_make(offers, 0);
    }
    (void)pthread_mutex_unlock(&offers->lock);
    return values;
}
