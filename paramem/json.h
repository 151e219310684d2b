/* Small JSON files of models, under bounds, and typed looks into them.
 *
 * Before a tree is built, one pass over the bytes counts depth and values, so that a hostile file
 * of a few megabytes cannot become gigabytes of tree. Keys that stand twice are refused.
 *
 * Threads: no shared state. */
#ifndef PARAMEM_JSON_H
#define PARAMEM_JSON_H

#include "proto/bytes.h"

#include <jansson.h>

struct paramem_json_limits {
    size_t bytes_max, depth_max, values_max;
};

/* What a configuration may have; every real one is far below. */
extern const struct paramem_json_limits paramem_json_config;

/* Parse bytes that must be one object or array. `name` says in errors what they are. TOO_LARGE past
 * the limits, CORRUPT, NO_MEMORY. The caller json_decrefs *out. */
MEMOS_MUST_USE enum memos_status paramem_json_parse(struct memos_bytes bytes,
    const struct paramem_json_limits *limits, const char *name, json_t **out,
    struct memos_error *err);

/* The same for the file folder/name. NOT_FOUND. */
MEMOS_MUST_USE enum memos_status paramem_json_read(const char *folder, const char *name,
    const struct paramem_json_limits *limits, json_t **out, struct memos_error *err);

/* Looks into an object. The first failure stays and is told in err; every look after it gives its
 * fallback. So a reader takes all values and checks status once. A null is as if absent. */
struct paramem_keys {
    const json_t *object;
    const char *name; /* of the file, for errors */
    enum memos_status status;
    struct memos_error *err;
};

/* CORRUPT at the first look when json is no object. */
struct paramem_keys paramem_keys_of(const json_t *json, const char *name, struct memos_error *err);

/* A whole number from low to high that must be there; low after a failure. */
uint64_t paramem_keys_count(
    struct paramem_keys *keys, const char *key, uint64_t low, uint64_t high);
/* The same, `fallback` when absent. */
uint64_t paramem_keys_count_or(
    struct paramem_keys *keys, const char *key, uint64_t low, uint64_t high, uint64_t fallback);
double paramem_keys_real_or(
    struct paramem_keys *keys, const char *key, double low, double high, double fallback);
bool paramem_keys_bool_or(struct paramem_keys *keys, const char *key, bool fallback);
/* A string; lives as long as the object. NULL as fallback is allowed. */
const char *paramem_keys_text_or(struct paramem_keys *keys, const char *key, const char *fallback);
/* An object or array of that type; NULL when absent. */
const json_t *paramem_keys_tree(struct paramem_keys *keys, const char *key, json_type type);

/* Fail, unless that has happened already. */
__attribute__((format(printf, 3, 4))) void paramem_keys_fail(
    struct paramem_keys *keys, enum memos_status status, const char *format, ...);

#endif
