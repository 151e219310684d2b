#include "kernels/ref/ops.h"

/* x (rotary numbers) by what stands in row `position` of the tables, each pair's cosine and sine
 * times scale[i]; scale NULL: as they are. */
static void rotate(
    const struct kern_rope *rope, size_t position, double sign, const double *scales, float *x)
{
    size_t half = rope->rotary / 2;
    for (size_t i = 0; i < half; i++) {
        double scale = scales ? scales[i] : 1;
        double c = scale * (double)rope->cos[position * half + i];
        double s = scale * sign * (double)rope->sin[position * half + i];
        double left = (double)x[i], right = (double)x[i + half];
        x[i] = (float)(left * c - right * s);
        x[i + half] = (float)(right * c + left * s);
    }
}

void kern_ref_rotate_head(const struct kern_rope *rope, size_t position, float *x)
{
    rotate(rope, position, 1, NULL, x);
}

/* At position 0 the cosine is the factor m that the tables carry. A rotation by a difference must
 * not apply m again: it is divided out. To undo one, m is divided out twice. */
static void rotate_scaled(
    const struct kern_rope *rope, size_t position, double sign, int power, float *x)
{
    double scales[128]; /* D is at most 256 */
    for (size_t i = 0; i < rope->rotary / 2; i++) {
        double m = (double)rope->cos[i];
        scales[i] = power == 2 ? 1 / (m * m) : 1 / m;
    }
    rotate(rope, position, sign, scales, x);
}

void kern_ref_shift_head(const struct kern_rope *rope, int32_t shift, float *x)
{
    size_t size = (size_t)(shift < 0 ? -(int64_t)shift : shift);
    rotate_scaled(rope, size, shift < 0 ? -1 : 1, 1, x);
}

void kern_ref_rotate(struct kern_ctx *ctx, const struct kern_rotate *a)
{
    (void)ctx;
    for (size_t t = 0; t < a->t; t++) {
        for (size_t h = 0; h < a->heads; h++) {
            float *x = a->x + t * a->stride + h * a->head_dim;
            if (a->back) {
                rotate_scaled(a->rope, a->positions[t], -1, 2, x);
            } else {
                kern_ref_rotate_head(a->rope, a->positions[t], x);
            }
        }
    }
}
