/* Approximate nearest neighbours, by FAISS through its C API.
 *
 * An index holds unit vectors under 64-bit labels (the rows of a table in memory, vectors.h) and is
 * searched by inner product. It is built from vectors, added to, saved to one file and loaded from
 * it; the file carries what it was built from and a hash, so that a damaged or foreign file is
 * refused (CORRUPT, CONFLICT) and the index is built anew.
 *
 * Threads: an index may be searched by many threads while nobody changes it.
 *
 * Sources: Malkov and Yashunin, arXiv 1603.09320 (HNSW); Jegou et al., 2011 (IVF, PQ); Douze et
 * al., arXiv 2401.08281 (FAISS). */
#ifndef RETRIEVAL_ANN_H
#define RETRIEVAL_ANN_H

#include "proto/bytes.h"

enum retrieval_ann_type {
    RETRIEVAL_ANN_AUTO, /* by the number of vectors */
    RETRIEVAL_ANN_FLAT,
    RETRIEVAL_ANN_HNSW,
    RETRIEVAL_ANN_IVF_FLAT,
    RETRIEVAL_ANN_IVF_SQ8,
    RETRIEVAL_ANN_IVF_PQ,
};
const char *retrieval_ann_type_name(enum retrieval_ann_type type); /* "hnsw"; static */
enum retrieval_ann_type retrieval_ann_type_of(struct memos_bytes name, bool *out_known);

struct retrieval_ann;

/* Called now and then while building, on the caller's thread; false stops with CANCELLED. May be
 * NULL. Training (some seconds of 100,000 vectors) is one step, during which nothing is called. */
typedef bool retrieval_ann_progress_fn(void *self, uint64_t done, uint64_t total);

struct retrieval_ann_build {
    enum retrieval_ann_type type;
    size_t dims;
    uint64_t count; /* vectors: labels are 0 .. count - 1 */
    /* Decode vectors [first, first + count) into out (count, dims). */
    void (*vectors)(void *self, uint64_t first, size_t count, float *out);
    void *self;
    retrieval_ann_progress_fn *progress;
    void *progress_self;
    unsigned threads; /* that build; 0: one a processor, at most 16. Searches use the caller's */
};

/* Equal vectors in equal order give an equal index, as long as the number of threads is the same
 * too. INVALID (dims or count out of bounds), CANCELLED, NO_MEMORY, INTERNAL (what FAISS says). */
MEMOS_MUST_USE enum memos_status retrieval_ann_build(const struct retrieval_ann_build *build,
    struct retrieval_ann **out_ann, struct memos_error *err);
void retrieval_ann_free(struct retrieval_ann **ann); /* takes NULL */

uint64_t retrieval_ann_count(const struct retrieval_ann *ann);
uint64_t retrieval_ann_bytes(const struct retrieval_ann *ann);       /* in memory, about */
const char *retrieval_ann_describe(const struct retrieval_ann *ann); /* "IVF1024,SQ8 nprobe 32" */

/* Add vectors (count, dims) under the next labels. What an index has learned of its first vectors
 * stays as it is: when it has doubled, build it anew. Nobody may search meanwhile. NO_MEMORY,
 * INTERNAL; then some may have been added, and the index must be freed. */
MEMOS_MUST_USE enum memos_status retrieval_ann_add(
    struct retrieval_ann *ann, const float *vectors, size_t count, struct memos_error *err);

/* The top_k labels whose bit is set in `wanted` (bit l % 64 of wanted[l / 64], labels from
 * wanted_bits on count as not wanted; NULL: all), best first. out_labels, out_scores: top_k. Fewer
 * only when fewer are wanted. Scores are inner products with what the index stores: exact for flat,
 * hnsw and ivf-flat, about so for the others; ask for some times as many as you need and rank
 * them exactly. A filter never costs recall: what is wanted is looked for in more lists, or one by
 * one. NO_MEMORY, INTERNAL. */
MEMOS_MUST_USE enum memos_status retrieval_ann_search(const struct retrieval_ann *ann,
    const float *query, const uint64_t *wanted, uint64_t wanted_bits, size_t top_k,
    int64_t *out_labels, float *out_scores, size_t *out_count, struct memos_error *err);

/* The file: integers little-endian.
 *
 *    0  8  "memosann"
 *    8  4  version: 1
 *   12  4  type (enum retrieval_ann_type)
 *   16  4  dims
 *   20  4  lists visited (ivf) or candidates kept (hnsw) in a search
 *   24  8  count
 *   32  8  size of the body
 *   40  8  zero
 *   48 32  tag
 *   80 32  BLAKE2b-256 of the body
 *  112 16  BLAKE2b-128 of the 112 bytes before
 *  128     the body: FAISS's own serialisation
 *
 * FAISS trusts what it reads, so it is given nothing that the hashes have not confirmed. They find
 * damage; who may write the folder may forge a file.
 *
 * Saved whole or not at all (a temporary file beside it, synced and renamed). `tag` (32 bytes) says
 * what it was built from. NO_SPACE, IO, DENIED, NO_MEMORY, INTERNAL.
 *
 * Loaded: NOT_FOUND (no file), CONFLICT (another tag), UNSUPPORTED (another version), CORRUPT,
 * IO, NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_ann_save(const struct retrieval_ann *ann,
    const char *path, const uint8_t tag[32], struct memos_error *err);
MEMOS_MUST_USE enum memos_status retrieval_ann_load(const char *path, const uint8_t tag[32],
    struct retrieval_ann **out_ann, struct memos_error *err);

#endif
