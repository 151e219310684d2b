#include "retrieval/vote.h"

#include <math.h>
#include <stdlib.h>

/* What an example at this cosine counts. Distances are taken from the best one's, so that the
 * largest term of the sum is 1 and no sum can become 0 or infinite. */
static double voice_weight(const struct retrieval_vote_options *options, float cosine, float best)
{
    if (options->method == RETRIEVAL_METHOD_VOTE) {
        return cosine >= best - options->margin ? 1.0 : 0.0;
    }
    return exp(-2.0 * ((double)best - (double)cosine) / (double)options->temperature);
}

static struct retrieval_share *share_of(
    struct retrieval_share *shares, size_t *count, const struct retrieval_voice *voice)
{
    for (size_t i = 0; i < *count; i++) {
        if (shares[i].label == voice->label) {
            return &shares[i];
        }
    }
    struct retrieval_share *share = &shares[(*count)++];
    *share = (struct retrieval_share){
        .label = voice->label, .cosine = voice->cosine, .time_us = voice->time_us};
    return share;
}

/* The winner first. */
static int compare_shares(const void *a_in, const void *b_in)
{
    const struct retrieval_share *a = a_in, *b = b_in;
    if (a->weight != b->weight) {
        return a->weight > b->weight ? -1 : 1;
    }
    if (a->cosine != b->cosine) {
        return a->cosine > b->cosine ? -1 : 1;
    }
    if (a->time_us != b->time_us) {
        return a->time_us > b->time_us ? -1 : 1;
    }
    return a->label < b->label ? -1 : a->label > b->label;
}

size_t retrieval_vote(const struct retrieval_vote_options *options,
    const struct retrieval_voice *voices, size_t count, struct retrieval_share *out,
    size_t *out_examples)
{
    size_t shares = 0;
    double total = 0.0;
    *out_examples = 0;
    for (size_t i = 0; i < count; i++) {
        double weight = voice_weight(options, voices[i].cosine, voices[0].cosine);
        if (weight == 0.0) {
            continue;
        }
        struct retrieval_share *share = share_of(out, &shares, &voices[i]);
        share->weight += (float)weight;
        share->cosine = voices[i].cosine > share->cosine ? voices[i].cosine : share->cosine;
        share->time_us = voices[i].time_us > share->time_us ? voices[i].time_us : share->time_us;
        total += weight;
        *out_examples += i == 0 || voices[i].example != voices[i - 1].example;
    }
    for (size_t i = 0; i < shares; i++) {
        out[i].weight = (float)((double)out[i].weight / total);
    }
    qsort(out, shares, sizeof *out, compare_shares);
    return shares;
}
