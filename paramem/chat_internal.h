/* What the files of chat templates share. */
#ifndef PARAMEM_CHAT_INTERNAL_H
#define PARAMEM_CHAT_INTERNAL_H

#include "paramem/chat.h"

enum paramem_chat_form {
    PARAMEM_FORM_CHATML,
    PARAMEM_FORM_LLAMA2,
    PARAMEM_FORM_LLAMA3,
    PARAMEM_FORM_LLAMA31,
    PARAMEM_FORM_LLAMA32,  /* the date is today's */
    PARAMEM_FORM_MISTRAL0, /* of 7B v0.2: no system, no blanks around */
    PARAMEM_FORM_MISTRAL1,
    PARAMEM_FORM_MISTRAL3, /* with tools, for SentencePiece */
    PARAMEM_FORM_NEMO,     /* with tools, for tekken */
    PARAMEM_FORM_MISTRAL7,
    PARAMEM_FORM_QWEN25,
    PARAMEM_FORM_QWEN3,
    PARAMEM_FORM_QWEN3_INSTRUCT, /* knows of no thoughts */
    PARAMEM_FORM_QWEN3_THINKING, /* begins its answers with <think> */
};

struct paramem_chat {
    enum paramem_chat_form form;
    const char *name;
    char *system; /* what is said when no system message begins; NULL: nothing */
    char *bos, *eos;
    bool always_prompt; /* llama3: the answer is begun in any case */
};

/* The digest of what a template's text means (chat_template.c), in hexadecimal letters. A default
 * system prompt of ChatML's form does not enter: *out_system gets it (the caller's to free), or
 * NULL. False: a text that cannot be read, or no memory; *out_system is as it was. */
#define PARAMEM_CHAT_DIGEST_BYTES 33
bool paramem_chat_digest(
    struct memos_bytes jinja, char out_hex[PARAMEM_CHAT_DIGEST_BYTES], char **out_system);

/* A conversation on its way to a text. The first failure stays. */
struct paramem_render {
    const struct paramem_chat *chat;
    const json_t *messages; /* not empty; each is an object with a text as role */
    const struct paramem_chat_options *options;
    struct memos_buffer *out;
    struct paramem_span *spans;
    size_t spans_count, spans_max;
    enum memos_status status;
    struct memos_error *err;
};

/* What the template says. */
void paramem_render_put(struct paramem_render *render, const char *text);
/* What the conversation says. */
void paramem_render_plain(struct paramem_render *render, struct memos_bytes text);
void paramem_render_json(struct paramem_render *render, const json_t *json, size_t indent);
/* INVALID, with the template's own words. */
__attribute__((format(printf, 2, 3))) void paramem_render_fail(
    struct paramem_render *render, const char *format, ...);

/* The text `key` of an object; a failure when it is none. */
struct memos_bytes paramem_render_text(
    struct paramem_render *render, const json_t *object, const char *key);
bool paramem_role_is(const json_t *message, const char *role);
/* Is there something in it: not absent, null, empty, false or 0 (Python's truth)? */
bool paramem_json_true(const json_t *json);
/* Without white space at both ends, as Python's str.strip; or without line feeds. */
struct memos_bytes paramem_strip(struct memos_bytes text);
struct memos_bytes paramem_strip_lines(struct memos_bytes text, bool left, bool right);

/* The families. */
void paramem_render_chatml(struct paramem_render *render);
void paramem_render_qwen25(struct paramem_render *render);
void paramem_render_qwen3(struct paramem_render *render);
void paramem_render_llama2(struct paramem_render *render);
void paramem_render_llama3(struct paramem_render *render);
void paramem_render_llama31(struct paramem_render *render);
void paramem_render_mistral(struct paramem_render *render);
void paramem_render_mistral_tools(struct paramem_render *render);

/* JSON as Python's json.dumps(ensure_ascii=False) writes it; indent 0: on one line. Appended. */
void paramem_json_write(const json_t *json, size_t indent, struct memos_buffer *out);

#endif
