/* The next token of a row, by sorting all of the vocabulary. */
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

/* Logit and id as one number: a larger one comes first. Of equal logits the smaller id is the
 * larger number; NaN and -infinity (never taken) are the smallest. -0 equals 0. */
static uint64_t key_of(float logit, uint32_t id)
{
    uint32_t bits;
    logit = isnan(logit) ? -INFINITY : logit + 0.0F;
    memcpy(&bits, &logit, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | 0x80000000;
    return (uint64_t)bits << 32 | (uint32_t)~id;
}

static uint32_t id_of(uint64_t key)
{
    return ~(uint32_t)key;
}

/* Heapsort, largest first: qsort may allocate. */
static void sift(uint64_t *keys, size_t at, size_t count)
{
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        child += child + 1 < count && keys[child + 1] < keys[child];
        if (keys[at] <= keys[child]) {
            return;
        }
        uint64_t swapped = keys[at];
        keys[at] = keys[child];
        keys[child] = swapped;
    }
}

static void sort(uint64_t *keys, size_t count)
{
    for (size_t i = count / 2; i-- > 0;) {
        sift(keys, i, count);
    }
    for (size_t i = count; i-- > 1;) {
        uint64_t least = keys[0];
        keys[0] = keys[i];
        keys[i] = least;
        sift(keys, 0, i);
    }
}

/* log of the sum of e^logits. NaN when one is NaN or infinite, or none is above -infinity. */
static double log_sum(const float *logits, size_t vocab)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < vocab; i++) {
        most = fmax(most, (double)logits[i]);
    }
    for (size_t i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - most);
    }
    return most + log(sum);
}

void kern_ref_adjust(const struct kern_sample *a, size_t row)
{
    const struct kern_sample_row *how = &a->rows[row];
    float *logits = a->logits + row * a->vocab;
    for (size_t i = 0; i < how->adjust_count; i++) {
        const struct kern_adjust *adjust = &a->adjusts[how->adjust_start + i];
        float *logit = &logits[adjust->id];
        if (adjust->seen) {
            *logit = *logit > 0 ? *logit / how->repetition : *logit * how->repetition;
        }
        *logit += adjust->bias;
    }
}

/* How many of the sorted ids are kept. */
static size_t kept(const struct kern_sample_row *how, const float *logits, const uint64_t *sorted,
    size_t vocab, double most)
{
    size_t count = how->top_k > 0 && how->top_k < vocab ? how->top_k : vocab, end = 0;
    double t = (double)how->temperature, total = 0, sum = 0;
    for (size_t i = 0; i < count; i++) {
        total += exp(((double)logits[id_of(sorted[i])] - most) / t);
    }
    for (end = 0; how->top_p < 1 && end < count && sum < (double)how->top_p * total; end++) {
        sum += exp(((double)logits[id_of(sorted[end])] - most) / t);
    }
    end = how->top_p < 1 ? end : count;
    while (end > 1 &&
           !(exp(((double)logits[id_of(sorted[end - 1])] - most) / t) >= (double)how->min_p)) {
        end--;
    }
    return end;
}

static uint32_t draw(
    const struct kern_sample_row *how, const float *logits, const uint64_t *sorted, size_t vocab)
{
    double most = (double)logits[id_of(sorted[0])], total = 0, sum = 0;
    if (how->temperature == 0 || isinf(most) || isnan(most)) {
        return id_of(sorted[0]);
    }
    uint64_t least = sorted[kept(how, logits, sorted, vocab, most) - 1];
    uint32_t last = id_of(sorted[0]);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t id = 0; id < vocab; id++) {
            if (isnan(logits[id]) || key_of(logits[id], id) < least) {
                continue;
            }
            double p = exp(((double)logits[id] - most) / (double)how->temperature);
            total += pass == 0 ? p : 0;
            sum += pass == 1 ? p : 0;
            if (pass == 1 && sum > (double)how->draw * total) {
                return id;
            }
        }
    }
    return last;
}

size_t kern_ref_sample_workspace_bytes(const struct kern_ctx *ctx, size_t rows, size_t vocab)
{
    (void)ctx;
    (void)rows;
    return vocab * sizeof(uint64_t);
}

void kern_ref_sample(struct kern_ctx *ctx, const struct kern_sample *a)
{
    uint64_t *sorted = a->workspace;
    (void)ctx;
    for (size_t r = 0; r < a->rows_count; r++) {
        const float *logits = a->logits + r * a->vocab;
        kern_ref_adjust(a, r);
        for (uint32_t id = 0; id < a->vocab; id++) {
            sorted[id] = key_of(logits[id], id);
        }
        sort(sorted, a->vocab);
        double all = log_sum(logits, a->vocab);
        uint32_t id = draw(&a->rows[r], logits, sorted, a->vocab);
        a->out_ids[r] = id;
        a->out_logprobs[r] = (float)((double)logits[id] - all);
        for (size_t i = 0; i < a->top; i++) {
            uint32_t top = id_of(sorted[i]);
            a->out_top_ids[r * a->top + i] = top;
            a->out_top_logprobs[r * a->top + i] = (float)((double)logits[top] - all);
        }
    }
}

void kern_ref_logprobs(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
    size_t vocab, float *out)
{
    (void)ctx;
    for (size_t r = 0; r < rows; r++) {
        const float *row = logits + r * vocab;
        out[r] = (float)((double)row[ids[r]] - log_sum(row, vocab));
    }
}
