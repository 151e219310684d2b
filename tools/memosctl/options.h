/* The options of memosctl, one table for all commands. A name means the same wherever it is taken;
 * a command lists those that it takes (commands.c).
 *
 * X(ID, "name", letter or 0, "ARGUMENT" or NULL, "what it does"). Of two ids with one name a
 * command takes at most one: they differ in what they are for. */
#ifndef TOOLS_MEMOSCTL_OPTIONS_H
#define TOOLS_MEMOSCTL_OPTIONS_H

#define CTL_OPTION_TABLE(X)                                                                        \
    X(HELP, "help", 'h', NULL, "show this help")                                                   \
    X(ADDRESS, "address", 0, "ADDRESS",                                                            \
        "the broker's address (default: $MEMOS_ADDRESS, else your own broker's socket)")           \
    X(SERVER_KEY, "server-key", 0, "KEY",                                                          \
        "the broker's public key, which encrypts the connection (default: "                        \
        "$MEMOS_SERVER_KEY)")                                                                      \
    X(KEY_FILE, "key-file", 0, "FILE", "your own key pair (default: $MEMOS_KEY_FILE)")             \
    X(SPACE, "space", 0, "SPACE",                                                                  \
        "the space, instead of the first operand (default where one is missing: "                  \
        "$MEMOS_SPACE)")                                                                           \
    X(JSON, "json", 0, NULL, "print JSON; its shape is in the manual page")                        \
    X(TIMEOUT, "timeout", 0, "TIME",                                                               \
        "wait so long for an answer, as 500ms, 30s or 5m (default: 30s; verify, fsck, "            \
        "export, import, forget and rollback: 1h)")                                                \
    X(COLOR, "color", 0, "WHEN", "auto, always or never; NO_COLOR in the environment is never")    \
    X(QUIET, "quiet", 'q', NULL, "no progress and no remarks, only results and errors")            \
    /* what a cube says */                                                                         \
    X(TITLE, "title", 0, "TEXT", "title")                                                          \
    X(KIND, "kind", 0, "KIND", "plaintext, activation or parametric (default: plaintext)")         \
    X(SUBTYPE, "subtype", 0, "WORD", "subtype: fact, preference, event, document, message, ...")   \
    X(TAG, "tag", 't', "TAG", "a tag; may be repeated")                                            \
    X(SPEAKER, "speaker", 0, "NAME", "who said it")                                                \
    X(LANGUAGE, "language", 0, "TAG", "language of the text: en, de, ...")                         \
    X(EXTERNAL_ID, "external-id", 0, "ID", "your own id of it, unique in the space")               \
    X(EVENT_TIME, "event-time", 0, "TIME", "when it was said or happened")                         \
    X(CODEC, "codec", 0, "TYPE", "what the payload is (default: text/plain; charset=utf-8)")       \
    X(MODEL, "model", 0, "TEXT", "fingerprint of the model that it was made by or is bound to")    \
    X(DERIVED, "derived-from", 0, "ID[@N]",                                                        \
        "a cube, or a version of it, that it was made from; may be repeated")                      \
    X(SOURCE_OF, "source", 0, "TYPE:URI[#OFFSET+LENGTH]",                                          \
        "where it was learned: message, file, uri or tool; may be repeated")                       \
    X(ATTRIBUTE, "attribute", 0, "NAME=TEXT", "anything else about it; may be repeated")           \
    X(READER, "reader", 0, "NAME", "only these may read it, and administrators; may be repeated")  \
    X(VALID_FROM, "valid-from", 0, "TIME", "the fact holds from then on")                          \
    X(VALID_TO, "valid-to", 0, "TIME", "the fact holds until then")                                \
    X(EXPIRES, "expires", 0, "TIME", "it expires then")                                            \
    X(TTL, "ttl", 0, "AGE", "it expires after so long: 90s, 15m, 3h, 2d, 4w")                      \
    X(RETAIN_UNTIL, "retain-until", 0, "TIME", "it is not forgotten before then")                  \
    X(PRIORITY, "priority", 0, "N", "1 to 255 (default: 128)")                                     \
    X(SENSITIVITY, "sensitivity", 0, "WORD", "public, normal, confidential or secret")             \
    /* how a change is made */                                                                     \
    X(REASON, "reason", 'm', "TEXT", "why; kept in the history")                                   \
    X(IDEMPOTENCY_KEY, "idempotency-key", 0, "TEXT",                                               \
        "a change sent again with it is applied once")                                             \
    X(EXPECT, "expect", 0, "N", "only if the cube still is at version N")                          \
    X(TRANSFORM, "transform", 0, NULL, "record it as a transformation, not as a correction")       \
    X(REMOVE, "remove", 'r', "TAG", "take a tag away; may be repeated")                            \
    X(TO, "to", 0, "SEQ|TIME",                                                                     \
        "go back to the end of this record, or to this time; 0: the beginning")                    \
    X(TO_TIME, "to-time", 0, "TIME", "go back to this time, whatever it looks like")               \
    X(TO_VERSION, "to-version", 0, "N", "go back to this version of the one cube")                 \
    X(INCLUDE_FROZEN, "include-frozen", 0, NULL, "frozen cubes go back, too")                      \
    X(DRY_RUN, "dry-run", 'n', NULL, "only say what would be done")                                \
    X(YES, "yes", 'y', NULL, "do not ask")                                                         \
    X(FORCE, "force", 'f', NULL, "although its retention has not ended")                           \
    /* which cubes */                                                                              \
    X(ANY_KIND, "kind", 0, "KIND", "only this kind; may be repeated")                              \
    X(ANY_SUBTYPE, "subtype", 0, "WORD", "only this subtype; may be repeated")                     \
    X(WITH_TAG, "tag", 't', "TAG", "only with this tag; repeated: with all of them")               \
    X(ANY_STATE, "state", 's', "STATE",                                                            \
        "only in this state, or `all`; may be repeated (default: generated, activated, "           \
        "frozen)")                                                                                 \
    X(BY_SPEAKER, "speaker", 0, "NAME", "only what this one said")                                 \
    X(FROM_SOURCE, "source", 0, "URI", "only what was learned there")                              \
    X(SINCE, "since", 0, "TIME", "only what happened then or later")                               \
    X(UNTIL, "until", 0, "TIME", "only what happened before then")                                 \
    X(STALE, "stale", 0, NULL, "also what was derived from something that no longer stands")       \
    X(AS_OF, "as-of", 0, "SEQ|TIME", "as it was after this record, or at this time")               \
    X(VERSION_OF, "version", 'v', "N", "this version (default: the current one)")                  \
    /* how much, and how it is shown */                                                            \
    X(LIMIT, "limit", 'l', "N", "at most so many (default: 100; 0: all)")                          \
    X(OLDEST, "oldest-first", 0, NULL, "oldest first")                                             \
    X(TOP_K, "top-k", 'k', "N", "at most so many hits (default: 10; at most 1000)")                \
    X(QUERIES, "queries", 0, "FILE",                                                               \
        "answer every line of this file: {\"id\", \"space\", \"text\", \"top_k\"}; -: "            \
        "standard input")                                                                          \
    X(IDS_ONLY, "ids-only", 0, NULL, "no texts, only ids and scores")                              \
    X(SEARCH_LANGUAGE, "language", 0, "TAG", "language of the query (default: worked out)")        \
    X(BY_WORDS, "words", 0, NULL, "by words alone")                                                \
    X(BY_VECTORS, "vectors", 0, NULL, "by meaning alone")                                          \
    X(WITHOUT, "without", 0, "PART,...",                                                           \
        "leave parts of the ranking out: words, vectors, neighbours, speaker, dates, "             \
        "statement, form, recency, priority, diversity; may be repeated")                          \
    X(EXPLAIN, "explain", 0, NULL, "say under each hit what its score is made of")                 \
    X(NEIGHBOURS, "neighbours", 0, "N",                                                            \
        "show so many turns before and after each hit (at most 8)")                                \
    X(NOW, "now", 0, "TIME", "what \"last week\" counts from (default: --as-of, else now)")        \
    /* labels and trees */                                                                         \
    X(PREFIX, "prefix", 0, "TEXT",                                                                 \
        "tags that begin so are labels (default: label:; an empty one: every tag is)")             \
    X(VOTERS, "top-k", 'k', "N",                                                                   \
        "nearest examples that may vote (default: 20; of vote 5, of interpolation 10)")            \
    X(METHOD, "method", 0, "METHOD",                                                               \
        "weighted (by nearness, the default), vote (of all within a margin) or interpolation "     \
        "(by distance, at a temperature)")                                                         \
    X(MARGIN, "margin", 0, "X", "of vote: so much below the best one's cosine (default: 0.05)")    \
    X(TEMPERATURE, "temperature", 0, "X", "of interpolation: less is sharper (default: 0.1)")      \
    X(BUILD, "build", 0, NULL, "make the tree anew first, and keep it")                            \
    X(LEADS, "text", 0, "TEXT", "the node that this text leads to, instead of PATH")               \
    X(EXAMPLES, "examples", 0, "N", "cubes to show of each child (default: 3; at most 20)")        \
    X(FROM, "from", 0, "SEQ", "begin at this record")                                              \
    X(WORDS, "words", 'w', NULL, "show changed words inside lines")                                \
    X(CONTEXT, "context", 'U', "N", "lines shown around a change (default: 3)")                    \
    X(OUTPUT, "output", 'o', "FILE", "write to this file; -: standard output")                     \
    X(PEEK, "peek", 0, NULL, "do not count this as a read")                                        \
    X(COUNT, "count", 'c', "N", "stop after so many")                                              \
    X(INTERVAL, "interval", 'i', "TIME", "time between two looks (default: 1s)")                   \
    X(FILTER, "filter", 0, "TEXT", "only metrics whose names hold this")                           \
    X(PROMETHEUS, "prometheus", 0, NULL, "print in the text format of Prometheus")                 \
    /* proof */                                                                                    \
    X(CHECKPOINT_OUT, "out", 0, "FILE", "also write the checkpoint to this file")                  \
    X(CHECKPOINT_LIST, "list", 0, NULL, "list the checkpoints that there are")                     \
    X(CHECK, "check", 0, "FILE", "check a checkpoint from a file: signature, and head")            \
    X(OFFLINE, "offline", 0, NULL, "with --check: only the signature, without a broker")           \
    X(PUBLIC_KEY, "public-key", 0, "HEX", "with --check: the key that must have signed it")        \
    X(REPAIR, "repair", 0, NULL, "rebuild what can be rebuilt from the history")                   \
    /* import */                                                                                   \
    X(FORMAT, "format", 0, "FORMAT",                                                               \
        "jsonl, messages, chatgpt, text, markdown or archive (default: worked out)")               \
    X(MAP, "map", 0, "FIELD=NAME,...",                                                             \
        "where jsonl has our fields: space, session, time, speaker, text, id, title, "             \
        "caption, language, tag")                                                                  \
    X(CHUNK_BYTES, "chunk-bytes", 0, "N", "text and markdown: length of a piece (default: 1200)")  \
    X(SKIP_BAD, "skip-bad", 0, NULL, "count what cannot be read, and go on")                       \
    /* encoders */                                                                                 \
    X(ENCODER_NAME, "name", 0, "NAME", "what it is called (default: as the folder is)")            \
    X(WEIGHTS, "weights", 0, "TYPE",                                                               \
        "a model's weights in memory: f32, bf16 or int8 (default: f32)")                           \
    X(ENCODER_KEY, "encoder-key-file", 0, "FILE",                                                  \
        "an endpoint's key: a file that holds the bearer token")                                   \
    X(AS_QUESTION, "question", 0, NULL, "as a question, not as something that is stored")          \
    /* host models */                                                                              \
    X(RUN_MODEL, "model", 'M', "MODEL",                                                            \
        "the model: a name, or a path (it has a slash); with a worker a name, or the beginning "   \
        "of "                                                                                      \
        "its fingerprint; default: the only one there is")                                         \
    X(MODEL_NAME, "name", 0, "NAME", "what it is called (default: as the folder or file is)")      \
    X(COPY, "copy", 0, NULL, "copy its files; else they stay where they are")                      \
    X(MODEL_WEIGHTS, "weights", 0, "TYPE",                                                         \
        "its weights in memory: f32, bf16, i8, q8_0 or q4_0 (default: as stored)")                 \
    X(KV, "kv", 0, "TYPE",                                                                         \
        "keys and values in memory: f32, f16, bf16 or e4m3 (default: f32 with f32 weights, "       \
        "else bf16)")                                                                              \
    X(BACKEND, "backend", 0, "NAME",                                                               \
        "where it computes: cpu, cuda, ref, or auto (cuda where there is a GPU; the default)")     \
    X(THREADS, "threads", 0, "N", "threads that compute (default: one a processor, at most 16)")   \
    X(CONTEXT_TOKENS, "context", 0, "N",                                                           \
        "tokens that it may see (default: as many as it knows; of score: at most 4096)")           \
    X(MAX_TOKENS, "max-tokens", 0, "N",                                                            \
        "write at most so many (default: 1024, or what the context holds)")                        \
    X(HEAT, "temperature", 0, "X",                                                                 \
        "0: always the likeliest token; above: draw, more freely the higher (default: the "        \
        "model's own)")                                                                            \
    X(LIKELIEST, "top-k", 'k', "N", "draw among so many likeliest only (0: all)")                  \
    X(TOP_P, "top-p", 0, "X", "draw among the likeliest that together have this probability")      \
    X(MIN_P, "min-p", 0, "X", "leave out what is less likely than X times the likeliest")          \
    X(REPETITION, "repetition", 0, "X", "divide the logits of tokens that were there (1: do not)") \
    X(SEED, "seed", 0, "N", "of the draws (default: another each time; it is told)")               \
    X(STOP, "stop", 0, "TEXT", "end before this text; may be repeated")                            \
    X(CHAT, "chat", 0, NULL,                                                                       \
        "as a turn of a conversation (the default where the model has a chat template)")           \
    X(RAW, "raw", 0, NULL, "go on with the text as it is")                                         \
    X(SYSTEM, "system", 0, "TEXT|@FILE", "what the model is told first")                           \
    X(TEMPLATE, "template", 0, "NAME",                                                             \
        "the chat template, instead of the model's own: chatml ...")                               \
    X(NO_THINKING, "no-thinking", 0, NULL, "tell a model that thinks before it answers not to")    \
    X(LOGPROBS, "logprobs", 0, "N",                                                                \
        "a line for each token: its log-probability, and N others that were likely (at most "      \
        "20)")                                                                                     \
    X(CHOICES, "choices", 0, NULL,                                                                 \
        "FILE has lines {\"id\", \"prompt\", \"choices\": [...], \"answer\": N}: which choice is " \
        "likeliest")                                                                               \
    X(OVERLAP, "overlap", 0, "N",                                                                  \
        "a longer text is read in windows that share so many tokens (default: half of the "        \
        "context)")                                                                                \
    X(IDS, "ids", 0, NULL, "only the ids, on one line")                                            \
    X(DECODE, "decode", 0, NULL, "TEXT is ids: print the text that they are")                      \
    X(NO_SPECIAL, "plain", 0, NULL,                                                                \
        "add no special tokens, and read none in the text; with --decode: leave them out")         \
    /* workers, and what they remember */                                                          \
    X(THROUGH, "worker", 0, NULL, "ask a worker, through the broker, also without --space")        \
    X(MEMORY_OF, "space", 0, "SPACE",                                                              \
        "ask a worker, through the broker, and let the model remember what this space holds")      \
    X(CUBE_OF, "cube", 0, "ID[@N]",                                                                \
        "remember this cube, before all that is found; may be repeated")                           \
    X(QUERY, "query", 0, "TEXT", "search memory for this (default: TEXT)")                         \
    X(NO_SEARCH, "no-search", 0, NULL, "remember nothing but what --cube names")                   \
    X(HITS, "hits", 0, "N", "remember at most so many cubes that were found (default: 20)")        \
    X(BUDGET, "budget", 0, "N",                                                                    \
        "tokens that all memory may take (default: a quarter of the context)")                     \
    X(CAPTURES, "captures", 0, "WHEN",                                                             \
        "load what was captured: auto (where that is quicker, the default), never or always")      \
    X(INDEPENDENT, "independent", 0, NULL,                                                         \
        "single cubes' captures may stand for their texts, turned to their places: an "            \
        "approximation, which the receipt tells")                                                  \
    X(RECOMPUTE, "recompute", 0, "N",                                                              \
        "with --independent: so many tokens of each one's beginning are computed all the same "    \
        "(16)")                                                                                    \
    X(KEEP_CAPTURE, "capture", 0, NULL, "capture the prompt up to the end of its memory")          \
    X(RECEIPT_TO, "receipt", 0, "FILE", "write what was used to this file; -: standard output")    \
    X(KEEP_RECEIPT, "keep-receipt", 0, NULL, "keep the receipt as a cube of the space")            \
    X(ALONE, "independent", 0, NULL, "each cube alone, to be turned to any place: approximate")    \
    X(BARE, "raw", 0, NULL, "as before a bare text, although the model has a chat template")       \
    X(DTYPE, "dtype", 0, "TYPE",                                                                   \
        "keep keys and values as f32, f16, bf16 or e4m3 (default: as the worker's cache has "      \
        "them)")                                                                                   \
    X(MYSELF, "as", 0, "NAME", "who speaks (default: user)")                                       \
    X(WORKER_MODEL, "model", 'M', "[NAME=]MODEL",                                                  \
        "a model to run: a name that was added, or a path (it has a slash); may be repeated "      \
        "(default: the only one that was added)")                                                  \
    X(WORKER_NAME, "name", 0, "NAME", "what the worker is called (default: as its first model)")   \
    X(FOREGROUND, "foreground", 0, NULL, "stay, with its log on standard error; Ctrl-C ends it")   \
    X(ALL, "all", 0, NULL, "all of them")                                                          \
    X(WORKER_PROGRAM_AT, "memos-worker", 0, "PATH",                                                \
        "the worker's program (default: beside memosctl, else in PATH)")                           \
    X(WORKER_LOG, "log-file", 0, "FILE",                                                           \
        "its log (default: $XDG_STATE_HOME/memos/worker-NAME.log)")                                \
    /* the service */                                                                              \
    X(MEMOSD, "memosd", 0, "PATH",                                                                 \
        "the broker's program (default: beside memosctl, else in PATH)")                           \
    X(CONFIG, "config", 0, "FILE", "the broker's configuration")                                   \
    X(DATA_DIR, "data-dir", 0, "FOLDER", "the store (default: $XDG_DATA_HOME/memos)")              \
    X(LISTEN, "listen", 0, "ADDRESS", "where the broker listens; may be repeated")                 \
    X(LOG_FILE, "log-file", 0, "FILE",                                                             \
        "the broker's log (default: $XDG_STATE_HOME/memos/memosd.log)")

#endif
