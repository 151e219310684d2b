/* What it costs to put captures that were made apart beside each other; tools/eval/fusion drives
 * it.
 *
 *   eval_blocks blocks MODEL [--capture TYPE] ... < CASES
 *   eval_blocks text   MODEL [--capture TYPE] ... < TEXTS
 *   options: --capture TYPE (f32), --weights TYPE, --kv TYPE, --backend cpu, --threads 2
 *
 * `text`: each text is read and continued greedily, then captured, attached in an engine that has
 * not seen it, and continued: are these the same tokens, how far are their log probabilities?
 *
 * `blocks`: a case is a lead, a tail, what follows and is scored, and blocks that stand between
 * lead and tail. The text is read in every way that there is: as text ("full"), without its blocks
 * ("nothing"), with lead and blocks out of one capture ("prefix"), and with each block out of one
 * of its own, captured alone ("alone") or behind the lead ("behind"), of which the first 0, 8, 16
 * or 32 tokens are computed. Told of each way: the log probability of what is scored; how many of
 * the greedy tokens are those of the full text, and whether the first is; how far the first token's
 * distribution is from the full text's (Kullback and Leibler; over the tokens that both name among
 * their twenty likeliest, all others as one, so that the true distance is at least that).
 *
 * CASES: each the number of its texts (u32, little endian), then for each its length (u32) and its
 * bytes: lead, tail, scored, block ...; TEXTS: length and bytes. A line of JSON each way. */
#include "paramem/engine.h"
#include "paramem/layers.h"
#include "tests/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_BYTES_MAX = 1 << 20,
    TEXTS_MAX = 64,
    GREEDY = 16,
    CONTINUED = 32,
    TOKENS_MAX = 4096,
};

static const size_t recomputed[] = {0, 8, 16, 32};

struct options {
    const char *capture, *weights, *kv, *backend, *threads;
};

struct setting {
    struct kern_ctx *ctx;
    struct paramem_model *model;
    struct paramem_engine *engine;
    enum kern_dtype capture, kv;
};

/* ---- the engine ---------------------------------------------------------------------------- */

static enum kern_dtype type_of(const char *name)
{
    enum kern_dtype dtype = name ? kern_dtype_of(memos_bytes_of(name)) : (enum kern_dtype)0;
    if (name && dtype == 0) {
        bench_fail("there is no type %s", name);
    }
    return dtype;
}

static void engine_anew(struct setting *s, bool prefix_cache)
{
    struct memos_error err = {0};
    paramem_engine_destroy(&s->engine);
    const struct paramem_engine_options options = {
        .model = s->model, .kv = s->kv, .sequences_max = 2, .no_prefix_cache = !prefix_cache};
    bench_check(paramem_engine_create(&options, &s->engine, &err), &err, "make an engine");
}

static void open_model(struct setting *s, const char *path, const struct options *options)
{
    struct memos_error err = {0};
    const struct kern_options kern = {.backend = options->backend ? options->backend : "cpu",
        .threads = options->threads ? (size_t)strtoul(options->threads, NULL, 10) : 2};
    bench_check(kern_ctx_create(&kern, &s->ctx, &err), &err, "make a context");
    const struct paramem_model_options model = {.path = path,
        .ctx = s->ctx,
        .weights = type_of(options->weights),
        .context_max = TOKENS_MAX};
    bench_check(paramem_model_open(&model, &s->model, &err), &err, "open the model");
    s->capture = options->capture ? type_of(options->capture) : KERN_F32;
    s->kv = options->kv ? type_of(options->kv) : KERN_F32;
}

/* What a greedy continuation was told. */
struct heard {
    uint32_t ids[CONTINUED];
    float logprobs[CONTINUED];
    size_t count;
    uint32_t top_ids[KERN_TOP_MAX]; /* of the first */
    float top[KERN_TOP_MAX];
};

static void hear(void *self, const struct paramem_token *token)
{
    struct heard *heard = self;
    if (heard->count == 0) {
        memcpy(heard->top_ids, token->top_ids, token->top_count * sizeof *heard->top_ids);
        memcpy(heard->top, token->top_logprobs, token->top_count * sizeof *heard->top);
    }
    heard->ids[heard->count] = token->id;
    heard->logprobs[heard->count++] = token->logprob;
}

static void hear_end(void *self, const struct paramem_result *result)
{
    (void)self;
    if (result->status != MEMOS_OK) {
        bench_fail("a request failed: %s", result->err->text);
    }
}

static void continue_text(struct setting *s, const uint32_t *ids, size_t count, size_t tokens,
    const struct paramem_placed *placed, size_t placed_count, struct heard *out)
{
    struct memos_error err = {0};
    uint64_t id = 0;
    bool more = true;
    memset(out, 0, sizeof *out);
    const struct paramem_request request = {.prompt = ids,
        .prompt_count = count,
        .max_tokens = tokens,
        .no_model_stops = true,
        .top = KERN_TOP_MAX,
        .placed = placed,
        .placed_count = placed_count,
        .on_token = hear,
        .on_done = hear_end,
        .self = out};
    bench_check(paramem_engine_submit(s->engine, &request, &id, &err), &err, "submit");
    while (more) {
        bench_check(paramem_engine_step(s->engine, &more, &err), &err, "step");
    }
}

static void *capture(
    struct setting *s, const uint32_t *ids, size_t count, struct paramem_kv_cube *out)
{
    struct memos_error err = {0};
    void *memory = NULL;
    size_t bytes = paramem_engine_capture_bytes(s->engine, count, s->capture);
    if (bytes == 0) {
        bench_fail("no capture of %zu tokens", count);
    }
    bench_check(kern_host_alloc(s->ctx, bytes, &memory, &err), &err, "room for a capture");
    const struct paramem_capture asked = {
        .ids = ids, .count = count, .dtype = s->capture, .memory = memory};
    bench_check(paramem_engine_capture(s->engine, &asked, out, &err), &err, "capture");
    paramem_kv_cube_seal(out, memory, s->ctx);
    return memory;
}

/* ---- reading ------------------------------------------------------------------------------- */

static bool read_u32(size_t *out)
{
    uint8_t head[4];
    size_t got = fread(head, 1, sizeof head, stdin);
    if (got != 0 && got != sizeof head) {
        bench_fail("a number is cut off");
    }
    *out = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    return got != 0;
}

/* The ids of the next text; with `begins` what stands before every text of this tokenizer, too. */
static bool read_ids(struct setting *s, bool begins, struct paramem_ids *out)
{
    struct memos_error err = {0};
    size_t size = 0;
    if (!read_u32(&size)) {
        return false;
    }
    char *text = bench_memory(size + 1, 1);
    if (size > TEXT_BYTES_MAX || fread(text, 1, size, stdin) != size) {
        bench_fail("a text of %zu bytes is cut off, or too long", size);
    }
    unsigned flags = PARAMEM_PLAIN_TEXT | (begins ? PARAMEM_ADD_SPECIAL : 0);
    bench_check(paramem_tokenizer_encode(
                    s->model->tokenizer, memos_bytes_make(text, size), flags, out, &err),
        &err, "tokenize");
    free(text);
    return true;
}

/* ---- one text ------------------------------------------------------------------------------ */

static void one_text(struct setting *s, size_t number, const struct paramem_ids *ids)
{
    struct heard plain, heard;
    struct paramem_kv_cube cube;
    struct paramem_attached told;
    struct memos_error err = {0};
    double far = 0;

    engine_anew(s, true);
    continue_text(s, ids->ids, ids->count, CONTINUED, NULL, 0, &plain);
    engine_anew(s, true);
    void *memory = capture(s, ids->ids, ids->count, &cube);
    engine_anew(s, true);
    const struct paramem_attach attach = {.cube = &cube};
    bench_check(paramem_engine_attach(s->engine, &attach, &told, &err), &err, "attach");
    continue_text(s, ids->ids, ids->count, CONTINUED, NULL, 0, &heard);
    size_t same = 0;
    while (same < CONTINUED && plain.ids[same] == heard.ids[same]) {
        far = fmax(far, fabs((double)plain.logprobs[same] - (double)heard.logprobs[same]));
        same++;
    }
    printf("{\"text\": %zu, \"tokens\": %zu, \"attached\": %zu, \"same\": %zu, \"of\": %d, "
           "\"far\": %.9g}\n",
        number, ids->count, told.tokens, same, CONTINUED, far);
    kern_host_release(s->ctx, &memory);
}

static void texts(struct setting *s)
{
    struct paramem_ids ids;
    for (size_t number = 0; read_ids(s, true, &ids); number++) {
        if (ids.count > 0 && ids.count <= TOKENS_MAX / 2) {
            one_text(s, number, &ids);
        }
        free(ids.ids);
    }
}

/* ---- blocks -------------------------------------------------------------------------------- */

struct one_case {
    struct setting *s;
    size_t number, blocks;
    struct paramem_ids lead, tail, scored, block[TEXTS_MAX];
    uint32_t ids[TOKENS_MAX], room[TOKENS_MAX];
    float out[TOKENS_MAX];
    struct heard full;
};

static size_t ids_add(uint32_t *to, size_t at, const struct paramem_ids *ids)
{
    if (ids->count > TOKENS_MAX - CONTINUED - at) {
        bench_fail("a case of more than %d tokens", TOKENS_MAX - CONTINUED);
    }
    memcpy(to + at, ids->ids, ids->count * sizeof *to);
    return at + ids->count;
}

/* The full text, or what is left of it without blocks; the prompt's tokens, without what is scored.
 */
static size_t text_make(struct one_case *c, bool with_blocks)
{
    size_t count = ids_add(c->ids, 0, &c->lead);
    for (size_t i = 0; with_blocks && i < c->blocks; i++) {
        count = ids_add(c->ids, count, &c->block[i]);
    }
    count = ids_add(c->ids, count, &c->tail);
    (void)ids_add(c->ids, count, &c->scored);
    return count;
}

static double divergence(const struct heard *from, const struct heard *to)
{
    double sum = 0, rest_from = 1, rest_to = 1;
    for (size_t i = 0; i < KERN_TOP_MAX; i++) {
        for (size_t j = 0; j < KERN_TOP_MAX; j++) {
            if (from->top_ids[i] == to->top_ids[j]) {
                double p = exp((double)from->top[i]);
                sum += p * ((double)from->top[i] - (double)to->top[j]);
                rest_from -= p;
                rest_to -= exp((double)to->top[j]);
            }
        }
    }
    rest_from = fmax(rest_from, 1e-9);
    rest_to = fmax(rest_to, 1e-9);
    return sum + rest_from * log(rest_from / rest_to);
}

static void tell(struct one_case *c, const char *way, size_t recompute, size_t prompt,
    const struct paramem_placed *placed, size_t placed_count)
{
    struct memos_error err = {0};
    struct heard heard;
    size_t all = prompt + c->scored.count, agree = 0, taken = 0;
    double sum = 0;
    bench_check(
        paramem_engine_score_placed(c->s->engine, c->ids, all, placed, placed_count, c->out, &err),
        &err, "score");
    for (size_t i = prompt - 1; i + 1 < all; i++) {
        sum += (double)c->out[i];
    }
    continue_text(c->s, c->ids, prompt, GREEDY, placed, placed_count, &heard);
    if (strcmp(way, "full") == 0) {
        c->full = heard;
    }
    for (size_t i = 0; i < GREEDY; i++) {
        agree += heard.ids[i] == c->full.ids[i];
    }
    for (size_t i = 0; i < placed_count; i++) {
        taken += placed[i].tokens - placed[i].recompute;
    }
    printf("{\"case\": %zu, \"blocks\": %zu, \"way\": \"%s\", \"recompute\": %zu, \"tokens\": %zu, "
           "\"taken\": %zu, \"scored\": %zu, \"logprob\": %.9g, \"first\": %d, \"agree\": %zu, "
           "\"of\": %d, \"kl\": %.6g}\n",
        c->number, c->blocks, way, recompute, prompt, taken, c->scored.count, sum,
        heard.ids[0] == c->full.ids[0], agree, GREEDY, divergence(&c->full, &heard));
    (void)fflush(stdout);
}

/* Each block out of a capture that was made alone, or behind the lead. */
static void apart(struct one_case *c, const char *way, bool behind, size_t prompt)
{
    struct paramem_kv_cube cubes[TEXTS_MAX];
    struct paramem_placed placed[TEXTS_MAX];
    void *memory[TEXTS_MAX];
    size_t at = c->lead.count, lead = behind ? c->lead.count : 0;
    for (size_t i = 0; i < c->blocks; i++) {
        size_t count = behind ? ids_add(c->room, 0, &c->lead) : 0;
        count = ids_add(c->room, count, &c->block[i]);
        memory[i] = capture(c->s, c->room, count, &cubes[i]);
        placed[i] = (struct paramem_placed){
            .cube = &cubes[i], .first_in_cube = lead, .tokens = c->block[i].count, .at = at};
        at += c->block[i].count;
    }
    for (size_t r = 0; r < sizeof recomputed / sizeof recomputed[0]; r++) {
        for (size_t i = 0; i < c->blocks; i++) {
            size_t most = placed[i].tokens;
            placed[i].recompute = recomputed[r] < most ? recomputed[r] : most;
        }
        tell(c, way, recomputed[r], prompt, placed, c->blocks);
    }
    for (size_t i = 0; i < c->blocks; i++) {
        kern_host_release(c->s->ctx, &memory[i]);
    }
}

static void one_case(struct one_case *c)
{
    struct paramem_kv_cube cube;
    size_t prompt = text_make(c, true);
    engine_anew(c->s, true);
    tell(c, "full", 0, prompt, NULL, 0);
    size_t count = prompt - c->tail.count;
    void *memory = capture(c->s, c->ids, count, &cube);
    const struct paramem_placed prefix = {.cube = &cube, .tokens = count};
    tell(c, "prefix", 0, prompt, &prefix, 1);
    kern_host_release(c->s->ctx, &memory);
    apart(c, "alone", false, prompt);
    apart(c, "behind", true, prompt);
    tell(c, "nothing", 0, text_make(c, false), NULL, 0);
}

static void cases(struct setting *s)
{
    struct one_case *c = bench_memory(1, sizeof *c);
    size_t texts = 0;
    c->s = s;
    for (; read_u32(&texts); c->number++) {
        if (texts < 4 || texts > TEXTS_MAX) {
            bench_fail("a case of %zu texts; 4 to %d", texts, TEXTS_MAX);
        }
        struct paramem_ids *parts[] = {&c->lead, &c->tail, &c->scored};
        c->blocks = texts - 3;
        for (size_t i = 0; i < texts; i++) {
            if (!read_ids(s, i == 0, i < 3 ? parts[i] : &c->block[i - 3])) {
                bench_fail("a case is cut off");
            }
        }
        one_case(c);
        for (size_t i = 0; i < texts; i++) {
            free(i < 3 ? parts[i]->ids : c->block[i - 3].ids);
        }
    }
    free(c);
}

int main(int argc, char **argv)
{
    struct options options = {0};
    struct setting setting = {0};
    const struct bench_option ours[] = {{"--capture", &options.capture},
        {"--weights", &options.weights}, {"--kv", &options.kv}, {"--backend", &options.backend},
        {"--threads", &options.threads}};
    argc = bench_options_take(ours, sizeof ours / sizeof ours[0], argc, argv);
    bool blocks = argc == 3 && strcmp(argv[1], "blocks") == 0;
    if (!blocks && !(argc == 3 && strcmp(argv[1], "text") == 0)) {
        fputs("usage: eval_blocks blocks|text MODEL [--capture TYPE] [--weights TYPE] [--kv TYPE]\n"
              "                   [--backend NAME] [--threads N] < CASES\n",
            stderr);
        return 2;
    }
    open_model(&setting, argv[2], &options);
    if (blocks) {
        cases(&setting);
    } else {
        texts(&setting);
    }
    paramem_engine_destroy(&setting.engine);
    paramem_model_close(&setting.model);
    kern_ctx_destroy(&setting.ctx);
    return fflush(stdout) == 0 ? 0 : 1;
}
