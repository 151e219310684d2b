/* Causal attention over the paged cache, for prompts and for decoding alike.
 *
 * Keys are looked at in chunks of 256 that begin at multiples of 256 in the sequence. A query and a
 * chunk give a part: the largest score, the sum of the weights e^(score - largest), and the
 * weighted sum of the values. Parts are merged from the first chunk to the last. So what a row gets
 * depends on where its keys lie in the sequence and on nothing else: not on how a prompt was cut,
 * not on what else is in the step, not on the number of threads.
 *
 * A block is some rows of a sequence by the query heads of one key head, at most 48 queries: each
 * key that is read (and made a float32) serves all of them. A piece of work is a block; when there
 * are few (one sequence that decodes, with few key heads), it is a block and one chunk, and the
 * parts are merged when all are there. */
#include "kernels/cpu/ops.h"
#include "kernels/cpu/vector.h"
#include "kernels/kv.h"

#include <math.h>
#include <string.h>

#define QUERIES_MAX 48
#define FEW 4            /* blocks a thread: fewer are cut at chunks */
#define PARTS_MAX 16384  /* that are kept for merging, at most */
#define STREAM_QUERIES 6 /* at most so many: the cache is read faster than it is used */

/* Some queries' parts, or what parts were merged to. */
struct part {
    float *most, *total; /* (queries) */
    float *mixed;        /* (queries, D) */
};

/* A worker's share of the workspace, in floats. */
struct room {
    size_t queries, scores, part, merged, keys, values, factors, total;
};

struct attention {
    const struct kern_attention *a;
    const struct kern_attention_tiles *tiles;
    size_t page_bytes, group; /* H / G */
    struct room room;
    float *parts; /* (T H, chunks, D + 8): mixed, most, total; NULL: blocks are not cut */
    size_t chunks, blocks;
};

/* Queries first..first + count - 1 of a sequence's (rows, H / G) queries of one key head. */
struct block {
    size_t sequence, head, first, count;
    size_t row_first; /* of the sequence, in the step */
    size_t position;  /* of that row */
    size_t low, high; /* tokens that one of the block sees */
    const uint32_t *table;
};

static struct room room_of(size_t d)
{
    struct room room = {0};
    room.scores = room.queries + QUERIES_MAX * d;
    room.part = room.scores + (size_t)QUERIES_MAX * KERN_SCORES;
    room.merged = room.part + QUERIES_MAX * (d + 2);
    room.keys = room.merged + QUERIES_MAX * (d + 2);
    room.values = room.keys + KERN_PAGE_TOKENS * d;
    room.factors = room.values + KERN_CHUNK * d;
    room.total = kern_up(room.factors + (size_t)2 * KERN_CHUNK, 64);
    return room;
}

static size_t chunks_of(size_t length)
{
    return (length + KERN_CHUNK - 1) / KERN_CHUNK;
}

/* Parts of all queries, if they are kept; 0 when they are too many to be. */
static size_t parts_of(size_t t, size_t heads, size_t length_max)
{
    size_t parts = t * heads * chunks_of(length_max);
    return parts <= PARTS_MAX ? parts : 0;
}

size_t kern_cpu_attention_workspace_bytes(const struct kern_ctx *ctx, size_t t, size_t sequences,
    size_t heads, size_t kv_heads, size_t head_dim, size_t length_max)
{
    size_t parts = t * heads * chunks_of(length_max);
    (void)sequences;
    (void)kv_heads;
    /* A call of fewer rows or shorter sequences may keep parts where the largest does not. */
    parts = ctx->threads == 1 ? 0 : parts < PARTS_MAX ? parts : PARTS_MAX;
    return (ctx->threads * room_of(head_dim).total + parts * (head_dim + 8)) * sizeof(float);
}

/* ---- blocks -------------------------------------------------------------------------------- */

static size_t blocks_of(const struct attention *attention, size_t b)
{
    const struct kern_attention *a = attention->a;
    size_t queries = (a->starts[b + 1] - a->starts[b]) * attention->group;
    return (queries + QUERIES_MAX - 1) / QUERIES_MAX;
}

/* The token of the sequence that query i of block is. */
static size_t position_of(const struct attention *attention, const struct block *block, size_t i)
{
    return block->position + (block->first + i) / attention->group;
}

static struct block block_of(const struct attention *attention, size_t index)
{
    const struct kern_attention *a = attention->a;
    struct block block = {0};
    size_t heads = a->kv->heads, blocks;
    while (index >= (blocks = blocks_of(attention, block.sequence)) * heads) {
        index -= blocks * heads;
        block.sequence++;
    }
    size_t b = block.sequence, rows = a->starts[b + 1] - a->starts[b];
    size_t queries = rows * attention->group;
    size_t number = blocks - 1 - index / heads; /* the last see most: they come first */
    block.head = index % heads;
    block.first = queries * number / blocks;
    block.count = queries * (number + 1) / blocks - block.first;
    block.row_first = a->starts[b];
    block.position = a->lengths[b] - rows;
    block.table = a->tables + b * a->tables_stride;
    if (a->lengths[b] > 0) {
        size_t first = position_of(attention, &block, 0) + 1;
        block.low = a->window > 0 && first > a->window ? first - a->window : 0;
        block.high = position_of(attention, &block, block.count - 1) + 1;
    }
    return block;
}

/* Row and head of query i, as numbers in the step. */
static void query_of(const struct attention *attention, const struct block *block, size_t i,
    size_t *row, size_t *head)
{
    *row = block->row_first + (block->first + i) / attention->group;
    *head = block->head * attention->group + (block->first + i) % attention->group;
}

static void copy_queries(const struct attention *attention, const struct block *block, float *out)
{
    const struct kern_attention *a = attention->a;
    size_t d = a->kv->head_dim, row, head;
    for (size_t i = 0; i < block->count; i++) {
        query_of(attention, block, i, &row, &head);
        memcpy(out + i * d, a->query + row * a->query_stride + head * d, d * sizeof *out);
    }
}

static struct kern_kv_head page_of(
    const struct attention *attention, const struct block *block, size_t page)
{
    return kern_kv_head(attention->a->kv, attention->page_bytes, block->table[page], block->head);
}

/* ---- one chunk ----------------------------------------------------------------------------- */

/* What a chunk of keys is to a block: tokens first..end-1, of which pages page_first..page_end-1
 * hold some that are seen; `limit` is the end of those. */
struct chunk {
    size_t first, page_first, page_end, limit;
    float *key_factors, *value_factors; /* (256); value_factors NULL: all one */
};

static struct chunk chunk_of(
    const struct attention *attention, const struct block *block, size_t index, float *factors)
{
    bool scaled = attention->a->kv->dtype == KERN_E4M3;
    struct chunk chunk = {.first = index * KERN_CHUNK,
        .key_factors = factors,
        .value_factors = scaled ? factors + KERN_CHUNK : NULL};
    size_t end = chunk.first + KERN_CHUNK;
    size_t low = block->low > chunk.first ? block->low : chunk.first;
    chunk.limit = block->high < end ? block->high : end;
    chunk.page_first = low / KERN_PAGE_TOKENS;
    chunk.page_end = (chunk.limit + KERN_PAGE_TOKENS - 1) / KERN_PAGE_TOKENS;
    return chunk;
}

/* Tokens of a page that are seen by one of the block, from its first. */
static size_t page_count(const struct chunk *chunk, size_t page)
{
    size_t left = chunk->limit - page * KERN_PAGE_TOKENS;
    return left < KERN_PAGE_TOKENS ? left : KERN_PAGE_TOKENS;
}

/* What a score is multiplied with: the scale, and for E4M3 the key's and what decode leaves. */
static void fill_factors(
    const struct attention *attention, const struct block *block, const struct chunk *chunk)
{
    float scale = attention->a->scale;
    for (size_t i = 0; i < KERN_CHUNK; i++) {
        chunk->key_factors[i] = scale;
    }
    if (!chunk->value_factors) {
        return;
    }
    memset(chunk->value_factors, 0, KERN_CHUNK * sizeof(float));
    for (size_t page = chunk->page_first; page < chunk->page_end; page++) {
        struct kern_kv_head at = page_of(attention, block, page);
        size_t count = page_count(chunk, page), to = page * KERN_PAGE_TOKENS - chunk->first;
        for (size_t i = 0; i < count; i++) {
            chunk->key_factors[to + i] = at.key_scales[i] * 256.0F * scale;
            chunk->value_factors[to + i] = at.value_scales[i] * 256.0F;
        }
    }
}

/* The page's numbers as floats: where they lie, or decoded to `room`. */
static const float *floats_of(
    const struct attention *attention, const char *codes, size_t count, float *room)
{
    const struct kern_kv *kv = attention->a->kv;
    if (kv->dtype == KERN_F32) {
        return (const float *)(const void *)codes;
    }
    attention->tiles->decode(kv->dtype, codes, room, count * kv->head_dim);
    return room;
}

static void score(const struct attention *attention, const struct block *block,
    const struct chunk *chunk, float *room)
{
    const struct room *at = &attention->room;
    size_t d = attention->a->kv->head_dim;
    size_t bytes = d * kern_dtype_bytes(attention->a->kv->dtype);
    for (size_t page = chunk->page_first; page < chunk->page_end; page++) {
        const char *ahead = page + 1 < chunk->page_end
                                ? page_of(attention, block, page + 1).keys
                                : page_of(attention, block, chunk->page_first).values;
        size_t count = page_count(chunk, page);
        const char *codes = page_of(attention, block, page).keys;
        struct kern_dots dots = {.queries = room + at->queries,
            .keys = floats_of(attention, codes, count, room + at->keys),
            .scores = room + at->scores + (page * KERN_PAGE_TOKENS - chunk->first),
            .rows = block->count,
            .count = count,
            .d = d,
            .ahead = ahead,
            .ahead_bytes = bytes};
        attention->tiles->dots(&dots);
    }
}

/* Scores of one query become weights in place: of tokens low..high-1 of the chunk e^(score -
 * largest), zero the others from `begin` to `end`, which are multiples of 8. */
static void soften(const struct chunk *chunk, size_t begin, size_t end, size_t low, size_t high,
    float *scores, float *out_most, float *out_total)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 nothing = _mm256_set1_ps(-INFINITY);
    const __m256i from = _mm256_set1_epi32((int)low - 1), to = _mm256_set1_epi32((int)high);
    __m256 most = nothing, total = _mm256_setzero_ps();
    for (size_t i = begin; i < end; i += 8) {
        __m256i at = _mm256_add_epi32(_mm256_set1_epi32((int)i), lanes);
        __m256i seen = _mm256_and_si256(_mm256_cmpgt_epi32(at, from), _mm256_cmpgt_epi32(to, at));
        __m256 v =
            _mm256_mul_ps(_mm256_loadu_ps(scores + i), _mm256_loadu_ps(chunk->key_factors + i));
        v = _mm256_blendv_ps(nothing, v, _mm256_castsi256_ps(seen));
        _mm256_storeu_ps(scores + i, v);
        most = _mm256_max_ps(most, v);
    }
    *out_most = vector_max(most);
    most = _mm256_set1_ps(*out_most);
    for (size_t i = begin; i < end; i += 8) {
        __m256i at = _mm256_add_epi32(_mm256_set1_epi32((int)i), lanes);
        __m256 seen = _mm256_castsi256_ps(
            _mm256_and_si256(_mm256_cmpgt_epi32(at, from), _mm256_cmpgt_epi32(to, at)));
        __m256 v = vector_exp(_mm256_sub_ps(_mm256_loadu_ps(scores + i), most));
        total = _mm256_add_ps(total, _mm256_and_ps(v, seen));
        if (chunk->value_factors) {
            v = _mm256_mul_ps(v, _mm256_loadu_ps(chunk->value_factors + i));
        }
        _mm256_storeu_ps(scores + i, _mm256_and_ps(v, seen));
    }
    *out_total = vector_sum(total);
}

static void weigh(const struct attention *attention, const struct block *block,
    const struct chunk *chunk, float *scores, const struct part *part)
{
    size_t begin = chunk->page_first * KERN_PAGE_TOKENS - chunk->first;
    size_t end = kern_up(chunk->limit - chunk->first, 8), window = attention->a->window;
    for (size_t i = 0; i < block->count; i++) {
        size_t high = position_of(attention, block, i) + 1;
        size_t low = window > 0 && high > window ? high - window : 0;
        low = low > chunk->first ? low - chunk->first : 0;
        high = high > chunk->first ? high - chunk->first : 0;
        soften(chunk, begin, end, low, high, scores + i * KERN_SCORES, &part->most[i],
            &part->total[i]);
    }
}

/* With few queries a page is decoded, used and forgotten; with many all pages of the chunk are
 * decoded, so that sums stay in registers from the first to the last. */
static void mix(const struct attention *attention, const struct block *block,
    const struct chunk *chunk, float *room, const struct part *part)
{
    const struct room *at = &attention->room;
    const struct kern_kv *kv = attention->a->kv;
    const float *pages[KERN_CHUNK_PAGES];
    bool stream = block->count <= STREAM_QUERIES;
    size_t d = kv->head_dim, pages_count = chunk->page_end - chunk->page_first;
    struct kern_mix mix = {.out = part->mixed, .rows = block->count, .d = d};
    memset(part->mixed, 0, block->count * d * sizeof(float));
    for (size_t i = 0; i < pages_count; i++) {
        size_t page = chunk->page_first + i, count = page_count(chunk, page);
        const char *codes = page_of(attention, block, page).values;
        bool last = i + 1 == pages_count;
        /* After the chunk's last value comes the next chunk's first key. */
        mix.ahead = !last                        ? page_of(attention, block, page + 1).values
                    : chunk->limit < block->high ? page_of(attention, block, page + 1).keys
                                                 : codes;
        pages[i] = floats_of(
            attention, codes, count, room + at->values + (stream ? 0 : i * KERN_PAGE_TOKENS * d));
        if (!stream && !last) {
            continue;
        }
        size_t first = stream ? i : 0;
        mix.weights =
            room + at->scores + (chunk->page_first + first) * KERN_PAGE_TOKENS - chunk->first;
        mix.pages = pages + first;
        mix.pages_count = i + 1 - first;
        mix.count = (i - first) * KERN_PAGE_TOKENS + count;
        mix.ahead_line = stream ? 16 * kern_dtype_bytes(kv->dtype) : 0;
        attention->tiles->mix(&mix);
    }
}

/* The part of a chunk: its queries are in the room already. */
static void attend(const struct attention *attention, const struct block *block, size_t index,
    float *room, const struct part *part)
{
    const struct room *at = &attention->room;
    struct chunk chunk = chunk_of(attention, block, index, room + at->factors);
    fill_factors(attention, block, &chunk);
    score(attention, block, &chunk, room);
    weigh(attention, block, &chunk, room + at->scores, part);
    mix(attention, block, &chunk, room, part);
}

/* ---- merging ------------------------------------------------------------------------------- */

/* Add the part of a later chunk to what was merged of one query. A total of 0 is that of no keys:
 * the largest has the weight 1. */
static void merge(float *most, float *total, float *mixed, float part_most, float part_total,
    const float *part_mixed, size_t d)
{
    if (part_total == 0) {
        return;
    } else if (*total == 0) {
        *most = part_most;
        *total = part_total;
        memcpy(mixed, part_mixed, d * sizeof *mixed);
        return;
    }
    float largest = part_most > *most ? part_most : *most;
    _Alignas(32) float factors[8] = {*most - largest, part_most - largest};
    _mm256_store_ps(factors, vector_exp(_mm256_load_ps(factors)));
    __m256 old = _mm256_set1_ps(factors[0]), new = _mm256_set1_ps(factors[1]);
    for (size_t i = 0; i < d; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(mixed + i), old);
        v = _mm256_fmadd_ps(_mm256_loadu_ps(part_mixed + i), new, v);
        _mm256_storeu_ps(mixed + i, v);
    }
    *most = largest;
    *total = *total * factors[0] + part_total * factors[1];
}

static void write_out(
    const struct attention *attention, size_t row, size_t head, float total, const float *mixed)
{
    const struct kern_attention *a = attention->a;
    size_t d = a->kv->head_dim, at = (row * a->heads + head) * d;
    __m256 part = _mm256_set1_ps(total == 0 ? 0.0F : 1.0F / total);
    for (size_t i = 0; i < d; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(mixed + i), part);
        if (a->out_dtype == KERN_BF16) {
            _mm_storeu_si128((__m128i *)((uint16_t *)a->out + at + i),
                vector_upper_halves(vector_round_bf16(v)));
        } else {
            _mm256_storeu_ps((float *)a->out + at + i, v);
        }
    }
}

static struct part part_at(float *room, size_t at, size_t d)
{
    float *mixed = room + at;
    return (struct part){mixed + QUERIES_MAX * d, mixed + QUERIES_MAX * (d + 1), mixed};
}

/* ---- pieces -------------------------------------------------------------------------------- */

static void reset(const struct part *merged, size_t count, size_t d)
{
    for (size_t i = 0; i < count; i++) {
        merged->most[i] = -INFINITY;
        merged->total[i] = 0;
    }
    memset(merged->mixed, 0, count * d * sizeof(float));
}

static void block_piece(void *self, size_t index, unsigned worker)
{
    const struct attention *attention = self;
    const struct room *at = &attention->room;
    struct block block = block_of(attention, index);
    size_t d = attention->a->kv->head_dim, row, head;
    float *room = (float *)attention->a->workspace + worker * at->total;
    struct part part = part_at(room, at->part, d), merged = part_at(room, at->merged, d);
    copy_queries(attention, &block, room + at->queries);
    reset(&merged, block.count, d);
    for (size_t i = block.low / KERN_CHUNK; i < chunks_of(block.high); i++) {
        attend(attention, &block, i, room, &part);
        for (size_t q = 0; q < block.count; q++) {
            merge(&merged.most[q], &merged.total[q], merged.mixed + q * d, part.most[q],
                part.total[q], part.mixed + q * d, d);
        }
    }
    for (size_t q = 0; q < block.count; q++) {
        query_of(attention, &block, q, &row, &head);
        write_out(attention, row, head, merged.total[q], merged.mixed + q * d);
    }
}

static float *kept_part(const struct attention *attention, size_t row, size_t head, size_t chunk)
{
    const struct kern_attention *a = attention->a;
    return attention->parts +
           ((row * a->heads + head) * attention->chunks + chunk) * (a->kv->head_dim + 8);
}

/* A block and one chunk. */
static void part_piece(void *self, size_t index, unsigned worker)
{
    const struct attention *attention = self;
    const struct room *at = &attention->room;
    struct block block = block_of(attention, index / attention->chunks);
    size_t chunk = index % attention->chunks, d = attention->a->kv->head_dim, row, head;
    float *room = (float *)attention->a->workspace + worker * at->total;
    struct part part = part_at(room, at->part, d);
    if (chunk < block.low / KERN_CHUNK || chunk >= chunks_of(block.high)) {
        return;
    }
    copy_queries(attention, &block, room + at->queries);
    attend(attention, &block, chunk, room, &part);
    for (size_t q = 0; q < block.count; q++) {
        query_of(attention, &block, q, &row, &head);
        float *kept = kept_part(attention, row, head, chunk);
        memcpy(kept, part.mixed + q * d, d * sizeof *kept);
        kept[d] = part.most[q];
        kept[d + 1] = part.total[q];
    }
}

static void merge_piece(void *self, size_t index, unsigned worker)
{
    const struct attention *attention = self;
    struct block block = block_of(attention, index);
    size_t d = attention->a->kv->head_dim, row, head;
    float *room = (float *)attention->a->workspace + worker * attention->room.total;
    struct part merged = part_at(room, attention->room.merged, d);
    reset(&merged, block.count, d);
    for (size_t q = 0; q < block.count; q++) {
        float *mixed = merged.mixed + q * d;
        query_of(attention, &block, q, &row, &head);
        for (size_t i = block.low / KERN_CHUNK; i < chunks_of(block.high); i++) {
            const float *kept = kept_part(attention, row, head, i);
            merge(&merged.most[q], &merged.total[q], mixed, kept[d], kept[d + 1], kept, d);
        }
        write_out(attention, row, head, merged.total[q], mixed);
    }
}

void kern_cpu_attention(struct kern_ctx *ctx, const struct kern_attention *a)
{
    const struct kern_kv *kv = a->kv;
    struct attention attention = {.a = a,
        .tiles = ctx->ops->attention_tiles,
        .page_bytes = kern_kv_page_bytes(kv->dtype, kv->heads, kv->head_dim),
        .group = a->heads / kv->heads,
        .room = room_of(kv->head_dim),
        .chunks = chunks_of(a->length_max)};
    for (size_t b = 0; b < a->sequences; b++) {
        attention.blocks += blocks_of(&attention, b) * kv->heads;
    }
    if (ctx->threads == 1 || attention.blocks >= FEW * ctx->threads || attention.chunks < 2 ||
        parts_of(a->t, a->heads, a->length_max) == 0) {
        kern_pool_run(ctx->pool, attention.blocks, block_piece, &attention);
        return;
    }
    attention.parts = (float *)a->workspace + ctx->threads * attention.room.total;
    kern_pool_run(ctx->pool, attention.blocks * attention.chunks, part_piece, &attention);
    kern_pool_run(ctx->pool, attention.blocks, merge_piece, &attention);
}
