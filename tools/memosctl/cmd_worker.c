/* Workers: started and ended on this machine, listed and drained wherever they are. */
#include "tools/memosctl/ask.h"
#include "tools/memosctl/host.h"
#include "tools/memosctl/launch.h"
#include "tools/memosctl/text.h"
#include "tools/memosctl/workers.h"

#include "paramem/registry.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { STOP_WAIT_MS = 10000, NAME_BYTES = 128, SILENT_MS = 3000, MODELS_MAX = 16 };

/* ---- start ---------------------------------------------------------------------------------- */

/* A worker without a broker would wait for one: better to say so. */
static enum memos_status find_broker(struct ctl *ctl, struct memos_error *err)
{
    Memos__Hello hello = MEMOS__HELLO__INIT;
    Memos__Request request = CTL_REQUEST(HELLO, hello, &hello);
    struct memos_message *reply = NULL;
    int64_t timeout_ms = ctl->timeout_ms;
    ctl->timeout_ms = CTL_TIMEOUT_MS;
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_WELCOME, &reply, err);
    ctl->timeout_ms = timeout_ms;
    if (status == MEMOS_UNAVAILABLE || status == MEMOS_NOT_FOUND) {
        ctl->hint = "a worker serves a broker: memosctl up starts one";
    }
    memos_message_free(&reply);
    return status;
}

/* The models that are meant: their names or paths, and what the first is called. */
struct wanted {
    const char *models[MODELS_MAX];
    size_t count;
    char only[PATH_MAX];
    const char *name;
};

/* What a model is called when nobody says: the name before '=', or the last part of its path. */
static const char *name_of(struct ctl *ctl, const char *given)
{
    const char *equals = strchr(given, '=');
    if (equals && equals > given) {
        return memos_arena_copy(&ctl->arena, memos_bytes_make(given, (size_t)(equals - given)));
    }
    return ctl_registry_name_of(&ctl->arena, given, ".gguf");
}

static enum memos_status take_models(struct ctl *ctl, struct wanted *out, struct memos_error *err)
{
    size_t at = 0;
    const char *given;
    char path[PATH_MAX];
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && (given = ctl_args_next(ctl->args, CTL_WORKER_MODEL, &at))) {
        const char *equals = strchr(given, '=');
        if (out->count == MODELS_MAX) {
            return memos_fail(err, MEMOS_INVALID, "a worker runs at most %d models", MODELS_MAX);
        }
        out->models[out->count++] = given;
        status = paramem_registry_find(NULL, equals ? equals + 1 : given, path, err);
        if (status == MEMOS_NOT_FOUND) {
            ctl->hint = "memosctl model list shows those that were added; a path has a slash";
        }
    }
    if (status == MEMOS_OK && out->count == 0) {
        status = ctl_host_path(ctl, out->only, err);
        out->models[out->count++] = out->only;
    }
    if (status == MEMOS_OK) {
        out->name = name_of(ctl, out->models[0]);
    }
    return status;
}

static bool is_taken(const struct ctl_worker *workers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(workers[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* What --name says, or as its model is called, with a number when there is one of that name. */
static enum memos_status take_name(
    struct ctl *ctl, const char *model, char out[NAME_BYTES], struct memos_error *err)
{
    struct ctl_worker *workers = NULL;
    size_t count = 0;
    const char *given = ctl_args_value(ctl->args, CTL_WORKER_NAME);
    enum memos_status status = ctl_workers_kept(ctl, NULL, &workers, &count, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (given && (!given[0] || strlen(given) >= NAME_BYTES)) {
        return memos_fail(err, MEMOS_INVALID, "a worker's name has 1 to %d bytes", NAME_BYTES - 1);
    } else if (given && is_taken(workers, count, given)) {
        ctl->hint = "memosctl worker list shows it, memosctl worker stop ends it";
        return memos_fail(err, MEMOS_EXISTS, "the worker '%.60s' runs already", given);
    }
    snprintf(out, NAME_BYTES, "%.100s", given ? given : model);
    for (unsigned number = 2; !given && is_taken(workers, count, out); number++) {
        snprintf(out, NAME_BYTES, "%.100s-%u", model, number);
    }
    return MEMOS_OK;
}

static void add_arguments(
    const struct ctl *ctl, const struct wanted *wanted, const char *name, struct ctl_launch *launch)
{
    static const enum ctl_option same[] = {CTL_SERVER_KEY, CTL_KEY_FILE, CTL_MODEL_WEIGHTS, CTL_KV,
        CTL_BACKEND, CTL_THREADS, CTL_CONTEXT_TOKENS, CTL_TEMPLATE};
    static const char *const names[] = {"--server-key", "--key-file", "--weights", "--kv",
        "--backend", "--threads", "--context", "--template"};
    for (size_t i = 0; i < wanted->count; i++) {
        ctl_launch_add(launch, "--model", wanted->models[i]);
    }
    ctl_launch_add(launch, "--name", name);
    ctl_launch_add(launch, "--address", ctl_args_value(ctl->args, CTL_ADDRESS));
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        ctl_launch_add(launch, names[i], ctl_args_value(ctl->args, same[i]));
    }
}

/* This process becomes the worker: its log is standard error, Ctrl-C ends it. */
static enum memos_status become(struct ctl *ctl, struct ctl_launch *launch, struct memos_error *err)
{
    memmove(launch->arguments + 1, launch->arguments + 3, /* without --ready-fd */
        (launch->arguments_count - 3) * sizeof launch->arguments[0]);
    launch->arguments[launch->arguments_count - 2] = NULL;
    memos_client_close(&ctl->client);
    fflush(stdout);
    (void)execvp(launch->program, (char *const *)(uintptr_t)launch->arguments);
    return memos_fail_errno(err, errno, "cannot run '%.100s'", launch->program);
}

static enum memos_status print_started(struct ctl *ctl, const struct wanted *wanted,
    const struct ctl_worker *worker, struct memos_error *err)
{
    if (ctl->json) {
        json_t *models = json_array();
        for (size_t i = 0; i < wanted->count; i++) {
            (void)json_array_append_new(models, ctl_json_string(wanted->models[i]));
        }
        return ctl_json_print(
            json_pack("{so,sI,so,so,so}", "name", ctl_json_string(worker->name), "pid",
                (json_int_t)worker->pid, "models", models, "address",
                ctl_json_string(worker->address), "log", ctl_json_string(worker->log)),
            err);
    }
    printf("%sworker %s is running%s\n", ctl_style_on(&ctl->paper, CTL_GREEN), worker->name,
        ctl_style_off(&ctl->paper));
    for (size_t i = 0; i < wanted->count; i++) {
        ctl_paper_field(&ctl->paper, "model", memos_bytes_of(wanted->models[i]));
    }
    ctl_paper_fieldf(&ctl->paper, "process", "%ld", (long)worker->pid);
    ctl_paper_field(&ctl->paper, "log", memos_bytes_of(worker->log));
    return MEMOS_OK;
}

static enum memos_status start(struct ctl *ctl, struct ctl_launch *launch,
    const struct wanted *wanted, const char *name, struct memos_error *err)
{
    char file[NAME_BYTES + 16], address[512];
    snprintf(file, sizeof file, "worker-%s.log", name);
    for (char *at = file; *at; at++) {
        *at = *at == '/' ? '_' : *at;
    }
    enum memos_status status = ctl_log_path(ctl, CTL_WORKER_LOG, file, launch->log, err);
    if (status == MEMOS_OK) {
        status = ctl_broker_address(ctl, address, sizeof address, err);
    }
    if (status == MEMOS_OK) {
        ctl_catch_stops();
        status = ctl_launch_start(ctl, launch, err);
    }
    struct ctl_worker worker = {
        .pid = launch->pid, .name = name, .address = address, .log = launch->log};
    if (status == MEMOS_OK) {
        status = ctl_worker_keep(ctl, &worker, err);
    }
    return status == MEMOS_OK ? print_started(ctl, wanted, &worker, err) : status;
}

enum memos_status ctl_run_worker_start(struct ctl *ctl, struct memos_error *err)
{
    struct wanted wanted = {.count = 0};
    struct ctl_launch launch;
    char name[NAME_BYTES];
    ctl_launch_init(&launch, CTL_WORKER_PROGRAM, "worker");
    enum memos_status status = take_models(ctl, &wanted, err);
    if (status == MEMOS_OK) {
        status = take_name(ctl, wanted.name, name, err);
    }
    if (status == MEMOS_OK) {
        status = find_broker(ctl, err);
    }
    if (status == MEMOS_OK) {
        add_arguments(ctl, &wanted, name, &launch);
        ctl_launch_find(ctl, CTL_WORKER_PROGRAM_AT, &launch);
        status = ctl_args_has(ctl->args, CTL_FOREGROUND) ? become(ctl, &launch, err)
                                                         : start(ctl, &launch, &wanted, name, err);
    }
    ctl_launch_finish(&launch);
    return status;
}

/* ---- list ----------------------------------------------------------------------------------- */

static const char *state_of(const Memos__WorkerInfo *info)
{
    return info->draining               ? "draining"
           : info->quiet_ms > SILENT_MS ? "silent"
           : info->jobs_running > 0     ? "busy"
                                        : "idle";
}

static json_t *model_json(const Memos__WorkerModel *model)
{
    return json_pack("{so,so,so,so,so,so,so,sI,sI,sI}", "name", ctl_json_string(model->name),
        "fingerprint", ctl_json_hex(model->fingerprint), "architecture",
        ctl_json_string(model->architecture), "weights", ctl_json_string(model->weights), "kv",
        ctl_json_string(model->kv), "backend", ctl_json_string(model->backend), "chat_template",
        model->template_[0] ? ctl_json_string(model->template_) : json_null(), "context",
        (json_int_t)model->context, "parameters", (json_int_t)model->parameters, "memory_bytes",
        (json_int_t)model->memory_bytes);
}

static json_t *strings_json(char *const *texts, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(array, ctl_json_string(texts[i]));
    }
    return array;
}

static json_t *last_json(const Memos__WorkerHeartbeat *last)
{
    if (!last) {
        return json_null();
    }
    return json_pack("{sI,sI,sI,sI,sI,sI,sI,sI,sI,sI,sI,so}", "running", (json_int_t)last->running,
        "waiting", (json_int_t)last->waiting, "steps", (json_int_t)last->steps, "prompt_tokens",
        (json_int_t)last->prompt_tokens, "cached_tokens", (json_int_t)last->cached_tokens, "tokens",
        (json_int_t)last->tokens, "pages_total", (json_int_t)last->pages_total, "pages_used",
        (json_int_t)last->pages_used, "captures_loaded", (json_int_t)last->captures_loaded,
        "captures_bytes", (json_int_t)last->captures_bytes, "fetched_bytes",
        (json_int_t)last->fetched_bytes, "warm", strings_json(last->warm, last->n_warm));
}

static json_t *worker_json(const Memos__WorkerInfo *info)
{
    const Memos__WorkerAnnounce none = MEMOS__WORKER_ANNOUNCE__INIT;
    const Memos__WorkerAnnounce *announced = info->announced ? info->announced : &none;
    json_t *models = json_array();
    for (size_t i = 0; i < announced->n_models; i++) {
        (void)json_array_append_new(models, model_json(announced->models[i]));
    }
    return json_pack("{so,so,so,ss,so,so,sI,sI,sI,sI,so,sI,so}", "id", ctl_json_hex(info->id),
        "name", ctl_json_string(announced->name), "version", ctl_json_string(announced->version),
        "state", state_of(info), "models", models, "memory",
        strings_json(announced->kinds, announced->n_kinds), "jobs_max",
        (json_int_t)announced->jobs_max, "jobs_running", (json_int_t)info->jobs_running,
        "jobs_done", (json_int_t)info->jobs_done, "jobs_failed", (json_int_t)info->jobs_failed,
        "since", ctl_json_time(info->since_us), "quiet_ms", (json_int_t)info->quiet_ms, "last",
        last_json(info->last));
}

static const struct ctl_column columns[] = {
    {"NAME", false, false},
    {"MODELS", false, true},
    {"STATE", false, false},
    {"JOBS", true, false},
    {"DONE", true, false},
    {"FAILED", true, false},
    {"TOKENS", true, false},
    {"CAPTURES", true, false},
    {"QUIET", true, false},
};

static void add_row(struct ctl_table *table, const Memos__WorkerInfo *info)
{
    const Memos__WorkerAnnounce none = MEMOS__WORKER_ANNOUNCE__INIT;
    const Memos__WorkerHeartbeat no_last = MEMOS__WORKER_HEARTBEAT__INIT;
    const Memos__WorkerAnnounce *announced = info->announced ? info->announced : &none;
    const Memos__WorkerHeartbeat *last = info->last ? info->last : &no_last;
    const char *state = state_of(info);
    char size[16];
    struct memos_buffer models = memos_buffer_make(4096);
    for (size_t i = 0; i < announced->n_models; i++) {
        const Memos__WorkerModel *model = announced->models[i];
        memos_buffer_printf(
            &models, "%s%.100s (%.20s)", i ? ", " : "", model->name, model->backend);
    }
    ctl_table_cell(table, CTL_YELLOW, memos_bytes_of(announced->name));
    ctl_table_cell(table, CTL_PLAIN, memos_buffer_view(&models));
    ctl_table_cell(
        table, strcmp(state, "silent") == 0 ? CTL_RED : CTL_GREEN, memos_bytes_of(state));
    ctl_table_printf(
        table, CTL_PLAIN, "%llu/%u", (unsigned long long)info->jobs_running, announced->jobs_max);
    ctl_table_printf(table, CTL_PLAIN, "%llu", (unsigned long long)info->jobs_done);
    ctl_table_printf(table, CTL_PLAIN, "%llu", (unsigned long long)info->jobs_failed);
    ctl_table_printf(table, CTL_PLAIN, "%llu", (unsigned long long)last->tokens);
    ctl_table_printf(table, CTL_PLAIN, "%llu, %s", (unsigned long long)last->captures_loaded,
        ctl_text_size(last->captures_bytes, size));
    ctl_table_printf(table, CTL_DIM, "%.1fs", (double)info->quiet_ms / 1e3);
    memos_buffer_free(&models);
}

static enum memos_status ask_workers(
    struct ctl *ctl, struct memos_message **out, struct memos_error *err)
{
    Memos__Workers body = MEMOS__WORKERS__INIT;
    Memos__Request request = CTL_REQUEST(WORKERS, workers, &body);
    return ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_WORKER_INFOS, out, err);
}

static enum memos_status print_workers(
    struct ctl *ctl, const Memos__WorkerInfos *infos, struct memos_error *err)
{
    struct ctl_table table = ctl_table_make(columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < infos->n_workers; i++) {
        add_row(&table, infos->workers[i]);
    }
    enum memos_status status = ctl_table_print(&table, &ctl->paper, err);
    ctl_table_free(&table);
    if (infos->n_workers == 0) {
        ctl_note(ctl, "no worker is there; memosctl worker start starts one");
    }
    if (infos->jobs_waiting > 0) {
        ctl_note(ctl, "%llu jobs wait for a worker", (unsigned long long)infos->jobs_waiting);
    }
    return status;
}

enum memos_status ctl_run_worker_list(struct ctl *ctl, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    enum memos_status status = ask_workers(ctl, &reply, err);
    const Memos__WorkerInfos *infos =
        status == MEMOS_OK ? memos_message_reply(reply)->worker_infos : NULL;
    if (infos && ctl->json) {
        json_t *workers = json_array();
        for (size_t i = 0; i < infos->n_workers; i++) {
            (void)json_array_append_new(workers, worker_json(infos->workers[i]));
        }
        status = ctl_json_print(json_pack("{so,sI}", "workers", workers, "jobs_waiting",
                                    (json_int_t)infos->jobs_waiting),
            err);
    } else if (infos) {
        status = print_workers(ctl, infos, err);
    }
    memos_message_free(&reply);
    return status;
}

/* ---- drain and stop ------------------------------------------------------------------------- */

static bool is_meant(const Memos__WorkerInfo *info, const char *given)
{
    struct memos_buffer hex = memos_buffer_make(256);
    size_t size = strlen(given);
    ctl_hex_append(&hex, memos_bytes_make(info->id.data, info->id.len));
    bool is_its_id =
        size >= 4 && size <= hex.size && strncasecmp((const char *)hex.data, given, size) == 0;
    memos_buffer_free(&hex);
    return is_its_id || (info->announced && strcmp(info->announced->name, given) == 0);
}

/* The id of the one worker that a name or the beginning of an id means; views infos. */
static enum memos_status find_worker(struct ctl *ctl, const Memos__WorkerInfos *infos,
    const char *given, ProtobufCBinaryData *out, struct memos_error *err)
{
    size_t found = 0;
    for (size_t i = 0; i < infos->n_workers; i++) {
        if (is_meant(infos->workers[i], given)) {
            *out = infos->workers[i]->id;
            found++;
        }
    }
    if (found == 1) {
        return MEMOS_OK;
    }
    ctl->hint = found > 1 ? "give an id: memosctl worker list --json shows them"
                          : "memosctl worker list shows those that there are";
    return found > 1
               ? memos_fail(err, MEMOS_CONFLICT, "%zu workers are called '%.60s'", found, given)
               : memos_fail(err, MEMOS_NOT_FOUND, "there is no worker '%.60s'", given);
}

enum memos_status ctl_run_worker_drain(struct ctl *ctl, struct memos_error *err)
{
    struct memos_message *workers = NULL, *reply = NULL;
    Memos__WorkerDrain body = MEMOS__WORKER_DRAIN__INIT;
    Memos__Request request = CTL_REQUEST(WORKER_DRAIN, worker_drain, &body);
    enum memos_status status = ask_workers(ctl, &workers, err);
    if (status == MEMOS_OK) {
        status = find_worker(
            ctl, memos_message_reply(workers)->worker_infos, ctl_operand(ctl, 0), &body.id, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_call(ctl, &request, NULL, 0, CTL_ANY_BODY, &reply, err);
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(json_pack("{so,so}", "id", ctl_json_hex(body.id), "name",
                                    ctl_json_string(ctl_operand(ctl, 0))),
            err);
    } else if (status == MEMOS_OK) {
        printf("%s takes no more jobs, and ends when those that it has are done\n",
            ctl_operand(ctl, 0));
    }
    memos_message_free(&reply);
    memos_message_free(&workers);
    return status;
}

/* Which of those that were started here are meant: the named one, the only one, or all. */
static enum memos_status choose_to_stop(
    struct ctl *ctl, struct ctl_worker **workers, size_t *count, struct memos_error *err)
{
    const char *given = ctl_operand(ctl, 0);
    size_t found = 0;
    for (size_t i = 0; given && i < *count; i++) {
        if (strcmp((*workers)[i].name, given) == 0) {
            (*workers)[found++] = (*workers)[i];
        }
    }
    if (given && found == 0) {
        ctl->hint = "memosctl worker drain ends one that was started otherwise, or elsewhere";
        return memos_fail(err, MEMOS_NOT_FOUND,
            "no worker '%.60s' was started here with memosctl worker start", given);
    } else if (!given && *count > 1 && !ctl_args_has(ctl->args, CTL_ALL)) {
        ctl->hint = "name one, or --all; memosctl worker list shows them";
        return memos_fail(err, MEMOS_INVALID, "%zu workers run here", *count);
    }
    *count = given ? found : *count;
    return MEMOS_OK;
}

enum memos_status ctl_run_worker_stop(struct ctl *ctl, struct memos_error *err)
{
    char address[512];
    struct ctl_worker *workers = NULL;
    size_t count = 0;
    int64_t wait_ms = ctl_args_has(ctl->args, CTL_TIMEOUT) ? ctl->timeout_ms : STOP_WAIT_MS;
    enum memos_status status = ctl_broker_address(ctl, address, sizeof address, err);
    if (status == MEMOS_OK) {
        status = ctl_workers_kept(ctl, address, &workers, &count, err);
    }
    if (status == MEMOS_OK) {
        status = choose_to_stop(ctl, &workers, &count, err);
    }
    json_t *names = json_array();
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = ctl_worker_end(&workers[i], wait_ms, err);
        if (status == MEMOS_OK && !ctl->json) {
            printf("stopped %s\n", workers[i].name);
        }
        (void)json_array_append_new(names, ctl_json_string(workers[i].name));
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(json_pack("{sO}", "stopped", names), err);
    } else if (status == MEMOS_OK && count == 0) {
        puts("nothing was running");
    }
    json_decref(names);
    return status;
}
