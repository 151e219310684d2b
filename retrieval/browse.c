#include "retrieval/browse.h"

#include "retrieval/terms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOOK_EVERY = 1024,     /* docs between two looks at progress */
    WORD_DOCS_MAX = 48,    /* of a child, whose words are counted */
    WORD_BYTES_MAX = 2000, /* of a doc's text */
    WORD_LEAST = 3,        /* bytes; shorter ones say little */
    TABLE_SLOTS = 1 << 14,
};

static bool doc_among(const struct memcube_docs *docs, uint32_t doc)
{
    return (docs->words[doc / 64] >> (doc % 64) & 1) != 0;
}

static enum memos_status look(
    const struct retrieval_browse *browse, uint64_t done, struct memos_error *err)
{
    if (done % LOOK_EVERY != 0 || !browse->progress ||
        browse->progress(browse->progress_self, done, browse->docs->count)) {
        return MEMOS_OK;
    }
    return memos_fail(err, MEMOS_CANCELLED, "cancelled");
}

/* The first vector of a doc. NOT_FOUND without one. */
static enum memos_status vector_of(
    const struct retrieval_browse *browse, uint32_t doc, float *out, struct memos_error *err)
{
    size_t spans = 0;
    return retrieval_vectors_get(browse->vectors, browse->read, browse->space, browse->fingerprint,
        doc, out, 1, &spans, err);
}

/* ---- building -------------------------------------------------------------------------------- */

struct sample {
    size_t dims;
    float *vectors;
    uint64_t count;
};

static void sample_vectors(void *self, uint64_t first, size_t count, float *out)
{
    const struct sample *sample = self;
    memcpy(out, sample->vectors + first * sample->dims, count * sample->dims * sizeof *out);
}

/* Every doc, or, of too many, evenly spaced ones. */
static enum memos_status sample_fill(
    const struct retrieval_browse *browse, struct sample *sample, struct memos_error *err)
{
    const uint64_t wanted = browse->docs->count < RETRIEVAL_BROWSE_SAMPLE_MAX
                                ? browse->docs->count
                                : RETRIEVAL_BROWSE_SAMPLE_MAX;
    uint64_t seen = 0;
    enum memos_status status = MEMOS_OK;
    for (uint32_t doc = 1; doc < browse->docs->docs_end && status == MEMOS_OK; doc++) {
        if (!doc_among(browse->docs, doc)) {
            continue;
        }
        const bool taken =
            (seen + 1) * wanted / browse->docs->count > seen * wanted / browse->docs->count;
        status = look(browse, seen++, err);
        if (status == MEMOS_OK && taken) {
            status = vector_of(browse, doc, sample->vectors + sample->count * sample->dims, err);
            sample->count += status == MEMOS_OK;
            status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
        }
    }
    return status;
}

enum memos_status retrieval_browse_build(
    const struct retrieval_browse *browse, struct memos_buffer *out, struct memos_error *err)
{
    const uint64_t most = browse->docs->count < RETRIEVAL_BROWSE_SAMPLE_MAX
                              ? browse->docs->count
                              : RETRIEVAL_BROWSE_SAMPLE_MAX;
    struct sample sample = {.dims = browse->dims};
    struct retrieval_tree_source source = {
        .dims = browse->dims, .vectors = sample_vectors, .self = &sample};
    const struct retrieval_tree_options options = {
        .seed = 1, .progress = browse->progress, .progress_self = browse->progress_self};

    sample.vectors = calloc(most + 1, browse->dims * sizeof *sample.vectors);
    if (!sample.vectors) {
        return memos_fail(
            err, MEMOS_NO_MEMORY, "no memory for %llu vectors", (unsigned long long)most);
    }
    enum memos_status status = sample_fill(browse, &sample, err);
    if (status == MEMOS_OK && sample.count == 0) {
        status = memos_fail(err, MEMOS_NOT_FOUND, "nothing in this space has a vector yet");
    }
    if (status == MEMOS_OK) {
        source.count = sample.count;
        status = retrieval_tree_build(&options, &source, browse->fingerprint, out, err);
    }
    free(sample.vectors);
    return status;
}

/* ---- words ----------------------------------------------------------------------------------- */

/* In how many of the looked-at docs of each child a word occurs. */
struct counted {
    struct retrieval_word word; /* size 0: free */
    uint32_t doc;               /* that it was counted for last */
    uint16_t *docs;             /* of each child */
    uint32_t docs_all;
};

struct word_table {
    struct counted *slots;
    size_t used, children;
    uint32_t *looked_at; /* docs of each child */
    uint32_t looked_at_all;
    struct memos_arena *arena;
};

static uint32_t word_hash(const struct retrieval_word *word)
{
    uint32_t hash = 2166136261u; /* FNV-1a: the words are shown, and the table is bounded */
    for (size_t i = 0; i < word->size; i++) {
        hash = (hash ^ word->bytes[i]) * 16777619u;
    }
    return hash;
}

/* NULL when the table is full: what is rare enough to come so late is no loss. */
static struct counted *word_find(struct word_table *table, const struct retrieval_word *word)
{
    uint32_t at = word_hash(word) % TABLE_SLOTS;
    while (table->slots[at].word.size > 0) {
        struct counted *slot = &table->slots[at];
        if (slot->word.size == word->size &&
            memcmp(slot->word.bytes, word->bytes, word->size) == 0) {
            return slot;
        }
        at = (at + 1) % TABLE_SLOTS;
    }
    if (table->used >= TABLE_SLOTS / 2) {
        return NULL;
    }
    uint16_t *docs = memos_arena_take(table->arena, table->children, sizeof *docs);
    if (!docs) {
        return NULL;
    }
    memset(docs, 0, table->children * sizeof *docs);
    table->slots[at] = (struct counted){.word = *word, .docs = docs};
    table->used++;
    return &table->slots[at];
}

static bool says_something(const struct retrieval_word *word)
{
    return word->stems && word->size >= WORD_LEAST && !retrieval_word_light(word);
}

static void words_count(
    struct word_table *table, size_t child, uint32_t doc, struct memos_bytes text)
{
    struct retrieval_words words;
    struct retrieval_word word;
    text.size = text.size < WORD_BYTES_MAX ? text.size : WORD_BYTES_MAX;
    retrieval_words_init(&words, text, retrieval_language_of(memos_bytes_make("", 0)));
    table->looked_at[child]++;
    table->looked_at_all++;
    while (retrieval_words_next(&words, &word)) {
        struct counted *slot = says_something(&word) ? word_find(table, &word) : NULL;
        if (slot && slot->doc != doc) {
            slot->doc = doc;
            slot->docs[child]++;
            slot->docs_all++;
        }
    }
}

/* How much a word sets a child apart: its share there times the logarithm of how much more that is
 * than elsewhere (one term of a Kullback-Leibler divergence). */
static double apartness(const struct word_table *table, const struct counted *slot, size_t child)
{
    const double here = (slot->docs[child] + 0.5) / (table->looked_at[child] + 1.0);
    const double elsewhere = (slot->docs_all - slot->docs[child] + 0.5) /
                             (table->looked_at_all - table->looked_at[child] + 1.0);
    return slot->docs[child] > 1 ? here * log(here / elsewhere) : 0.0;
}

static void words_choose(
    const struct word_table *table, size_t child, struct retrieval_browse_child *out)
{
    double best[RETRIEVAL_BROWSE_WORDS_MAX];
    for (size_t i = 0; i < TABLE_SLOTS; i++) {
        const struct counted *slot = &table->slots[i];
        const double value = slot->word.size > 0 ? apartness(table, slot, child) : 0.0;
        size_t at = out->words_count;
        if (value <= 0.0 || (at == RETRIEVAL_BROWSE_WORDS_MAX && value <= best[at - 1])) {
            continue;
        }
        at = at < RETRIEVAL_BROWSE_WORDS_MAX ? out->words_count++ : at - 1;
        for (; at > 0 && value > best[at - 1]; at--) {
            best[at] = best[at - 1];
            out->words[at] = out->words[at - 1];
        }
        best[at] = value;
        out->words[at] = slot->word;
    }
}

/* ---- a node ---------------------------------------------------------------------------------- */

/* One node while it is looked into. */
struct looking {
    const struct retrieval_browse *browse;
    const struct retrieval_tree *tree;
    uint32_t node;
    size_t depth;                   /* of node; the root has 0 */
    uint32_t first, children_count; /* of those that are shown */
    bool itself;                    /* a leaf is its own only child */
    struct retrieval_browse_child *children;
    float (*distances)[RETRIEVAL_BROWSE_EXAMPLES_MAX];
    float *centroids; /* (children_count, dims) */
    size_t examples_max;
    struct word_table table;
    float *vector;
};

static enum memos_status node_find(
    struct looking *l, const uint32_t *path, size_t path_count, struct memos_error *err)
{
    for (size_t i = 0; i < path_count; i++) {
        const struct retrieval_tree_node node = retrieval_tree_node(l->tree, l->node);
        if (path[i] >= node.children) {
            return memos_fail(err, MEMOS_NOT_FOUND,
                "the node after %zu steps of the path has %u children; there is no child %u", i,
                node.children, path[i]);
        }
        l->node = node.first_child + path[i];
    }
    const struct retrieval_tree_node node = retrieval_tree_node(l->tree, l->node);
    l->depth = path_count;
    l->itself = node.children == 0;
    l->first = l->itself ? l->node : node.first_child;
    l->children_count = l->itself ? 1 : node.children;
    return MEMOS_OK;
}

static enum memos_status node_prepare(
    struct looking *l, struct memos_arena *arena, struct memos_error *err)
{
    const size_t count = l->children_count;
    l->children = memos_arena_take(arena, count, sizeof *l->children);
    l->distances = memos_arena_take(arena, count, sizeof *l->distances);
    l->centroids = memos_arena_take(arena, count * l->tree->dims, sizeof *l->centroids);
    l->vector = memos_arena_take(arena, l->tree->dims, sizeof *l->vector);
    l->table.slots = memos_arena_take(arena, TABLE_SLOTS, sizeof *l->table.slots);
    l->table.looked_at = memos_arena_take(arena, count, sizeof *l->table.looked_at);
    if (!l->children || !l->distances || !l->centroids || !l->vector || !l->table.slots ||
        !l->table.looked_at) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to look into a node of %zu", count);
    }
    l->table.arena = arena;
    l->table.children = count;
    memset(l->table.slots, 0, TABLE_SLOTS * sizeof *l->table.slots);
    memset(l->table.looked_at, 0, count * sizeof *l->table.looked_at);
    memset(l->children, 0, count * sizeof *l->children);
    for (uint32_t i = 0; i < count; i++) {
        l->children[i].number = i;
        l->children[i].leaf = retrieval_tree_node(l->tree, l->first + i).children == 0;
        retrieval_tree_centroid(l->tree, l->first + i, l->centroids + i * l->tree->dims);
    }
    return MEMOS_OK;
}

/* Which child of the node does the vector lead to? children_count: to none. */
static size_t child_of(const struct looking *l)
{
    uint32_t path[RETRIEVAL_TREE_LEVELS_MAX];
    const size_t length = retrieval_tree_route(l->tree, l->vector, path);
    if (l->depth > 0 && (length < l->depth || path[l->depth - 1] != l->node)) {
        return l->children_count;
    }
    if (l->itself) {
        return 0;
    }
    return length > l->depth ? path[l->depth] - l->first : l->children_count;
}

static float squared_distance(const float *a, const float *b, size_t count)
{
    float sum = 0.0f;
    for (size_t i = 0; i < count; i++) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return sum;
}

/* Keep the nearest to the centre, in order. */
static void example_add(struct looking *l, size_t at_child, uint32_t doc)
{
    struct retrieval_browse_child *child = &l->children[at_child];
    float *distances = l->distances[at_child];
    const float distance =
        squared_distance(l->vector, l->centroids + at_child * l->tree->dims, l->tree->dims);
    size_t at = child->examples_count;
    if (at == l->examples_max && (at == 0 || distance >= distances[at - 1])) {
        return;
    }
    at = at < l->examples_max ? child->examples_count++ : at - 1;
    for (; at > 0 && distance < distances[at - 1]; at--) {
        distances[at] = distances[at - 1];
        child->examples[at] = child->examples[at - 1];
    }
    distances[at] = distance;
    child->examples[at] = doc;
}

static enum memos_status text_count(
    struct looking *l, size_t child, uint32_t doc, struct memos_error *err)
{
    struct memcube_read *read = l->browse->read;
    struct memcube_version version;
    struct memos_bytes text = {NULL, 0};
    if (l->table.looked_at[child] >= WORD_DOCS_MAX) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_doc_version(read, l->browse->space, doc, &version, err);
    if (status == MEMOS_OK && version.kind == MEMCUBE_PLAINTEXT) {
        status = memcube_payload_get(read, l->browse->space, &version, false, &text, err);
    }
    if (status == MEMOS_OK) {
        words_count(&l->table, child, doc, text);
    }
    return status == MEMOS_FORGOTTEN ? MEMOS_OK : status;
}

static enum memos_status doc_add(
    struct looking *l, uint32_t doc, struct retrieval_browse_node *out, struct memos_error *err)
{
    const enum memos_status status = vector_of(l->browse, doc, l->vector, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    const size_t child = child_of(l);
    if (child == l->children_count) {
        return MEMOS_OK;
    }
    out->docs++;
    l->children[child].docs++;
    example_add(l, child, doc);
    return text_count(l, child, doc, err);
}

enum memos_status retrieval_browse_node(const struct retrieval_browse *browse,
    const struct retrieval_tree *tree, const uint32_t *path, size_t path_count, size_t examples_max,
    struct memos_arena *arena, struct retrieval_browse_node *out, struct memos_error *err)
{
    struct looking l = {.browse = browse, .tree = tree};
    uint64_t seen = 0;

    *out = (struct retrieval_browse_node){.docs = 0};
    l.examples_max =
        examples_max < RETRIEVAL_BROWSE_EXAMPLES_MAX ? examples_max : RETRIEVAL_BROWSE_EXAMPLES_MAX;
    if (tree->dims != browse->dims || memcmp(tree->fingerprint, browse->fingerprint, 32) != 0) {
        return memos_fail(
            err, MEMOS_STALE, "the tree was made with another encoder: build it anew");
    }
    enum memos_status status = node_find(&l, path, path_count, err);
    if (status == MEMOS_OK) {
        status = node_prepare(&l, arena, err);
    }
    for (uint32_t doc = 1; doc < browse->docs->docs_end && status == MEMOS_OK; doc++) {
        if (doc_among(browse->docs, doc)) {
            status = look(browse, seen++, err);
            if (status == MEMOS_OK) {
                status = doc_add(&l, doc, out, err);
            }
        }
    }
    for (size_t i = 0; i < l.children_count && status == MEMOS_OK; i++) {
        words_choose(&l.table, i, &l.children[i]);
    }
    out->children = l.children;
    out->children_count = l.children_count;
    return status;
}

size_t retrieval_browse_path(const struct retrieval_tree *tree, const float *vector,
    uint32_t out_path[RETRIEVAL_TREE_LEVELS_MAX])
{
    const size_t length = retrieval_tree_route(tree, vector, out_path);
    uint32_t parent = 0;
    for (size_t i = 0; i < length; i++) {
        const uint32_t node = out_path[i];
        out_path[i] = node - retrieval_tree_node(tree, parent).first_child;
        parent = node;
    }
    return length;
}
