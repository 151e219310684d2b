/* Names of host models on this machine: what people write, and where it lies.
 *
 *     llama3                            a name in the registry
 *     ./models/Qwen3-0.6B, /srv/a.gguf  a path (it has a slash)
 *
 * The registry is a folder in which each name is a model: a Hugging Face folder, a GGUF file, or a
 * symbolic link to either; `memosctl model add` fills it. Nothing here opens a model.
 *
 * Threads: no state. */
#ifndef PARAMEM_REGISTRY_H
#define PARAMEM_REGISTRY_H

#include "proto/bytes.h"

#include <limits.h>

#define PARAMEM_REGISTRY_NAME_MAX 96

/* $XDG_DATA_HOME/memos/models, or ~/.local/share/memos/models. INVALID without both. */
MEMOS_MUST_USE enum memos_status paramem_registry(char out[PATH_MAX], struct memos_error *err);

/* Where a name lies: letters, digits, "-", "_" and "."; begins with a letter or a digit. INVALID:
 * no such name can be. Does not look whether it is there. */
MEMOS_MUST_USE enum memos_status paramem_registry_place(
    const char *registry, const char *name, char out[PATH_MAX], struct memos_error *err);

/* The model that `text` means, its path without symbolic links. registry NULL: the usual one.
 * INVALID; NOT_FOUND names what was looked for, and what to do. */
MEMOS_MUST_USE enum memos_status paramem_registry_find(
    const char *registry, const char *text, char out[PATH_MAX], struct memos_error *err);

#endif
