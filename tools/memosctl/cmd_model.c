/* Host models of this machine: no broker is asked. */
#include "paramem/chat.h"
#include "paramem/registry.h"
#include "tools/memosctl/host.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/text.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 1024 };

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* ---- add ------------------------------------------------------------------------------------ */

/* Its configuration and its tokenizer: what can be seen without its weights. */
static enum memos_status look(
    const char *path, struct paramem_model_summary *out, struct memos_error *err)
{
    struct paramem_tokenizer *tokenizer = NULL;
    enum memos_status status = paramem_model_inspect(path, out, err);
    if (status == MEMOS_OK) {
        status = ctl_host_tokenizer(path, &tokenizer, err);
    }
    paramem_tokenizer_close(&tokenizer);
    return status;
}

/* What is copied of a folder: what says how the model is, its tensors, and whose it is. */
static bool is_of_model(const char *name)
{
    static const char *const endings[] = {".json", ".safetensors", ".jinja", ".txt", ".md"};
    size_t size = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t end = strlen(endings[i]);
        if (size > end && strcmp(name + size - end, endings[i]) == 0) {
            return true;
        }
    }
    return strcmp(name, "tokenizer.model") == 0 || strncmp(name, "LICENSE", 7) == 0;
}

static enum memos_status list_files(struct ctl *ctl, const char *path,
    struct ctl_registry_file *files, size_t *out_count, struct memos_error *err)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;
    size_t count = 0;
    enum memos_status status = MEMOS_OK;
    while (folder && status == MEMOS_OK && (entry = readdir(folder))) {
        if (entry->d_name[0] == '.' || !is_of_model(entry->d_name)) {
            continue;
        } else if (count == FILES_MAX) {
            status = memos_fail(
                err, MEMOS_TOO_LARGE, "more than %d files of a model in '%.120s'", FILES_MAX, path);
        } else {
            const char *name = memos_arena_copy(&ctl->arena, memos_bytes_of(entry->d_name));
            files[count++] = (struct ctl_registry_file){name ? name : "", true};
        }
    }
    if (folder) {
        closedir(folder);
    }
    *out_count = count;
    if (status == MEMOS_OK && count == 0) {
        status = memos_fail(err, MEMOS_NOT_FOUND, "no files of a model in '%.140s'", path);
    }
    return status;
}

/* A copy of a folder, or of one file, under a name. */
static enum memos_status copy(struct ctl *ctl, const struct ctl_registry *registry,
    const char *name, const char *from, struct memos_error *err)
{
    struct ctl_registry_file *files = memos_arena_take(&ctl->arena, FILES_MAX, sizeof *files);
    struct ctl_registry_folder folder;
    char parent[PATH_MAX], *last = NULL;
    size_t count = 1;
    if (!files) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the names of files");
    }
    snprintf(parent, sizeof parent, "%s", from);
    enum memos_status status = ctl_registry_begin(registry, &folder, err);
    if (status == MEMOS_OK && is_folder(from)) {
        status = list_files(ctl, from, files, &count, err);
    } else if (status == MEMOS_OK) {
        last = strrchr(parent, '/'); /* there is one: the path is absolute */
        *last++ = '\0';
        files[0] = (struct ctl_registry_file){last, true};
    }
    if (status == MEMOS_OK) {
        status = ctl_registry_copy(parent, files, count, &folder, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_registry_commit(registry, name, last, &folder, err);
    }
    ctl_registry_abort(&folder);
    return status;
}

static enum memos_status print_added(struct ctl *ctl, const char *name, const char *path,
    bool is_copy, const struct paramem_model_summary *summary, struct memos_error *err)
{
    char size[16];
    if (ctl->json) {
        return ctl_json_print(
            json_pack("{so,so,sb,ss,sI,sI}", "name", ctl_json_string(name), "path",
                ctl_json_string(path), "copy", (int)is_copy, "architecture", summary->architecture,
                "parameters", (json_int_t)summary->parameters, "bytes",
                (json_int_t)summary->file_bytes),
            err);
    }
    printf("%sadded%s: %s, %s, %s%s\n", ctl_style_on(&ctl->paper, CTL_GREEN),
        ctl_style_off(&ctl->paper), name, summary->architecture,
        ctl_text_size(summary->file_bytes, size), is_copy ? ", copied" : "");
    return MEMOS_OK;
}

enum memos_status ctl_run_model_add(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_registry registry;
    struct paramem_model_summary summary;
    char path[PATH_MAX];
    const char *from = ctl_operand(ctl, 0), *name = ctl_args_value(ctl->args, CTL_MODEL_NAME);
    bool is_copy = ctl_args_has(ctl->args, CTL_COPY);

    name = name ? name : ctl_registry_name_of(&ctl->arena, from, ".gguf");
    enum memos_status status = ctl_host_registry(&registry, err);
    if (status == MEMOS_OK) {
        status = ctl_registry_free(&registry, name, err);
    }
    if (status == MEMOS_OK && !realpath(from, path)) {
        status = memos_fail(err, MEMOS_NOT_FOUND, "there is no '%.160s'", from);
    }
    if (status == MEMOS_OK) {
        status = look(path, &summary, err);
    }
    if (status == MEMOS_OK) {
        status = is_copy ? copy(ctl, &registry, name, path, err)
                         : ctl_registry_link(&registry, name, path, err);
    }
    if (status == MEMOS_EXISTS) {
        ctl->hint = "give another --name, or remove it first: memosctl model remove";
    }
    ctl_host_advise(ctl, status);
    return status == MEMOS_OK ? print_added(ctl, name, path, is_copy, &summary, err) : status;
}

/* ---- list and remove ------------------------------------------------------------------------ */

/* One model of the list; why is what is wrong with it, unless status is OK. */
struct listed {
    enum memos_status status;
    char path[PATH_MAX];
    struct paramem_model_summary summary;
    struct memos_error why;
    bool is_link;
};

static void look_at(const struct ctl_registry *registry, const char *name, struct listed *out)
{
    char place[PATH_MAX];
    struct stat info;
    *out = (struct listed){0};
    out->status = paramem_registry_place(registry->path, name, place, &out->why);
    out->is_link = out->status == MEMOS_OK && lstat(place, &info) == 0 && S_ISLNK(info.st_mode);
    if (out->status == MEMOS_OK) {
        out->status = paramem_registry_find(registry->path, name, out->path, &out->why);
    }
    if (out->status == MEMOS_OK) {
        out->status = paramem_model_inspect(out->path, &out->summary, &out->why);
    }
}

static json_t *listed_json(const char *name, const struct listed *model)
{
    const struct paramem_model_summary *s = &model->summary;
    return json_pack("{so,so,sb,ss,ss,ss,sI,sI,sI,so}", "name", ctl_json_string(name), "path",
        ctl_json_string(model->path), "copy", (int)!model->is_link, "architecture", s->architecture,
        "format", s->format, "weights", s->weights, "parameters", (json_int_t)s->parameters,
        "bytes", (json_int_t)s->file_bytes, "context", (json_int_t)s->config.positions_max, "error",
        model->status == MEMOS_OK ? json_null() : ctl_json_string(model->why.text));
}

static void listed_row(struct ctl_table *table, const char *name, const struct listed *model)
{
    const struct paramem_model_summary *s = &model->summary;
    char size[16];
    ctl_table_cell(table, CTL_BOLD, memos_bytes_of(name));
    if (model->status != MEMOS_OK) {
        for (int i = 0; i < 4; i++) {
            ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(""));
        }
        ctl_table_cell(table, CTL_RED, memos_bytes_of(model->why.text));
        return;
    }
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(ctl_text_size(s->file_bytes, size)));
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(s->architecture));
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(s->weights));
    ctl_table_printf(table, CTL_PLAIN, "%zu", s->config.positions_max);
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(model->path));
}

enum memos_status ctl_run_model_list(struct ctl *ctl, struct memos_error *err)
{
    static const struct ctl_column columns[] = {{"NAME", false, false}, {"SIZE", true, false},
        {"ARCHITECTURE", false, false}, {"WEIGHTS", false, false}, {"CONTEXT", true, false},
        {"WHERE", false, true}};
    struct ctl_registry registry;
    struct ctl_table table = ctl_table_make(columns, sizeof columns / sizeof columns[0]);
    char **names = NULL;
    size_t count = 0;
    json_t *items = json_array();
    enum memos_status status = ctl_host_registry(&registry, err);
    if (status == MEMOS_OK) {
        status = ctl_registry_list(&registry, &ctl->arena, &names, &count, err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        struct listed model;
        look_at(&registry, names[i], &model);
        if (ctl->json) {
            (void)json_array_append_new(items, listed_json(names[i], &model));
        } else {
            listed_row(&table, names[i], &model);
        }
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(
            json_pack("{so,sO}", "registry", ctl_json_string(registry.path), "models", items), err);
    } else if (status == MEMOS_OK) {
        status = ctl_table_print(&table, &ctl->paper, err);
    }
    if (status == MEMOS_OK && count == 0) {
        ctl_note(ctl, "`memosctl model add PATH` gives a model a name");
    }
    json_decref(items);
    ctl_table_free(&table);
    return status;
}

enum memos_status ctl_run_model_remove(struct ctl *ctl, struct memos_error *err)
{
    struct ctl_registry registry;
    const char *name = ctl_operand(ctl, 0);
    enum memos_status status = ctl_host_registry(&registry, err);
    if (status == MEMOS_OK) {
        status = ctl_registry_remove(&registry, name, err);
    }
    if (status == MEMOS_NOT_FOUND) {
        ctl->hint = "memosctl model list shows those that there are";
    } else if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(json_pack("{so}", "removed", ctl_json_string(name)), err);
    } else if (status == MEMOS_OK) {
        puts("removed");
    }
    return status;
}

/* ---- show ----------------------------------------------------------------------------------- */

struct shown {
    char path[PATH_MAX], chat[64];
    struct paramem_model_summary summary;
    struct paramem_tokenizer_info tokenizer;
    uint8_t fingerprint[32];
};

static const enum kern_dtype weights_known[] = {KERN_F32, KERN_BF16, KERN_I8, KERN_Q8_0, KERN_Q4_0};
static const enum kern_dtype kv_known[] = {KERN_F32, KERN_BF16, KERN_E4M3};

/* The name of the chat template that a model has. */
static void name_chat(struct shown *out)
{
    struct paramem_chat *chat = NULL;
    const char *known = "none";
    if (out->tokenizer.chat_template) {
        known =
            paramem_chat_open(NULL, out->tokenizer.chat_template, "", "", &chat, NULL) == MEMOS_OK
                ? paramem_chat_name(chat)
                : "not known";
    }
    snprintf(out->chat, sizeof out->chat, "%s", known);
    paramem_chat_close(&chat);
}

static bool on_hashed(void *self, uint64_t done_bytes, uint64_t total_bytes)
{
    ctl_progress(self, "reading, MB", done_bytes >> 20, total_bytes >> 20);
    return !ctl_stopped();
}

static const char *scaling_name(enum paramem_rope_scaling scaling)
{
    static const char *const names[] = {
        [PARAMEM_ROPE_DEFAULT] = "none",
        [PARAMEM_ROPE_LINEAR] = "linear",
        [PARAMEM_ROPE_DYNAMIC] = "dynamic",
        [PARAMEM_ROPE_LLAMA3] = "llama3",
        [PARAMEM_ROPE_YARN] = "yarn",
    };
    return names[scaling];
}

static enum kern_dtype stored_dtype(const struct paramem_model_summary *summary)
{
    enum kern_dtype stored = kern_dtype_of(memos_bytes_of(summary->weights));
    return stored ? stored : KERN_F32;
}

static enum memos_status shown_json(const struct shown *shown, struct memos_error *err)
{
    const struct paramem_model_summary *s = &shown->summary;
    const struct paramem_decoder_config *c = &s->config;
    json_t *weights = json_object(), *kv = json_object();
    for (size_t i = 0; i < sizeof weights_known / sizeof weights_known[0]; i++) {
        (void)json_object_set_new(weights, kern_dtype_name(weights_known[i]),
            json_integer((json_int_t)ctl_host_weight_bytes(c, stored_dtype(s), weights_known[i])));
    }
    for (size_t i = 0; i < sizeof kv_known / sizeof kv_known[0]; i++) {
        (void)json_object_set_new(kv, kern_dtype_name(kv_known[i]),
            json_integer((json_int_t)ctl_host_token_bytes(c, kv_known[i])));
    }
    json_t *shape = json_pack("{sI,sI,sI,sI,sI,sI,sI,sI,sb,sb,sb}", "hidden", (json_int_t)c->hidden,
        "inner", (json_int_t)c->inner, "layers", (json_int_t)c->layers, "heads",
        (json_int_t)c->heads, "kv_heads", (json_int_t)c->kv_heads, "head_dim",
        (json_int_t)c->head_dim, "vocab", (json_int_t)c->vocab, "window", (json_int_t)c->window,
        "tied", (int)c->tied, "qk_norm", (int)c->qk_norm, "qkv_bias", (int)c->qkv_bias);
    json_t *rope = json_pack("{ss,sf,sf}", "scaling", scaling_name(c->rope.scaling), "theta",
        c->rope.theta, "factor", c->rope.factor);
    return ctl_json_print(
        json_pack("{so,ss,ss,ss,sI,sI,sI,so,so,ss,sI,ss,so,so,so}", "path",
            ctl_json_string(shown->path), "architecture", s->architecture, "format", s->format,
            "weights", s->weights, "parameters", (json_int_t)s->parameters, "bytes",
            (json_int_t)s->file_bytes, "context", (json_int_t)c->positions_max, "shape", shape,
            "rope", rope, "tokenizer", shown->tokenizer.kind, "tokens",
            (json_int_t)shown->tokenizer.vocab, "chat_template", shown->chat, "weight_bytes",
            weights, "token_bytes", kv, "fingerprint",
            ctl_json_hex((ProtobufCBinaryData){
                sizeof shown->fingerprint, (uint8_t *)(uintptr_t)shown->fingerprint})),
        err);
}

/* "f32 4.9 GB, bf16 2.5 GB, ..." */
static void field_sizes(
    const struct ctl *ctl, const char *field, const struct shown *shown, bool is_kv)
{
    const struct paramem_decoder_config *c = &shown->summary.config;
    const enum kern_dtype *known = is_kv ? kv_known : weights_known;
    size_t count = is_kv ? sizeof kv_known / sizeof kv_known[0]
                         : sizeof weights_known / sizeof weights_known[0];
    struct memos_buffer text = memos_buffer_make(4096);
    char size[16];
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = is_kv ? ctl_host_token_bytes(c, known[i])
                               : ctl_host_weight_bytes(c, stored_dtype(&shown->summary), known[i]);
        memos_buffer_printf(&text, "%s%s %s", i > 0 ? ", " : "", kern_dtype_name(known[i]),
            ctl_text_size(bytes, size));
    }
    ctl_paper_field(&ctl->paper, field, memos_buffer_view(&text));
    memos_buffer_free(&text);
}

static void print_shown(const struct ctl *ctl, const struct shown *shown)
{
    const struct paramem_model_summary *s = &shown->summary;
    const struct paramem_decoder_config *c = &s->config;
    const struct ctl_paper *paper = &ctl->paper;
    struct memos_buffer hex = memos_buffer_make(128);
    char size[16];
    ctl_paper_fieldf(paper, "model", "%s", s->architecture);
    ctl_paper_fieldf(paper, "where", "%s", shown->path);
    ctl_paper_fieldf(
        paper, "files", "%s, %s, %s", s->format, s->weights, ctl_text_size(s->file_bytes, size));
    ctl_paper_fieldf(paper, "parameters", "%.1f million", (double)s->parameters / 1e6);
    ctl_paper_fieldf(paper, "shape", "%zu layers of %zu, inner %zu, %zu heads of %zu, %zu for keys",
        c->layers, c->hidden, c->inner, c->heads, c->head_dim, c->kv_heads);
    ctl_paper_fieldf(paper, "context", "%zu tokens", c->positions_max);
    if (c->window > 0) {
        ctl_paper_fieldf(
            paper, "window", "%zu tokens, from layer %zu on", c->window, c->window_from);
    }
    ctl_paper_fieldf(
        paper, "positions", "theta %g, scaling %s", c->rope.theta, scaling_name(c->rope.scaling));
    ctl_paper_fieldf(paper, "details", "%s head%s%s", c->tied ? "tied" : "separate",
        c->qk_norm ? ", norm of queries and keys" : "", c->qkv_bias ? ", biases" : "");
    ctl_paper_fieldf(
        paper, "tokenizer", "%s, %zu tokens", shown->tokenizer.kind, shown->tokenizer.vocab);
    ctl_paper_fieldf(paper, "template", "%s", shown->chat);
    field_sizes(ctl, "weights", shown, false);
    field_sizes(ctl, "each token", shown, true);
    ctl_hex_append(&hex, memos_bytes_make(shown->fingerprint, sizeof shown->fingerprint));
    ctl_paper_field(paper, "fingerprint", memos_buffer_view(&hex));
    memos_buffer_free(&hex);
}

enum memos_status ctl_run_model_show(struct ctl *ctl, struct memos_error *err)
{
    struct shown shown = {0};
    struct paramem_tokenizer *tokenizer = NULL;
    enum memos_status status = paramem_registry_find(NULL, ctl_operand(ctl, 0), shown.path, err);
    if (status == MEMOS_NOT_FOUND) {
        ctl->hint = "memosctl model list shows those that were added; a path has a slash";
    }
    if (status == MEMOS_OK) {
        status = paramem_model_inspect(shown.path, &shown.summary, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_host_tokenizer(shown.path, &tokenizer, err);
    }
    if (status == MEMOS_OK) {
        paramem_tokenizer_describe(tokenizer, &shown.tokenizer);
        name_chat(&shown);
        ctl_catch_stops();
        status = paramem_model_fingerprint(shown.path, on_hashed, ctl, shown.fingerprint, err);
        ctl_progress_end(ctl);
    }
    if (status == MEMOS_OK && ctl->json) {
        status = shown_json(&shown, err);
    } else if (status == MEMOS_OK) {
        print_shown(ctl, &shown);
    }
    ctl_host_advise(ctl, status);
    paramem_tokenizer_close(&tokenizer);
    return status;
}
