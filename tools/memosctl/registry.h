/* Registries of this machine: folders in which each name is an encoder, or a host model.
 *
 * What is added takes its name when all of it is there and was seen to work. Folders on their way
 * in or out have names that begin with a dot, and are locked; one that nobody holds is what
 * somebody left who was stopped, and the next change removes it.
 *
 * Threads: none of its own. */
#ifndef TOOLS_MEMOSCTL_REGISTRY_H
#define TOOLS_MEMOSCTL_REGISTRY_H

#include "proto/arena.h"

#include <limits.h>

struct ctl_registry {
    char path[PATH_MAX];
    const char *kind; /* "encoder", "model": for errors */
    bool has_others;  /* its items may be files and symbolic links, too */
    /* Where a name lies; INVALID: no such name can be. */
    enum memos_status (*place)(
        const char *registry, const char *name, char out[PATH_MAX], struct memos_error *err);
};

/* A folder in the registry that is on its way. */
struct ctl_registry_folder {
    char path[PATH_MAX];
    int file; /* holds its lock; -1: there is none */
};

/* Make one; makes the registry, too. IO and its kin. */
MEMOS_MUST_USE enum memos_status ctl_registry_begin(
    const struct ctl_registry *registry, struct ctl_registry_folder *out, struct memos_error *err);

/* Copy files into it. A name may be one in a folder below ("1_Pooling/config.json"), which is made.
 * NOT_FOUND: one that is needed is missing. */
struct ctl_registry_file {
    const char *name;
    bool is_needed;
};
MEMOS_MUST_USE enum memos_status ctl_registry_copy(const char *from,
    const struct ctl_registry_file *files, size_t files_count,
    const struct ctl_registry_folder *folder, struct memos_error *err);

/* Give it, or the one thing `item` in it, its name. EXISTS. */
MEMOS_MUST_USE enum memos_status ctl_registry_commit(const struct ctl_registry *registry,
    const char *name, const char *item, struct ctl_registry_folder *folder,
    struct memos_error *err);

/* Remove it, unless it got its name. */
void ctl_registry_abort(struct ctl_registry_folder *folder);

/* A name for what lies elsewhere, which stays there. target: an absolute path. EXISTS. */
MEMOS_MUST_USE enum memos_status ctl_registry_link(const struct ctl_registry *registry,
    const char *name, const char *target, struct memos_error *err);

/* Of a link the link alone. NOT_FOUND; INVALID: no such name can be. */
MEMOS_MUST_USE enum memos_status ctl_registry_remove(
    const struct ctl_registry *registry, const char *name, struct memos_error *err);

/* EXISTS when there is one of this name, before something long is begun. */
MEMOS_MUST_USE enum memos_status ctl_registry_free(
    const struct ctl_registry *registry, const char *name, struct memos_error *err);

/* The names, sorted, from the arena. None when there is no registry. */
MEMOS_MUST_USE enum memos_status ctl_registry_list(const struct ctl_registry *registry,
    struct memos_arena *arena, char ***out_names, size_t *out_count, struct memos_error *err);

/* What a folder or file is called when nobody says: the last part of its path, without `ending`.
 * "" without memory. */
const char *ctl_registry_name_of(struct memos_arena *arena, const char *path, const char *ending);

/* Bytes of all files in a folder and below. */
uint64_t ctl_registry_bytes(const char *path);

#endif
