/* How likely texts are to a worker's model, with or without memory before them. */
#include "tools/memosctl/ask.h"
#include "tools/memosctl/choices.h"

struct asked {
    struct ctl *ctl;
    struct ctl_ask_model model;
    struct ctl_ask_memory memory;
    Memos__Score score; /* as every request has it, but for its texts */
    const char *receipt_path;
};

static enum memos_status make(struct ctl *ctl, struct asked *out, struct memos_error *err)
{
    uint64_t overlap = 0;
    const char *space = ctl_args_value(ctl->args, CTL_MEMORY_OF);
    *out = (struct asked){.ctl = ctl,
        .score = MEMOS__SCORE__INIT,
        .receipt_path = ctl_args_value(ctl->args, CTL_RECEIPT_TO)};
    enum memos_status status = ctl_ask_model(ctl, &out->model, err);
    if (status == MEMOS_OK) {
        uint64_t most = out->model.context > 0 ? out->model.context - 1 : 0;
        status =
            ctl_args_number(ctl->args, CTL_OVERLAP, out->model.context / 2, 0, most, &overlap, err);
    }
    if (status == MEMOS_OK && space) {
        status = ctl_ask_memory(ctl, space, &out->memory, err);
        out->score.memory = &out->memory.memory;
    }
    out->score.space = ctl_field(space);
    out->score.model = ctl_field(out->model.name);
    out->score.overlap = (uint32_t)overlap;
    return status;
}

/* *reply has as many scores as there were texts. */
static enum memos_status ask(struct asked *asked, const struct memos_bytes *frames,
    size_t frames_count, struct memos_message **reply, struct memos_error *err)
{
    Memos__Request request = CTL_REQUEST(SCORE, score, &asked->score);
    enum memos_status status = ctl_ask_call(asked->ctl,
        &(struct ctl_ask){.request = &request,
            .frames = frames,
            .frames_count = frames_count,
            .want = MEMOS__REPLY__BODY_SCORED},
        reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__Scored *scored = memos_message_reply(*reply)->scored;
    if (scored->n_texts != asked->score.n_frames) {
        return memos_fail(err, MEMOS_CORRUPT, "the worker scored %zu texts of %zu", scored->n_texts,
            asked->score.n_frames);
    }
    return asked->receipt_path && scored->receipt
               ? ctl_receipt_write(asked->receipt_path, scored->receipt, err)
               : MEMOS_OK;
}

static enum memos_status score_text(
    struct asked *asked, struct memos_bytes text, struct memos_error *err)
{
    struct ctl *ctl = asked->ctl;
    struct memos_message *reply = NULL;
    /* memory stands before a prompt, be it empty */
    const struct memos_bytes frames[] = {text, memos_bytes_make(NULL, 0)};
    const size_t frames_count = asked->score.memory ? 2 : 1;
    uint32_t number = 1;
    int64_t began_us = ctl->clock.mono_us(ctl->clock.self);
    asked->score.frames = &number;
    asked->score.n_frames = 1;
    asked->score.prompt_frame = asked->score.memory ? 2 : 0;
    enum memos_status status = ask(asked, frames, frames_count, &reply, err);
    if (status == MEMOS_OK) {
        const Memos__Scored *scored = memos_message_reply(reply)->scored;
        const Memos__TextScore *told = scored->texts[0];
        struct ctl_score score = {.tokens = (size_t)told->tokens + 1, /* the first is not scored */
            .scored = (size_t)told->tokens,
            .bytes = (size_t)told->bytes,
            .logprob = told->logprob,
            .took_us = ctl->clock.mono_us(ctl->clock.self) - began_us,
            .model = asked->model.name,
            .where = scored->receipt ? scored->receipt->worker : "a worker",
            .context = (size_t)asked->model.context,
            .overlap = asked->score.overlap,
            .receipt = scored->receipt};
        status = told->tokens > 0 ? ctl_score_print(ctl, &score, err)
                                  : memos_fail(err, MEMOS_INVALID, "there is nothing to score");
    }
    memos_message_free(&reply);
    return status;
}

static enum memos_status score_choices(void *self, const struct ctl_question *question,
    double out_sums[CTL_CHOICES_MAX], struct memos_error *err)
{
    struct asked *asked = self;
    struct memos_message *reply = NULL;
    struct memos_bytes frames[CTL_CHOICES_MAX + 1] = {question->prompt};
    uint32_t numbers[CTL_CHOICES_MAX];
    for (size_t i = 0; i < question->choices_count; i++) {
        frames[i + 1] = question->choices[i];
        numbers[i] = (uint32_t)i + 2;
    }
    asked->score.prompt_frame = 1;
    asked->score.frames = numbers;
    asked->score.n_frames = question->choices_count;
    enum memos_status status = ask(asked, frames, question->choices_count + 1, &reply, err);
    for (size_t i = 0; i < question->choices_count && status == MEMOS_OK; i++) {
        out_sums[i] = memos_message_reply(reply)->scored->texts[i]->logprob;
    }
    memos_message_free(&reply);
    return status;
}

enum memos_status ctl_score_asked(struct ctl *ctl, struct memos_bytes text, struct memos_error *err)
{
    struct asked asked;
    enum memos_status status = make(ctl, &asked, err);
    if (status == MEMOS_OK && text.size == 0) {
        status = memos_fail(err, MEMOS_INVALID, "there is nothing to score");
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return ctl_args_has(ctl->args, CTL_CHOICES)
               ? ctl_choices_answer(ctl, text, score_choices, &asked, err)
               : score_text(&asked, text, err);
}
