#include "retrieval/sentences.h"

#include <string.h>
#include <utf8proc.h>

enum letter { LETTER_NONE, LETTER_ALPHA, LETTER_DIGIT, LETTER_LOW_LINE, LETTER_APOSTROPHE };

/* What stands at `at` (< end), and how many bytes it has. */
static enum letter look(const uint8_t *at, const uint8_t *end, size_t *out_size)
{
    uint8_t byte = *at, low = byte | 0x20;
    *out_size = 1;
    if (byte < 0x80) {
        return low >= 'a' && low <= 'z'     ? LETTER_ALPHA
               : byte >= '0' && byte <= '9' ? LETTER_DIGIT
               : byte == '_'                ? LETTER_LOW_LINE
               : byte == '\''               ? LETTER_APOSTROPHE
                                            : LETTER_NONE;
    }
    utf8proc_int32_t code;
    size_t left = (size_t)(end - at);
    utf8proc_ssize_t taken = utf8proc_iterate(at, left < 4 ? (utf8proc_ssize_t)left : 4, &code);
    if (taken <= 0) {
        return LETTER_NONE;
    }
    *out_size = (size_t)taken;
    if (code == 0x2018 || code == 0x2019) {
        return LETTER_APOSTROPHE;
    }
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return LETTER_ALPHA;
    default:
        return LETTER_NONE;
    }
}

static bool in_word(enum letter letter)
{
    return letter == LETTER_ALPHA || letter == LETTER_DIGIT || letter == LETTER_LOW_LINE;
}

void retrieval_sentences_init(struct retrieval_sentences *sentences, struct memos_bytes text)
{
    *sentences = (struct retrieval_sentences){.text = text};
}

static void word_append(struct retrieval_token *token, const uint8_t *at, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (token->size < RETRIEVAL_TOKEN_BYTES_MAX) {
            uint8_t byte = at[i];
            token->bytes[token->size] = (char)(byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte);
        }
        token->size++;
    }
}

/* Read a word that begins at s->at. Counts its parts. */
static void read_word(struct retrieval_sentences *s, struct retrieval_token *token)
{
    const uint8_t *data = s->text.data, *at = data + s->at, *end = data + s->text.size;
    bool counted = false, digits = true;
    size_t size;
    token->word = true;
    for (enum letter letter; at < end; at += size) {
        letter = look(at, end, &size);
        bool hyphen = *at == '-' && at > data && look(at - 1, end, &(size_t){0}) == LETTER_ALPHA;
        if (letter == LETTER_APOSTROPHE || hyphen) {
            size_t next_size;
            enum letter next = at + size < end ? look(at + size, end, &next_size) : LETTER_NONE;
            if (hyphen ? next != LETTER_ALPHA : !in_word(next)) {
                break;
            }
            token->apostrophe = token->apostrophe || !hyphen;
            counted = counted && !hyphen;
            digits = false;
            word_append(token, (const uint8_t *)(hyphen ? "-" : "'"), 1);
            s->characters++;
            continue;
        }
        if (!in_word(letter)) {
            break;
        }
        if (letter == LETTER_LOW_LINE) {
            counted = false;
        } else if (!counted) {
            counted = true;
            s->sentence_words++;
            s->words++;
        }
        digits = digits && letter == LETTER_DIGIT;
        token->digits += digits;
        word_append(token, at, size);
        s->characters++;
    }
    s->sentence_begun = true;
    s->at = (size_t)(at - data);
}

/* A sign may end the sentence: of a run of . ! ? the last says whether it was a question. */
static void end_sentence(struct retrieval_sentences *s, char sign)
{
    const uint8_t *data = s->text.data;
    bool stop = sign == '.' || sign == '!' || sign == '?';
    if (sign == '\n' || !s->sentence_begun) {
        s->sentence_begun = sign != '\n' && !stop;
        s->sentence_words = sign == '\n' ? 0 : s->sentence_words;
        return;
    }
    if (!stop) {
        return;
    }
    uint8_t next = s->at < s->text.size ? data[s->at] : 0;
    if (next == '.' || next == '!' || next == '?') {
        return; /* the run goes on */
    }
    s->words_asking += sign == '?' ? s->sentence_words : 0;
    s->sentence_words = 0;
    s->sentence_begun = false;
}

bool retrieval_sentences_next(struct retrieval_sentences *s, struct retrieval_token *out)
{
    const uint8_t *data = s->text.data;
    size_t size = 1;
    while (s->at < s->text.size && (data[s->at] == ' ' || data[s->at] == '\t')) {
        s->at++;
        s->characters++;
        s->sentence_begun = true;
    }
    if (s->at >= s->text.size) {
        return false;
    }
    out->word = out->apostrophe = false;
    out->digits = 0;
    out->size = 0;
    out->sign = 0;
    if (in_word(look(data + s->at, data + s->text.size, &size))) {
        read_word(s, out);
        return true;
    }
    out->sign = data[s->at] < 0x80 ? (char)data[s->at] : '*';
    s->at += size;
    s->characters++;
    end_sentence(s, out->sign);
    return true;
}
