/* Host models of every family, kind of RoPE and format: their logits and greedy tokens against
 * transformers' (golden/models).
 *
 * If these failed, a model would say something else than its authors meant. */
#include "tests/paramem/decode.h"

#include "paramem/decoder_config.h"
#include "tests/memcube/folder.h"
#include "tests/paramem/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EXACT 1e-4 /* of the largest logit, in float32 */

static const char *const backends[] = {"ref", "cpu", "cuda"};
#define BACKENDS (sizeof backends / sizeof backends[0])

static const char *const families[] = {
    "llama2", "llama3", "mistral", "qwen2", "qwen2_yarn", "qwen3", "smollm", "biased"};
#define FAMILIES (sizeof families / sizeof families[0])

/* All logits of the prompt, read in chunks. The caller frees them. */
static float *prompt_read(struct decode *decode, const struct decode_golden *golden, size_t chunk)
{
    float *logits = calloc(golden->prompt * golden->vocab, sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(decode->model->config.vocab, golden->vocab);
    for (size_t from = 0; from < golden->prompt; from += chunk) {
        size_t left = golden->prompt - from;
        decode_run(
            decode, golden->ids, from, left < chunk ? left : chunk, logits + from * golden->vocab);
    }
    return logits;
}

static void prompt_check(
    struct decode *decode, const struct decode_golden *golden, const char *name, size_t chunk)
{
    float *logits = prompt_read(decode, golden, chunk);
    double most = 0;
    for (size_t i = 0; i < golden->prompt * golden->vocab; i++) {
        assert_true(isfinite(logits[i]));
        most = fmax(most, fabs((double)logits[i] - (double)golden->logits[i]));
    }
    if (!(most <= EXACT * golden->largest)) {
        fail_msg("%s, chunks of %zu, %s: off by %g of the largest logit", name, chunk,
            kern_ctx_name(decode->ctx), most / golden->largest);
    }
    free(logits);
}

static uint32_t largest(const float *logits, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (uint32_t)best;
}

/* The prompt is in the cache; token by token, the likeliest must be the golden's. */
static void greedy_check(
    struct decode *decode, const struct decode_golden *golden, const char *name)
{
    float *logits = calloc(golden->vocab, sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(golden->greedy, 64);
    for (size_t at = golden->prompt - 1; at + 1 < golden->prompt + golden->greedy; at++) {
        decode_run(decode, golden->ids, at, 1, logits);
        uint32_t token = largest(logits, golden->vocab);
        if (token != golden->ids[at + 1]) {
            fail_msg("%s, %s: greedy token %zu is %u, not %u", name, kern_ctx_name(decode->ctx),
                at + 1 - golden->prompt, token, golden->ids[at + 1]);
        }
    }
    free(logits);
}

/* A model with its weights in float32 is the golden's, however its prompt is cut. */
static void agrees(const char *path, const char *name)
{
    struct decode_golden golden = decode_golden_read(name);
    for (size_t b = 0; b < BACKENDS; b++) {
        struct decode decode;
        if (decode_open(&decode, backends[b], path, KERN_F32, golden.prompt + golden.greedy)) {
            prompt_check(&decode, &golden, name, golden.prompt);
            prompt_check(&decode, &golden, name, 7);
            prompt_check(&decode, &golden, name, 1);
            greedy_check(&decode, &golden, name);
            decode_close(&decode);
        }
    }
    decode_golden_free(&golden);
}

static void families_are_transformers(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES];
    for (size_t i = 0; i < FAMILIES; i++) {
        agrees(decode_path(families[i], path), families[i]);
    }
}

static void kinds_of_rope_are_transformers(void **state)
{
    (void)state;
    static const char *const kinds[] = {
        "rope_default", "rope_linear", "rope_dynamic", "rope_yarn", "rope_yarn_mscale"};
    char path[GOLDEN_PATH_BYTES], name[64];
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char folder[FOLDER_PATH_BYTES];
        folder_make(folder);
        golden_copy("models/llama3", folder);
        (void)snprintf(name, sizeof name, "%s.json", kinds[i]);
        struct memos_buffer config = golden_file(decode_path(name, path));
        golden_write(folder, "config.json", memos_buffer_view(&config));
        memos_buffer_free(&config);
        agrees(folder, kinds[i]);
        folder_remove(folder);
    }
}

/* ---- GGUF ---------------------------------------------------------------------------------- */

static void gguf_files_are_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *file, *golden;
    } all[] = {{"llama3_f32.gguf", "llama3"}, {"llama3_f16.gguf", "llama3"},
        {"llama3_bf16.gguf", "llama3"}, {"qwen2_yarn.gguf", "qwen2_yarn"}, {"qwen3.gguf", "qwen3"},
        {"biased.gguf", "biased"}, {"llama3_q8_0.gguf", "llama3_q8_0"},
        {"llama3_q4_0.gguf", "llama3_q4_0"}, {"kquants.gguf", "kquants"}};
    char path[GOLDEN_PATH_BYTES];
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        agrees(decode_path(all[i].file, path), all[i].golden);
    }
}

/* The same weights from a GGUF file and from a folder: the same logits, to the bit. */
static void gguf_is_its_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen3", "biased"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[GOLDEN_PATH_BYTES], file[64];
        struct decode_golden golden = decode_golden_read(names[i]);
        struct decode folder, gguf;
        (void)snprintf(file, sizeof file, "%s.gguf", names[i]);
        assert_true(decode_open(&folder, "cpu", decode_path(names[i], path), KERN_F32, 64));
        assert_true(decode_open(&gguf, "cpu", decode_path(file, path), KERN_F32, 64));
        float *one = prompt_read(&folder, &golden, golden.prompt);
        float *other = prompt_read(&gguf, &golden, golden.prompt);
        assert_memory_equal(one, other, golden.prompt * golden.vocab * sizeof *one);
        free(one);
        free(other);
        decode_close(&folder);
        decode_close(&gguf);
        decode_golden_free(&golden);
    }
}

/* ---- smaller weights ----------------------------------------------------------------------- */

/* The root mean square of what the logits are off by, of that of the logits. */
static double off_by(const char *file, const char *name, const char *backend,
    enum kern_dtype weights, size_t *out_products)
{
    char path[GOLDEN_PATH_BYTES];
    struct decode_golden golden = decode_golden_read(name);
    struct decode decode;
    double sum = 0;
    if (!decode_open(&decode, backend, decode_path(file, path), weights, 64)) {
        decode_golden_free(&golden);
        return -1;
    }
    float *logits = prompt_read(&decode, &golden, golden.prompt);
    size_t count = golden.prompt * golden.vocab;
    for (size_t i = 0; i < count; i++) {
        double far = (double)logits[i] - (double)golden.logits[i];
        sum += far * far;
    }
    double off = sqrt(sum / (double)count) / golden.deviation;
    *out_products = 4 * decode.model->config.layers + 1;
    free(logits);
    decode_close(&decode);
    decode_golden_free(&golden);
    return off;
}

/* What one product is off by, of its root mean square, as paramem/README.md derives it: each factor
 * that is rounded to steps of s of its largest, which is c times its root mean square, adds
 * c s / sqrt(12), and a bfloat16 2^-9 / sqrt(3), twice where a backend keeps what lies between
 * products in it too; c is 2.5 for the 32 numbers of a row here (3 for 256). The golden has the
 * weights as they are stored, so that stored blocks add nothing. Products follow each other:
 * sqrt(count). What norms, gates and softmax make of an error is within a factor of 3; of 5 in
 * kquants, whose blocks were drawn larger, so that its attention is sharper. */
static void smaller_weights_are_near(void **state)
{
    (void)state;
    const double bf16 = sqrt(2) / (512 * sqrt(3)), c = 2.5 / sqrt(12);
    const double eight = c / 127, four = c / 8;
    const struct {
        const char *file, *golden;
        enum kern_dtype weights;
        double activation, weight;
    } all[] = {
        {"llama3", "llama3", 0, bf16, 0},
        {"llama3", "llama3", KERN_BF16, bf16, 0},
        {"qwen2", "qwen2", 0, bf16, 0},
        {"qwen3", "qwen3", KERN_BF16, bf16, 0},
        {"llama3", "llama3", KERN_I8, eight, eight},
        {"llama2", "llama2", KERN_I8, eight, eight},
        {"llama3", "llama3", KERN_Q8_0, eight, eight},
        {"mistral", "mistral", KERN_Q8_0, eight, eight},
        {"llama3", "llama3", KERN_Q4_0, eight, four},
        {"llama3_q8_0.gguf", "llama3_q8_0", 0, eight, 0},
        {"llama3_q4_0.gguf", "llama3_q4_0", 0, eight, 0},
        {"kquants.gguf", "kquants", 0, 1.2 * eight, 0},
        {"kquants.gguf", "kquants", KERN_Q8_0, 1.2 * eight, 1.2 * eight},
        {"kquants.gguf", "kquants", KERN_I8, 1.2 * eight, 1.2 * eight},
        {"kquants.gguf", "kquants", KERN_BF16, bf16, bf16},
        {"llama3_q4_0.gguf", "llama3_q4_0", KERN_Q8_0, eight, eight},
        {"qwen3.gguf", "qwen3", KERN_I8, eight, eight},
    };
    for (size_t i = 0; i < BACKENDS * (sizeof all / sizeof all[0]); i++) {
        size_t which = i / BACKENDS, products = 0;
        double off = off_by(all[which].file, all[which].golden, backends[i % BACKENDS],
            all[which].weights, &products);
        double within = strcmp(all[which].golden, "kquants") == 0 ? 5 : 3;
        double bound = within * sqrt((double)products) *
                       sqrt(all[which].activation * all[which].activation +
                            all[which].weight * all[which].weight);
        if (off >= 0) {
            print_message("%s as %s on %s: off by %.4f, at most %.4f\n", all[which].file,
                all[which].weights ? kern_dtype_name(all[which].weights) : "stored",
                backends[i % BACKENDS], off, bound);
            assert_true(off <= bound && off > 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_are_transformers),
        cmocka_unit_test(kinds_of_rope_are_transformers),
        cmocka_unit_test(gguf_files_are_transformers),
        cmocka_unit_test(gguf_is_its_folder),
        cmocka_unit_test(smaller_weights_are_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
