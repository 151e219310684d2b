/* What ann.c and ann_file.c share. */
#ifndef RETRIEVAL_ANN_INTERNAL_H
#define RETRIEVAL_ANN_INTERNAL_H

#include "retrieval/ann.h"

struct FaissIndex_H;

struct retrieval_ann {
    struct FaissIndex_H *index;
    enum retrieval_ann_type type; /* never AUTO */
    size_t dims;
    uint64_t count;
    size_t lists;     /* ivf: how many; 0 for others */
    size_t effort;    /* lists visited (ivf) or candidates kept (hnsw) in a search; 0: flat */
    unsigned threads; /* that add */
    char description[80];
};

/* The effort at this size, for what is built. */
size_t retrieval_ann_effort(enum retrieval_ann_type type, size_t lists);

/* Is this index what the fields say? Fills in `lists`, gives FAISS its effort, and writes the
 * description. CORRUPT, NO_MEMORY, INTERNAL. */
MEMOS_MUST_USE enum memos_status retrieval_ann_adopt(
    struct retrieval_ann *ann, struct memos_error *err);

/* What a call of FAISS has given, as one of ours: 0 is OK; no memory, NO_MEMORY; the rest INTERNAL
 * with its text. */
MEMOS_MUST_USE enum memos_status retrieval_faiss_status(
    int code, const char *what, struct memos_error *err);

/* Let the calling thread's FAISS calls use so many threads; gives how many it had before. */
unsigned retrieval_faiss_threads(unsigned threads);

/* How many threads build when so many are wanted (0: one a processor), at most 16. */
unsigned retrieval_faiss_threads_default(unsigned wanted);

#endif
