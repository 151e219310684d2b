/* Encoders of this machine: no broker is asked. */
#include "retrieval/encoder_spec.h"
#include "tools/memosctl/ctl.h"
#include "tools/memosctl/fetch.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/registry.h"
#include "tools/memosctl/text.h"

#include <stdlib.h>
#include <string.h>

enum { SHOWN_NUMBERS = 6, KEY_BYTES_MAX = 4096 };

static const char usual_name[] = "minilm";

/* What a model needs, and what says whose it is. Other files stay where they are. */
static const struct ctl_registry_file encoder_files[] = {
    {"config.json", true},
    {"model.safetensors", true},
    {"1_Pooling/config.json", false},
    {"config_sentence_transformers.json", false},
    {"modules.json", false},
    {"sentence_bert_config.json", false},
    {"special_tokens_map.json", false},
    {"tokenizer.json", false},
    {"tokenizer_config.json", false},
    {"vocab.txt", false},
    {"README.md", false},
    {"LICENSE", false},
};

static enum memos_status open_registry(struct ctl_registry *out, struct memos_error *err)
{
    *out = (struct ctl_registry){.kind = "encoder", .place = retrieval_encoder_name_path};
    return retrieval_encoder_registry(out->path, err);
}

static json_t *fingerprint_json(const struct retrieval_encoder_info *info)
{
    return ctl_json_hex(
        (ProtobufCBinaryData){sizeof info->fingerprint, (uint8_t *)(uintptr_t)info->fingerprint});
}

static const char *source_name(enum retrieval_encoder_source source)
{
    static const char *const names[] = {
        [RETRIEVAL_ENCODER_NGRAMS] = "ngrams",
        [RETRIEVAL_ENCODER_FOLDER] = "folder",
        [RETRIEVAL_ENCODER_ENDPOINT] = "endpoint",
    };
    return names[source];
}

/* ---- opening -------------------------------------------------------------------------------- */

/* The bearer token in the file of --encoder-key-file; stays empty without one. */
static enum memos_status read_key(
    const struct ctl *ctl, struct memos_buffer *out, struct memos_error *err)
{
    const char *path = ctl_args_value(ctl->args, CTL_ENCODER_KEY);
    *out = memos_buffer_make(KEY_BYTES_MAX);
    if (!path) {
        return MEMOS_OK;
    }
    enum memos_status status = ctl_file_read(path, KEY_BYTES_MAX, out, err);
    while (status == MEMOS_OK && out->size > 0 && out->data[out->size - 1] <= ' ') {
        out->size--;
    }
    memos_buffer_u8(out, 0);
    return status;
}

static enum memos_status open_spec(struct ctl *ctl, const struct retrieval_encoder_spec *spec,
    struct retrieval_encoder **out_encoder, struct memos_error *err)
{
    struct retrieval_encoder_options options;
    struct memos_buffer key;
    enum memos_status status = read_key(ctl, &key, err);
    if (status == MEMOS_OK) {
        retrieval_encoder_spec_options(spec, &options);
        options.endpoint.key = (const char *)key.data;
        status = retrieval_encoder_open(&options, out_encoder, err);
    }
    if (key.data) {
        explicit_bzero(key.data, key.capacity);
    }
    memos_buffer_free(&key);
    return status;
}

/* The encoder that operand 0 means. */
static enum memos_status open_meant(struct ctl *ctl, struct retrieval_encoder_spec *spec,
    struct retrieval_encoder **out_encoder, struct memos_error *err)
{
    const char *text = ctl_operand(ctl, 0);
    enum memos_status status =
        retrieval_encoder_spec_parse(text, ctl_args_value(ctl->args, CTL_WEIGHTS), NULL, spec, err);
    if (status != MEMOS_OK) {
        ctl->hint =
            status == MEMOS_NOT_FOUND ? "memosctl encoder list shows those that there are" : NULL;
        return status;
    }
    if (spec->fell_back) {
        ctl_note(ctl, "there is no encoder minilm: hashed n-grams are taken");
    }
    return open_spec(ctl, spec, out_encoder, err);
}

/* ---- add ------------------------------------------------------------------------------------ */

/* Copy the model, open the copy, give it its name. */
static enum memos_status install(struct ctl *ctl, const struct ctl_registry *registry,
    const char *name, const char *from, struct memos_error *err)
{
    struct ctl_registry_folder folder;
    struct retrieval_encoder *encoder = NULL;
    struct retrieval_encoder_info info;
    enum memos_status status = ctl_registry_begin(registry, &folder, err);
    if (status == MEMOS_OK) {
        status = ctl_registry_copy(
            from, encoder_files, sizeof encoder_files / sizeof encoder_files[0], &folder, err);
    }
    if (status == MEMOS_OK) {
        struct retrieval_encoder_options options = {
            .source = RETRIEVAL_ENCODER_FOLDER, .folder.path = folder.path};
        status = retrieval_encoder_open(&options, &encoder, err);
    }
    if (status == MEMOS_OK) {
        retrieval_encoder_describe(encoder, &info);
        status = ctl_registry_commit(registry, name, NULL, &folder, err);
    }
    if (status == MEMOS_EXISTS) {
        ctl->hint = "give another --name, or remove it first: memosctl encoder remove";
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(json_pack("{so,so,sI,so}", "name", ctl_json_string(name),
                                    "registry", ctl_json_string(registry->path), "dims",
                                    (json_int_t)info.dims, "fingerprint", fingerprint_json(&info)),
            err);
    } else if (status == MEMOS_OK) {
        printf("%sadded%s: %s, %zu dimensions\n", ctl_style_on(&ctl->paper, CTL_GREEN),
            ctl_style_off(&ctl->paper), name, info.dims);
    }
    retrieval_encoder_close(&encoder);
    ctl_registry_abort(&folder);
    return status;
}

static enum memos_status fetch_and_install(
    struct ctl *ctl, const struct ctl_registry *registry, const char *name, struct memos_error *err)
{
    char model[PATH_MAX];
    struct ctl_registry_folder folder;
    enum memos_status status = ctl_registry_begin(registry, &folder, err);
    if (status == MEMOS_OK) {
        status = ctl_fetch_minilm(ctl, folder.path, model, err);
    }
    if (status == MEMOS_OK) {
        status = install(ctl, registry, name, model, err);
    }
    ctl_registry_abort(&folder);
    return status;
}

enum memos_status ctl_run_encoder_add(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_registry registry;
    const char *from = ctl_operand(ctl, 0), *name = ctl_args_value(ctl->args, CTL_ENCODER_NAME);
    bool is_usual = strcmp(from, usual_name) == 0;

    name = name ? name : is_usual ? usual_name : ctl_registry_name_of(&ctl->arena, from, "");
    enum memos_status status = open_registry(&registry, err);
    /* seen early: fetching is long */
    if (status == MEMOS_OK) {
        status = ctl_registry_free(&registry, name, err);
    }
    if (status == MEMOS_EXISTS) {
        ctl->hint = "give another --name, or remove it first: memosctl encoder remove";
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return is_usual ? fetch_and_install(ctl, &registry, name, err)
                    : install(ctl, &registry, name, from, err);
}

/* ---- list and remove ------------------------------------------------------------------------ */

static enum memos_status list_json(const struct ctl_registry *registry, char *const *names,
    size_t count, bool has_usual, struct memos_error *err)
{
    char path[PATH_MAX];
    json_t *items = json_array();
    for (size_t i = 0; i < count && items; i++) {
        if (retrieval_encoder_name_path(registry->path, names[i], path, NULL) == MEMOS_OK) {
            (void)json_array_append_new(
                items, json_pack("{so,so,sI}", "name", ctl_json_string(names[i]), "path",
                           ctl_json_string(path), "bytes", (json_int_t)ctl_registry_bytes(path)));
        }
    }
    return ctl_json_print(json_pack("{so,ss,so}", "registry", ctl_json_string(registry->path),
                              "auto", has_usual ? usual_name : "ngrams", "encoders", items),
        err);
}

static enum memos_status list_table(struct ctl *ctl, const struct ctl_registry *registry,
    char *const *names, size_t count, struct memos_error *err)
{
    static const struct ctl_column columns[] = {
        {"NAME", false, false}, {"SIZE", true, false}, {"FOLDER", false, true}};
    struct ctl_table table = ctl_table_make(columns, 3);
    char path[PATH_MAX], size[16];
    for (size_t i = 0; i < count; i++) {
        if (retrieval_encoder_name_path(registry->path, names[i], path, NULL) == MEMOS_OK) {
            ctl_table_cell(&table, CTL_BOLD, memos_bytes_of(names[i]));
            ctl_table_cell(
                &table, CTL_PLAIN, memos_bytes_of(ctl_text_size(ctl_registry_bytes(path), size)));
            ctl_table_cell(&table, CTL_PLAIN, memos_bytes_of(path));
        }
    }
    ctl_table_cell(&table, CTL_BOLD, memos_bytes_of("ngrams"));
    ctl_table_cell(&table, CTL_PLAIN, memos_bytes_of(""));
    ctl_table_cell(&table, CTL_DIM, memos_bytes_of("hashed n-grams, always there"));
    enum memos_status status = ctl_table_print(&table, &ctl->paper, err);
    ctl_table_free(&table);
    return status;
}

enum memos_status ctl_run_encoder_list(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_registry registry;
    char **names = NULL;
    size_t count = 0;
    bool has_usual = false;
    enum memos_status status = open_registry(&registry, err);
    if (status == MEMOS_OK) {
        status = ctl_registry_list(&registry, &ctl->arena, &names, &count, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        has_usual = has_usual || strcmp(names[i], usual_name) == 0;
    }
    if (ctl->json) {
        return list_json(&registry, names, count, has_usual, err);
    }
    status = list_table(ctl, &registry, names, count, err);
    if (status == MEMOS_OK && !has_usual) {
        ctl_note(ctl, "`memosctl encoder add minilm` adds one that knows meanings");
    }
    return status;
}

enum memos_status ctl_run_encoder_remove(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_registry registry;
    const char *name = ctl_operand(ctl, 0);
    enum memos_status status = open_registry(&registry, err);
    if (status == MEMOS_OK) {
        status = ctl_registry_remove(&registry, name, err);
    }
    if (status == MEMOS_NOT_FOUND) {
        ctl->hint = "memosctl encoder list shows those that there are";
    } else if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(json_pack("{so}", "removed", ctl_json_string(name)), err);
    } else if (status == MEMOS_OK) {
        puts("removed");
    }
    return status;
}

/* ---- show and embed ------------------------------------------------------------------------- */

static enum memos_status print_info(struct ctl *ctl, const struct retrieval_encoder_spec *spec,
    const struct retrieval_encoder_info *info, struct memos_error *err)
{
    bool is_folder = info->source == RETRIEVAL_ENCODER_FOLDER;
    struct memos_buffer hex = memos_buffer_make(128);
    if (ctl->json) {
        return ctl_json_print(
            json_pack("{so,ss,so,sI,sI,sb,so}", "name", ctl_json_string(info->name), "source",
                source_name(info->source), "path",
                is_folder ? ctl_json_string(spec->path) : json_null(), "dims",
                (json_int_t)info->dims, "tokens_max", (json_int_t)info->tokens_max, "semantic",
                (int)info->semantic, "fingerprint", fingerprint_json(info)),
            err);
    }
    ctl_hex_append(&hex, memos_bytes_make(info->fingerprint, sizeof info->fingerprint));
    ctl_paper_fieldf(&ctl->paper, "encoder", "%s", info->name);
    ctl_paper_fieldf(&ctl->paper, "folder", "%s", is_folder ? spec->path : "");
    ctl_paper_fieldf(&ctl->paper, "dimensions", "%zu", info->dims);
    if (info->tokens_max > 0) {
        ctl_paper_fieldf(&ctl->paper, "tokens", "%zu at most", info->tokens_max);
    }
    ctl_paper_fieldf(&ctl->paper, "knows", "%s",
        info->semantic ? "meanings" : "words and their parts, no meanings");
    ctl_paper_field(&ctl->paper, "fingerprint", memos_buffer_view(&hex));
    memos_buffer_free(&hex);
    return MEMOS_OK;
}

enum memos_status ctl_run_encoder_show(struct ctl *ctl, struct memos_error *err)
{
    struct retrieval_encoder_spec spec;
    struct retrieval_encoder *encoder = NULL;
    struct retrieval_encoder_info info;
    enum memos_status status = open_meant(ctl, &spec, &encoder, err);
    if (status == MEMOS_OK) {
        retrieval_encoder_describe(encoder, &info);
        status = print_info(ctl, &spec, &info, err);
    }
    retrieval_encoder_close(&encoder);
    return status;
}

static enum memos_status print_vector(struct ctl *ctl, const struct retrieval_encoder_info *info,
    const float *vector, int64_t took_us, struct memos_error *err)
{
    if (!ctl->json) {
        printf("%zu dimensions by %s in %.1f ms:", info->dims, info->name, (double)took_us / 1e3);
        for (size_t i = 0; i < info->dims && i < SHOWN_NUMBERS; i++) {
            printf(" %.4f", (double)vector[i]);
        }
        puts(info->dims > SHOWN_NUMBERS ? " ..." : "");
        return MEMOS_OK;
    }
    json_t *numbers = json_array();
    for (size_t i = 0; i < info->dims && numbers; i++) {
        (void)json_array_append_new(numbers, json_real((double)vector[i]));
    }
    return ctl_json_print(
        json_pack("{so,sI,so,so}", "encoder", ctl_json_string(info->name), "dims",
            (json_int_t)info->dims, "fingerprint", fingerprint_json(info), "vector", numbers),
        err);
}

static enum memos_status embed(struct ctl *ctl, struct retrieval_encoder *encoder,
    struct memos_bytes text, struct memos_error *err)
{
    struct retrieval_encoder_info info;
    enum paramem_role role =
        ctl_args_has(ctl->args, CTL_AS_QUESTION) ? PARAMEM_QUERY : PARAMEM_PASSAGE;
    retrieval_encoder_describe(encoder, &info);
    float *vector = memos_arena_take(&ctl->arena, info.dims, sizeof *vector);
    if (!vector) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a vector");
    }
    int64_t began_us = ctl->clock.mono_us(ctl->clock.self);
    enum memos_status status = retrieval_encoder_encode(encoder, &text, 1, role, vector, err);
    int64_t took_us = ctl->clock.mono_us(ctl->clock.self) - began_us;
    return status == MEMOS_OK ? print_vector(ctl, &info, vector, took_us, err) : status;
}

enum memos_status ctl_run_encoder_embed(struct ctl *ctl, struct memos_error *err)
{
    struct retrieval_encoder_spec spec;
    struct retrieval_encoder *encoder = NULL;
    struct memos_buffer text = memos_buffer_make(0);
    enum memos_status status = ctl_payload_read(ctl_operand(ctl, 1), &text, err);
    if (status == MEMOS_OK) {
        status = open_meant(ctl, &spec, &encoder, err);
    }
    if (status == MEMOS_OK) {
        status = embed(ctl, encoder, memos_buffer_view(&text), err);
    }
    retrieval_encoder_close(&encoder);
    memos_buffer_free(&text);
    return status;
}
