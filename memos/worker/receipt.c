/* A prompt's receipt: what was fused into an answer. */
#include "memos/worker/memory_internal.h"

#include "memos/worker/receipt_json.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { JSON_BYTES_MAX = 16 << 20, REFS_BYTES_MAX = 4000 };

static enum memos_status fail_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a receipt");
}

static ProtobufCBinaryData bytes_copy(struct memos_arena *arena, const void *data, size_t size)
{
    const struct memos_bytes bytes = memos_bytes_make(data, size);
    return (ProtobufCBinaryData){.len = size, .data = memos_arena_copy(arena, bytes)};
}

static char *text_copy(struct memos_arena *arena, const char *text)
{
    return memos_arena_copy(arena, memos_bytes_of(text ? text : ""));
}

/* BLAKE2b-256 of ids, 4 bytes each, little-endian. */
static ProtobufCBinaryData ids_hash(struct memos_arena *arena, const uint32_t *ids, size_t count)
{
    uint8_t hash[MEMCUBE_HASH_BYTES];
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, sizeof hash);
    for (size_t i = 0; i < count; i++) {
        const uint8_t bytes[4] = {(uint8_t)ids[i], (uint8_t)(ids[i] >> 8), (uint8_t)(ids[i] >> 16),
            (uint8_t)(ids[i] >> 24)};
        (void)crypto_generichash_update(&state, bytes, sizeof bytes);
    }
    (void)crypto_generichash_final(&state, hash, sizeof hash);
    return bytes_copy(arena, hash, sizeof hash);
}

/* ---- items ----------------------------------------------------------------------------------- */

/* The next item, of this version; NULL without memory. Room for all was made at begin. */
static Memos__ReceiptItem *item_add(struct worker_prompt *prompt, const struct memcube_ref *ref,
    const uint8_t hash[MEMCUBE_HASH_BYTES])
{
    struct memos_arena *arena = &prompt->arena;
    Memos__ReceiptItem *item = memos_arena_take(arena, 1, sizeof *item);
    Memos__Ref *own = memos_arena_take(arena, 1, sizeof *own);
    if (!item || !own) {
        return NULL;
    }
    memos__receipt_item__init(item);
    memos__ref__init(own);
    own->id = bytes_copy(arena, ref->id.bytes, sizeof ref->id.bytes);
    own->number = ref->number;
    item->ref = own;
    item->payload_hash = bytes_copy(arena, hash, MEMCUBE_HASH_BYTES);
    if (!own->id.data || !item->payload_hash.data) {
        return NULL;
    }
    prompt->receipt->items[prompt->receipt->n_items++] = item;
    return item;
}

static bool texts_add(struct worker_prompt *prompt)
{
    const struct worker_prompt_private *own = prompt->own;
    const struct worker_layout *layout = &own->layout;
    const uint64_t each_us = own->texts.count > 0 ? own->texts.micros / own->texts.count : 0;
    for (size_t i = 0; i < layout->placed_count; i++) {
        const struct worker_placed *placed = &layout->placed[i];
        Memos__ReceiptItem *item = item_add(prompt, &placed->text->ref, placed->text->hash);
        if (!item) {
            return false;
        }
        item->used_as = WORKER_USED_TEXT;
        item->first_token = (uint32_t)placed->first;
        item->tokens = (uint32_t)(placed->end - placed->first);
        item->bytes = placed->text->words.size;
        item->micros = each_us;
        item->score = placed->text->score;
        item->mark = (char *)(uintptr_t)placed->mark; /* in the arena, too */
    }
    return true;
}

enum memos_status worker_receipt_begin(const struct worker_memory *memory,
    const struct worker_host *host, const struct worker_fetch *fetch, struct worker_prompt *prompt,
    struct memos_error *err)
{
    const struct worker_prompt_private *own = prompt->own;
    struct memos_arena *arena = &prompt->arena;
    const size_t items_max = 3 * own->layout.placed_count + WORKER_CHAIN_MAX;
    Memos__Receipt *receipt = memos_arena_take(arena, 1, sizeof *receipt);
    uint8_t id[16];
    if (!receipt) {
        return fail_full(err);
    }
    randombytes_buf(id, sizeof id);
    memos__receipt__init(receipt);
    prompt->receipt = receipt;
    receipt->id = bytes_copy(arena, id, sizeof id);
    receipt->space = own->space;
    receipt->seq = own->texts.moment.seq;
    if (own->texts.has_moment) {
        receipt->head = bytes_copy(arena, own->texts.moment.head, sizeof own->texts.moment.head);
    }
    receipt->time_us = memory->clock.wall_us(memory->clock.self);
    receipt->principal = text_copy(arena, fetch->principal);
    receipt->worker = text_copy(arena, fetch->worker);
    receipt->model = text_copy(arena, host->name);
    receipt->fingerprint = bytes_copy(arena, host->info.fingerprint, 32);
    receipt->prompt_hash = ids_hash(arena, prompt->ids.ids, prompt->ids.count);
    receipt->items = memos_arena_take(arena, items_max, sizeof *receipt->items);
    return receipt->id.data && receipt->principal && receipt->worker && receipt->model &&
                   receipt->fingerprint.data && receipt->prompt_hash.data && receipt->items &&
                   texts_add(prompt)
               ? MEMOS_OK
               : fail_full(err);
}

/* ---- what was really taken ------------------------------------------------------------------- */

/* Of the common beginning, what was taken: pages from the first placed range on are not found by
 * what was attached. */
static size_t prefix_taken(const struct worker_prompt *prompt, const struct paramem_result *result)
{
    const struct worker_prompt_private *own = prompt->own;
    size_t tokens = own->attached_tokens;
    tokens = tokens < result->cached_tokens ? tokens : result->cached_tokens;
    if (prompt->placed_count > 0) {
        const size_t from = prompt->placed[0].at + prompt->placed[0].recompute;
        const size_t exact = from / KERN_PAGE_TOKENS * KERN_PAGE_TOKENS;
        tokens = tokens < exact ? tokens : exact;
    }
    return tokens;
}

/* One of the chain, of which `tokens` were taken. */
static void part_tell(struct worker_prompt *prompt, size_t index, size_t tokens)
{
    struct worker_prompt_private *own = prompt->own;
    const struct worker_part *part = &own->prefix.parts[index];
    const struct paramem_attached *attached = &own->attached[index];
    char ref[WORKER_REF_TEXT_BYTES];
    Memos__ReceiptItem *item = item_add(prompt, &part->ref, part->kept->hash);
    if (!item) {
        own->notes.lost++;
        return;
    }
    item->used_as = WORKER_USED_KV;
    item->first_token = (uint32_t)part->at;
    item->tokens = (uint32_t)tokens;
    item->bytes = part->bytes;
    item->micros = part->load_us + own->attach_us[index];
    if (attached->found > 0) {
        worker_note(&own->notes, "of capture %s %zu of %zu tokens were in the engine already",
            worker_ref_text(&part->ref, ref), attached->found, attached->tokens);
    }
}

static void prefix_tell(struct worker_prompt *prompt, const struct paramem_result *result)
{
    const struct worker_prompt_private *own = prompt->own;
    Memos__Receipt *receipt = prompt->receipt;
    const size_t texts = receipt->n_items, tokens = prefix_taken(prompt, result);
    for (size_t i = 0; i < own->attached_count && own->prefix.parts[i].at < tokens; i++) {
        const size_t left = tokens - own->prefix.parts[i].at;
        part_tell(prompt, i, left < own->attached[i].tokens ? left : own->attached[i].tokens);
    }
    for (size_t i = 0; i < texts; i++) {
        if (receipt->items[i]->first_token < tokens) {
            receipt->items[i]->used_as = WORKER_USED_TEXT_IN_KV;
        }
    }
}

/* What is placed is never computed: it was put there for this answer, or for an earlier one with
 * the same captures in the same places. */
static void apart_tell(struct worker_prompt *prompt)
{
    const struct worker_prompt_private *own = prompt->own;
    Memos__Receipt *receipt = prompt->receipt;
    for (size_t i = 0; i < prompt->placed_count; i++) {
        const struct worker_part *part = own->placed_of[i];
        const struct paramem_placed *placed = &prompt->placed[i];
        if (placed->recompute == placed->tokens) {
            continue;
        }
        Memos__ReceiptItem *item = item_add(prompt, &part->ref, part->kept->hash);
        if (!item) {
            return;
        }
        item->used_as = WORKER_USED_KV_APART;
        item->first_token = (uint32_t)(placed->at + placed->recompute);
        item->tokens = (uint32_t)(placed->tokens - placed->recompute);
        item->bytes = part->bytes;
        item->micros = part->load_us;
        item->mark = (char *)(uintptr_t)own->layout.placed[part->placed].mark;
        item->approximate = true;
        receipt->items[part->placed]->used_as = WORKER_USED_TEXT_IN_KV;
        receipt->items[part->placed]->approximate = true;
    }
}

/* The engine dropped the prompt's first tokens: what stood there was not seen. */
static void cut_tell(struct worker_prompt *prompt, size_t cut)
{
    Memos__Receipt *receipt = prompt->receipt;
    size_t kept = 0;
    worker_note(&prompt->own->notes, "the prompt's first %zu tokens were dropped", cut);
    for (size_t i = 0; i < receipt->n_items; i++) {
        Memos__ReceiptItem *item = receipt->items[i];
        const size_t end = (size_t)item->first_token + item->tokens;
        if (end > cut + 1) { /* bos stays */
            item->first_token = item->first_token > cut ? item->first_token - (uint32_t)cut : 0;
            receipt->items[kept++] = item;
        }
    }
    receipt->n_items = kept;
}

void worker_receipt_end(const struct worker_memory *memory, struct worker_prompt *prompt,
    const struct paramem_result *result, const uint32_t *answer, size_t answer_count)
{
    struct worker_prompt_private *own = prompt->own;
    Memos__Receipt *receipt = prompt->receipt;
    prefix_tell(prompt, result);
    apart_tell(prompt);
    if (result->cut_tokens > 0) {
        cut_tell(prompt, result->cut_tokens);
    }
    receipt->time_us = memory->clock.wall_us(memory->clock.self);
    receipt->answer_hash = ids_hash(&prompt->arena, answer, answer_count);
    if (!receipt->answer_hash.data) {
        receipt->answer_hash.len = 0;
    }
    worker_notes_close(&own->notes);
    receipt->notes = own->notes.texts;
    receipt->n_notes = own->notes.count;
}

/* ---- kept ------------------------------------------------------------------------------------ */

/* The versions that it names, as far as one attribute has room. */
static void refs_text(const Memos__Receipt *receipt, char out[REFS_BYTES_MAX])
{
    size_t size = 0;
    out[0] = '\0';
    for (size_t i = 0; i < receipt->n_items; i++) {
        struct memcube_ref ref = {.number = receipt->items[i]->ref->number};
        char text[WORKER_REF_TEXT_BYTES];
        memcpy(ref.id.bytes, receipt->items[i]->ref->id.data, sizeof ref.id.bytes);
        const char *one = worker_ref_text(&ref, text);
        if (size + strlen(one) + 2 > REFS_BYTES_MAX) {
            break;
        }
        size +=
            (size_t)snprintf(out + size, REFS_BYTES_MAX - size, "%s%s", size > 0 ? " " : "", one);
    }
}

static enum memos_status put(const struct worker_fetch *fetch, const char *space,
    Memos__Draft *draft, struct memos_bytes frame, struct memcube_ref *out, struct memos_error *err)
{
    struct memos_message *message = NULL;
    char reason[] = "the receipt of an answer";
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request;
    body.space = (char *)(uintptr_t)space;
    body.reason = reason;
    body.drafts = &draft;
    body.n_drafts = 1;
    WORKER_REQUEST(request, PUT, put, body);
    enum memos_status status =
        worker_ask(fetch, &request, &frame, 1, MEMOS__REPLY__BODY_OUTCOME, &message, err);
    if (status == MEMOS_OK) {
        const Memos__Outcome *outcome = memos_message_reply(message)->outcome;
        if (outcome->n_refs == 1 && worker_id_of(outcome->refs[0]->id, &out->id)) {
            out->number = outcome->refs[0]->number;
        } else {
            status = memos_fail(err, MEMOS_CORRUPT, "the broker did not say what it kept");
        }
    }
    memos_message_free(&message);
    return status;
}

enum memos_status worker_receipt_put(const struct worker_fetch *fetch,
    const struct worker_prompt *prompt, struct memcube_ref *out_ref, struct memos_error *err)
{
    const ProtobufCBinaryData print = prompt->receipt->fingerprint;
    char model[2 * 32 + 1];
    char subtype[] = WORKER_RECEIPT_SUBTYPE, codec[] = "application/json", name[] = "refs";
    char refs[REFS_BYTES_MAX];
    struct memos_buffer json = memos_buffer_make(JSON_BYTES_MAX);
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Attribute attribute = MEMOS__ATTRIBUTE__INIT, *attributes[] = {&attribute};
    if (!prompt->own->space[0]) {
        memos_buffer_free(&json);
        return memos_fail(err, MEMOS_INVALID, "a receipt is to be kept, and no space is named");
    }
    refs_text(prompt->receipt, refs);
    attribute.name = name;
    attribute.value = refs;
    draft.kind = MEMCUBE_ACTIVATION;
    draft.subtype = subtype;
    draft.codec = codec;
    draft.frame = 1;
    (void)sodium_bin2hex(model, sizeof model, print.data, print.len);
    draft.model = (ProtobufCBinaryData){.len = 2 * print.len, .data = (uint8_t *)model};
    draft.event_us = prompt->receipt->time_us;
    draft.attributes = attributes;
    draft.n_attributes = refs[0] ? 1 : 0;
    enum memos_status status = worker_receipt_write(prompt->receipt, &json, err);
    if (status == MEMOS_OK) {
        status = put(fetch, prompt->own->space, &draft, memos_buffer_view(&json), out_ref, err);
    }
    memos_buffer_free(&json);
    return status;
}
