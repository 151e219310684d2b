/* The registry of encoders: a folder with a Hugging Face folder for each name
 * (retrieval/encoder_spec.h says where).
 *
 * What is added takes its name when all of it is there and was seen to work. Folders on their way
 * in or out have names that begin with a dot, and are locked; one that nobody holds is what
 * somebody left who was stopped, and the next change removes it.
 *
 * Threads: none of its own. */
#ifndef TOOLS_MEMOSCTL_ENCODERS_H
#define TOOLS_MEMOSCTL_ENCODERS_H

#include "proto/arena.h"
#include "retrieval/encoder_spec.h"

/* A folder in the registry that is on its way. */
struct ctl_encoders_folder {
    char path[PATH_MAX];
    int file; /* holds its lock; -1: there is none */
};

/* Make one; makes the registry, too. IO and its kin. */
MEMOS_MUST_USE enum memos_status ctl_encoders_begin(
    const char *registry, struct ctl_encoders_folder *out, struct memos_error *err);

/* Copy the files of a model. NOT_FOUND: config.json or the weights are missing. */
MEMOS_MUST_USE enum memos_status ctl_encoders_copy(
    const char *from, const struct ctl_encoders_folder *folder, struct memos_error *err);

/* Give it its name. EXISTS. */
MEMOS_MUST_USE enum memos_status ctl_encoders_commit(const char *registry, const char *name,
    struct ctl_encoders_folder *folder, struct memos_error *err);

/* Remove it, unless it got its name. */
void ctl_encoders_abort(struct ctl_encoders_folder *folder);

/* NOT_FOUND; INVALID: no such name can be. */
MEMOS_MUST_USE enum memos_status ctl_encoders_remove(
    const char *registry, const char *name, struct memos_error *err);

/* The names, sorted, from the arena. None when there is no registry. */
MEMOS_MUST_USE enum memos_status ctl_encoders_list(const char *registry, struct memos_arena *arena,
    char ***out_names, size_t *out_count, struct memos_error *err);

/* Bytes of all files in a folder and below. */
uint64_t ctl_encoders_bytes(const char *path);

#endif
