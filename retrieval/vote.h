/* Labels by vote: the nearest examples of a text say what it is.
 *
 * A space is a classifier: its cubes are examples, their tags labels. A correction is one more
 * example, and counts from the next question on; nothing is trained, so nothing else is unlearned.
 *
 * WEIGHTED, the usual one. Of the k nearest examples each has a voice of cosine - (cosine of the
 * k-th): Dudani, "The distance-weighted k-nearest-neighbor rule", 1976. Of one label only the two
 * nearest are heard: a label of a hundred examples has many among the nearest whatever is asked,
 * and would outvote one that was taught a minute ago.
 *
 * VOTE. Of the nearest examples those whose cosine is within `margin` of the best one's have a
 * voice each; of labels with as many voices the one with the nearest example wins, then the one
 * with the newest. That is the substrate of Grassi, arXiv 2605.03153.
 *
 * INTERPOLATION. All of the nearest examples have a voice, p(label) ~ sum of exp(-d / temperature)
 * over its examples, d = 2 - 2 cosine, the squared distance of unit vectors. That is the
 * distribution over neighbours of kNN-LM (Khandelwal et al., arXiv 1911.00172, eq. 2); there is no
 * second model here to mix it with.
 *
 * README.md has what each is worth. Pure functions: no state, no memory, any thread. */
#ifndef RETRIEVAL_VOTE_H
#define RETRIEVAL_VOTE_H

#include <stddef.h>
#include <stdint.h>

enum retrieval_method {
    RETRIEVAL_METHOD_WEIGHTED = 0,
    RETRIEVAL_METHOD_VOTE = 1,
    RETRIEVAL_METHOD_INTERPOLATION = 2,
};

#define RETRIEVAL_VOTE_MARGIN 0.05f     /* the usual margin */
#define RETRIEVAL_VOTE_TEMPERATURE 0.1f /* the usual temperature */
enum { RETRIEVAL_VOICES_OF_LABEL = 2 }; /* that WEIGHTED hears */

/* How many of the nearest examples a method usually asks. */
size_t retrieval_vote_top_k(enum retrieval_method method);

/* A label of a near example. Examples are numbered from 0, the nearest first; one with several
 * labels is several of these in a row. */
struct retrieval_voice {
    uint32_t example;
    uint32_t label;
    float cosine; /* to the text; not NaN */
    int64_t time_us;
};

struct retrieval_vote_options {
    enum retrieval_method method;
    float margin;      /* of VOTE; >= 0 */
    float temperature; /* of INTERPOLATION; > 0 */
};

struct retrieval_share {
    uint32_t label;
    float weight;    /* of one vote they sum to 1 */
    float cosine;    /* of the label's nearest example */
    int64_t time_us; /* of its newest that was heard */
    uint32_t voices; /* that were heard */
};

/* Count the voices, which come in order of their cosine, the nearest first. The shares, the winner
 * first, go to out, which has room for `count`; returns how many there are: none for no voices.
 * *out_examples: the number of the farthest example that was heard, plus one. Takes time of count
 * times labels. */
size_t retrieval_vote(const struct retrieval_vote_options *options,
    const struct retrieval_voice *voices, size_t count, struct retrieval_share *out,
    size_t *out_examples);

#endif
