/* Captures of a prompt on their way into the engine. */
#include "memos/worker/memory_internal.h"

static bool part_stands(const struct worker_part *part)
{
    return part->kept->source != WORKER_MAPPED || paramem_kv_cube_stands(&part->kept->cube);
}

static enum memos_status fail_destroyed(const struct worker_part *part, struct memos_error *err)
{
    char ref[WORKER_REF_TEXT_BYTES];
    return memos_fail(err, MEMOS_CONFLICT, "capture %s was destroyed while it was used",
        worker_ref_text(&part->ref, ref));
}

/* One of the chain, behind those that are attached. */
static enum memos_status attach_part(struct worker_memory *memory, const struct worker_host *host,
    struct worker_prompt_private *own, size_t index, struct memos_error *err)
{
    const struct worker_part *part = &own->prefix.parts[index];
    struct paramem_attached *told = &own->attached[index];
    const struct paramem_attach attach = {.cube = &part->kept->cube,
        .after = index > 0 ? &own->attached[index - 1] : NULL,
        .tokens_max = part->tokens,
        .owner = worker_owner_of(own->space)};
    const int64_t begin_us = memory->clock.mono_us(memory->clock.self);
    enum memos_status status = paramem_engine_attach(host->engine, &attach, told, err);
    if (!part_stands(part)) { /* whatever was found in it */
        status = fail_destroyed(part, err);
    }
    own->attach_us[index] = (uint64_t)(memory->clock.mono_us(memory->clock.self) - begin_us);
    if (status != MEMOS_OK || told->tokens == 0) {
        return status;
    }
    own->attached_count++;
    own->attached_tokens += told->tokens;
    if (told->found == 0) {
        (void)pthread_mutex_lock(&memory->lock);
        worker_cost_saw_attach(worker_memory_cost(memory, host),
            told->tokens / KERN_PAGE_TOKENS * part->kept->cube.block_bytes, own->attach_us[index]);
        (void)pthread_mutex_unlock(&memory->lock);
    }
    return MEMOS_OK;
}

static void attach_prefix(
    struct worker_memory *memory, const struct worker_host *host, struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    const struct worker_chain *prefix = &own->prefix;
    struct memos_error err = {0};
    char ref[WORKER_REF_TEXT_BYTES];
    enum memos_status status = MEMOS_OK;
    size_t i = 0;
    for (bool more = true; more && i < prefix->count && prefix->parts[i].tokens > 0; i++) {
        status = attach_part(memory, host, own, i, &err);
        /* what follows stands on all of it */
        more = status == MEMOS_OK && own->attached[i].tokens == prefix->parts[i].tokens;
    }
    if (status == MEMOS_CONFLICT) { /* what was attached may be zeros */
        paramem_engine_drop(host->engine, worker_owner_of(own->space));
        own->attached_count = own->attached_tokens = 0;
    }
    (void)pthread_mutex_lock(&memory->lock);
    memory->stats.attached += own->attached_count;
    memory->stats.refused += status != MEMOS_OK;
    (void)pthread_mutex_unlock(&memory->lock);
    if (status != MEMOS_OK || own->attached_count == 0) {
        worker_note(&own->notes, "capture %s was not attached: %s",
            worker_ref_text(&prefix->parts[i - 1].ref, ref),
            status != MEMOS_OK ? err.text : "the engine has no room");
    }
}

/* Where each of the independent captures goes: behind what is exact already. */
static void place_apart(struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    const size_t exact = own->attached_tokens;
    for (size_t i = 0; i < own->apart_count; i++) {
        const struct worker_part *part = &own->apart[i];
        const size_t body = own->layout.placed[part->placed].body;
        const size_t known = exact > body ? exact - body : 0;
        if (known >= part->tokens) {
            continue;
        }
        const size_t tokens = part->tokens - known;
        const size_t recompute = own->recompute > known ? own->recompute - known : 0;
        own->placed_of[prompt->placed_count] = part;
        own->placed[prompt->placed_count++] = (struct paramem_placed){.cube = &part->kept->cube,
            .first_in_cube = known,
            .tokens = tokens,
            .at = body + known,
            .recompute = recompute < tokens ? recompute : tokens};
    }
    prompt->placed = own->placed;
}

enum memos_status worker_memory_stands(const struct worker_prompt *prompt, struct memos_error *err)
{
    for (size_t i = 0; i < prompt->placed_count; i++) {
        const struct worker_part *part = prompt->own->placed_of[i];
        if (!part_stands(part)) {
            return fail_destroyed(part, err);
        }
    }
    return MEMOS_OK;
}

void worker_memory_fuse(
    struct worker_memory *memory, const struct worker_host *host, struct worker_prompt *prompt)
{
    struct worker_prompt_private *own = prompt->own;
    const int64_t begin_us = memory->clock.mono_us(memory->clock.self);
    if (own->prefix.count > 0) {
        attach_prefix(memory, host, prompt);
    }
    place_apart(prompt);
    prompt->fuse_us = (uint64_t)(memory->clock.mono_us(memory->clock.self) - begin_us);
}
