/* Configurations of host models: what is read, what is refused and by which name; and the tables
 * of rotary positions that they mean.
 *
 * If these failed, a model that is not computed here would be computed wrongly, or a number out of
 * a file would size our memory. */
#include "paramem/decoder_config.h"
#include "paramem/rope.h"

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

#define NUMBERS                                                                                    \
    "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":4,"                         \
    "\"num_attention_heads\":8,\"num_key_value_heads\":2,\"vocab_size\":100"
#define MODEL(name, type, rest)                                                                    \
    "{\"architectures\":[\"" name "\"],\"model_type\":\"" type "\"," NUMBERS rest "}"
#define LLAMA(rest) MODEL("LlamaForCausalLM", "llama", rest)
#define QWEN2(rest) MODEL("Qwen2ForCausalLM", "qwen2", rest)
#define QWEN3(rest) MODEL("Qwen3ForCausalLM", "qwen3", rest)
#define MISTRAL(rest) MODEL("MistralForCausalLM", "mistral", rest)

static struct paramem_decoder_config read(const char *config, const char *generation)
{
    struct paramem_decoder_config out;
    struct memos_error err = {.text = ""};
    if (paramem_decoder_config_parse(
            memos_bytes_of(config), memos_bytes_of(generation), &out, &err) != MEMOS_OK) {
        fail_msg("%s: %s", config, err.text);
    }
    return out;
}

static void refused(const char *config, enum memos_status wanted, const char *text)
{
    struct paramem_decoder_config out;
    struct memos_error err = {.text = ""};
    enum memos_status status =
        paramem_decoder_config_parse(memos_bytes_of(config), memos_bytes_of(NULL), &out, &err);
    if (status != wanted || !strstr(err.text, text)) {
        fail_msg("%s: %s: %s", config, memos_status_name(status), err.text);
    }
}

static void what_is_absent_is_the_familys(void **state)
{
    (void)state;
    struct paramem_decoder_config c = read(LLAMA(""), NULL);
    assert_int_equal(c.architecture, PARAMEM_LLAMA);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.positions_max, 2048);
    assert_true(c.norm_eps == 1e-6 && c.rope.theta == 10000.0);
    assert_true(!c.tied && !c.qkv_bias && !c.qk_norm && c.window == 0);
    assert_true(c.bos_id == 1 && c.stop_count == 1 && c.stop_ids[0] == 2);
    assert_true(c.temperature == 0.0 && c.top_p == 1.0 && c.repetition == 1.0);
    c = read(MISTRAL(""), NULL);
    assert_true(c.window == 4096 && c.window_from == 0 && c.positions_max == 131072);
    c = read(MISTRAL(",\"sliding_window\":null"), NULL);
    assert_int_equal(c.window, 0);
    c = read(QWEN2(""), NULL);
    assert_true(c.qkv_bias && !c.out_bias && c.window == 0 && c.stop_count == 0);
    assert_true(c.bos_id == UINT32_MAX);
    c = read(
        QWEN2(",\"use_sliding_window\":true,\"sliding_window\":7,\"max_window_layers\":3"), NULL);
    assert_true(c.window == 7 && c.window_from == 3);
    c = read(QWEN2(",\"use_sliding_window\":true,\"max_window_layers\":4"), NULL);
    assert_int_equal(c.window, 0);
    c = read(QWEN3(""), NULL);
    assert_true(c.head_dim == 128 && c.qk_norm && !c.qkv_bias);
    c = read(QWEN3(",\"attention_bias\":true,\"head_dim\":16"), NULL);
    assert_true(c.head_dim == 16 && c.qkv_bias && c.out_bias);
    c = read("{\"model_type\":\"llama\"," NUMBERS "}", NULL);
    assert_int_equal(c.architecture, PARAMEM_LLAMA);
    /* the same network said in two ways has one fingerprint */
    struct paramem_decoder_config said = read(
        LLAMA(",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}"), NULL);
    assert_memory_equal(&said.rope, &c.rope, sizeof c.rope);
}

static void layers_may_differ_at_one_place(void **state)
{
    (void)state;
#define TYPES(list) QWEN3(",\"use_sliding_window\":true,\"sliding_window\":9,\"layer_types\":" list)
#define F "\"full_attention\""
#define S "\"sliding_attention\""
    struct paramem_decoder_config c = read(TYPES("[" F "," F "," S "," S "]"), NULL);
    assert_true(c.window == 9 && c.window_from == 2);
    c = read(TYPES("[" F "," F "," F "," F "]"), NULL);
    assert_int_equal(c.window, 0);
    refused(TYPES("[" F "," S "," F "," S "]"), MEMOS_UNSUPPORTED, "layer 2 is \"full_attention\"");
    refused(TYPES("[" F "]"), MEMOS_CORRUPT, "1 entries for 4 layers");
    refused(TYPES("[" F "," F "," F ",\"linear_attention\"]"), MEMOS_UNSUPPORTED, "linear");
    refused(QWEN3(",\"layer_types\":[" F "," F "," F "," S "]"), MEMOS_CORRUPT, "no window");
}

static void others_are_refused_by_name(void **state)
{
    (void)state;
    refused(MODEL("MixtralForCausalLM", "mixtral", ""), MEMOS_UNSUPPORTED,
        "MixtralForCausalLM (model_type \"mixtral\"); LlamaForCausalLM");
    refused(MODEL("LlamaForCausalLM", "qwen2", ""), MEMOS_UNSUPPORTED, "LlamaForCausalLM (model");
    refused("{" NUMBERS "}", MEMOS_UNSUPPORTED, "(none)");
    refused(LLAMA(",\"hidden_act\":\"gelu\""), MEMOS_UNSUPPORTED, "hidden_act \"gelu\"");
    refused(LLAMA(",\"quantization_config\":{\"quant_method\":\"gptq\"}"), MEMOS_UNSUPPORTED,
        "quantization_config (gptq)");
    refused(QWEN2(",\"use_mrope\":true"), MEMOS_UNSUPPORTED, "use_mrope");
    refused(LLAMA(",\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":2}"), MEMOS_UNSUPPORTED,
        "rope_type \"longrope\"; default, linear");
    refused(LLAMA(",\"rope_parameters\":{\"full_attention\":{}}"), MEMOS_UNSUPPORTED, "layers");
    refused(LLAMA(",\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"default\"}"),
        MEMOS_UNSUPPORTED, "partial_rotary_factor 0.5");
    refused(
        LLAMA(",\"partial_rotary_factor\":0.5"), MEMOS_UNSUPPORTED, "partial_rotary_factor 0.5");
    refused(LLAMA(",\"head_dim\":12"), MEMOS_UNSUPPORTED, "heads of 12");
    refused(LLAMA(",\"head_dim\":264"), MEMOS_UNSUPPORTED, "heads of 264");
}

static void numbers_are_bounded(void **state)
{
    (void)state;
    static const char *const bad[] = {"\"hidden_size\":0", "\"hidden_size\":1e9",
        "\"hidden_size\":\"64\"", "\"intermediate_size\":-1", "\"num_hidden_layers\":1025",
        "\"num_attention_heads\":1.5", "\"vocab_size\":4194305", "\"num_key_value_heads\":3",
        "\"num_key_value_heads\":16", "\"max_position_embeddings\":16777217", "\"rms_norm_eps\":-1",
        "\"rope_theta\":0", "\"tie_word_embeddings\":1", "\"rope_scaling\":{\"type\":\"linear\"}",
        "\"rope_scaling\":{\"type\":\"linear\","
        "\"factor\":0}",
        "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":0.5}",
        "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
        "\"high_freq_factor\":4}",
        "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}", "\"rope_scaling\":[]",
        "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"
        "\"attention_factor\":-1}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        /* The key that is changed stands twice otherwise. */
        static const char *const numbers[] = {"\"hidden_size\":64", "\"intermediate_size\":96",
            "\"num_hidden_layers\":4", "\"num_attention_heads\":8", "\"num_key_value_heads\":2",
            "\"vocab_size\":100"};
        char config[1024];
        int size = snprintf(config, sizeof config, "{\"model_type\":\"llama\",%s", bad[i]);
        for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; n++) {
            if (strncmp(bad[i], numbers[n], strcspn(numbers[n], ":")) != 0) {
                size += snprintf(config + size, sizeof config - (size_t)size, ",%s", numbers[n]);
            }
        }
        (void)snprintf(config + size, sizeof config - (size_t)size, "}");
        refused(config, MEMOS_CORRUPT, "config.json");
    }
    refused("{\"model_type\":\"llama\",\"hidden_size\":64}", MEMOS_CORRUPT, "is missing");
    refused("[]", MEMOS_CORRUPT, "object");
    refused("", MEMOS_CORRUPT, "");
}

static void generation_is_read(void **state)
{
    (void)state;
    struct paramem_decoder_config c = read(LLAMA(",\"eos_token_id\":[5,6,100],\"pad_token_id\":-1"),
        "{\"do_sample\":true,\"temperature\":0.7,\"top_p\":0.9,\"top_k\":20,\"min_p\":0.1,"
        "\"repetition_penalty\":1.1,\"bos_token_id\":9}");
    assert_true(c.stop_count == 2 && c.stop_ids[1] == 6 && c.bos_id == 9);
    assert_true(c.pad_id == UINT32_MAX);
    assert_true(c.temperature == 0.7 && c.top_p == 0.9 && c.top_k == 20 && c.min_p == 0.1);
    assert_true(c.repetition == 1.1);
    c = read(LLAMA(",\"eos_token_id\":5"), "{\"temperature\":0.7,\"eos_token_id\":[7]}");
    assert_true(c.temperature == 0.0 && c.top_k == 0 && c.stop_count == 1 && c.stop_ids[0] == 7);
    c = read(LLAMA(",\"eos_token_id\":null"), "{\"do_sample\":true}");
    assert_true(c.stop_count == 0 && c.temperature == 1.0 && c.top_k == 50);
    struct memos_error err = {.text = ""};
    assert_int_equal(
        paramem_decoder_config_parse(memos_bytes_of(LLAMA("")),
            memos_bytes_of("{\"eos_token_id\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"), &c, &err),
        MEMOS_TOO_LARGE);
    assert_non_null(strstr(err.text, "17 ids"));
}

/* ---- rotary positions ---------------------------------------------------------------------- */

struct tables {
    struct kern_ctx *ctx;
    float *cos, *sin;
};

static struct tables tables_of(const struct paramem_rope_config *rope, size_t positions)
{
    struct tables tables = {NULL};
    struct kern_options options = {.backend = "ref", .threads = 2};
    size_t count = positions * rope->rotary / 2;
    assert_int_equal(kern_ctx_create(&options, &tables.ctx, NULL), MEMOS_OK);
    tables.cos = calloc(count, sizeof(float));
    tables.sin = calloc(count, sizeof(float));
    assert_true(tables.cos && tables.sin);
    paramem_rope_fill(tables.ctx, rope, NULL, positions, tables.cos, tables.sin);
    return tables;
}

static void tables_free(struct tables *tables)
{
    kern_ctx_destroy(&tables->ctx);
    free(tables->cos);
    free(tables->sin);
}

/* Far positions, where float32 angles are coarse: within what they are rounded by. */
static void angles_are_positions_by_frequencies(void **state)
{
    (void)state;
    struct paramem_rope_config rope = read(LLAMA(""), NULL).rope;
    struct tables tables = tables_of(&rope, 70000);
    for (size_t p = 0; p < 70000; p += 997) {
        for (size_t i = 0; i < 4; i++) {
            double angle = (double)p * pow(10000.0, -(double)(2 * i) / 8.0);
            double bound = 1e-6 + angle * 2.0 / 16777216.0;
            assert_true(fabs((double)tables.cos[p * 4 + i] - cos(angle)) <= bound);
            assert_true(fabs((double)tables.sin[p * 4 + i] - sin(angle)) <= bound);
        }
    }
    tables_free(&tables);
}

/* Up to the original length dynamic is the default; after it the table of a longer text begins as
 * that of a shorter. */
static void dynamic_tables_are_static(void **state)
{
    (void)state;
    struct paramem_rope_config plain = read(LLAMA(",\"max_position_embeddings\":50"), NULL).rope;
    struct paramem_rope_config dynamic = read(LLAMA(",\"max_position_embeddings\":50,"
                                                    "\"rope_scaling\":{\"type\":\"dynamic\","
                                                    "\"factor\":2.0}"),
        NULL)
                                             .rope;
    struct tables one = tables_of(&plain, 100), other = tables_of(&dynamic, 100);
    assert_memory_equal(one.cos, other.cos, 50 * 4 * sizeof(float));
    assert_true(one.cos[60 * 4 + 3] != other.cos[60 * 4 + 3]);
    struct tables longer = tables_of(&dynamic, 300);
    assert_memory_equal(longer.sin, other.sin, 100 * 4 * sizeof(float));
    tables_free(&one);
    tables_free(&other);
    tables_free(&longer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_absent_is_the_familys),
        cmocka_unit_test(layers_may_differ_at_one_place),
        cmocka_unit_test(others_are_refused_by_name),
        cmocka_unit_test(numbers_are_bounded),
        cmocka_unit_test(generation_is_read),
        cmocka_unit_test(angles_are_positions_by_frequencies),
        cmocka_unit_test(dynamic_tables_are_static),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
