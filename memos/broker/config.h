/* What can be set about a broker, where it comes from, and what it is in the end.
 *
 * There is one table of keys (config_keys.h). The parser of the file, the names of the
 * environment's variables and of the flags, --help and --check-config are made from it, and a test
 * holds the manual page against it. Sources, the later winning: defaults, /etc/memos/memosd.conf,
 * $XDG_CONFIG_HOME/memos/memosd.conf (or the one file of --config), environment, flags.
 *
 * The file's form is the part of TOML that is needed: one `key = value` a line, values are strings
 * in double quotes, numbers, true and false, and arrays of strings on one line; `#` begins a
 * comment.
 *
 * Threads: a config belongs to one thread at a time.
 *
 * Errors: INVALID names file and line, variable or flag, and what is allowed. */
#ifndef MEMOS_BROKER_CONFIG_H
#define MEMOS_BROKER_CONFIG_H

#include "proto/arena.h"

#include <stdio.h>

struct broker_list {
    const char **items;
    size_t count;
};

/* Where a value came from; for messages. */
struct broker_config_place {
    const char *name; /* a file, "environment", "command line" */
    unsigned line;    /* 0: not a file */
};

struct broker_config {
    struct memos_arena arena; /* keeps the texts below */

    const char *data_dir;
    struct broker_list listen, events;
    bool curve;

    uint64_t map_bytes, map_bytes_max, inline_bytes, payload_bytes_max;

    uint64_t message_bytes_max;
    uint64_t queue_max, queue_bytes_max;
    uint64_t client_queue_max, client_reply_bytes_max;
    uint64_t connections_max;
    uint64_t write_queue_max, write_group_max;
    uint64_t imports_max, import_bytes_max, watches_max;

    const char *encoder, *encoder_weights, *encoder_key_file;
    uint64_t encoder_threads, encoder_queue_max;
    const char *vector_codes, *vector_index;
    uint64_t vector_cache_bytes, vector_index_from;

    uint64_t reader_threads, job_threads;

    uint64_t workers_max, worker_queue_max;
    int64_t worker_timeout_ms;

    int64_t default_deadline_ms, sweep_interval_ms, watch_lease_ms;
    int64_t heartbeat_ms, handshake_ms, drain_ms;

    int log_level;  /* enum memos_log_level */
    int log_format; /* enum memos_log_format */
};

enum broker_config_type {
    BROKER_CONFIG_TEXT,
    BROKER_CONFIG_LIST, /* of texts; commas between them outside a file */
    BROKER_CONFIG_FLAG, /* true, false */
    BROKER_CONFIG_SIZE, /* bytes: 4096, "64K", "256M", "1G" */
    BROKER_CONFIG_COUNT,
    BROKER_CONFIG_TIME,   /* "1500ms", "30s", "5m"; kept in milliseconds */
    BROKER_CONFIG_LEVEL,  /* debug, info, warning, error */
    BROKER_CONFIG_FORMAT, /* text, json */
};

struct broker_config_key {
    const char *name; /* "data_dir": --data-dir and MEMOS_DATA_DIR */
    enum broker_config_type type;
    size_t offset; /* in struct broker_config */
    uint64_t min, max;
    const char *preset; /* as in the file; "" when it is worked out (see help) */
    bool reloads;       /* taken over at SIGHUP */
    const char *help;
};

/* The table. */
const struct broker_config_key *broker_config_keys(size_t *out_count);

/* The defaults. Finish in every case. */
MEMOS_MUST_USE enum memos_status broker_config_init(
    struct broker_config *config, struct memos_error *err);
void broker_config_finish(struct broker_config *config);

/* Take over a file's text. `name` is for messages. */
MEMOS_MUST_USE enum memos_status broker_config_parse(struct broker_config *config, const char *name,
    struct memos_bytes text, struct memos_error *err);

/* Read and parse a file of at most 1 MiB. NOT_FOUND when it is missing. */
MEMOS_MUST_USE enum memos_status broker_config_read(
    struct broker_config *config, const char *path, struct memos_error *err);

/* Set one key from a text without quotes, as environment and flags give it. */
MEMOS_MUST_USE enum memos_status broker_config_set(struct broker_config *config,
    const struct broker_config_place *place, const char *name, const char *value,
    struct memos_error *err);

/* All sources in order: `path` (or the two usual files when NULL), environment, flags.
 * flags: `count` pairs of key name and value. */
struct broker_config_flag {
    const char *name, *value;
};
MEMOS_MUST_USE enum memos_status broker_config_load(struct broker_config *config, const char *path,
    const struct broker_config_flag *flags, size_t flags_count, struct memos_error *err);

/* Fill in what is worked out from the rest (data_dir, listen, events, threads), then check that the
 * whole fits together: addresses, TCP off the loopback only with CURVE. INVALID, DENIED. */
MEMOS_MUST_USE enum memos_status broker_config_check(
    struct broker_config *config, struct memos_error *err);

/* Is "tcp://..." an address on the loopback? */
bool broker_address_is_loopback(const char *address);
bool broker_address_is_ipc(const char *address);

/* Write it out in the form of the file; parsing that gives the same config. */
void broker_config_print(const struct broker_config *config, FILE *out);

#endif
