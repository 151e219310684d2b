/* A host model that this worker runs: its files opened, its engine, what it speaks.
 *
 * Errors of opening: those of paramem/registry.h, kernels/kern.h (UNSUPPORTED: no such backend),
 * paramem/model.h, paramem/engine.h; UNSUPPORTED: a chat template that was named and is not known.
 *
 * Threads: the model's engine belongs to the model's own thread (run.c); everything else of a host
 * is read-only after open and may be used by any thread. */
#ifndef MEMOS_WORKER_HOST_H
#define MEMOS_WORKER_HOST_H

#include "paramem/chat.h"
#include "paramem/engine.h"
#include "paramem/prompt.h"

struct worker_host_options {
    const char *name;          /* that clients say; NULL: the file's or folder's */
    const char *path;          /* of the registry, a folder, or a GGUF file */
    const char *backend;       /* "auto", "cpu", "cuda", "ref" */
    enum kern_dtype weights;   /* 0: as stored */
    enum kern_dtype kv;        /* 0: the engine's choice */
    uint64_t kv_bytes;         /* 0: the engine's choice */
    size_t context_max;        /* 0: the model's own */
    size_t sequences_max;      /* 0: 16 */
    size_t threads;            /* 0: all processors */
    const char *chat_template; /* a name that wins over the model's own; NULL */
};

struct worker_host {
    char *name;
    struct kern_ctx *ctx;
    struct paramem_model *model;
    struct paramem_model_info info; /* fingerprint, chat_template, context */
    const struct paramem_tokenizer *tokenizer;
    struct paramem_chat *chat; /* NULL: the model has no template that is known: texts alone */
    struct paramem_engine *engine;
    enum kern_dtype kv; /* the cache's type */
    char backend[64];   /* "cpu/avx2" */
};

MEMOS_MUST_USE enum memos_status worker_host_open(const struct worker_host_options *options,
    paramem_progress *progress, void *self, struct worker_host **out, struct memos_error *err);
void worker_host_close(struct worker_host **host); /* takes NULL */

#endif
