/* The tensors of a folder: one file, or several that an index names. */
#include "paramem/files.h"
#include "paramem/json.h"
#include "paramem/safetensors.h"

#include <stdlib.h>
#include <string.h>

static const char file_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

static const struct paramem_json_limits index_limits = {
    .bytes_max = (size_t)16 << 20, .depth_max = 8, .values_max = 200000};

#define SHARDS_MAX 512

struct paramem_tensors {
    struct paramem_safetensors **files;
    char **names; /* of the files */
    size_t count;
};

static enum memos_status shard_add(
    struct paramem_tensors *tensors, const char *folder, const char *name, struct memos_error *err)
{
    char path[PARAMEM_PATH_BYTES];
    if (tensors->count == SHARDS_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%s: more than %d files", index_name, SHARDS_MAX);
    }
    enum memos_status status = paramem_path(folder, name, path, err);
    if (status != MEMOS_OK) {
        return status;
    }
    tensors->names[tensors->count] = strdup(name);
    if (!tensors->names[tensors->count]) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %s", path);
    }
    /* The name counts from here on, so that it is freed. */
    return paramem_safetensors_open(path, &tensors->files[tensors->count++], err);
}

static const struct paramem_safetensors *shard_find(
    const struct paramem_tensors *tensors, const char *name)
{
    for (size_t i = 0; i < tensors->count; i++) {
        if (strcmp(tensors->names[i], name) == 0) {
            return tensors->files[i];
        }
    }
    return NULL;
}

/* Open every file of the index, and see that each tensor is where it says. */
static enum memos_status index_read(struct paramem_tensors *tensors, const char *folder,
    const json_t *index, struct memos_error *err)
{
    struct paramem_keys keys = paramem_keys_of(index, index_name, err);
    const json_t *map = paramem_keys_tree(&keys, "weight_map", JSON_OBJECT);
    const char *tensor;
    json_t *value;

    if (keys.status == MEMOS_OK && !map) {
        paramem_keys_fail(&keys, MEMOS_CORRUPT, "weight_map is missing");
    }
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || strchr(name, '/') || name[0] == '.' || name[0] == '\0') {
            paramem_keys_fail(&keys, MEMOS_CORRUPT, "%.80s: no file of this folder", tensor);
        }
        if (keys.status == MEMOS_OK && !shard_find(tensors, name)) {
            keys.status = shard_add(tensors, folder, name, err);
        }
        if (keys.status == MEMOS_OK &&
            !paramem_safetensors_find(shard_find(tensors, name), tensor)) {
            paramem_keys_fail(&keys, MEMOS_CORRUPT, "%.60s is not in %.60s", tensor, name);
        }
        if (keys.status != MEMOS_OK) {
            break;
        }
    }
    return keys.status;
}

enum memos_status paramem_tensors_open(
    const char *folder, struct paramem_tensors **out, struct memos_error *err)
{
    struct paramem_tensors *tensors = calloc(1, sizeof *tensors);
    json_t *index = NULL;
    if (tensors) {
        tensors->files = calloc(SHARDS_MAX, sizeof(struct paramem_safetensors *));
        tensors->names = calloc(SHARDS_MAX, sizeof(char *));
    }
    if (!tensors || !tensors->files || !tensors->names) {
        paramem_tensors_close(&tensors);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the tensors of %s", folder);
    }
    enum memos_status status = paramem_json_read(folder, index_name, &index_limits, &index, err);
    if (status == MEMOS_OK) {
        status = index_read(tensors, folder, index, err);
    } else if (status == MEMOS_NOT_FOUND) {
        status = shard_add(tensors, folder, file_name, err);
    }
    json_decref(index);
    if (status != MEMOS_OK) {
        paramem_tensors_close(&tensors);
        return status;
    }
    *out = tensors;
    return MEMOS_OK;
}

void paramem_tensors_close(struct paramem_tensors **tensors)
{
    if (!*tensors) {
        return;
    }
    for (size_t i = 0; i < (*tensors)->count; i++) {
        paramem_safetensors_close(&(*tensors)->files[i]);
        free((*tensors)->names[i]);
    }
    free((*tensors)->files);
    free((*tensors)->names);
    free(*tensors);
    *tensors = NULL;
}

const struct paramem_tensor *paramem_tensors_find(
    const struct paramem_tensors *tensors, const char *name)
{
    for (size_t i = 0; i < tensors->count; i++) {
        const struct paramem_tensor *found = paramem_safetensors_find(tensors->files[i], name);
        if (found) {
            return found;
        }
    }
    return NULL;
}
