#include "retrieval/encoder_spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/* What is taken by "auto", and what the hint of an error says to add. */
static const char usual_name[] = "minilm";

enum memos_status retrieval_encoder_registry(char out[PATH_MAX], struct memos_error *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int size;
    if (data && data[0] == '/') {
        size = snprintf(out, PATH_MAX, "%s/memos/encoders", data);
    } else if (home && home[0] == '/') {
        size = snprintf(out, PATH_MAX, "%s/.local/share/memos/encoders", home);
    } else {
        return memos_fail(
            err, MEMOS_INVALID, "neither XDG_DATA_HOME nor HOME says where encoders are");
    }
    return size < PATH_MAX ? MEMOS_OK
                           : memos_fail(err, MEMOS_INVALID, "the path of the encoders is too long");
}

bool retrieval_encoder_name_good(const char *name)
{
    size_t size = strlen(name);
    return size > 0 && size <= RETRIEVAL_ENCODER_NAME_MAX && strspn(name, LETTERS) > 0 &&
           strspn(name, LETTERS "-_.") == size && strcmp(name, "auto") != 0 &&
           strcmp(name, "ngrams") != 0;
}

enum memos_status retrieval_encoder_name_path(
    const char *registry, const char *name, char out[PATH_MAX], struct memos_error *err)
{
    if (!retrieval_encoder_name_good(name)) {
        return memos_fail(err, MEMOS_INVALID,
            "'%.64s' cannot be an encoder's name: letters, digits, '-', '_' and '.'; not auto nor "
            "ngrams",
            name);
    }
    return snprintf(out, PATH_MAX, "%s/%s", registry, name) < PATH_MAX
               ? MEMOS_OK
               : memos_fail(err, MEMOS_INVALID, "the path of the encoder '%s' is too long", name);
}

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static enum memos_status weights_of(const char *text, enum kern_dtype *out, struct memos_error *err)
{
    static const struct {
        const char *name;
        enum kern_dtype dtype;
    } known[] = {{"", KERN_F32}, {"f32", KERN_F32}, {"bf16", KERN_BF16}, {"int8", KERN_I8}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(text, known[i].name) == 0) {
            *out = known[i].dtype;
            return MEMOS_OK;
        }
    }
    return memos_fail(
        err, MEMOS_INVALID, "an encoder's weights are f32, bf16 or int8, not '%.40s'", text);
}

static enum memos_status parse_endpoint(
    const char *text, struct retrieval_encoder_spec *out, struct memos_error *err)
{
    const char *mark = strchr(text, '#');
    size_t size = mark ? (size_t)(mark - text) : 0;
    if (strncmp(text, "http://", 7) != 0 && strncmp(text, "https://", 8) != 0) {
        return memos_fail(err, MEMOS_INVALID, "an encoder is reached by http:// or https://");
    } else if (!mark || !mark[1]) {
        return memos_fail(err, MEMOS_INVALID,
            "an encoder's URL ends with '#' and its model's name: "
            "http://127.0.0.1:8080/v1/embeddings#e5-small");
    } else if (size >= sizeof out->url || strlen(mark + 1) >= sizeof out->model) {
        return memos_fail(err, MEMOS_INVALID, "the URL of an encoder is too long");
    }
    out->source = RETRIEVAL_ENCODER_ENDPOINT;
    memcpy(out->url, text, size);
    out->url[size] = '\0';
    memcpy(out->model, mark + 1, strlen(mark + 1) + 1);
    return MEMOS_OK;
}

static enum memos_status parse_path(
    const char *text, struct retrieval_encoder_spec *out, struct memos_error *err)
{
    if (snprintf(out->path, sizeof out->path, "%s", text) >= (int)sizeof out->path) {
        return memos_fail(err, MEMOS_INVALID, "the path of an encoder is too long");
    } else if (!is_folder(text)) {
        return memos_fail(err, MEMOS_NOT_FOUND, "there is no folder '%.160s'", text);
    }
    out->source = RETRIEVAL_ENCODER_FOLDER;
    return MEMOS_OK;
}

static enum memos_status parse_name(const char *text, const char *registry,
    struct retrieval_encoder_spec *out, struct memos_error *err)
{
    char usual[PATH_MAX];
    bool is_auto = strcmp(text, "auto") == 0;
    enum memos_status status = MEMOS_OK;
    if (!registry) {
        status = retrieval_encoder_registry(usual, err);
        registry = usual;
    }
    if (status == MEMOS_OK) {
        status = retrieval_encoder_name_path(registry, is_auto ? usual_name : text, out->path, err);
    }
    if (status != MEMOS_OK) {
        return status;
    } else if (is_folder(out->path)) {
        out->source = RETRIEVAL_ENCODER_FOLDER;
        return MEMOS_OK;
    } else if (is_auto) {
        out->source = RETRIEVAL_ENCODER_NGRAMS;
        out->fell_back = true;
        return MEMOS_OK;
    }
    return memos_fail(err, MEMOS_NOT_FOUND,
        "there is no encoder '%s' in %.60s: run `memosctl encoder add %s`", text, registry,
        strcmp(text, usual_name) == 0 ? usual_name : "PATH");
}

enum memos_status retrieval_encoder_spec_parse(const char *text, const char *weights,
    const char *registry, struct retrieval_encoder_spec *out, struct memos_error *err)
{
    struct retrieval_encoder_spec spec = {.source = RETRIEVAL_ENCODER_NGRAMS};
    enum memos_status status = weights_of(weights ? weights : "", &spec.weights, err);
    if (status == MEMOS_OK && strstr(text, "://")) {
        status = parse_endpoint(text, &spec, err);
    } else if (status == MEMOS_OK && strchr(text, '/')) {
        status = parse_path(text, &spec, err);
    } else if (status == MEMOS_OK && strcmp(text, "ngrams") != 0) {
        status = parse_name(text, registry, &spec, err);
    }
    if (status == MEMOS_OK) {
        *out = spec;
    }
    return status;
}

void retrieval_encoder_spec_options(
    const struct retrieval_encoder_spec *spec, struct retrieval_encoder_options *out)
{
    *out = (struct retrieval_encoder_options){.source = spec->source};
    if (spec->source == RETRIEVAL_ENCODER_FOLDER) {
        out->folder.path = spec->path;
        out->folder.weights = spec->weights;
    } else if (spec->source == RETRIEVAL_ENCODER_ENDPOINT) {
        out->endpoint.url = spec->url;
        out->endpoint.model = spec->model;
    }
}
