/* A host model as commands have it: found by its name, opened with progress, run in this process.
 *
 * Threads: one; Ctrl-C is caught from open on (ctl_stopped). */
#ifndef TOOLS_MEMOSCTL_HOST_H
#define TOOLS_MEMOSCTL_HOST_H

#include "paramem/engine.h"
#include "paramem/layers.h"
#include "tools/memosctl/ctl.h"
#include "tools/memosctl/registry.h"

struct ctl_host {
    char path[PATH_MAX];
    struct kern_ctx *ctx;
    struct paramem_model *model;
    struct paramem_model_info info;
    const struct paramem_tokenizer *tokenizer; /* the model's */
    struct paramem_engine *engine;             /* NULL until ctl_host_engine */
    int64_t load_us;
};

/* The registry of models. */
MEMOS_MUST_USE enum memos_status ctl_host_registry(
    struct ctl_registry *out, struct memos_error *err);

/* What --model means: a name, a path, or without it the only model that was added. */
MEMOS_MUST_USE enum memos_status ctl_host_path(
    struct ctl *ctl, char out[PATH_MAX], struct memos_error *err);

/* The hint for a failure, where nobody has a better one: what a status usually advises is about
 * cubes. */
void ctl_host_advise(struct ctl *ctl, enum memos_status status);

/* The tokenizer alone of the model at a path. */
MEMOS_MUST_USE enum memos_status ctl_host_tokenizer(
    const char *path, struct paramem_tokenizer **out, struct memos_error *err);

/* Open it as --model, --weights, --backend, --threads and --context say; without --context it sees
 * what it knows, but no more than context_usual (0: no limit). *out is to be closed also when this
 * fails. CANCELLED: stopped. */
MEMOS_MUST_USE enum memos_status ctl_host_open(
    struct ctl *ctl, size_t context_usual, struct ctl_host *out, struct memos_error *err);
void ctl_host_close(struct ctl_host *host);

/* An engine for one sequence of at most `tokens`, with keys and values as --kv says. */
MEMOS_MUST_USE enum memos_status ctl_host_engine(
    struct ctl *ctl, struct ctl_host *host, size_t tokens, struct memos_error *err);

/* What weights of a configuration take in memory as `weights`, in bytes, and what is kept of each
 * token. The table of embeddings counts as stored where the head has weights of its own. */
uint64_t ctl_host_weight_bytes(
    const struct paramem_decoder_config *config, enum kern_dtype stored, enum kern_dtype weights);
uint64_t ctl_host_token_bytes(const struct paramem_decoder_config *config, enum kern_dtype kv);

#endif
