#include "memos/worker/host.h"

#include "paramem/layers.h"
#include "paramem/registry.h"
#include "proto/arena.h"

#include <stdlib.h>
#include <string.h>

/* What clients call a model that was given no name: the file's or folder's, without ".gguf". */
static char *name_of(const char *path)
{
    size_t end = strlen(path), begin;
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    for (begin = end; begin > 0 && path[begin - 1] != '/';) {
        begin--;
    }
    bool is_gguf = end - begin > 5 && strncmp(path + end - 5, ".gguf", 5) == 0;
    return strndup(path + begin, end - begin - (is_gguf ? 5 : 0));
}

/* A token as it is written; "" when there is none. */
static const char *token_text(
    const struct worker_host *host, uint32_t id, struct memos_arena *arena)
{
    const char *text = memos_arena_copy(arena, paramem_tokenizer_bytes(host->tokenizer, id));
    return text ? text : "";
}

/* A model whose template is not known answers texts alone; one that was named must be known. */
static enum memos_status open_chat(
    const char *name, struct worker_host *host, struct memos_error *err)
{
    struct paramem_tokenizer_info info;
    struct memos_arena arena;
    if (!name && !host->info.chat_template) {
        return MEMOS_OK;
    }
    memos_arena_init(&arena, 1 << 20);
    paramem_tokenizer_describe(host->tokenizer, &info);
    enum memos_status status =
        paramem_chat_open(name, host->info.chat_template, token_text(host, info.bos_id, &arena),
            token_text(host, info.eos_id, &arena), &host->chat, err);
    memos_arena_finish(&arena);
    return status == MEMOS_UNSUPPORTED && !name ? MEMOS_OK : status;
}

static enum memos_status open_model(const struct worker_host_options *options, const char *path,
    paramem_progress *progress, void *self, struct worker_host *host, struct memos_error *err)
{
    const struct kern_options kern = {
        .backend = options->backend ? options->backend : "auto",
        .threads = (unsigned)options->threads,
    };
    enum memos_status status = kern_ctx_create(&kern, &host->ctx, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const char *name = kern_ctx_name(host->ctx);
    (void)snprintf(host->backend, sizeof host->backend, "%.*s", (int)strcspn(name, ","), name);
    const struct paramem_model_options model = {.path = path,
        .ctx = host->ctx,
        .weights = options->weights,
        .context_max = options->context_max,
        .progress = progress,
        .self = self};
    status = paramem_model_open(&model, &host->model, err);
    if (status == MEMOS_OK) {
        paramem_model_describe(host->model, &host->info);
        host->tokenizer = host->model->tokenizer;
        status = open_chat(options->chat_template, host, err);
    }
    return status;
}

static enum memos_status open_engine(
    const struct worker_host_options *options, struct worker_host *host, struct memos_error *err)
{
    const struct paramem_engine_options engine = {.model = host->model,
        .kv = options->kv,
        .kv_bytes = (size_t)options->kv_bytes,
        .sequences_max = options->sequences_max};
    enum memos_status status = paramem_engine_create(&engine, &host->engine, err);
    if (status == MEMOS_OK) {
        host->kv = paramem_engine_kv(host->engine);
    }
    return status;
}

enum memos_status worker_host_open(const struct worker_host_options *options,
    paramem_progress *progress, void *self, struct worker_host **out, struct memos_error *err)
{
    char path[PATH_MAX];
    enum memos_status status = paramem_registry_find(NULL, options->path, path, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct worker_host *host = calloc(1, sizeof *host);
    if (host) {
        host->name = options->name ? strdup(options->name) : name_of(options->path);
    }
    if (!host || !host->name) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a model");
    }
    if (status == MEMOS_OK) {
        status = open_model(options, path, progress, self, host, err);
    }
    if (status == MEMOS_OK) {
        status = open_engine(options, host, err);
    }
    if (status != MEMOS_OK) {
        worker_host_close(&host);
        return status;
    }
    *out = host;
    return MEMOS_OK;
}

void worker_host_close(struct worker_host **host)
{
    struct worker_host *it = *host;
    *host = NULL;
    if (it) {
        paramem_engine_destroy(&it->engine);
        paramem_chat_close(&it->chat);
        paramem_model_close(&it->model);
        kern_ctx_destroy(&it->ctx);
        free(it->name);
        free(it);
    }
}
