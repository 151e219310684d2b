/* X(name, TYPE, field, min, max, preset, reloads, help): every key of the configuration.
 *
 * The order is that of --help, of --check-config, and of the manual page. Texts about a preset that
 * is worked out are in the help. */
#ifndef MEMOS_BROKER_CONFIG_KEYS_H
#define MEMOS_BROKER_CONFIG_KEYS_H

#define BROKER_CONFIG_TABLE(X)                                                                     \
    X("data_dir", TEXT, data_dir, 0, 0, "", false,                                                 \
        "folder of the store and of the broker's keys; preset: $XDG_DATA_HOME/memos")              \
    X("listen", LIST, listen, 0, 16, "", false,                                                    \
        "addresses for clients; preset: ipc in $XDG_RUNTIME_DIR/memos")                            \
    X("events", LIST, events, 0, 16, "", false,                                                    \
        "addresses for subscribers; preset: beside each of listen (.events, or the next port)")    \
    X("curve", FLAG, curve, 0, 0, "false", false,                                                  \
        "encrypt and authenticate TCP; needed off the loopback")                                   \
    X("map_bytes", SIZE, map_bytes, 1 << 20, 1ull << 46, "1G", false,                              \
        "size of the database's map to begin with; it grows by itself")                            \
    X("map_bytes_max", SIZE, map_bytes_max, 0, 1ull << 46, "0", false,                             \
        "the map stops growing here; 0: as far as the address space goes")                         \
    X("inline_bytes", SIZE, inline_bytes, 0, 1 << 20, "64K", false,                                \
        "larger payloads are files of their own")                                                  \
    X("payload_bytes_max", SIZE, payload_bytes_max, 1024, 1ull << 36, "256M", false,               \
        "largest payload")                                                                         \
    X("message_bytes_max", SIZE, message_bytes_max, 65536, 1ull << 36, "256M", false,              \
        "largest message, in and out")                                                             \
    X("queue_max", COUNT, queue_max, 1, 1 << 20, "8192", true,                                     \
        "requests inside the broker; more are answered BUSY")                                      \
    X("queue_bytes_max", SIZE, queue_bytes_max, 65536, 1ull << 40, "1G", true,                     \
        "bytes of the requests inside the broker")                                                 \
    X("client_queue_max", COUNT, client_queue_max, 1, 1 << 20, "1024", true,                       \
        "requests of one client inside the broker")                                                \
    X("client_reply_bytes_max", SIZE, client_reply_bytes_max, 65536, 1ull << 40, "64M", true,      \
        "bytes of replies that one client has not taken yet")                                      \
    X("connections_max", COUNT, connections_max, 16, 1 << 20, "16384", false,                      \
        "sockets; the limit on open files is raised for them")                                     \
    X("write_queue_max", COUNT, write_queue_max, 1, 1 << 20, "4096", false,                        \
        "changes that wait for the writer")                                                        \
    X("write_group_max", COUNT, write_group_max, 1, 1 << 16, "512", false,                         \
        "changes in one commit")                                                                   \
    X("imports_max", COUNT, imports_max, 1, 1024, "16", true,                                      \
        "imports that are being received at once")                                                 \
    X("import_bytes_max", SIZE, import_bytes_max, 4096, 1ull << 44, "64G", true,                   \
        "largest archive that may be imported")                                                    \
    X("watches_max", COUNT, watches_max, 1, 1 << 20, "4096", true,                                 \
        "spaces that are watched at once")                                                         \
    X("encoder", TEXT, encoder, 0, 0, "auto", false,                                               \
        "what makes vectors: auto, ngrams, none, a name in memosctl encoder list, a folder, "      \
        "URL#MODEL")                                                                               \
    X("encoder_weights", TEXT, encoder_weights, 0, 0, "f32", false,                                \
        "an encoder's weights in memory: f32, bf16 or int8")                                       \
    X("encoder_key_file", TEXT, encoder_key_file, 0, 0, "", false,                                 \
        "file with the bearer token of an endpoint")                                               \
    X("encoder_threads", COUNT, encoder_threads, 0, 256, "0", false,                               \
        "threads that compute vectors; 0: one a processor, at most 16")                            \
    X("encoder_queue_max", COUNT, encoder_queue_max, 1, 1 << 24, "16384", false,                   \
        "texts that wait for a vector; what comes beyond is encoded after it was written")         \
    X("vector_codes", TEXT, vector_codes, 0, 0, "e4m3", false,                                     \
        "how new vectors are stored: e4m3, e5m2, int8, f16 or f32")                                \
    X("vector_cache_bytes", SIZE, vector_cache_bytes, 1 << 20, 1ull << 46, "1G", false,            \
        "vectors kept in memory for searching; the least used spaces go first")                    \
    X("vector_index", TEXT, vector_index, 0, 0, "auto", false,                                     \
        "approximate index of large spaces: auto, none, hnsw, ivf-flat, ivf-sq8 or ivf-pq")        \
    X("vector_index_from", COUNT, vector_index_from, 1000, 1ull << 40, "50000", false,             \
        "spaces with fewer vectors are searched exactly")                                          \
    X("reader_threads", COUNT, reader_threads, 0, 256, "0", false,                                 \
        "threads that read and search; 0: one a processor, at least 2, at most 16")                \
    X("job_threads", COUNT, job_threads, 1, 64, "2", false,                                        \
        "threads for verify, fsck, export and import")                                             \
    X("workers_max", COUNT, workers_max, 1, 1024, "64", true,                                      \
        "workers that run models")                                                                 \
    X("worker_queue_max", COUNT, worker_queue_max, 1, 1 << 16, "1024", true,                       \
        "jobs that wait for a worker; more are answered BUSY")                                     \
    X("worker_timeout", TIME, worker_timeout_ms, 100, 86400000, "5s", true,                        \
        "a worker that says nothing for so long is given up")                                      \
    X("default_deadline", TIME, default_deadline_ms, 1, 86400000, "30s", true,                     \
        "for requests that bring no deadline of their own")                                        \
    X("sweep_interval", TIME, sweep_interval_ms, 100, 86400000, "60s", false,                      \
        "how often expiry is written down; it is in force at once")                                \
    X("watch_lease", TIME, watch_lease_ms, 100, 86400000, "60s", true,                             \
        "how long a subscriber's token holds before it must ask again")                            \
    X("heartbeat", TIME, heartbeat_ms, 100, 86400000, "15s", false,                                \
        "how often a TCP peer is asked whether it is still there")                                 \
    X("handshake_timeout", TIME, handshake_ms, 100, 86400000, "10s", false,                        \
        "a connection that has not said who it is by then is closed")                              \
    X("drain_timeout", TIME, drain_ms, 0, 60000, "1500ms", true,                                   \
        "how long SIGTERM waits for what has begun")                                               \
    X("log_level", LEVEL, log_level, 0, 0, "info", true, "debug, info, warning or error")          \
    X("log_format", FORMAT, log_format, 0, 0, "text", true, "text, or json: one object a line")

#endif
