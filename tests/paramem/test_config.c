/* What an encoder's folder says about itself.
 *
 * If these failed, an encoder would pool, cut or prefix its texts in another way than it was
 * trained for, or a number in a hostile file would size our memory. */
#include "paramem/config.h"

#include "tests/paramem/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NETWORK                                                                                    \
    "\"model_type\":\"bert\",\"num_hidden_layers\":6,\"hidden_size\":384,"                         \
    "\"num_attention_heads\":12,\"intermediate_size\":1536,\"vocab_size\":30522,"                  \
    "\"max_position_embeddings\":512"
#define MODULE(name, path)                                                                         \
    "{\"type\":\"sentence_transformers.models." name "\",\"path\":\"" path "\"}"
#define MODULES                                                                                    \
    "[" MODULE("Transformer", "") "," MODULE("Pooling", "1_Pooling") "," MODULE(                   \
        "Normalize", "2_Normalize") "]"

static enum memos_status parse(const char *const files[PARAMEM_CONFIG_FILES],
    struct paramem_config *out, struct memos_error *err)
{
    struct memos_bytes texts[PARAMEM_CONFIG_FILES];
    for (size_t i = 0; i < PARAMEM_CONFIG_FILES; i++) {
        texts[i] = memos_bytes_of(files[i]);
    }
    return paramem_config_parse(texts, out, err);
}

static void a_whole_folder_is_read(void **state)
{
    (void)state;
    const char *const files[PARAMEM_CONFIG_FILES] = {
        "{" NETWORK ",\"hidden_act\":\"gelu_new\",\"layer_norm_eps\":1e-6,\"type_vocab_size\":1}",
        MODULES, "{\"pooling_mode_cls_token\":true,\"pooling_mode_mean_tokens\":false}",
        "{\"max_seq_length\":256,\"do_lower_case\":false}",
        "{\"prompts\":{\"query\":\"Q: \",\"passage\":\"P: \",\"corpus\":\"C: \"}}",
        "{\"do_lower_case\":false,\"strip_accents\":null,\"cls_token\":{\"content\":\"<s>\"}}"};
    struct paramem_config config;
    assert_int_equal(parse(files, &config, NULL), MEMOS_OK);
    assert_int_equal(config.layers, 6);
    assert_int_equal(config.hidden, 384);
    assert_int_equal(config.heads, 12);
    assert_int_equal(config.intermediate, 1536);
    assert_int_equal(config.vocab, 30522);
    assert_int_equal(config.positions, 512);
    assert_int_equal(config.types, 1);
    assert_true(config.eps == 1e-6f);
    assert_int_equal(config.act, KERN_GELU_TANH);
    assert_int_equal(config.pooling, PARAMEM_POOL_CLS);
    assert_true(config.normalize);
    assert_int_equal(config.tokens_max, 256);
    assert_string_equal(config.query_prefix, "Q: ");
    assert_string_equal(config.passage_prefix, "P: ");
    assert_false(config.lowercase);
    assert_false(config.strip_accents);
    assert_true(config.chinese_chars);
    assert_string_equal(config.cls, "<s>");
    assert_string_equal(config.sep, "[SEP]");
}

static void what_is_missing_is_as_in_sentence_transformers(void **state)
{
    (void)state;
    const char *const files[PARAMEM_CONFIG_FILES] = {"{" NETWORK "}"};
    struct paramem_config config;
    assert_int_equal(parse(files, &config, NULL), MEMOS_OK);
    assert_int_equal(config.act, KERN_GELU);
    assert_int_equal(config.pooling, PARAMEM_POOL_MEAN);
    assert_false(config.normalize);
    assert_int_equal(config.tokens_max, 512);
    assert_string_equal(config.query_prefix, "");
    assert_true(config.lowercase && config.strip_accents);
}

/* `which` of the files is `text`; what it makes of the rest is looked at. */
static struct paramem_config with(enum paramem_config_file which, const char *text)
{
    const char *files[PARAMEM_CONFIG_FILES] = {"{" NETWORK "}"};
    struct paramem_config config;
    struct memos_error err;
    files[which] = text;
    if (parse(files, &config, &err) != MEMOS_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    return config;
}

static void lengths_and_prompts_have_their_order(void **state)
{
    (void)state;
    struct paramem_config c = with(PARAMEM_CONFIG_TOKENIZER, "{\"model_max_length\":128}");
    assert_int_equal(c.tokens_max, 128);
    c = with(PARAMEM_CONFIG_TOKENIZER, "{\"model_max_length\":1000000000000000019884624838656}");
    assert_int_equal(c.tokens_max, 512);
    c = with(PARAMEM_CONFIG_LENGTH, "{\"max_seq_length\":100000}");
    assert_int_equal(c.tokens_max, 512);
    c = with(PARAMEM_CONFIG_LENGTH, "{\"max_seq_length\":null}");
    assert_int_equal(c.tokens_max, 512);
    c = with(PARAMEM_CONFIG_PROMPTS, "{\"prompts\":{\"document\":\"D\",\"passage\":\"P\"}}");
    assert_string_equal(c.passage_prefix, "D");
    assert_string_equal(c.query_prefix, "");
    c = with(PARAMEM_CONFIG_PROMPTS,
        "{\"prompts\":{\"query\":\"Q\",\"document\":\"\",\"passage\":\"P\"}}");
    assert_string_equal(c.passage_prefix, "P");
    assert_string_equal(c.query_prefix, "Q");
    c = with(PARAMEM_CONFIG_PROMPTS, "{\"prompts\":null,\"default_prompt_name\":null}");
    assert_string_equal(c.query_prefix, "");
}

static void what_does_not_work_is_said(void **state)
{
    (void)state;
    static const struct {
        enum paramem_config_file file;
        const char *text;
        enum memos_status status;
        const char *say;
    } cases[] = {
        {0, "{\"model_type\":\"xlm-roberta\",\"architectures\":[\"XLMRobertaModel\"]}",
            MEMOS_UNSUPPORTED, "XLMRobertaModel (model_type \"xlm-roberta\"); BertModel"},
        {0, "{\"architectures\":[\"LlamaForCausalLM\"]}", MEMOS_UNSUPPORTED, "LlamaForCausalLM"},
        {0, "{}", MEMOS_UNSUPPORTED, "(none)"},
        {0, "[]", MEMOS_CORRUPT, "object"},
        {0, "{\"model_type\":\"bert\"}", MEMOS_CORRUPT, "num_hidden_layers is missing"},
        {0, "{\"position_embedding_type\":\"relative_key\"," NETWORK "}", MEMOS_UNSUPPORTED,
            "relative_key"},
        {0, "{\"hidden_act\":\"mish\"," NETWORK "}", MEMOS_UNSUPPORTED, "mish"},
        {0, "{\"is_decoder\":true," NETWORK "}", MEMOS_UNSUPPORTED, "decoder"},
        {0, "{\"quantization_config\":{}," NETWORK "}", MEMOS_UNSUPPORTED, "quantized"},
        {0, "{\"layer_norm_eps\":-1," NETWORK "}", MEMOS_CORRUPT, "layer_norm_eps"},
        {0, "{\"type_vocab_size\":0," NETWORK "}", MEMOS_CORRUPT, "type_vocab_size"},
        {1, "[]", MEMOS_CORRUPT, "modules"},
        {1, "{}", MEMOS_CORRUPT, "modules"},
        {1, "[1]", MEMOS_CORRUPT, "object"},
        {1, "[" MODULE("Transformer", "") "]", MEMOS_UNSUPPORTED, "no pooling"},
        {1, "[" MODULE("Transformer", "") "," MODULE("Pooling", "../x") "]", MEMOS_CORRUPT, "../x"},
        {1, "[" MODULE("Transformer", "") "," MODULE("Pooling", "1_Pooling") "]", MEMOS_NOT_FOUND,
            "1_Pooling"},
        {1, "[" MODULE("Transformer", "") "," MODULE("Pooling", "p") "," MODULE("Dense", "d") "]",
            MEMOS_UNSUPPORTED, "Dense"},
        {3, "{\"max_seq_length\":0}", MEMOS_CORRUPT, "max_seq_length"},
        {3, "{\"max_seq_length\":2}", MEMOS_CORRUPT, "2 tokens"},
        {3, "{\"max_seq_length\":1.5}", MEMOS_CORRUPT, "max_seq_length"},
        {4, "{\"prompts\":{\"query\":1}}", MEMOS_CORRUPT, "query"},
        {4, "{\"prompts\":[]}", MEMOS_CORRUPT, "prompts"},
        {5, "{\"do_lower_case\":\"yes\"}", MEMOS_CORRUPT, "do_lower_case"},
        {5, "{\"cls_token\":7}", MEMOS_CORRUPT, "cls_token"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *files[PARAMEM_CONFIG_FILES] = {"{" NETWORK "}"};
        struct paramem_config config;
        struct memos_error err = {.text = ""};
        files[cases[i].file] = cases[i].text;
        enum memos_status status = parse(files, &config, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].say)) {
            fail_msg("%s: %s: %s", cases[i].text, memos_status_name(status), err.text);
        }
    }
}

static void pooling_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum memos_status status;
        enum paramem_pooling pooling;
    } cases[] = {
        {"{\"pooling_mode\":\"cls\"}", MEMOS_OK, PARAMEM_POOL_CLS},
        {"{\"pooling_mode_mean_tokens\":true,\"word_embedding_dimension\":384}", MEMOS_OK,
            PARAMEM_POOL_MEAN},
        {"{\"pooling_mode_mean_tokens\":true,\"word_embedding_dimension\":768}", MEMOS_CORRUPT, 0},
        {"{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":true}", MEMOS_UNSUPPORTED,
            0},
        {"{\"pooling_mode_max_tokens\":true}", MEMOS_UNSUPPORTED, 0},
        {"{\"pooling_mode\":\"lasttoken\"}", MEMOS_UNSUPPORTED, 0},
        {"{\"pooling_mode\":[\"mean\",\"max\"]}", MEMOS_CORRUPT, 0},
        {"{\"pooling_mode\":\"mean\",\"include_prompt\":false}", MEMOS_UNSUPPORTED, 0},
        {"{}", MEMOS_UNSUPPORTED, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *files[PARAMEM_CONFIG_FILES] = {"{" NETWORK "}", MODULES, cases[i].text};
        struct paramem_config config;
        enum memos_status status = parse(files, &config, NULL);
        if (status != cases[i].status ||
            (status == MEMOS_OK && config.pooling != cases[i].pooling)) {
            fail_msg("%s: %s", cases[i].text, memos_status_name(status));
        }
    }
}

/* Each number of config.json, below, at and above its bounds. */
static void numbers_have_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        unsigned long high;
    } numbers[] = {{"num_hidden_layers", 1024}, {"hidden_size", 16384},
        {"intermediate_size", 65536}, {"vocab_size", 4194304}, {"max_position_embeddings", 65536}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        for (int step = -1; step <= 1; step++) {
            char text[1024], value[128];
            char *at;
            const char *files[PARAMEM_CONFIG_FILES] = {text};
            struct paramem_config config;
            (void)snprintf(text, sizeof text, "{" NETWORK "}");
            (void)snprintf(value, sizeof value, "\"%s\":%ld", numbers[i].key,
                step < 0 ? 0L : (long)numbers[i].high + step);
            at = strstr(text, numbers[i].key);
            assert_non_null(at);
            char rest[1024];
            (void)snprintf(rest, sizeof rest, "%s", at + strcspn(at, ",}"));
            (void)snprintf(at - 1, sizeof text - (size_t)(at - 1 - text), "%s%s", value, rest);
            if (strcmp(numbers[i].key, "hidden_size") == 0 && step == 0) {
                continue; /* 12 heads do not divide it */
            }
            enum memos_status wanted = step == 0 ? MEMOS_OK : MEMOS_CORRUPT;
            if (parse(files, &config, NULL) != wanted) {
                fail_msg("%s", text);
            }
        }
    }
}

static void json_bombs_are_refused_before_they_grow(void **state)
{
    (void)state;
    static const struct {
        const char *head, *part;
        size_t count;
    } bombs[] = {{"", "[", 1000}, {"{\"a\":", "[", 1000}, {"[", "0,", 200000},
        {"{\"a\":\"", "x", (size_t)2 << 20}};
    for (size_t i = 0; i < sizeof bombs / sizeof bombs[0]; i++) {
        struct memos_buffer text = memos_buffer_make((size_t)4 << 20);
        struct paramem_config config;
        memos_buffer_printf(&text, "%s", bombs[i].head);
        for (size_t n = 0; n < bombs[i].count; n++) {
            memos_buffer_bytes(&text, bombs[i].part, strlen(bombs[i].part));
        }
        struct memos_bytes texts[PARAMEM_CONFIG_FILES] = {memos_buffer_view(&text)};
        assert_int_equal(paramem_config_parse(texts, &config, NULL), MEMOS_TOO_LARGE);
        memos_buffer_free(&text);
    }
}

static void folders_are_read(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES];
    struct paramem_config config;
    struct memos_error err;
    assert_int_equal(paramem_config_read(golden_path("tiny_mean", path), &config, NULL), MEMOS_OK);
    assert_int_equal(config.tokens_max, 40);
    assert_true(config.normalize);
    assert_int_equal(paramem_config_read(golden_path("tiny_cls", path), &config, NULL), MEMOS_OK);
    assert_int_equal(config.tokens_max, 64);
    assert_int_equal(config.pooling, PARAMEM_POOL_CLS);
    assert_string_equal(config.query_prefix, "query: ");
    assert_string_equal(config.passage_prefix, "passage: ");
    assert_int_equal(
        paramem_config_read(golden_path("none", path), &config, &err), MEMOS_NOT_FOUND);
    assert_non_null(strstr(err.text, "config.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_folder_is_read),
        cmocka_unit_test(what_is_missing_is_as_in_sentence_transformers),
        cmocka_unit_test(lengths_and_prompts_have_their_order),
        cmocka_unit_test(what_does_not_work_is_said),
        cmocka_unit_test(pooling_is_checked),
        cmocka_unit_test(numbers_have_bounds),
        cmocka_unit_test(json_bombs_are_refused_before_they_grow),
        cmocka_unit_test(folders_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
