#include "tools/memosctl/answer.h"

#include "tools/memosctl/input.h"
#include "tools/memosctl/text.h"

#include <sodium.h>
#include <string.h>

enum { CLEAN_BYTES_MAX = 1 << 20 };

void ctl_answer_init(struct ctl_answer *answer, struct ctl *ctl)
{
    *answer = (struct ctl_answer){.ctl = ctl,
        .text = memos_buffer_make((size_t)CTL_FILE_BYTES_MAX),
        .tokens = json_array(),
        .tells_logprobs = ctl_args_has(ctl->args, CTL_LOGPROBS)};
}

void ctl_answer_free(struct ctl_answer *answer)
{
    json_decref(answer->tokens);
    memos_buffer_free(&answer->text);
    answer->tokens = NULL;
}

/* ---- while it is made ----------------------------------------------------------------------- */

static void print_text(struct ctl_answer *answer, struct memos_bytes text)
{
    struct memos_buffer clean = memos_buffer_make(16 * text.size + 1);
    if (answer->ctl->paper.is_terminal) {
        ctl_text_clean(&clean, text, true);
        text = memos_buffer_view(&clean);
    }
    if (text.size > 0) {
        (void)fwrite(text.data, 1, text.size, stdout); /* main looks at ferror */
        answer->ends_line = ((const char *)text.data)[text.size - 1] == '\n';
    }
    memos_buffer_free(&clean);
    fflush(stdout);
}

void ctl_answer_text(struct ctl_answer *answer, struct memos_bytes text)
{
    memos_buffer_bytes(&answer->text, text.data, text.size);
    if (!answer->ctl->json && !answer->tells_logprobs) {
        print_text(answer, text);
    }
}

static json_t *piece_json(const struct ctl_answer_piece *piece)
{
    return json_pack("{sI,so,sf}", "id", (json_int_t)piece->id, "piece", ctl_json_text(piece->text),
        "logprob", (double)piece->logprob);
}

static void print_piece(const struct ctl_answer_piece *piece)
{
    struct memos_buffer clean = memos_buffer_make(CLEAN_BYTES_MAX);
    ctl_text_piece(&clean, piece->text);
    printf("%8.4f \"%.*s\"", (double)piece->logprob, (int)clean.size,
        clean.data ? (const char *)clean.data : "");
    memos_buffer_free(&clean);
}

void ctl_answer_token(struct ctl_answer *answer, const struct ctl_answer_piece *token,
    const struct ctl_answer_piece *top, size_t top_count)
{
    if (!answer->tells_logprobs) {
        return;
    }
    top_count = top_count < answer->top_max ? top_count : answer->top_max;
    if (answer->ctl->json) {
        json_t *object = piece_json(token), *others = json_array();
        for (size_t i = 0; i < top_count; i++) {
            (void)json_array_append_new(others, piece_json(&top[i]));
        }
        (void)json_object_set_new(object, "top", others);
        (void)json_array_append_new(answer->tokens, object);
        return;
    }
    print_piece(token);
    for (size_t i = 0; i < top_count; i++) {
        fputs(i == 0 ? "  |" : " ", stdout);
        print_piece(&top[i]);
    }
    putchar('\n');
    fflush(stdout);
}

void ctl_answer_end(struct ctl_answer *answer)
{
    if (!answer->ctl->json && !answer->ends_line && !answer->tells_logprobs) {
        putchar('\n');
        fflush(stdout);
        answer->ends_line = true;
    }
}

const char *ctl_finish_name(uint32_t finish)
{
    static const char *const names[] = {
        [PARAMEM_FINISH_STOP] = "stop",
        [PARAMEM_FINISH_LENGTH] = "length",
        [PARAMEM_FINISH_CONTEXT] = "context",
        [PARAMEM_FINISH_CANCELLED] = "cancelled",
        [PARAMEM_FINISH_DEADLINE] = "deadline",
        [PARAMEM_FINISH_FAILED] = "failed",
    };
    return finish < sizeof names / sizeof names[0] && names[finish] ? names[finish] : "unknown";
}

double ctl_rate(uint64_t count, uint64_t took_us)
{
    return took_us > 0 ? (double)count * 1e6 / (double)took_us : 0.0;
}

/* ---- how it draws --------------------------------------------------------------------------- */

enum memos_status ctl_sampling_take(const struct ctl *ctl, const struct paramem_decoder_config *own,
    struct paramem_sampling *out, uint32_t *out_own, struct memos_error *err)
{
    static const struct {
        enum ctl_option option;
        uint32_t bit;
    } all[] = {{CTL_HEAT, CTL_OWN_HEAT}, {CTL_TOP_P, CTL_OWN_TOP_P}, {CTL_MIN_P, CTL_OWN_MIN_P},
        {CTL_LIKELIEST, CTL_OWN_TOP_K}, {CTL_REPETITION, CTL_OWN_REPETITION}};
    const struct paramem_decoder_config none = {0};
    const struct paramem_decoder_config *preset = own ? own : &none;
    const struct {
        enum ctl_option option;
        double preset;
        float max;
        float *out;
    } reals[] = {{CTL_HEAT, preset->temperature, 100.0f, &out->temperature},
        {CTL_TOP_P, preset->top_p, 1.0f, &out->top_p},
        {CTL_MIN_P, preset->min_p, 1.0f, &out->min_p},
        {CTL_REPETITION, preset->repetition, 100.0f, &out->repetition}};
    uint64_t top_k;
    *out = (struct paramem_sampling){0};
    *out_own = 0;
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        *out_own |= ctl_args_has(ctl->args, all[i].option) ? 0 : all[i].bit;
    }
    for (size_t i = 0; i < sizeof reals / sizeof reals[0] && status == MEMOS_OK; i++) {
        status = ctl_args_real(ctl->args, reals[i].option, (float)reals[i].preset, 0.0f,
            reals[i].max, reals[i].out, err);
    }
    if (status == MEMOS_OK) {
        status =
            ctl_args_number(ctl->args, CTL_LIKELIEST, preset->top_k, 0, UINT32_MAX, &top_k, err);
    }
    if (status == MEMOS_OK) {
        out->top_k = (size_t)top_k;
        status = ctl_args_number(
            ctl->args, CTL_SEED, randombytes_random(), 0, UINT64_MAX / 2, &out->seed, err);
    }
    return status;
}

enum memos_status ctl_stops_take(const struct ctl *ctl, const char *stops[CTL_STOPS_MAX],
    size_t *out_count, struct memos_error *err)
{
    const char *stop;
    size_t at = 0, count = 0;
    while ((stop = ctl_args_next(ctl->args, CTL_STOP, &at))) {
        if (count == CTL_STOPS_MAX || stop[0] == '\0') {
            return memos_fail(
                err, MEMOS_INVALID, "--stop takes a text, and at most %d of them", CTL_STOPS_MAX);
        }
        stops[count++] = stop;
    }
    *out_count = count;
    return MEMOS_OK;
}

/* ---- conversation or text ------------------------------------------------------------------- */

enum memos_status ctl_is_chat(
    const struct ctl *ctl, bool has_template, bool *out_chat, struct memos_error *err)
{
    bool names_one = ctl_args_has(ctl->args, CTL_CHAT) || ctl_args_has(ctl->args, CTL_TEMPLATE) ||
                     ctl_args_has(ctl->args, CTL_SYSTEM);
    bool is_raw = ctl_args_has(ctl->args, CTL_RAW);
    *out_chat = !is_raw && (names_one || has_template);
    return is_raw && names_one ? memos_fail(err, MEMOS_INVALID,
                                     "--raw goes with none of --chat, --template and --system")
                               : MEMOS_OK;
}

enum memos_status ctl_system_read(
    const struct ctl *ctl, struct memos_buffer *out, bool *out_given, struct memos_error *err)
{
    const char *given = ctl_args_value(ctl->args, CTL_SYSTEM);
    *out = memos_buffer_make(0);
    *out_given = given != NULL;
    enum memos_status status = given ? ctl_payload_read(given, out, err) : MEMOS_OK;
    if (status == MEMOS_OK && !memos_bytes_utf8(memos_buffer_view(out))) {
        status = memos_fail(err, MEMOS_INVALID, "what the system says is no UTF-8");
    }
    return status;
}
