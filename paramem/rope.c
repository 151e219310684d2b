#include "paramem/rope.h"

#include <math.h>

#define HALF_MAX (PARAMEM_ROTARY_MAX / 2)
#define BLOCK_POSITIONS 256

/* 1 / base^(2 i / rotary) */
static void inverse_default(float base, size_t rotary, float *out)
{
    for (size_t i = 0; i < rotary / 2; i++) {
        out[i] = 1.0f / powf(base, (float)(2 * i) / (float)rotary);
    }
}

static void inverse_llama3(const struct paramem_rope_config *config, float *out)
{
    float factor = (float)config->factor, low = (float)config->low_freq_factor;
    float high = (float)config->high_freq_factor, original = (float)config->original_positions;
    float low_wave = (float)((double)config->original_positions / config->low_freq_factor);
    float high_wave = (float)((double)config->original_positions / config->high_freq_factor);

    inverse_default((float)config->theta, config->rotary, out);
    for (size_t i = 0; i < config->rotary / 2; i++) {
        float wave = (float)(2.0 * M_PI) / out[i];
        if (wave > low_wave) {
            out[i] = out[i] / factor;
        } else if (!(wave < high_wave)) {
            float smooth = (original / wave - low) / (high - low);
            out[i] = (1.0f - smooth) * out[i] / factor + smooth * out[i];
        }
    }
}

/* The place among the frequencies of that which turns so often within the original length. */
static double yarn_place(const struct paramem_rope_config *config, double turns)
{
    return (double)config->rotary * log((double)config->original_positions / (turns * 2.0 * M_PI)) /
           (2.0 * log(config->theta));
}

static void inverse_yarn(const struct paramem_rope_config *config, float *out)
{
    double low = yarn_place(config, config->beta_fast);
    double high = yarn_place(config, config->beta_slow);
    if (config->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, (double)config->rotary - 1.0);
    if (low == high) {
        high += 0.001;
    }
    for (size_t i = 0; i < config->rotary / 2; i++) {
        float frequency = powf((float)config->theta, (float)(2 * i) / (float)config->rotary);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float kept = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);
        out[i] =
            1.0f / ((float)config->factor * frequency) * (1.0f - kept) + 1.0f / frequency * kept;
    }
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

/* What cosines and sines are multiplied by. */
static float scale_of(const struct paramem_rope_config *config)
{
    if (config->scaling != PARAMEM_ROPE_YARN) {
        return 1.0f;
    }
    if (config->attention_factor > 0.0) {
        return (float)config->attention_factor;
    }
    if (config->mscale > 0.0 && config->mscale_all_dim > 0.0) {
        return (float)(yarn_mscale(config->factor, config->mscale) /
                       yarn_mscale(config->factor, config->mscale_all_dim));
    }
    return (float)yarn_mscale(config->factor, 1.0);
}

/* The base for a text of so many tokens, all in float32 as a tensor's length makes it. */
static float dynamic_base(const struct paramem_rope_config *config, size_t length)
{
    double rotary = (double)config->rotary;
    float grown = (float)config->factor * (float)length / (float)config->original_positions -
                  (float)(config->factor - 1.0);
    return (float)config->theta * powf(grown, (float)(rotary / (rotary - 2.0)));
}

static void inverse_of(const struct paramem_rope_config *config, float *out)
{
    switch (config->scaling) {
    case PARAMEM_ROPE_LLAMA3:
        inverse_llama3(config, out);
        break;
    case PARAMEM_ROPE_YARN:
        inverse_yarn(config, out);
        break;
    default:
        inverse_default((float)config->theta, config->rotary, out);
        break;
    }
    for (size_t i = 0; config->scaling == PARAMEM_ROPE_LINEAR && i < config->rotary / 2; i++) {
        out[i] /= (float)config->factor;
    }
}

struct fill {
    const struct paramem_rope_config *config;
    const float *factors;
    float inverse[HALF_MAX]; /* of all positions but dynamic's later ones */
    float scale;
    size_t positions;
    float *cos, *sin;
};

static void divide(const float *factors, size_t half, float *inverse)
{
    for (size_t i = 0; factors && i < half; i++) {
        inverse[i] /= factors[i];
    }
}

static void block_fill(void *self, size_t index)
{
    const struct fill *fill = self;
    const struct paramem_rope_config *config = fill->config;
    size_t half = config->rotary / 2, first = index * BLOCK_POSITIONS;
    float own[HALF_MAX];

    for (size_t p = first; p < first + BLOCK_POSITIONS && p < fill->positions; p++) {
        const float *inverse = fill->inverse;
        if (config->scaling == PARAMEM_ROPE_DYNAMIC && p >= config->original_positions) {
            inverse_default(dynamic_base(config, p + 1), config->rotary, own);
            divide(fill->factors, half, own);
            inverse = own;
        }
        for (size_t i = 0; i < half; i++) {
            float angle = (float)p * inverse[i];
            fill->cos[p * half + i] = cosf(angle) * fill->scale;
            fill->sin[p * half + i] = sinf(angle) * fill->scale;
        }
    }
}

void paramem_rope_fill(struct kern_ctx *ctx, const struct paramem_rope_config *config,
    const float *factors, size_t positions, float *cos, float *sin)
{
    struct fill fill = {.config = config,
        .factors = factors,
        .scale = scale_of(config),
        .positions = positions,
        .cos = cos,
        .sin = sin};
    memos_assert(config->rotary >= 2 && config->rotary <= PARAMEM_ROTARY_MAX);
    memos_assert(config->rotary % 2 == 0);
    inverse_of(config, fill.inverse);
    divide(factors, config->rotary / 2, fill.inverse);
    kern_parallel(ctx, (positions + BLOCK_POSITIONS - 1) / BLOCK_POSITIONS, block_fill, &fill);
}
