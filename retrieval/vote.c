#include "retrieval/vote.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

size_t retrieval_vote_top_k(enum retrieval_method method)
{
    switch (method) {
    case RETRIEVAL_METHOD_VOTE:
        return 5;
    case RETRIEVAL_METHOD_INTERPOLATION:
        return 10;
    case RETRIEVAL_METHOD_WEIGHTED:
        break;
    }
    return 20;
}

/* What an example at this cosine counts, beside the best and the last one's. */
static double voice_weight(
    const struct retrieval_vote_options *options, float cosine, float best, float last)
{
    switch (options->method) {
    case RETRIEVAL_METHOD_WEIGHTED:
        /* as near as the last: nobody knows better than anybody else */
        return best > last ? (double)cosine - (double)last : 1.0;
    case RETRIEVAL_METHOD_VOTE:
        return cosine >= best - options->margin ? 1.0 : 0.0;
    case RETRIEVAL_METHOD_INTERPOLATION:
        break;
    }
    /* distances from the best one's, so that the sum can become neither 0 nor infinite */
    return exp(-2.0 * ((double)best - (double)cosine) / (double)options->temperature);
}

/* The share of a voice's label; a new one when it has none. */
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
    const bool is_capped = options->method == RETRIEVAL_METHOD_WEIGHTED;
    size_t shares = 0;
    double total = 0.0;
    *out_examples = 0;
    for (size_t i = 0; i < count; i++) {
        const struct retrieval_voice *voice = &voices[i];
        double weight =
            voice_weight(options, voice->cosine, voices[0].cosine, voices[count - 1].cosine);
        if (!(weight > 0.0)) {
            continue;
        }
        struct retrieval_share *share = share_of(out, &shares, voice);
        if (is_capped && share->voices == RETRIEVAL_VOICES_OF_LABEL) {
            continue;
        }
        share->voices++;
        share->weight += (float)weight;
        share->time_us = voice->time_us > share->time_us ? voice->time_us : share->time_us;
        total += weight;
        *out_examples = (size_t)voice->example + 1;
    }
    for (size_t i = 0; i < shares; i++) {
        out[i].weight = (float)((double)out[i].weight / total);
    }
    qsort(out, shares, sizeof *out, compare_shares);
    return shares;
}
