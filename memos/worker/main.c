/* memos-worker: host models behind a broker, as a program. Options, models, the log, signals, and
 * telling that it is ready. */
#include "memos/quantity.h"
#include "memos/service.h"
#include "memos/worker/worker.h"

#include "paramem/registry.h"
#include "proto/clock.h"
#include "proto/log.h"

#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROGRESS_US = 250000, SERVED_US_MIN = 10000000, THREADS_MAX = 1024 };

/* X(NAME, "name", "VALUE", "help") */
#define OPTION_TABLE(X)                                                                            \
    X(HELP, "help", NULL, "this text")                                                             \
    X(VERSION, "version", NULL, "the version")                                                     \
    X(MODEL, "model", "[NAME=]MODEL",                                                              \
        "a model to run: a name of `memosctl model list`, or a path with a slash; may be "         \
        "repeated")                                                                                \
    X(NAME, "name", "NAME", "of this worker, for people [host/pid]")                               \
    X(ADDRESS, "address", "ADDRESS", "of the broker [$MEMOS_ADDRESS, else the user's own]")        \
    X(SERVER_KEY, "server-key", "KEY", "the broker's public key [$MEMOS_SERVER_KEY]")              \
    X(KEY_FILE, "key-file", "FILE", "this worker's own keys [$MEMOS_KEY_FILE]")                    \
    X(BACKEND, "backend", "NAME", "what computes: auto, cuda, cpu or ref [auto]")                  \
    X(WEIGHTS, "weights", "TYPE", "in memory: f32, bf16, i8, q8_0 or q4_0 [as stored]")            \
    X(KV, "kv", "TYPE", "of keys and values: f32, f16, bf16 or e4m3 [f32 or bf16, as weights]")    \
    X(KV_MEMORY, "kv-memory", "BYTES",                                                             \
        "of keys and values of each model [what --sequences contexts need, or a quarter of what "  \
        "is free]")                                                                                \
    X(CONTEXT, "context", "N", "tokens of a context at most [the model's own]")                    \
    X(SEQUENCES, "sequences", "N", "that a model answers at once [16]")                            \
    X(JOBS, "jobs", "N", "that are taken from the broker at once [32]")                            \
    X(THREADS, "threads", "N", "that compute, of each model [all processors]")                     \
    X(FETCH_THREADS, "fetch-threads", "N", "that find and fetch memory [2]")                       \
    X(CAPTURES_MEMORY, "captures-memory", "BYTES", "of captures that are held [1G]")               \
    X(MAP_CAPTURES, "map-captures", "true|false",                                                  \
        "map files of a broker on this host instead of having them sent [true]")                   \
    X(TEMPLATE, "template", "NAME", "a chat template that wins over the models' own")              \
    X(DRAIN_TIMEOUT, "drain-timeout", "TIME", "how long SIGTERM waits for jobs [30s]")             \
    X(LOG_LEVEL, "log-level", "LEVEL", "debug, info, warning or error [info]")                     \
    X(LOG_FORMAT, "log-format", "FORMAT", "text, or json: one object a line [text]")               \
    X(READY_FD, "ready-fd", "N",                                                                   \
        "write \"loading MODEL DONE TOTAL\" lines while loading, then \"ready\", to this "         \
        "descriptor")

enum option_number {
#define X(number, name, value, help) OPTION_##number,
    OPTION_TABLE(X)
#undef X
        OPTIONS_COUNT
};

static const struct {
    const char *name, *value, *help;
} options_known[] = {
#define X(number, name, value, help) {name, value, help},
    OPTION_TABLE(X)
#undef X
};

struct arguments {
    const char *values[OPTIONS_COUNT]; /* NULL: not given */
    const char *models[WORKER_MODELS_MAX];
    size_t models_count;
};

/* What main's own functions share. */
struct program {
    struct arguments arguments;
    struct worker_host_options host; /* of every model but for name and path */
    struct worker_options worker;
    struct worker_host *hosts[WORKER_MODELS_MAX];
    struct memos_clock clock;
    const char *loading; /* the model that is */
    int64_t told_us;     /* when progress was told last */
    int ready_fd;
    int64_t served_us; /* since when it serves; 0: not yet */
};

static void print_help(void)
{
    (void)printf("usage: memos-worker --model [NAME=]MODEL [OPTION]...\n\n"
                 "Runs host models for a broker of memos, with the memory that it keeps.\n\n");
    for (size_t i = 0; i < OPTIONS_COUNT; i++) {
        char left[64];
        (void)snprintf(left, sizeof left, "--%s%s%s", options_known[i].name,
            options_known[i].value ? " " : "",
            options_known[i].value ? options_known[i].value : "");
        (void)printf("  %-28s %s\n", left, options_known[i].help);
    }
    (void)printf("\nmemos-worker(8) says more.\n");
}

/* ---- options -------------------------------------------------------------------------------- */

/* -1: go on; otherwise the exit status. */
static int arguments_read(int argc, char **argv, struct arguments *out)
{
    struct option known[OPTIONS_COUNT + 1] = {0};
    for (size_t i = 0; i < OPTIONS_COUNT; i++) {
        int has = options_known[i].value ? required_argument : no_argument;
        known[i] = (struct option){options_known[i].name, has, NULL, (int)i};
    }
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == OPTION_HELP) {
            print_help();
            return 0;
        } else if (option == OPTION_VERSION) {
            (void)printf("memos-worker %s\n", WORKER_VERSION);
            return 0;
        } else if (option == '?' ||
                   (option == OPTION_MODEL && out->models_count == WORKER_MODELS_MAX)) {
            (void)fprintf(stderr, "memos-worker: see memos-worker --help\n");
            return MEMOS_INVALID;
        } else if (option == OPTION_MODEL) {
            out->models[out->models_count++] = optarg;
        } else {
            out->values[option] = optarg;
        }
    }
    if (optind < argc || out->models_count == 0) {
        (void)fprintf(stderr, "memos-worker: %s%s%s; see memos-worker --help\n",
            optind < argc ? "'" : "--model says what it is to run",
            optind < argc ? argv[optind] : "", optind < argc ? "' is no option" : "");
        return MEMOS_INVALID;
    }
    return -1;
}

static enum memos_status fail_value(
    const struct arguments *arguments, enum option_number option, struct memos_error *err)
{
    return memos_fail(err, MEMOS_INVALID, "--%s takes %s (%s), not '%.40s'",
        options_known[option].name, options_known[option].value, options_known[option].help,
        arguments->values[option]);
}

static enum memos_status take_quantity(const struct arguments *arguments, enum option_number option,
    enum quantity kind, uint64_t most, uint64_t *out, struct memos_error *err)
{
    const char *text = arguments->values[option];
    *out = 0;
    if (text && (!quantity_parse(kind, text, out) || *out == 0 || *out > most)) {
        return fail_value(arguments, option, err);
    }
    return MEMOS_OK;
}

static enum memos_status take_numbers(struct program *program, struct memos_error *err)
{
    const struct arguments *arguments = &program->arguments;
    uint64_t numbers[8];
    const struct {
        enum option_number option;
        enum quantity kind;
        uint64_t most;
    } wanted[] = {
        {OPTION_KV_MEMORY, QUANTITY_BYTES, (uint64_t)1 << 48},
        {OPTION_CONTEXT, QUANTITY_COUNT, 1 << 24},
        {OPTION_SEQUENCES, QUANTITY_COUNT, WORKER_JOBS_MAX},
        {OPTION_THREADS, QUANTITY_COUNT, THREADS_MAX},
        {OPTION_JOBS, QUANTITY_COUNT, WORKER_JOBS_MAX},
        {OPTION_FETCH_THREADS, QUANTITY_COUNT, 16},
        {OPTION_CAPTURES_MEMORY, QUANTITY_BYTES, (uint64_t)1 << 48},
        {OPTION_DRAIN_TIMEOUT, QUANTITY_MS, (uint64_t)1 << 40},
    };
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; status == MEMOS_OK && i < sizeof wanted / sizeof wanted[0]; i++) {
        status = take_quantity(
            arguments, wanted[i].option, wanted[i].kind, wanted[i].most, &numbers[i], err);
    }
    if (status == MEMOS_OK) {
        program->host.kv_bytes = numbers[0];
        program->host.context_max = (size_t)numbers[1];
        program->host.sequences_max = (size_t)numbers[2];
        program->host.threads = (size_t)numbers[3];
        program->worker.jobs_max = (size_t)numbers[4];
        program->worker.fetch_threads = (size_t)numbers[5];
        program->worker.captures_bytes = numbers[6];
        program->worker.drain_timeout_ms = (int64_t)numbers[7];
    }
    return status;
}

/* 0 when it was not given. */
static enum memos_status take_dtype(const struct arguments *arguments, enum option_number option,
    const enum kern_dtype *known, size_t count, enum kern_dtype *out, struct memos_error *err)
{
    const char *text = arguments->values[option];
    *out = text ? kern_dtype_of(memos_bytes_of(text)) : 0;
    for (size_t i = 0; i < count && text; i++) {
        if (*out == known[i]) {
            return MEMOS_OK;
        }
    }
    return text ? fail_value(arguments, option, err) : MEMOS_OK;
}

static enum memos_status take_dtypes(struct program *program, struct memos_error *err)
{
    static const enum kern_dtype weights[] = {KERN_F32, KERN_BF16, KERN_I8, KERN_Q8_0, KERN_Q4_0};
    static const enum kern_dtype kv[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3};
    enum memos_status status = take_dtype(&program->arguments, OPTION_WEIGHTS, weights,
        sizeof weights / sizeof weights[0], &program->host.weights, err);
    return status == MEMOS_OK ? take_dtype(&program->arguments, OPTION_KV, kv,
                                    sizeof kv / sizeof kv[0], &program->host.kv, err)
                              : status;
}

static enum memos_status log_make(const struct arguments *arguments, struct memos_error *err)
{
    struct memos_log_options options = {.level = MEMOS_LOG_INFO, .format = MEMOS_LOG_TEXT};
    const char *level = arguments->values[OPTION_LOG_LEVEL];
    const char *format = arguments->values[OPTION_LOG_FORMAT];
    enum memos_status status = MEMOS_OK;
    if (level) {
        status = memos_log_level_parse(memos_bytes_of(level), &options.level, err);
    }
    if (status == MEMOS_OK && format) {
        status = memos_log_format_parse(memos_bytes_of(format), &options.format, err);
    }
    return status == MEMOS_OK ? memos_log_open(&options, err) : status;
}

static enum memos_status options_take(struct program *program, struct memos_error *err)
{
    const char *const *values = program->arguments.values;
    const char *map = values[OPTION_MAP_CAPTURES];
    program->ready_fd = -1;
    if (values[OPTION_READY_FD] && !service_fd_parse(values[OPTION_READY_FD], &program->ready_fd)) {
        return fail_value(&program->arguments, OPTION_READY_FD, err);
    } else if (map && strcmp(map, "true") != 0 && strcmp(map, "false") != 0) {
        return fail_value(&program->arguments, OPTION_MAP_CAPTURES, err);
    }
    if (fcntl(program->ready_fd, F_GETFD) < 0) {
        program->ready_fd = -1; /* told already, by the process that began anew as this one */
    }
    program->worker.maps_nothing = map && strcmp(map, "false") == 0;
    program->worker.name = values[OPTION_NAME];
    program->worker.client.address = values[OPTION_ADDRESS];
    program->worker.client.server_key = values[OPTION_SERVER_KEY];
    program->worker.client.key_file = values[OPTION_KEY_FILE];
    program->host.backend = values[OPTION_BACKEND];
    program->host.chat_template = values[OPTION_TEMPLATE];
    enum memos_status status = log_make(&program->arguments, err);
    if (status == MEMOS_OK) {
        status = take_numbers(program, err);
    }
    return status == MEMOS_OK ? take_dtypes(program, err) : status;
}

/* ---- models --------------------------------------------------------------------------------- */

/* "loading MODEL DONE TOTAL", to who started us, or to the terminal. */
static bool on_progress(void *self, uint64_t done_bytes, uint64_t total_bytes)
{
    struct program *program = self;
    int64_t now_us = program->clock.mono_us(program->clock.self);
    bool is_last = done_bytes == total_bytes;
    if (now_us - program->told_us < PROGRESS_US && !is_last) {
        return true;
    }
    program->told_us = now_us;
    if (program->ready_fd >= 0) {
        (void)dprintf(program->ready_fd, "loading %s %llu %llu\n", program->loading,
            (unsigned long long)done_bytes, (unsigned long long)total_bytes);
    } else if (isatty(STDERR_FILENO)) {
        (void)fprintf(stderr, "\rloading %s: %llu of %llu MB%s", program->loading,
            (unsigned long long)(done_bytes >> 20), (unsigned long long)(total_bytes >> 20),
            is_last ? "\n" : "");
    }
    return true;
}

/* "NAME=MODEL": a name has no slash, so that a path with '=' in it is a path. */
static enum memos_status open_host(
    struct program *program, const char *text, struct worker_host **out, struct memos_error *err)
{
    struct worker_host_options options = program->host;
    char name[PARAMEM_REGISTRY_NAME_MAX + 1];
    const char *equals = strchr(text, '='), *slash = strchr(text, '/');
    options.path = text;
    if (equals && (!slash || equals < slash)) {
        size_t size = (size_t)(equals - text);
        if (size == 0 || size >= sizeof name) {
            return memos_fail(err, MEMOS_INVALID, "--model takes %s, not '%.80s'",
                options_known[OPTION_MODEL].value, text);
        }
        memcpy(name, text, size);
        name[size] = '\0';
        options.name = name;
        options.path = equals + 1;
    }
    program->loading = options.name ? options.name : options.path;
    int64_t began_us = program->clock.mono_us(program->clock.self);
    enum memos_status status = worker_host_open(&options, on_progress, program, out, err);
    if (status == MEMOS_OK) {
        const struct worker_host *host = *out;
        memos_log(MEMOS_LOG_INFO, memos_log_event("model"), memos_log_text("name", host->name),
            memos_log_text("backend", host->backend), memos_log_text("weights", host->info.weights),
            memos_log_text("kv", kern_dtype_name(host->kv)),
            memos_log_uint("context", paramem_engine_context(host->engine)),
            memos_log_text("template", host->chat ? paramem_chat_name(host->chat) : "none"),
            memos_log_int(
                "load_ms", (program->clock.mono_us(program->clock.self) - began_us) / 1000));
    }
    return status;
}

static enum memos_status open_hosts(struct program *program, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    struct worker_host **hosts = program->hosts;
    for (size_t i = 0; status == MEMOS_OK && i < program->arguments.models_count; i++) {
        status = open_host(program, program->arguments.models[i], &hosts[i], err);
        for (size_t j = 0; status == MEMOS_OK && j < i; j++) {
            if (strcmp(hosts[i]->name, hosts[j]->name) == 0) {
                status = memos_fail(err, MEMOS_INVALID,
                    "two models are named '%.80s': --model NAME=%.80s gives one another name",
                    hosts[i]->name, program->arguments.models[i]);
            }
        }
    }
    return status;
}

/* ---- the run -------------------------------------------------------------------------------- */

static void on_ready(void *self)
{
    struct program *program = self;
    program->served_us = program->clock.mono_us(program->clock.self);
    service_ready(program->ready_fd);
    program->ready_fd = -1;
}

static enum memos_status serve(struct program *program, struct memos_error *err)
{
    struct worker *worker = NULL;
    program->worker.signal_fd = service_signals();
    program->worker.hosts = program->hosts;
    program->worker.hosts_count = program->arguments.models_count;
    program->worker.on_ready = on_ready;
    program->worker.self = program;
    enum memos_status status = open_hosts(program, err);
    if (status == MEMOS_OK) {
        status = worker_create(&program->worker, &worker, err);
    }
    if (status == MEMOS_OK) {
        status = worker_run(worker, err);
        service_notify("STOPPING=1\n");
    }
    worker_destroy(&worker);
    for (size_t i = 0; i < program->arguments.models_count; i++) {
        worker_host_close(&program->hosts[i]);
    }
    return status;
}

/* A device that failed does not come back to a process that used it (kern_reset says when): begin
 * anew as another one, unless it fails at once. Returns only when that cannot be. */
static void begin_anew(const struct program *program, char **argv)
{
    int64_t now_us = program->clock.mono_us(program->clock.self);
    if (program->served_us > 0 && now_us - program->served_us > SERVED_US_MIN) {
        memos_log(MEMOS_LOG_WARNING, memos_log_event("a device failed: beginning anew"));
        (void)execv("/proc/self/exe", argv);
    }
}

int main(int argc, char **argv)
{
    struct program program = {.clock = memos_clock_system(), .ready_fd = -1};
    struct memos_error err = {0};
    (void)pthread_setname_np(pthread_self(), "memos-worker"); /* also when begun anew */
    int rc = arguments_read(argc, argv, &program.arguments);
    if (rc >= 0) {
        return rc;
    }
    enum memos_status status = options_take(&program, &err);
    if (status == MEMOS_OK) {
        status = serve(&program, &err);
    }
    if (status == MEMOS_IO) {
        begin_anew(&program, argv);
    }
    return status == MEMOS_OK ? 0 : service_fail("memos-worker", &err);
}
