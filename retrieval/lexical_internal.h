/* What lexical.c and search.c share. */
#ifndef RETRIEVAL_LEXICAL_INTERNAL_H
#define RETRIEVAL_LEXICAL_INTERNAL_H

#include "memcube/index.h"
#include "retrieval/postings.h"
#include "retrieval/terms.h"

struct retrieval_lexical {
    struct memcube_index index;
    struct retrieval_tables tables;
    double k1, b;
    struct retrieval_terms_pool pool;
};

#endif
