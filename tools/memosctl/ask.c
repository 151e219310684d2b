#include "tools/memosctl/ask.h"

#include "tools/memosctl/input.h"

#include <poll.h>
#include <string.h>

enum { LOOK_MS = 100, STOP_WAIT_MS = 5000, BUSY_TRIES_MAX = 60, BUSY_WAIT_MS = 50 };
enum { NAMES_BYTES_MAX = 120, FINGERPRINT_DIGITS_MIN = 8, CUBES_MAX = 1000, HITS_MAX = 1000 };

/* ---- which way ------------------------------------------------------------------------------ */

bool ctl_asks_worker(const struct ctl *ctl)
{
    return ctl_args_has(ctl->args, CTL_THROUGH) || ctl_args_has(ctl->args, CTL_MEMORY_OF);
}

static const char *first_given(const struct ctl *ctl, const enum ctl_option *options)
{
    for (; *options != CTL_NONE; options++) {
        if (ctl_args_has(ctl->args, *options)) {
            return ctl_option_info(*options)->name;
        }
    }
    return NULL;
}

enum memos_status ctl_ask_check(struct ctl *ctl, struct memos_error *err)
{
    static const enum ctl_option here[] = {
        CTL_MODEL_WEIGHTS, CTL_KV, CTL_BACKEND, CTL_THREADS, CTL_CONTEXT_TOKENS, CTL_NONE};
    static const enum ctl_option memory[] = {CTL_CUBE_OF, CTL_QUERY, CTL_NO_SEARCH, CTL_HITS,
        CTL_BUDGET, CTL_CAPTURES, CTL_INDEPENDENT, CTL_RECOMPUTE, CTL_KEEP_CAPTURE,
        CTL_KEEP_RECEIPT, CTL_WITH_TAG, CTL_ANY_SUBTYPE, CTL_BY_SPEAKER, CTL_FROM_SOURCE, CTL_SINCE,
        CTL_UNTIL, CTL_AS_OF, CTL_NONE};
    const char *name = NULL;
    if (ctl_asks_worker(ctl) && (name = first_given(ctl, here))) {
        ctl->hint = "a worker is told so when it starts: memosctl help worker start";
        return memos_fail(err, MEMOS_INVALID, "--%s is for a model in this process", name);
    } else if (!ctl_args_has(ctl->args, CTL_MEMORY_OF) && (name = first_given(ctl, memory))) {
        ctl->hint = "--space says whose memory";
        return memos_fail(err, MEMOS_INVALID, "--%s goes with --space", name);
    } else if (!ctl_asks_worker(ctl) && ctl_args_has(ctl->args, CTL_RECEIPT_TO)) {
        return memos_fail(err, MEMOS_INVALID, "--receipt goes with --space or --worker");
    }
    return MEMOS_OK;
}

/* ---- models --------------------------------------------------------------------------------- */

static bool is_named(const Memos__WorkerModel *model, const char *given)
{
    struct memos_buffer hex = memos_buffer_make(256);
    size_t size = strlen(given);
    ctl_hex_append(&hex, memos_bytes_make(model->fingerprint.data, model->fingerprint.len));
    bool is_its_print = size >= FINGERPRINT_DIGITS_MIN && size <= hex.size &&
                        strncasecmp((const char *)hex.data, given, size) == 0;
    memos_buffer_free(&hex);
    return is_its_print || strcmp(model->name, given) == 0;
}

static bool is_same(const Memos__WorkerModel *a, const Memos__WorkerModel *b)
{
    return strcmp(a->name, b->name) == 0 && a->fingerprint.len == b->fingerprint.len &&
           memcmp(a->fingerprint.data, b->fingerprint.data, a->fingerprint.len) == 0;
}

enum { MODELS_MAX = 256 };

/* Each model once. */
struct models {
    const Memos__WorkerModel *all[MODELS_MAX];
    size_t count, workers, draining;
};

static void add_model(struct models *models, const Memos__WorkerModel *model)
{
    for (size_t i = 0; i < models->count; i++) {
        if (is_same(models->all[i], model)) {
            return;
        }
    }
    if (models->count < MODELS_MAX) {
        models->all[models->count++] = model;
    }
}

static void take_models(const Memos__WorkerInfos *infos, struct models *out)
{
    *out = (struct models){.workers = infos->n_workers};
    for (size_t i = 0; i < infos->n_workers; i++) {
        const Memos__WorkerAnnounce *announced = infos->workers[i]->announced;
        out->draining += infos->workers[i]->draining;
        for (size_t k = 0; announced && !infos->workers[i]->draining && k < announced->n_models;
             k++) {
            add_model(out, announced->models[k]);
        }
    }
}

/* "a, b, c", as far as there is room. */
static void list_names(const struct models *models, char out[NAMES_BYTES_MAX])
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < models->count; i++) {
        const char *name = models->all[i]->name;
        if (used + strlen(name) + 6 > NAMES_BYTES_MAX) {
            snprintf(out + used, NAMES_BYTES_MAX - used, ", ...");
            return;
        }
        used += (size_t)snprintf(
            out + used, NAMES_BYTES_MAX - used, "%s%s", used > 0 ? ", " : "", name);
    }
}

static enum memos_status fail_none(
    struct ctl *ctl, const struct models *models, struct memos_error *err)
{
    if (models->draining > 0) {
        ctl->hint = "memosctl worker start starts another";
        return memos_fail(err, MEMOS_UNAVAILABLE,
            "no worker takes requests: %zu of %zu end when their jobs have", models->draining,
            models->workers);
    }
    ctl->hint = "memosctl worker start starts one; --model NAME says with which model, and "
                "memosctl model list shows those of this machine";
    return memos_fail(err, MEMOS_UNAVAILABLE, "no worker runs a model");
}

/* The one that is meant. */
static enum memos_status choose(struct ctl *ctl, const struct models *models, const char *given,
    const Memos__WorkerModel **out, struct memos_error *err)
{
    char names[NAMES_BYTES_MAX];
    size_t found = 0;
    list_names(models, names);
    for (size_t i = 0; i < models->count; i++) {
        if (!given || is_named(models->all[i], given)) {
            *out = models->all[i];
            found++;
        }
    }
    if (models->count == 0) {
        return fail_none(ctl, models, err);
    } else if (found == 0) {
        ctl->hint = "memosctl worker list shows all; memosctl worker start --model runs another";
        return memos_fail(
            err, MEMOS_NOT_FOUND, "no worker has the model '%.60s'; there are: %s", given, names);
    } else if (found > 1) {
        ctl->hint = "--model says which: a name, or the beginning of a fingerprint";
        return memos_fail(err, MEMOS_INVALID, "workers have %zu models%s: %s", found,
            given ? " of that name" : "", names);
    }
    return MEMOS_OK;
}

static enum memos_status keep_model(struct ctl *ctl, const Memos__WorkerModel *model,
    struct ctl_ask_model *out, struct memos_error *err)
{
    struct memos_buffer hex = memos_buffer_make(256);
    ctl_hex_append(&hex, memos_bytes_make(model->fingerprint.data, model->fingerprint.len));
    out->print = memos_arena_copy(&ctl->arena, memos_buffer_view(&hex));
    memos_buffer_free(&hex);
    out->name = memos_arena_copy(&ctl->arena, memos_bytes_of(model->name));
    out->template = memos_arena_copy(&ctl->arena, memos_bytes_of(model->template_));
    out->context = model->context;
    out->fingerprint.len = model->fingerprint.len;
    out->fingerprint.data = memos_arena_copy(
        &ctl->arena, memos_bytes_make(model->fingerprint.data, model->fingerprint.len));
    return out->name && out->template && out->fingerprint.data && out->print
               ? MEMOS_OK
               : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a model's name");
}

/* What the broker itself answers, it answers soon: only what a worker does may take long. */
static enum memos_status connect_impatient(struct ctl *ctl, struct memos_error *err)
{
    int64_t timeout_ms = ctl->timeout_ms;
    ctl->timeout_ms = timeout_ms < CTL_TIMEOUT_MS ? timeout_ms : CTL_TIMEOUT_MS;
    enum memos_status status = ctl_connect(ctl, err);
    ctl->timeout_ms = timeout_ms;
    return status;
}

enum memos_status ctl_ask_model(struct ctl *ctl, struct ctl_ask_model *out, struct memos_error *err)
{
    const char *given = ctl_args_value(ctl->args, CTL_RUN_MODEL);
    const Memos__WorkerModel *model = NULL;
    struct memos_message *reply = NULL;
    struct models models;
    Memos__Workers body = MEMOS__WORKERS__INIT;
    Memos__Request request = CTL_REQUEST(WORKERS, workers, &body);
    if (given && strchr(given, '/')) {
        ctl->hint = "memosctl worker list shows the names; worker start takes a path";
        return memos_fail(err, MEMOS_INVALID,
            "a worker's model goes by its name, not by a path as '%.80s'", given);
    }
    enum memos_status status = connect_impatient(ctl, err);
    if (status == MEMOS_OK) {
        status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_WORKER_INFOS, &reply, err);
    }
    if (status == MEMOS_OK) {
        take_models(memos_message_reply(reply)->worker_infos, &models);
        status = choose(ctl, &models, given, &model, err);
    } else if (status == MEMOS_UNAVAILABLE && !ctl->hint) {
        ctl->hint = "memosctl up starts your broker; memosctl status looks for it";
    }
    if (status == MEMOS_OK) {
        status = keep_model(ctl, model, out, err);
    }
    memos_message_free(&reply);
    return status;
}

/* ---- a request ------------------------------------------------------------------------------ */

struct wait {
    uint64_t id, losses;
    int64_t until_us; /* when nobody has said anything by then, it is over */
    bool is_told;     /* something has come */
    bool is_cancelled;
};

static int64_t now_us(const struct ctl *ctl)
{
    return ctl->clock.mono_us(ctl->clock.self);
}

/* Once: whether it arrives shows in what comes back. */
static void cancel(struct ctl *ctl, struct wait *wait)
{
    uint64_t id;
    Memos__Cancel body = MEMOS__CANCEL__INIT;
    Memos__Request request = CTL_REQUEST(CANCEL, cancel, &body);
    struct memos_error ignored;
    body.request_id = wait->id;
    (void)!memos_client_send(ctl->client, &request, NULL, 0, &id, &ignored);
    wait->is_cancelled = true;
    wait->until_us = now_us(ctl) + (int64_t)STOP_WAIT_MS * 1000;
}

/* Nothing has come for a moment: is there a reason to wait on? */
static enum memos_status look_around(struct ctl *ctl, struct wait *wait, struct memos_error *err)
{
    if (memos_client_losses(ctl->client) != wait->losses) {
        ctl->hint = "memosctl status looks for the broker; its log says why it ended";
        return memos_fail(err, MEMOS_UNAVAILABLE, "the connection to the broker was lost%s",
            wait->is_told ? " in the middle of the answer" : " before there was an answer");
    } else if (ctl_stopped() && !wait->is_cancelled) {
        cancel(ctl, wait);
    } else if (now_us(ctl) >= wait->until_us) {
        return wait->is_cancelled
                   ? memos_fail(err, MEMOS_CANCELLED, "stopped, without word of the worker")
                   : memos_fail(err, MEMOS_DEADLINE, "no answer within %lld s",
                         (long long)(ctl->timeout_ms / 1000));
    }
    return MEMOS_OK;
}

/* The next reply to this request; others are to a cancellation. */
static enum memos_status next_reply(
    struct ctl *ctl, struct wait *wait, struct memos_message **out, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    *out = NULL;
    while (status == MEMOS_OK && !*out) {
        status = memos_client_receive(ctl->client, LOOK_MS, out, err);
        uint64_t id = *out ? memos_message_reply(*out)->id : 0;
        if (status == MEMOS_DEADLINE) {
            status = look_around(ctl, wait, err);
        } else if (status == MEMOS_OK && id != wait->id && id != 0) {
            memos_message_free(out);
        } else if (status == MEMOS_OK && ctl_stopped() && !wait->is_cancelled) {
            cancel(ctl, wait);
        }
    }
    return status;
}

/* What the last reply means. */
static enum memos_status judge(struct ctl *ctl, const struct ctl_ask *ask,
    const struct memos_message *last, struct memos_error *err)
{
    const Memos__Reply *reply = memos_message_reply(last);
    bool is_known = reply->status <= INT32_MAX && memos_status_known((int)reply->status);
    if (reply->hint[0]) {
        ctl->hint = memos_arena_copy(&ctl->arena, memos_bytes_of(reply->hint));
    }
    if (reply->status != MEMOS_OK) {
        enum memos_status status = is_known ? (enum memos_status)reply->status : MEMOS_INTERNAL;
        return memos_fail(
            err, status, "%s", reply->message[0] ? reply->message : memos_status_text(status));
    } else if ((int)reply->body_case != ask->want) {
        return memos_fail(err, MEMOS_CORRUPT, "the broker's reply is of another kind (%d, not %d)",
            (int)reply->body_case, ask->want);
    }
    return MEMOS_OK;
}

static enum memos_status ask_once(struct ctl *ctl, const struct ctl_ask *ask, bool *out_told,
    struct memos_message **out, struct memos_error *err)
{
    struct wait wait = {.losses = memos_client_losses(ctl->client),
        .until_us = now_us(ctl) + ctl->timeout_ms * 1000};
    ask->request->deadline_ms = (uint32_t)ctl->timeout_ms;
    enum memos_status status =
        memos_client_send(ctl->client, ask->request, ask->frames, ask->frames_count, &wait.id, err);
    bool is_over = false;
    while (status == MEMOS_OK && !is_over) {
        status = next_reply(ctl, &wait, out, err);
        is_over = status != MEMOS_OK || !memos_message_reply(*out)->more;
        if (status == MEMOS_OK && !is_over) {
            wait.is_told = true;
            wait.until_us =
                wait.is_cancelled ? wait.until_us : now_us(ctl) + ctl->timeout_ms * 1000;
            if (ask->on_more) {
                ask->on_more(ask->self, *out);
            }
            memos_message_free(out);
        }
    }
    *out_told = wait.is_told;
    return status == MEMOS_OK ? judge(ctl, ask, *out, err) : status;
}

/* What to do, where the broker has not said so. */
static void advise(struct ctl *ctl, enum memos_status status, bool is_told)
{
    if (ctl->hint) {
        return;
    } else if (status == MEMOS_UNAVAILABLE) {
        ctl->hint = is_told
                        ? "what came before it is above; memosctl worker list shows who is left"
                        : "memosctl worker list shows the workers, memosctl worker start starts "
                          "one, memosctl up the broker";
    } else if (status == MEMOS_TOO_LARGE) {
        ctl->hint = "give a shorter text, fewer --max-tokens, or a smaller --budget of memory";
    } else if (status == MEMOS_UNSUPPORTED) {
        ctl->hint = "--template names a chat template, or --raw goes on with the text as it is";
    } else if (status == MEMOS_NO_MEMORY) {
        ctl->hint = "the worker is out of memory: ask for less, or start it with a smaller model";
    } else if (status == MEMOS_BUSY) {
        ctl->hint = "all workers are at work and others wait: ask again, or start another worker";
    }
}

enum memos_status ctl_ask_call(
    struct ctl *ctl, const struct ctl_ask *ask, struct memos_message **out, struct memos_error *err)
{
    bool is_told = false;
    *out = NULL;
    enum memos_status status = ctl_connect(ctl, err);
    if (status != MEMOS_OK) {
        return status;
    }
    ctl_catch_stops();
    for (int tries = 0;; tries++) {
        ctl->hint = NULL;
        status = ask_once(ctl, ask, &is_told, out, err);
        if (status != MEMOS_BUSY || is_told || tries == BUSY_TRIES_MAX || ctl_stopped()) {
            break;
        }
        memos_message_free(out);
        (void)poll(NULL, 0, BUSY_WAIT_MS);
    }
    advise(ctl, status, is_told);
    return status;
}

/* ---- memory --------------------------------------------------------------------------------- */

static enum memos_status take_captures(
    const struct ctl *ctl, Memos__Memory *memory, struct memos_error *err)
{
    static const char *const names[] = {"auto", "never", "always"};
    const char *given = ctl_args_value(ctl->args, CTL_CAPTURES);
    for (uint32_t i = 0; given && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(given, names[i]) == 0) {
            memory->captures = i;
            return MEMOS_OK;
        }
    }
    return given ? memos_fail(err, MEMOS_INVALID,
                       "--captures takes auto, never or always, not '%.40s'", given)
                 : MEMOS_OK;
}

enum memos_status ctl_ask_dtype(
    const struct ctl *ctl, enum ctl_option option, uint32_t *out, struct memos_error *err)
{
    static const char *const names[] = {"", "f32", "f16", "bf16", "e4m3"};
    const char *given = ctl_args_value(ctl->args, option);
    *out = 0;
    for (uint32_t i = 1; given && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(given, names[i]) == 0) {
            *out = i;
            return MEMOS_OK;
        }
    }
    return given ? memos_fail(err, MEMOS_INVALID, "--%s takes f32, f16, bf16 or e4m3, not '%.40s'",
                       ctl_option_info(option)->name, given)
                 : MEMOS_OK;
}

/* Those of --cube. */
static enum memos_status take_cubes(
    struct ctl *ctl, const char *space, Memos__Memory *memory, struct memos_error *err)
{
    size_t count = ctl_args_count(ctl->args, CTL_CUBE_OF), at = 0;
    if (count > CUBES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "--cube names at most %d cubes", CUBES_MAX);
    }
    Memos__Ref *refs = memos_arena_take(&ctl->arena, count + 1, sizeof *refs);
    memory->cubes = memos_arena_take(&ctl->arena, count + 1, sizeof *memory->cubes);
    if (!refs || !memory->cubes) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the request");
    }
    for (size_t i = 0; i < count; i++) {
        memos__ref__init(&refs[i]);
        memory->cubes[i] = &refs[i];
        enum memos_status status =
            ctl_ref_parse(ctl, space, ctl_args_next(ctl->args, CTL_CUBE_OF, &at), &refs[i], err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    memory->n_cubes = count;
    return MEMOS_OK;
}

static enum memos_status take_numbers(
    struct ctl *ctl, Memos__Memory *memory, struct memos_error *err)
{
    uint64_t hits = 0, budget = 0, recompute = 0;
    enum memos_status status = ctl_args_number(ctl->args, CTL_HITS, 0, 1, HITS_MAX, &hits, err);
    if (status == MEMOS_OK) {
        status = ctl_args_number(ctl->args, CTL_BUDGET, 0, 1, UINT32_MAX, &budget, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_args_number(ctl->args, CTL_RECOMPUTE, 0, 0, UINT32_MAX, &recompute, err);
    }
    memory->top_k = (uint32_t)hits;
    memory->budget_tokens = (uint32_t)budget;
    memory->recompute_tokens = (uint32_t)recompute;
    memory->independent = ctl_args_has(ctl->args, CTL_INDEPENDENT);
    if (status == MEMOS_OK && recompute > 0 && !memory->independent) {
        status = memos_fail(err, MEMOS_INVALID, "--recompute goes with --independent");
    }
    return status;
}

enum memos_status ctl_ask_memory(
    struct ctl *ctl, const char *space, struct ctl_ask_memory *out, struct memos_error *err)
{
    Memos__Memory *memory = &out->memory;
    *memory = (Memos__Memory)MEMOS__MEMORY__INIT;
    memory->search = space[0] && !ctl_args_has(ctl->args, CTL_NO_SEARCH);
    memory->query = ctl_field(ctl_args_value(ctl->args, CTL_QUERY));
    memory->capture = ctl_args_has(ctl->args, CTL_KEEP_CAPTURE);
    if (!memory->search && memory->query[0]) {
        return memos_fail(err, MEMOS_INVALID, "--query or --no-search: not both");
    }
    enum memos_status status = take_captures(ctl, memory, err);
    if (status == MEMOS_OK) {
        status = take_numbers(ctl, memory, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_filter_make(ctl, &out->filter, err);
        memory->filter = &out->filter;
    }
    if (status == MEMOS_OK) {
        status = ctl_as_of(ctl, &out->as_of, &memory->as_of, err);
    }
    return status == MEMOS_OK ? take_cubes(ctl, space, memory, err) : status;
}
