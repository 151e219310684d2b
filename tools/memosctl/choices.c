#include "tools/memosctl/choices.h"

#include <string.h>

/* What is right and what was found. */
struct tally {
    size_t questions, answered, right, right_by_byte;
};

struct choosing {
    struct ctl *ctl;
    ctl_choices_score *score;
    void *self;
    struct tally tally;
};

static struct memos_bytes text_of(const json_t *value)
{
    return memos_bytes_make(json_string_value(value), json_string_length(value));
}

static enum memos_status read_question(
    const json_t *line, struct ctl_question *out, struct memos_error *err)
{
    const json_t *choices = json_object_get(line, "choices");
    const json_t *prompt = json_object_get(line, "prompt");
    out->id = json_object_get(line, "id");
    out->answer = json_object_get(line, "answer");
    out->choices_count = json_array_size(choices);
    if (!json_is_string(prompt) || out->choices_count < 2 || out->choices_count > CTL_CHOICES_MAX) {
        return memos_fail(err, MEMOS_INVALID,
            "line %zu: a \"prompt\" and 2 to %d \"choices\" are needed", out->number,
            CTL_CHOICES_MAX);
    }
    out->prompt = text_of(prompt);
    for (size_t i = 0; i < out->choices_count; i++) {
        const json_t *choice = json_array_get(choices, i);
        if (!json_is_string(choice) || json_string_length(choice) == 0) {
            return memos_fail(
                err, MEMOS_INVALID, "line %zu: choice %zu is no text, or empty", out->number, i);
        }
        out->choices[i] = text_of(choice);
    }
    if (out->answer && !json_is_null(out->answer) &&
        (!json_is_integer(out->answer) || json_integer_value(out->answer) < 0 ||
            (size_t)json_integer_value(out->answer) >= out->choices_count)) {
        return memos_fail(err, MEMOS_INVALID,
            "line %zu: \"answer\" is the number of a choice, "
            "from 0 on",
            out->number);
    }
    return MEMOS_OK;
}

static size_t largest(const double *values, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++) {
        best = values[i] > values[best] ? i : best;
    }
    return best;
}

static enum memos_status print_question(const struct ctl *ctl, const struct ctl_question *question,
    const double *sums, size_t best, size_t best_by_byte, struct memos_error *err)
{
    json_t *logprobs = json_array();
    if (!ctl->json) {
        printf("%zu: %zu (%.3f)%s", question->number, best, sums[best],
            best == best_by_byte ? "" : ", by byte ");
        if (best != best_by_byte) {
            printf("%zu", best_by_byte);
        }
        putchar('\n');
        json_decref(logprobs);
        return MEMOS_OK;
    }
    for (size_t i = 0; i < question->choices_count && logprobs; i++) {
        (void)json_array_append_new(logprobs, json_real(sums[i]));
    }
    return ctl_json_line(
        json_pack("{sO?,sI,sI,sI,sO?,so}", "id", question->id, "line", (json_int_t)question->number,
            "best", (json_int_t)best, "best_by_byte", (json_int_t)best_by_byte, "answer",
            question->answer, "logprobs", logprobs),
        err);
}

static enum memos_status choose(
    struct choosing *choosing, const struct ctl_question *question, struct memos_error *err)
{
    double sums[CTL_CHOICES_MAX], by_byte[CTL_CHOICES_MAX];
    struct tally *tally = &choosing->tally;
    enum memos_status status = choosing->score(choosing->self, question, sums, err);
    if (status != MEMOS_OK) {
        return status;
    }
    for (size_t i = 0; i < question->choices_count; i++) {
        by_byte[i] = sums[i] / (double)question->choices[i].size;
    }
    size_t best = largest(sums, question->choices_count);
    size_t best_by_byte = largest(by_byte, question->choices_count);
    tally->questions++;
    if (json_is_integer(question->answer)) {
        size_t answer = (size_t)json_integer_value(question->answer);
        tally->answered++;
        tally->right += best == answer;
        tally->right_by_byte += best_by_byte == answer;
    }
    return print_question(choosing->ctl, question, sums, best, best_by_byte, err);
}

static enum memos_status choose_line(
    struct choosing *choosing, struct memos_bytes line, size_t number, struct memos_error *err)
{
    json_error_t why;
    struct ctl_question question = {.number = number};
    json_t *json = json_loadb(line.data, line.size, JSON_REJECT_DUPLICATES, &why);
    if (!json) {
        return memos_fail(err, MEMOS_INVALID, "line %zu is no JSON: %.100s", number, why.text);
    }
    enum memos_status status = read_question(json, &question, err);
    if (status == MEMOS_OK) {
        status = choose(choosing, &question, err);
    }
    json_decref(json);
    return status;
}

struct memos_bytes ctl_line_next(struct memos_bytes *text)
{
    const char *begin = text->data, *stop = memchr(begin, '\n', text->size);
    size_t size = stop ? (size_t)(stop - begin) : text->size, used = size + (stop ? 1 : 0);
    *text = memos_bytes_make(begin + used, text->size - used);
    return memos_bytes_make(begin, size);
}

static bool is_blank(struct memos_bytes line)
{
    const char *at = line.data;
    size_t i = 0;
    while (i < line.size && (at[i] == ' ' || at[i] == '\t' || at[i] == '\r')) {
        i++;
    }
    return i == line.size;
}

enum memos_status ctl_choices_answer(struct ctl *ctl, struct memos_bytes text,
    ctl_choices_score *score, void *self, struct memos_error *err)
{
    struct choosing choosing = {.ctl = ctl, .score = score, .self = self};
    const struct tally *tally = &choosing.tally;
    enum memos_status status = MEMOS_OK;
    for (size_t number = 1; text.size > 0 && status == MEMOS_OK; number++) {
        struct memos_bytes line = ctl_line_next(&text);
        if (ctl_stopped()) {
            status = memos_fail(err, MEMOS_CANCELLED, "stopped at line %zu", number);
        } else if (!is_blank(line)) {
            status = choose_line(&choosing, line, number, err);
        }
    }
    if (status == MEMOS_OK && tally->answered > 0) {
        ctl_note(ctl, "%zu of %zu right (%.1f%%); by byte %zu (%.1f%%)", tally->right,
            tally->answered, 100.0 * (double)tally->right / (double)tally->answered,
            tally->right_by_byte, 100.0 * (double)tally->right_by_byte / (double)tally->answered);
    }
    return status;
}
