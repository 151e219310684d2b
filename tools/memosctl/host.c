#include "tools/memosctl/host.h"

#include "paramem/gguf.h"
#include "paramem/registry.h"

#include <string.h>
#include <sys/stat.h>

enum { THREADS_MAX = 1024, CONTEXT_TOKENS_MAX = 1 << 24 };

enum memos_status ctl_host_registry(struct ctl_registry *out, struct memos_error *err)
{
    *out =
        (struct ctl_registry){.kind = "model", .has_others = true, .place = paramem_registry_place};
    return paramem_registry(out->path, err);
}

/* Nobody says which: it must be clear. */
static enum memos_status find_only(struct ctl *ctl, char out[PATH_MAX], struct memos_error *err)
{
    struct ctl_registry registry;
    char **names = NULL;
    size_t count = 0;
    enum memos_status status = ctl_host_registry(&registry, err);
    if (status == MEMOS_OK) {
        status = ctl_registry_list(&registry, &ctl->arena, &names, &count, err);
    }
    if (status == MEMOS_OK && count == 0) {
        ctl->hint = "memosctl model add PATH gives one a name; --model takes a path, too";
        status = memos_fail(err, MEMOS_NOT_FOUND, "there is no model in %.100s", registry.path);
    } else if (status == MEMOS_OK && count > 1) {
        ctl->hint = "--model says which; memosctl model list shows those that there are";
        status = memos_fail(err, MEMOS_INVALID, "there are %zu models", count);
    }
    return status == MEMOS_OK ? paramem_registry_find(registry.path, names[0], out, err) : status;
}

enum memos_status ctl_host_path(struct ctl *ctl, char out[PATH_MAX], struct memos_error *err)
{
    const char *given = ctl_args_value(ctl->args, CTL_RUN_MODEL);
    if (!given) {
        return find_only(ctl, out, err);
    }
    enum memos_status status = paramem_registry_find(NULL, given, out, err);
    if (status == MEMOS_NOT_FOUND) {
        ctl->hint = "memosctl model list shows those that were added; a path has a slash";
    }
    return status;
}

void ctl_host_advise(struct ctl *ctl, enum memos_status status)
{
    if (ctl->hint) {
        return;
    }
    if (status == MEMOS_CORRUPT) {
        ctl->hint = "the model's files are damaged, or are none of a model: get them again";
    } else if (status == MEMOS_UNSUPPORTED) {
        ctl->hint = "`memosctl help model add` says which models work";
    } else if (status == MEMOS_NOT_FOUND) {
        ctl->hint = "a model is a Hugging Face folder with all of its files, or a GGUF file";
    }
}

enum memos_status ctl_host_tokenizer(
    const char *path, struct paramem_tokenizer **out, struct memos_error *err)
{
    struct stat info;
    struct paramem_gguf *gguf = NULL;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        return paramem_tokenizer_open(path, out, err);
    }
    enum memos_status status = paramem_gguf_open(path, &gguf, err);
    if (status == MEMOS_OK) {
        status = paramem_tokenizer_of_gguf(gguf, out, err);
    }
    paramem_gguf_close(&gguf);
    return status;
}

/* ---- opening -------------------------------------------------------------------------------- */

/* The type that an option names; 0 when it was not given. */
static enum memos_status take_dtype(const struct ctl *ctl, enum ctl_option option,
    const enum kern_dtype *known, size_t known_count, const char *names, enum kern_dtype *out,
    struct memos_error *err)
{
    const char *text = ctl_args_value(ctl->args, option);
    *out = text ? kern_dtype_of(memos_bytes_of(text)) : 0;
    for (size_t i = 0; i < known_count && text; i++) {
        if (*out == known[i]) {
            return MEMOS_OK;
        }
    }
    return text ? memos_fail(err, MEMOS_INVALID, "--%s takes %s, not '%.40s'",
                      ctl_option_info(option)->name, names, text)
                : MEMOS_OK;
}

static bool on_progress(void *self, uint64_t done_bytes, uint64_t total_bytes)
{
    ctl_progress(self, "loading, MB", done_bytes >> 20, total_bytes >> 20);
    return !ctl_stopped();
}

static enum memos_status open_ctx(struct ctl *ctl, struct ctl_host *out, struct memos_error *err)
{
    const char *backend = ctl_args_value(ctl->args, CTL_BACKEND);
    struct kern_options options = {.backend = backend ? backend : "auto"};
    uint64_t threads;
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_THREADS, 0, 1, THREADS_MAX, &threads, err);
    options.threads = (unsigned)threads;
    return status == MEMOS_OK ? kern_ctx_create(&options, &out->ctx, err) : status;
}

/* Positions that it is opened for; 0: all that it knows. */
static enum memos_status take_context(
    struct ctl *ctl, const char *path, size_t usual, size_t *out, struct memos_error *err)
{
    uint64_t given;
    struct paramem_model_summary summary;
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_CONTEXT_TOKENS, 0, 1, CONTEXT_TOKENS_MAX, &given, err);
    *out = (size_t)given;
    if (status == MEMOS_OK && given == 0 && usual > 0) {
        status = paramem_model_inspect(path, &summary, err);
        *out = status == MEMOS_OK && summary.config.positions_max > usual ? usual : 0;
    }
    return status;
}

static enum memos_status open_model(struct ctl *ctl, struct paramem_model_options *options,
    struct ctl_host *out, struct memos_error *err)
{
    int64_t began_us = ctl->clock.mono_us(ctl->clock.self);
    ctl_catch_stops();
    options->path = out->path;
    options->ctx = out->ctx;
    options->progress = on_progress;
    options->self = ctl;
    enum memos_status status = paramem_model_open(options, &out->model, err);
    ctl_progress_end(ctl);
    if (status == MEMOS_OK) {
        paramem_model_describe(out->model, &out->info);
        out->tokenizer = out->model->tokenizer;
        out->load_us = ctl->clock.mono_us(ctl->clock.self) - began_us;
    } else if (status == MEMOS_NO_MEMORY) {
        ctl->hint = "--weights q8_0 or q4_0 needs less: memosctl model show says how much";
    }
    return status;
}

enum memos_status ctl_host_open(
    struct ctl *ctl, size_t context_usual, struct ctl_host *out, struct memos_error *err)
{
    static const enum kern_dtype known[] = {KERN_F32, KERN_BF16, KERN_I8, KERN_Q8_0, KERN_Q4_0};
    struct paramem_model_options options = {0};
    *out = (struct ctl_host){0};
    enum memos_status status = take_dtype(ctl, CTL_MODEL_WEIGHTS, known,
        sizeof known / sizeof known[0], "f32, bf16, i8, q8_0 or q4_0", &options.weights, err);
    if (status == MEMOS_OK) {
        status = ctl_host_path(ctl, out->path, err);
    }
    if (status == MEMOS_OK) {
        status = take_context(ctl, out->path, context_usual, &options.context_max, err);
    }
    if (status == MEMOS_OK) {
        status = open_ctx(ctl, out, err);
    }
    return status == MEMOS_OK ? open_model(ctl, &options, out, err) : status;
}

void ctl_host_close(struct ctl_host *host)
{
    paramem_engine_destroy(&host->engine);
    paramem_model_close(&host->model);
    kern_ctx_destroy(&host->ctx);
}

enum memos_status ctl_host_engine(
    struct ctl *ctl, struct ctl_host *host, size_t tokens, struct memos_error *err)
{
    static const enum kern_dtype known[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3};
    struct paramem_engine_options options = {
        .model = host->model, .sequences_max = 1, .clock = &ctl->clock};
    enum memos_status status = take_dtype(ctl, CTL_KV, known, sizeof known / sizeof known[0],
        "f32, f16, bf16 or e4m3", &options.kv, err);
    if (status != MEMOS_OK) {
        return status;
    }
    size_t most = tokens < host->info.context_max ? tokens : host->info.context_max;
    size_t pages = most / KERN_PAGE_TOKENS + 2;
    options.kv_bytes =
        pages * KERN_PAGE_TOKENS *
        (size_t)ctl_host_token_bytes(host->info.config, options.kv ? options.kv : KERN_F32);
    return paramem_engine_create(&options, &host->engine, err);
}

/* ---- what it takes -------------------------------------------------------------------------- */

static uint64_t matrix_bytes(size_t n, size_t k, enum kern_dtype dtype)
{
    if (kern_dtype_block(dtype) > 1 && k % kern_dtype_block(dtype) != 0) {
        dtype = KERN_BF16; /* it could not be cut into blocks */
    }
    return (uint64_t)n * kern_dtype_row_bytes(dtype, k) +
           (dtype == KERN_I8 ? n * sizeof(float) : 0);
}

uint64_t ctl_host_weight_bytes(
    const struct paramem_decoder_config *config, enum kern_dtype stored, enum kern_dtype weights)
{
    const struct paramem_decoder_config *c = config;
    size_t wide = c->heads * c->head_dim, narrow = c->kv_heads * c->head_dim;
    uint64_t layer = matrix_bytes(wide + 2 * narrow, c->hidden, weights) +
                     matrix_bytes(c->hidden, wide, weights) +
                     matrix_bytes(2 * c->inner, c->hidden, weights) +
                     matrix_bytes(c->hidden, c->inner, weights) + 2 * c->hidden * sizeof(float);
    uint64_t table = c->tied && stored == weights ? 0 : matrix_bytes(c->vocab, c->hidden, stored);
    return c->layers * layer + table + matrix_bytes(c->vocab, c->hidden, weights);
}

uint64_t ctl_host_token_bytes(const struct paramem_decoder_config *config, enum kern_dtype kv)
{
    return (uint64_t)config->layers * kern_kv_page_bytes(kv, config->kv_heads, config->head_dim) /
           KERN_PAGE_TOKENS;
}
