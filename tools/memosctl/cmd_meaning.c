/* What vectors are good for beside search: labels, the tree of a space, the encoder's state. */
#include "tools/memosctl/find.h"
#include "tools/memosctl/input.h"

#include <string.h>

enum { VOTERS_MAX = 1000, EXAMPLES_MAX = 20, EXAMPLES_PRESET = 3, PATH_MAX_LEVELS = 32 };
#define LABEL_BYTES_MAX ((size_t)64 * 1024) /* the broker refuses shorter ones, too */

static char *prefix_of(const struct ctl *ctl)
{
    const char *given = ctl_args_value(ctl->args, CTL_PREFIX);
    return ctl_field(given ? given : "label:");
}

/* ---- labels ---- */

static enum memos_status take_method(struct ctl *ctl, uint32_t *out, struct memos_error *err)
{
    static const char *const names[] = {"weighted", "vote", "interpolation"}; /* as in the schema */
    const char *given = ctl_args_value(ctl->args, CTL_METHOD);
    *out = 0;
    for (uint32_t i = 0; given && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(given, names[i]) == 0) {
            *out = i;
            return MEMOS_OK;
        }
    }
    return given ? memos_fail(err, MEMOS_INVALID,
                       "--method takes weighted, vote or interpolation, not '%.40s'", given)
                 : MEMOS_OK;
}

static enum memos_status make_classify(struct ctl *ctl, Memos__Classify *out, Memos__Filter *filter,
    Memos__AsOf *as_of, struct memos_error *err)
{
    uint64_t top_k = 0;
    enum memos_status status =
        ctl_args_number(ctl->args, CTL_VOTERS, 0, 1, VOTERS_MAX, &top_k, err);
    if (status == MEMOS_OK) {
        status = take_method(ctl, &out->method, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_args_real(ctl->args, CTL_MARGIN, 0.0f, 0.0f, 2.0f, &out->margin, err);
    }
    if (status == MEMOS_OK) {
        status =
            ctl_args_real(ctl->args, CTL_TEMPERATURE, 0.0f, 1e-6f, 1e6f, &out->temperature, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_filter_make(ctl, filter, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_as_of(ctl, as_of, &out->as_of, err);
    }
    out->space = ctl_field(ctl_operand(ctl, 0));
    out->tag_prefix = prefix_of(ctl);
    out->top_k = (uint32_t)top_k;
    out->filter = filter;
    return status;
}

static json_t *classification_json(const char *text, const Memos__Classification *result)
{
    json_t *labels = json_array();
    for (size_t i = 0; i < result->n_labels; i++) {
        json_array_append_new(
            labels, json_pack("{so,sf}", "name", ctl_json_string(result->labels[i]->name), "weight",
                        (double)result->labels[i]->weight));
    }
    return json_pack("{so,so,sf,so}", "text", ctl_json_string(text), "labels", labels,
        "best_cosine", (double)result->best_cosine, "examples",
        ctl_json_refs(result->examples, result->n_examples));
}

static const struct ctl_column label_columns[] = {
    {"WEIGHT", true, false},
    {"LABEL", false, true},
};

static enum memos_status print_labels(
    struct ctl *ctl, const char *text, const Memos__Classification *result, struct memos_error *err)
{
    struct ctl_table table =
        ctl_table_make(label_columns, sizeof label_columns / sizeof label_columns[0]);
    for (size_t i = 0; i < result->n_labels; i++) {
        ctl_table_printf(&table, CTL_GREEN, "%.2f", (double)result->labels[i]->weight);
        ctl_table_cell(&table, CTL_PLAIN, memos_bytes_of(result->labels[i]->name));
    }
    if (ctl->args->operands_count > 2) {
        ctl_paper_text(&ctl->paper, memos_bytes_of(text), 0);
    }
    enum memos_status status = ctl_table_print(&table, &ctl->paper, err);
    if (result->n_labels == 0) {
        ctl_note(ctl, "there is no example with a label");
    } else {
        ctl_note(ctl, "%zu examples, the nearest at cosine %.2f", result->n_examples,
            (double)result->best_cosine);
    }
    ctl_table_free(&table);
    return status;
}

static enum memos_status print_classified(
    struct ctl *ctl, const Memos__Classified *classified, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    if (classified->n_results != ctl->args->operands_count - 1) {
        return memos_fail(err, MEMOS_CORRUPT, "the broker's reply does not answer %zu texts",
            ctl->args->operands_count - 1);
    }
    json_t *array = json_array();
    for (size_t i = 0; i < classified->n_results && status == MEMOS_OK; i++) {
        const char *text = ctl_operand(ctl, i + 1);
        if (ctl->json) {
            json_array_append_new(array, classification_json(text, classified->results[i]));
        } else {
            status = print_labels(ctl, text, classified->results[i], err);
        }
    }
    if (ctl->json) {
        status = ctl_json_print(
            json_pack("{sO,sI}", "results", array, "micros", (json_int_t)classified->micros), err);
    }
    json_decref(array);
    return status;
}

enum memos_status ctl_run_classify(struct ctl *ctl, struct memos_error *err)
{
    char *texts[CTL_TEXTS_MAX];
    Memos__Filter filter;
    Memos__AsOf as_of;
    Memos__Classify classify = MEMOS__CLASSIFY__INIT;
    Memos__Request request = CTL_REQUEST(CLASSIFY, classify, &classify);
    struct memos_message *reply = NULL;
    enum memos_status status = make_classify(ctl, &classify, &filter, &as_of, err);
    for (size_t i = 1; i < ctl->args->operands_count; i++) {
        texts[classify.n_texts++] = ctl_field(ctl_operand(ctl, i));
    }
    classify.texts = texts;
    if (status == MEMOS_OK) {
        status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CLASSIFIED, &reply, err);
    }
    if (status == MEMOS_OK) {
        status = print_classified(ctl, memos_message_reply(reply)->classified, err);
    }
    memos_message_free(&reply);
    return status;
}

enum memos_status ctl_run_correct(struct ctl *ctl, struct memos_error *err)
{
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Draft *drafts[] = {&draft};
    Memos__Put put = MEMOS__PUT__INIT;
    Memos__Request request = CTL_REQUEST(PUT, put, &put);
    struct memos_message *reply = NULL;
    struct memos_buffer payload = {0}, label = memos_buffer_make(LABEL_BYTES_MAX);
    memos_buffer_printf(&label, "%s%s", prefix_of(ctl), ctl_operand(ctl, 2));
    char *tag = label.failed ? NULL : memos_arena_copy(&ctl->arena, memos_buffer_view(&label));
    enum memos_status status =
        tag ? ctl_payload_read(ctl_operand(ctl, 1), &payload, err)
            : memos_fail(err, MEMOS_TOO_LARGE, "the label is longer than a tag may be");
    if (status == MEMOS_OK) {
        struct memos_bytes frame = memos_buffer_view(&payload);
        draft.tags = &tag;
        draft.n_tags = 1;
        draft.frame = 1;
        put.space = ctl_field(ctl_operand(ctl, 0));
        put.reason = ctl_field(ctl_args_value(ctl->args, CTL_REASON));
        put.drafts = drafts;
        put.n_drafts = 1;
        status = ctl_call(ctl, &request, &frame, 1, MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_outcome_print(ctl, "learned", memos_message_reply(reply)->outcome, err);
    }
    memos_message_free(&reply);
    memos_buffer_free(&payload);
    memos_buffer_free(&label);
    return status;
}

/* ---- the tree ---- */

/* "2/0/5". */
static enum memos_status parse_path(
    const char *text, uint32_t out[PATH_MAX_LEVELS], size_t *out_count, struct memos_error *err)
{
    char number[16];
    for (*out_count = 0; text && *text;) {
        uint64_t value;
        size_t size = strcspn(text, "/");
        snprintf(number, sizeof number, "%.*s", (int)(size < sizeof number ? size : 0), text);
        if (*out_count == PATH_MAX_LEVELS || !ctl_number_parse(number, UINT32_MAX, &value)) {
            return memos_fail(err, MEMOS_INVALID,
                "a path is numbers of children as 2/0/5, at most %d, not '%.40s'", PATH_MAX_LEVELS,
                text);
        }
        out[(*out_count)++] = (uint32_t)value;
        text += size + (text[size] == '/');
    }
    return MEMOS_OK;
}

static json_t *child_json(const struct memos_message *reply, const Memos__TreeChild *child)
{
    json_t *words = json_array(), *examples = json_array();
    for (size_t i = 0; i < child->n_words; i++) {
        json_array_append_new(words, ctl_json_string(child->words[i]));
    }
    for (size_t i = 0; i < child->n_examples; i++) {
        const Memos__Cube *cube = child->examples[i];
        json_array_append_new(examples,
            ctl_json_cube(cube, cube->frame != 0, memos_message_frame(reply, cube->frame)));
    }
    return json_pack("{sI,sI,so,so,sb}", "number", (json_int_t)child->number, "cubes",
        (json_int_t)child->cubes, "words", words, "examples", examples, "leaf", (int)child->leaf);
}

static json_t *tree_json(const struct memos_message *reply, const Memos__TreeNodes *nodes)
{
    json_t *path = json_array(), *children = json_array();
    for (size_t i = 0; i < nodes->n_path; i++) {
        json_array_append_new(path, json_integer((json_int_t)nodes->path[i]));
    }
    for (size_t i = 0; i < nodes->n_children; i++) {
        json_array_append_new(children, child_json(reply, nodes->children[i]));
    }
    return json_pack("{so,so,sI,sI,sI,so}", "tree",
        nodes->tree ? json_pack("{so,sI}", "id", ctl_json_id(nodes->tree->id), "version",
                          (json_int_t)nodes->tree->number)
                    : json_null(),
        "path", path, "cubes", (json_int_t)nodes->cubes, "levels", (json_int_t)nodes->levels,
        "branching", (json_int_t)nodes->branching, "children", children);
}

/* "2/0/5", of a child when number is not NULL. */
static void append_path(
    struct memos_buffer *out, const Memos__TreeNodes *nodes, const uint32_t *number)
{
    for (size_t i = 0; i < nodes->n_path; i++) {
        memos_buffer_printf(out, "%s%u", i ? "/" : "", nodes->path[i]);
    }
    if (number) {
        memos_buffer_printf(out, "%s%u", nodes->n_path > 0 ? "/" : "", *number);
    }
}

static const struct ctl_column child_columns[] = {
    {"PATH", false, false},
    {"CUBES", true, false},
    {"WORDS, AND EXAMPLES", false, true},
};

static void add_child(struct ctl_table *table, const struct memos_message *reply,
    const Memos__TreeNodes *nodes, const Memos__TreeChild *child)
{
    struct memos_buffer text = memos_buffer_make(4096);
    append_path(&text, nodes, &child->number);
    memos_buffer_printf(&text, "%s", child->leaf ? "" : "/");
    ctl_table_cell(table, CTL_YELLOW, memos_buffer_view(&text));
    ctl_table_printf(table, CTL_PLAIN, "%llu", (unsigned long long)child->cubes);
    memos_buffer_reset(&text);
    for (size_t i = 0; i < child->n_words; i++) {
        memos_buffer_printf(&text, "%s%.100s", i ? ", " : "", child->words[i]);
    }
    ctl_table_cell(table, CTL_BLUE, memos_buffer_view(&text));
    for (size_t i = 0; i < child->n_examples; i++) {
        const Memos__Cube *cube = child->examples[i];
        memos_buffer_reset(&text);
        ctl_cube_words(&text, cube, memos_message_frame(reply, cube->frame));
        ctl_table_cell(table, CTL_PLAIN, memos_bytes_make(NULL, 0));
        ctl_table_cell(table, CTL_PLAIN, memos_bytes_make(NULL, 0));
        ctl_table_cell(table, CTL_DIM, memos_buffer_view(&text));
    }
    memos_buffer_free(&text);
}

static enum memos_status print_tree(
    struct ctl *ctl, const struct memos_message *reply, struct memos_error *err)
{
    const Memos__TreeNodes *nodes = memos_message_reply(reply)->tree_nodes;
    if (ctl->json) {
        return ctl_json_print(tree_json(reply, nodes), err);
    }
    struct ctl_table table =
        ctl_table_make(child_columns, sizeof child_columns / sizeof child_columns[0]);
    struct memos_buffer path = memos_buffer_make(4096);
    append_path(&path, nodes, NULL);
    for (size_t i = 0; i < nodes->n_children; i++) {
        add_child(&table, reply, nodes, nodes->children[i]);
    }
    ctl_paper_fieldf(&ctl->paper, "node", "%.*s", path.size ? (int)path.size : 4,
        path.size ? (const char *)path.data : "root");
    ctl_paper_fieldf(&ctl->paper, "cubes", "%llu", (unsigned long long)nodes->cubes);
    ctl_paper_fieldf(
        &ctl->paper, "tree", "%u levels of %u children", nodes->levels, nodes->branching);
    enum memos_status status = ctl_table_print(&table, &ctl->paper, err);
    memos_buffer_free(&path);
    ctl_table_free(&table);
    return status;
}

enum memos_status ctl_run_tree(struct ctl *ctl, struct memos_error *err)
{
    uint32_t path[PATH_MAX_LEVELS];
    uint64_t examples = 0;
    Memos__Tree tree = MEMOS__TREE__INIT;
    Memos__Request request = CTL_REQUEST(TREE, tree, &tree);
    struct memos_message *reply = NULL;
    enum memos_status status = parse_path(ctl_operand(ctl, 1), path, &tree.n_path, err);
    if (status == MEMOS_OK) {
        status = ctl_args_number(
            ctl->args, CTL_EXAMPLES, EXAMPLES_PRESET, 1, EXAMPLES_MAX, &examples, err);
    }
    tree.space = ctl_field(ctl_operand(ctl, 0));
    tree.path = path;
    tree.text = ctl_field(ctl_args_value(ctl->args, CTL_LEADS));
    tree.build = ctl_args_has(ctl->args, CTL_BUILD);
    tree.examples = (uint32_t)examples;
    if (status == MEMOS_OK && tree.text[0] && tree.n_path > 0) {
        status = memos_fail(err, MEMOS_INVALID, "a PATH, or --text: not both");
    }
    if (status == MEMOS_OK) {
        status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_TREE_NODES, &reply, err);
    }
    if (status == MEMOS_OK) {
        status = print_tree(ctl, reply, err);
    }
    memos_message_free(&reply);
    return status;
}

/* ---- the encoder ---- */

static json_t *encoder_json(const Memos__EncoderInfo *info)
{
    return json_pack("{so,so,sI,so,sb,so,sI,sI,sf,so}", "name", ctl_json_string(info->name),
        "source", ctl_json_string(info->source), "dims", (json_int_t)info->dims, "fingerprint",
        ctl_json_hex(info->fingerprint), "semantic", (int)info->semantic, "codes",
        ctl_json_string(info->codes), "waiting", (json_int_t)info->waiting, "done",
        (json_int_t)info->done, "per_second", info->per_second, "error",
        ctl_json_string(info->error));
}

static void print_encoder(struct ctl *ctl, const Memos__EncoderInfo *info)
{
    const struct ctl_paper *paper = &ctl->paper;
    struct memos_buffer hex = memos_buffer_make(4096);
    ctl_hex_append(&hex, memos_bytes_make(info->fingerprint.data, info->fingerprint.len));
    ctl_paper_field(paper, "encoder", memos_bytes_of(info->name[0] ? info->name : "none"));
    ctl_paper_fieldf(paper, "source", "%.100s%s", info->source,
        info->semantic ? "" : ": it knows words, not meanings");
    ctl_paper_fieldf(paper, "vectors", "%u dimensions, stored as %.40s", info->dims, info->codes);
    ctl_paper_field(paper, "fingerprint", memos_buffer_view(&hex));
    ctl_paper_fieldf(paper, "done", "%llu since the start, %.0f a second lately",
        (unsigned long long)info->done, info->per_second);
    ctl_paper_fieldf(paper, "waiting", "%llu cubes", (unsigned long long)info->waiting);
    ctl_paper_field(paper, "error", memos_bytes_of(info->error));
    memos_buffer_free(&hex);
}

enum memos_status ctl_run_encoder_status(struct ctl *ctl, struct memos_error *err)
{
    Memos__EncoderStatus body = MEMOS__ENCODER_STATUS__INIT;
    Memos__Request request = CTL_REQUEST(ENCODER_STATUS, encoder_status, &body);
    struct memos_message *reply = NULL;
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_ENCODER_INFO, &reply, err);
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(encoder_json(memos_message_reply(reply)->encoder_info), err);
    } else if (status == MEMOS_OK) {
        print_encoder(ctl, memos_message_reply(reply)->encoder_info);
    }
    memos_message_free(&reply);
    return status;
}
