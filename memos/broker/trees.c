/* A space's cluster tree: made, kept as a cube, and looked into. */
#include "memos/broker/state.h"
#include "retrieval/browse.h"

#include <sodium.h>
#include <string.h>

#define TREE_EXTERNAL_ID "memos:cluster-tree"
#define TREE_SUBTYPE "cluster_tree"
#define TREE_CODEC "memos/tree1"

enum {
    TREE_BYTES_MAX = 1 << 28,
    EXAMPLE_BYTES_MAX = 64 << 10, /* longer texts are left out of the reply */
};

/* One request. */
struct treeing {
    struct broker_request *rq;
    struct retrieval_encoder_info encoder;
    struct memcube_read *read;
    struct memcube_space space;
    struct memcube_docs docs;
    struct memos_buffer payload; /* of a tree that is being made */
    struct broker_progress progress;
};

static enum memos_status fail_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_TOO_LARGE, "the reply needs more memory than one may take");
}

/* A snapshot, and the docs that count: those that the viewer finds. */
static enum memos_status begin(struct treeing *t, struct memos_error *err)
{
    const struct memcube_filter filter = {
        .viewer = t->rq->viewer, .kinds = 1u << MEMCUBE_PLAINTEXT};
    enum memos_status status = memcube_read_begin(t->rq->broker->store, &t->read, err);
    if (status == MEMOS_OK) {
        status = memcube_space_find(t->read, t->rq->call.space, &t->space, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_docs_select(t->read, &t->space, &filter, NULL, &t->docs, err);
    }
    return status;
}

static void end(struct treeing *t)
{
    if (t->read) {
        memcube_read_end(&t->read);
    }
}

static struct retrieval_browse browse_of(struct treeing *t)
{
    return (struct retrieval_browse){
        .vectors = retrieval_vectors_of(t->rq->broker->retrieval),
        .read = t->read,
        .space = &t->space,
        .docs = &t->docs,
        .fingerprint = t->encoder.fingerprint,
        .dims = t->encoder.dims,
        .progress = broker_progress_tell,
        .progress_self = &t->progress,
    };
}

/* ---- making ---------------------------------------------------------------------------------- */

/* In the writer: a new version of the tree's cube. */
static enum memos_status tree_put(void *self, struct memcube_write *write, struct memos_error *err)
{
    struct treeing *t = self;
    struct memcube_outcome outcome = {0};
    struct memcube_change change = t->rq->call.change;
    char model[2 * sizeof t->encoder.fingerprint + 1];
    (void)sodium_bin2hex(
        model, sizeof model, t->encoder.fingerprint, sizeof t->encoder.fingerprint);
    const struct memcube_draft draft = {
        .kind = MEMCUBE_PARAMETRIC,
        .subtype = memos_bytes_of(TREE_SUBTYPE),
        .codec = memos_bytes_of(TREE_CODEC),
        .model = memos_bytes_of(model),
        .payload = memos_buffer_view(&t->payload),
        .description = {.external_id = memos_bytes_of(TREE_EXTERNAL_ID)},
    };
    change.space = t->rq->call.space;
    change.author = t->rq->principal;
    change.reason = memos_bytes_of("cluster tree");
    return memcube_create(write, &change, &draft, 1, &outcome, err);
}

static enum memos_status tree_build(struct treeing *t, struct memos_error *err)
{
    enum memos_status status = begin(t, err);
    t->payload = memos_buffer_make(TREE_BYTES_MAX);
    if (status == MEMOS_OK) {
        const struct retrieval_browse browse = browse_of(t);
        status = retrieval_browse_build(&browse, &t->payload, err);
    }
    end(t); /* who waits for the writer holds no snapshot */
    if (status == MEMOS_OK) {
        status = memcube_writer_run(t->rq->broker->writer, tree_put, t, err);
    }
    memos_buffer_free(&t->payload);
    return status;
}

/* ---- showing --------------------------------------------------------------------------------- */

static enum memos_status tree_find(struct treeing *t, struct memcube_version *version,
    struct retrieval_tree *tree, struct memos_error *err)
{
    struct memos_bytes payload;
    struct memos_id id;
    enum memos_status status =
        memcube_external_find(t->read, &t->space, memos_bytes_of(TREE_EXTERNAL_ID), &id, err);
    if (status == MEMOS_NOT_FOUND) {
        return memos_fail(err, MEMOS_CONFLICT,
            "this space has no tree yet: have it built (memosctl tree --build)");
    }
    if (status == MEMOS_OK) {
        status = memcube_version_get(t->read, &t->space, &id, 0, NULL, version, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_payload_get(t->read, &t->space, version, true, &payload, err);
    }
    return status == MEMOS_OK ? retrieval_tree_open(payload, tree, err) : status;
}

static enum memos_status words_fill(struct broker_request *rq,
    const struct retrieval_browse_child *child, Memos__TreeChild *out, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    out->words = memos_arena_take(&rq->work, child->words_count, sizeof *out->words);
    if (!out->words && child->words_count > 0) {
        return fail_full(err);
    }
    for (size_t i = 0; i < child->words_count && status == MEMOS_OK; i++) {
        const struct retrieval_word *word = &child->words[i];
        status = broker_text_make(
            &rq->work, memos_bytes_make(word->bytes, word->size), &out->words[i], err);
        out->n_words = i + 1;
    }
    return status;
}

/* An example, with its text copied: the reply is packed when the snapshot has ended. */
static enum memos_status example_fill(
    struct treeing *t, uint32_t doc, Memos__Cube *out, struct memos_error *err)
{
    struct broker_request *rq = t->rq;
    struct broker_wanted wanted = {.payload = true};
    struct memcube_version version;
    enum memos_status status = memcube_version_of_doc(t->read, &t->space, doc, NULL, &version, err);
    if (status != MEMOS_OK) {
        return status;
    }
    wanted.payload = version.payload_bytes <= EXAMPLE_BYTES_MAX;
    status = broker_cube_fill(rq, t->read, &t->space, &version, &wanted, out, err);
    if (status == MEMOS_OK && out->frame > 0) {
        struct memos_bytes *payload = &rq->payloads[out->frame - 1];
        payload->data = memos_arena_copy(&rq->work, *payload);
        status = payload->data ? MEMOS_OK : fail_full(err);
    }
    return status;
}

static enum memos_status child_fill(struct treeing *t, const struct retrieval_browse_child *child,
    Memos__TreeChild *out, struct memos_error *err)
{
    void **pointers = NULL;
    memos__tree_child__init(out);
    out->number = child->number;
    out->cubes = child->docs;
    out->leaf = child->leaf;
    enum memos_status status = words_fill(t->rq, child, out, err);
    if (status == MEMOS_OK) {
        status = broker_array_make(
            &t->rq->work, child->examples_count, sizeof(Memos__Cube), &pointers, err);
    }
    out->examples = (Memos__Cube **)pointers;
    for (size_t i = 0; i < child->examples_count && status == MEMOS_OK; i++) {
        status = example_fill(t, child->examples[i], pointers[i], err);
        out->n_examples = i + (status == MEMOS_OK);
    }
    return status;
}

static enum memos_status path_fill(struct treeing *t, const uint32_t *path, size_t count,
    Memos__TreeNodes *out, struct memos_error *err)
{
    out->path = memos_arena_take(&t->rq->work, count, sizeof *out->path);
    if (!out->path && count > 0) {
        return fail_full(err);
    }
    if (count > 0) {
        memcpy(out->path, path, count * sizeof *path);
    }
    out->n_path = count;
    return MEMOS_OK;
}

static enum memos_status node_fill(struct treeing *t, const struct retrieval_tree *tree,
    const uint32_t *path, size_t path_count, Memos__TreeNodes *out, struct memos_error *err)
{
    const struct retrieval_browse browse = browse_of(t);
    struct retrieval_browse_node node;
    void **pointers = NULL;
    enum memos_status status = retrieval_browse_node(
        &browse, tree, path, path_count, t->rq->call.tree.examples, &t->rq->work, &node, err);
    if (status == MEMOS_OK) {
        status = path_fill(t, path, path_count, out, err);
    }
    if (status == MEMOS_OK) {
        status = broker_array_make(
            &t->rq->work, node.children_count, sizeof(Memos__TreeChild), &pointers, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < node.children_count; i++) {
        status = child_fill(t, &node.children[i], pointers[i], err);
    }
    if (status == MEMOS_OK) {
        out->children = (Memos__TreeChild **)pointers;
        out->n_children = node.children_count;
        out->cubes = node.docs;
        out->levels = (uint32_t)tree->levels;
        out->branching = (uint32_t)tree->branching;
    }
    return status;
}

static enum memos_status tree_show(struct treeing *t, const float *vector, struct memos_error *err)
{
    const struct broker_call_tree *call = &t->rq->call.tree;
    uint32_t path[RETRIEVAL_TREE_LEVELS_MAX];
    size_t path_count = call->path_count;
    struct memcube_version version;
    struct retrieval_tree tree;
    Memos__Ref **refs = NULL;
    Memos__TreeNodes *out = memos_arena_take(&t->rq->work, 1, sizeof *out);
    enum memos_status status = out ? tree_find(t, &version, &tree, err) : fail_full(err);
    if (status != MEMOS_OK) {
        return status;
    }
    memos__tree_nodes__init(out);
    memcpy(path, call->path, sizeof path);
    if (vector && tree.dims == t->encoder.dims) {
        path_count = retrieval_browse_path(&tree, vector, path);
    }
    const struct memcube_ref ref = {.id = version.id, .number = version.number};
    status = node_fill(t, &tree, path, path_count, out, err);
    if (status == MEMOS_OK) {
        status = broker_refs_make(&t->rq->work, &ref, 1, &refs, err);
    }
    if (status == MEMOS_OK) {
        out->tree = refs[0];
        t->rq->reply.body_case = MEMOS__REPLY__BODY_TREE_NODES;
        t->rq->reply.tree_nodes = out;
    }
    return status;
}

enum memos_status broker_tree(struct broker_request *rq, struct memos_error *err)
{
    struct treeing t = {.rq = rq, .progress = broker_progress_begin(rq)};
    float *vector = NULL;
    enum memos_status status = MEMOS_OK;
    if (!broker_meaning_describe(rq->broker->meaning, &t.encoder)) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "the broker has no encoder, and so no trees");
    }
    if (rq->call.tree.build) {
        status = tree_build(&t, err);
    }
    if (status == MEMOS_OK && rq->call.tree.text.size > 0) {
        vector = memos_arena_take(&rq->work, t.encoder.dims, sizeof *vector);
        status = vector
                     ? broker_meaning_encode(rq->broker->meaning, rq->call.tree.text, vector, err)
                     : fail_full(err);
    }
    if (status == MEMOS_OK) {
        status = begin(&t, err);
    }
    if (status == MEMOS_OK) {
        status = tree_show(&t, vector, err);
    }
    end(&t);
    return broker_progress_stopped(rq, status, err);
}
