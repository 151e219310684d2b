/* The next token of a row, without sorting its vocabulary: what may be kept is found by comparing
 * logits with a bound eight at a time, and only that is sorted. A piece is a row.
 *
 * Probabilities are float32 relative to the largest, their sums double; one below e^-87 is 0. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"
#include "kernels/ref/ops.h"

#include <math.h>
#include <string.h>

#define RUN 1024         /* so many are added in float32 before they are in double */
#define LEAST (-87.0F)   /* e^x of less is taken as 0 */
#define INSERTION_MAX 24 /* at most so many are sorted by insertion */
#define BOUNDS 5

struct sample {
    const struct kern_sample *a;
    size_t worker_bytes;
};

/* A row and the room to work on it. */
struct row {
    const struct kern_sample_row *how;
    const float *logits;
    size_t vocab;
    float most;             /* the largest logit; -infinity: there is none */
    uint64_t *keys, *other; /* (vocab) */
};

static size_t worker_bytes_of(size_t vocab)
{
    return kern_up(2 * vocab * sizeof(uint64_t), 64);
}

size_t kern_cpu_sample_workspace_bytes(const struct kern_ctx *ctx, size_t rows, size_t vocab)
{
    (void)rows;
    return ctx->threads * worker_bytes_of(vocab);
}

/* ---- sums over the vocabulary -------------------------------------------------------------- */

/* Eight logits from i; what is past the end is -infinity. */
static inline __m256 logits_at(const float *logits, size_t vocab, size_t i)
{
    if (vocab - i >= 8) {
        return _mm256_loadu_ps(logits + i);
    }
    __m256 part = vector_load_part(logits + i, vocab - i);
    return _mm256_blendv_ps(
        _mm256_set1_ps(-INFINITY), part, _mm256_castsi256_ps(vector_mask(vocab - i)));
}

/* The largest that is a number. */
static float most_of(const float *logits, size_t vocab)
{
    __m256 most = _mm256_set1_ps(-INFINITY), other = most;
    size_t i = 0;
    for (; i + 16 <= vocab; i += 16) { /* max gives its second operand when one is NaN */
        most = _mm256_max_ps(_mm256_loadu_ps(logits + i), most);
        other = _mm256_max_ps(_mm256_loadu_ps(logits + i + 8), other);
    }
    for (; i < vocab; i += 8) {
        most = _mm256_max_ps(logits_at(logits, vocab, i), most);
    }
    return vector_max(_mm256_max_ps(most, other));
}

/* log of the sum of e^logits; NaN when one is NaN or infinity, or none is above -infinity. */
static double log_sum(const float *logits, size_t vocab, float most)
{
    const __m256 base = _mm256_set1_ps(most);
    double total = 0;
    for (size_t first = 0; first < vocab; first += RUN) {
        size_t end = vocab - first < RUN ? vocab : first + RUN;
        __m256 sum = _mm256_setzero_ps();
        for (size_t i = first; i < end; i += 8) {
            sum = _mm256_add_ps(sum, vector_exp(_mm256_sub_ps(logits_at(logits, vocab, i), base)));
        }
        total += (double)vector_sum(sum);
    }
    return (double)most + log(total);
}

/* (logit - most) / temperature. */
static inline __m256 exponents_at(const struct row *row, size_t i)
{
    __m256 v = _mm256_sub_ps(logits_at(row->logits, row->vocab, i), _mm256_set1_ps(row->most));
    return _mm256_div_ps(v, _mm256_set1_ps(row->how->temperature));
}

/* e^x where x is at least `least`; 0 where it is less or NaN. */
static inline __m256 chances_of(__m256 x, __m256 least)
{
    return _mm256_and_ps(vector_exp(x), _mm256_cmp_ps(x, least, _CMP_GE_OQ));
}

static float chance_of(const struct row *row, uint32_t id)
{
    __m256 x = _mm256_div_ps(
        _mm256_set1_ps(row->logits[id] - row->most), _mm256_set1_ps(row->how->temperature));
    return _mm256_cvtss_f32(chances_of(x, _mm256_set1_ps(LEAST)));
}

/* ---- keys: logit and id as one number ------------------------------------------------------- */

/* A larger key comes first: of a larger logit; of equal logits, of the smaller id. The logit is a
 * number above -infinity. */
static uint64_t key_of(float logit, uint32_t id)
{
    uint32_t bits;
    logit += 0.0F; /* -0 equals 0 */
    memcpy(&bits, &logit, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | 0x80000000;
    return (uint64_t)bits << 32 | (uint32_t)~id;
}

static uint32_t id_of(uint64_t key)
{
    return ~(uint32_t)key;
}

static void insertion_sort(uint64_t *keys, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        uint64_t key = keys[i];
        size_t at = i;
        for (; at > 0 && keys[at - 1] < key; at--) {
            keys[at] = keys[at - 1];
        }
        keys[at] = key;
    }
}

/* Largest first, in place: by one byte after the other from the last, those in which all agree left
 * out. `other` has the same room. */
static void sort(uint64_t *keys, uint64_t *other, size_t count)
{
    uint64_t *from = keys, *to = other;
    if (count <= INSERTION_MAX) {
        insertion_sort(keys, count);
        return;
    }
    for (unsigned shift = 0; shift < 64; shift += 8) {
        size_t counts[256] = {0}, at = 0;
        for (size_t i = 0; i < count; i++) {
            counts[from[i] >> shift & 255]++;
        }
        if (counts[from[0] >> shift & 255] == count) {
            continue;
        }
        for (size_t value = 256; value-- > 0;) {
            size_t same = counts[value];
            counts[value] = at;
            at += same;
        }
        for (size_t i = 0; i < count; i++) {
            to[counts[from[i] >> shift & 255]++] = from[i];
        }
        uint64_t *swapped = from;
        from = to;
        to = swapped;
    }
    if (from != keys) {
        memcpy(keys, from, count * sizeof *keys);
    }
}

/* Put the k largest of count keys first, in any order (Hoare's selection); 0 < k < count. */
static void select_largest(uint64_t *keys, size_t count, size_t k)
{
    size_t first = 0, end = count;
    while (end - first > 1) {
        uint64_t pivot =
            keys[first + (end - first - 1) / 2]; /* not the last: each turn takes some off */
        size_t low = first, high = end - 1;
        for (;;) {
            while (keys[low] > pivot) {
                low++;
            }
            while (keys[high] < pivot) {
                high--;
            }
            if (low >= high) {
                break;
            }
            uint64_t swapped = keys[low];
            keys[low++] = keys[high];
            keys[high--] = swapped;
        }
        /* first..high are at least the pivot, high + 1..end - 1 at most. */
        if (k <= high + 1 - first) {
            end = high + 1;
        } else {
            k -= high + 1 - first;
            first = high + 1;
        }
        if (k == end - first) {
            return;
        }
    }
}

/* Keys of the logits above `bound` (or equal to it, with `equal`), by id from i on, until there are
 * `most` of them; returns how many, and where it stopped. */
static size_t collect(
    const struct row *row, float bound, bool equal, size_t *i, size_t count, size_t most)
{
    const __m256 least = _mm256_set1_ps(bound);
    for (; *i < row->vocab && count + 8 <= most; *i += 8) {
        __m256 v = logits_at(row->logits, row->vocab, *i);
        __m256 above =
            equal ? _mm256_cmp_ps(v, least, _CMP_GE_OQ) : _mm256_cmp_ps(v, least, _CMP_GT_OQ);
        for (unsigned bits = (unsigned)_mm256_movemask_ps(above); bits != 0; bits &= bits - 1) {
            uint32_t id = (uint32_t)*i + (uint32_t)__builtin_ctz(bits);
            row->keys[count++] = key_of(row->logits[id], id);
        }
    }
    return count;
}

/* The k largest above -infinity, sorted; returns how many there are. When the room that is given
 * to candidates is full, the k largest of them stay, and the least of those is the new bound: ids
 * that come later lose to it when they are equal. */
static size_t largest(const struct row *row, size_t k)
{
    size_t room = 2 * k + 1024, count = 0, i = 0;
    float bound = -INFINITY;
    if (room >= row->vocab) {
        room = row->vocab + 8;
    }
    for (;;) {
        count = collect(row, bound, false, &i, count, room);
        if (i >= row->vocab) {
            break;
        }
        select_largest(row->keys, count, k);
        count = k;
        uint64_t least = row->keys[0];
        for (size_t j = 1; j < k; j++) {
            least = row->keys[j] < least ? row->keys[j] : least;
        }
        bound = row->logits[id_of(least)];
    }
    if (count > k) {
        select_largest(row->keys, count, k);
        count = k;
    }
    sort(row->keys, row->other, count);
    return count;
}

/* ---- what is kept --------------------------------------------------------------------------- */

/* Sorted candidates for top_p of all of the vocabulary, and the sum of all chances. The sums of
 * those down to some bounds are taken in one pass; the first that is enough gives the bound. */
static size_t candidates(const struct row *row, double *total)
{
    static const float bounds[BOUNDS] = {-1, -3, -6, -10, -18};
    double sums[BOUNDS] = {0};
    size_t i = 0, count = 0;
    *total = 0;
    for (size_t first = 0; first < row->vocab; first += RUN) {
        size_t end = row->vocab - first < RUN ? row->vocab : first + RUN;
        __m256 all = _mm256_setzero_ps(), parts[BOUNDS];
        for (size_t b = 0; b < BOUNDS; b++) {
            parts[b] = all;
        }
        for (size_t at = first; at < end; at += 8) {
            __m256 x = exponents_at(row, at), p = chances_of(x, _mm256_set1_ps(LEAST));
            all = _mm256_add_ps(all, p);
            for (size_t b = 0; b < BOUNDS; b++) {
                __m256 in = _mm256_cmp_ps(x, _mm256_set1_ps(bounds[b]), _CMP_GE_OQ);
                parts[b] = _mm256_add_ps(parts[b], _mm256_and_ps(p, in));
            }
        }
        *total += (double)vector_sum(all);
        for (size_t b = 0; b < BOUNDS; b++) {
            sums[b] += (double)vector_sum(parts[b]);
        }
    }
    float bound = LEAST;
    for (size_t b = BOUNDS; b-- > 0;) {
        bound = sums[b] >= (double)row->how->top_p * *total * 1.0001 ? bounds[b] : bound;
    }
    /* A little lower, for the product rounds. */
    count = collect(
        row, row->most + bound * row->how->temperature * 1.0001F, true, &i, 0, row->vocab + 8);
    sort(row->keys, row->other, count);
    return count;
}

/* How many of the sorted candidates are kept; `total` is the sum that top_p is a share of. */
static size_t kept_of(const struct row *row, size_t count, double total)
{
    double sum = 0;
    size_t kept = 0;
    if (row->how->top_p < 1) {
        for (; kept < count && sum < (double)row->how->top_p * total; kept++) {
            sum += (double)chance_of(row, id_of(row->keys[kept]));
        }
        count = kept;
    }
    while (count > 1 && chance_of(row, id_of(row->keys[count - 1])) < row->how->min_p) {
        count--;
    }
    return count;
}

/* ---- drawing ------------------------------------------------------------------------------- */

/* The kept ones by id; the first at which the running sum is above its share. */
static uint32_t draw_kept(const struct row *row, size_t count)
{
    double total = 0, sum = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t id = id_of(row->keys[i]), bits;
        float p = chance_of(row, id);
        memcpy(&bits, &p, sizeof bits);
        row->keys[i] = (uint64_t)~id << 32 | bits; /* the smallest id is sorted first */
    }
    sort(row->keys, row->other, count);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < count; i++) {
            uint32_t bits = (uint32_t)row->keys[i];
            float p;
            memcpy(&p, &bits, sizeof p);
            total += pass == 0 ? (double)p : 0;
            sum += pass == 1 ? (double)p : 0;
            if (pass == 1 && sum > (double)row->how->draw * total) {
                return ~(uint32_t)(row->keys[i] >> 32);
            }
        }
    }
    return ~(uint32_t)(row->keys[0] >> 32); /* not reached: the whole sum is above its share */
}

/* Nothing is cut but what min_p cuts: sums of runs find the run, and the run is searched. */
static uint32_t draw_all(const struct row *row)
{
    float min_p = row->how->min_p;
    __m256 least = _mm256_set1_ps(min_p > 0 ? fmaxf(logf(min_p), LEAST) : LEAST);
    double *sums = (double *)(void *)row->keys, total = 0, sum = 0;
    size_t run = 0, runs = (row->vocab + RUN - 1) / RUN;
    for (size_t r = 0; r < runs; r++) {
        size_t end = row->vocab - r * RUN < RUN ? row->vocab : (r + 1) * RUN;
        __m256 part = _mm256_setzero_ps();
        for (size_t i = r * RUN; i < end; i += 8) {
            part = _mm256_add_ps(part, chances_of(exponents_at(row, i), least));
        }
        sums[r] = (double)vector_sum(part);
        total += sums[r];
    }
    double share = (double)row->how->draw * total;
    while (run + 1 < runs && sum + sums[run] <= share) {
        sum += sums[run++];
    }
    /* A run's sum and its running sum round otherwise: its last one is taken in the end. */
    uint32_t last = (uint32_t)(run * RUN);
    for (size_t i = run * RUN; i < row->vocab && i < (run + 1) * RUN; i += 8) {
        float p[8];
        _mm256_storeu_ps(p, chances_of(exponents_at(row, i), least));
        for (uint32_t lane = 0; lane < 8; lane++) {
            sum += (double)p[lane];
            last = p[lane] > 0 ? (uint32_t)i + lane : last;
            if (p[lane] > 0 && sum > share) {
                return (uint32_t)i + lane;
            }
        }
    }
    return last;
}

/* The smallest id whose logit is the largest. */
static uint32_t first_of_most(const struct row *row)
{
    const __m256 most = _mm256_set1_ps(row->most);
    for (size_t i = 0; row->most > -INFINITY && i < row->vocab; i += 8) {
        __m256 v = logits_at(row->logits, row->vocab, i);
        unsigned bits = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(v, most, _CMP_EQ_OQ));
        if (bits != 0) {
            return (uint32_t)i + (uint32_t)__builtin_ctz(bits);
        }
    }
    return 0;
}

static uint32_t draw(const struct row *row)
{
    const struct kern_sample_row *how = row->how;
    bool some = how->top_k > 0 && how->top_k < row->vocab;
    double total = 0;
    size_t count;
    if (how->temperature == 0 || isinf(row->most) || how->top_k == 1) {
        return first_of_most(row);
    } else if (!some && how->top_p >= 1) {
        return draw_all(row);
    } else if (!some) {
        count = candidates(row, &total);
    } else {
        count = largest(row, how->top_k);
        for (size_t i = 0; i < count; i++) {
            total += (double)chance_of(row, id_of(row->keys[i]));
        }
    }
    return draw_kept(row, kept_of(row, count, total));
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* The most likely; after the last above -infinity come the others by id. */
static void tell_top(const struct kern_sample *a, size_t r, const struct row *row, double all)
{
    uint32_t *ids = a->out_top_ids + r * a->top, other = 0;
    size_t count = largest(row, a->top);
    for (size_t i = 0; i < a->top; i++) {
        while (i >= count && row->logits[other] > -INFINITY) {
            other++;
        }
        ids[i] = i < count ? id_of(row->keys[i]) : other++;
        a->out_top_logprobs[r * a->top + i] = (float)((double)row->logits[ids[i]] - all);
    }
}

static void sample_piece(void *self, size_t index, unsigned worker)
{
    const struct sample *sample = self;
    const struct kern_sample *a = sample->a;
    struct row row = {.how = &a->rows[index],
        .logits = a->logits + index * a->vocab,
        .vocab = a->vocab,
        .keys = (uint64_t *)(void *)((char *)a->workspace + worker * sample->worker_bytes)};
    row.other = row.keys + a->vocab;
    kern_ref_adjust(a, index);
    row.most = most_of(row.logits, a->vocab);
    double all = log_sum(row.logits, a->vocab, row.most);
    a->out_ids[index] = draw(&row);
    a->out_logprobs[index] = (float)((double)row.logits[a->out_ids[index]] - all);
    if (a->top > 0) {
        tell_top(a, index, &row, all);
    }
}

void kern_cpu_sample(struct kern_ctx *ctx, const struct kern_sample *a)
{
    struct sample sample = {a, worker_bytes_of(a->vocab)};
    kern_pool_run(ctx->pool, a->rows_count, sample_piece, &sample);
}

/* ---- scoring ------------------------------------------------------------------------------- */

struct logprobs {
    const float *logits;
    const uint32_t *ids;
    size_t vocab;
    float *out;
};

static void logprobs_piece(void *self, size_t index, unsigned worker)
{
    const struct logprobs *l = self;
    const float *row = l->logits + index * l->vocab;
    (void)worker;
    double all = log_sum(row, l->vocab, most_of(row, l->vocab));
    l->out[index] = (float)((double)row[l->ids[index]] - all);
}

void kern_cpu_logprobs(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
    size_t vocab, float *out)
{
    struct logprobs l = {logits, ids, vocab, out};
    kern_pool_run(ctx->pool, rows, logprobs_piece, &l);
}
