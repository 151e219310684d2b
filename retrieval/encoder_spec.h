/* Which encoder: what people write in a configuration or on a command line, and what is meant.
 *
 *     auto                                       minilm if it is there, else ngrams
 *     ngrams                                     hashed n-grams
 *     minilm                                     a name in the registry
 *     ./models/e5, /srv/models/e5                a folder (it has a slash)
 *     https://host/v1/embeddings#model           an endpoint, and its name of the model
 *
 * The registry is a folder with one Hugging Face folder for each name; `memosctl encoder add` fills
 * it. Nothing here opens a model or a connection.
 *
 * Threads: no state. */
#ifndef RETRIEVAL_ENCODER_SPEC_H
#define RETRIEVAL_ENCODER_SPEC_H

#include "retrieval/encoder.h"

#include <limits.h>

#define RETRIEVAL_ENCODER_NAME_MAX 64

/* What was meant. Its strings are its own: it may be copied. */
struct retrieval_encoder_spec {
    enum retrieval_encoder_source source;
    enum kern_dtype weights;
    char path[PATH_MAX]; /* a folder */
    char url[1024], model[256];
    bool fell_back; /* "auto" took hashed n-grams, as there is no minilm */
};

/* $XDG_DATA_HOME/memos/encoders, or ~/.local/share/memos/encoders. INVALID without both. */
MEMOS_MUST_USE enum memos_status retrieval_encoder_registry(
    char out[PATH_MAX], struct memos_error *err);

/* May it be a name in the registry? Letters, digits, "-", "_" and "."; begins with a letter or a
 * digit; not "auto" nor "ngrams". */
bool retrieval_encoder_name_good(const char *name);

/* The folder of a name. INVALID: no such name can be. Does not look whether it is there. */
MEMOS_MUST_USE enum memos_status retrieval_encoder_name_path(
    const char *registry, const char *name, char out[PATH_MAX], struct memos_error *err);

/* Understand `text`. weights: "f32", "bf16" or "int8"; NULL or "": f32. registry NULL:
 * retrieval_encoder_registry. INVALID; NOT_FOUND names what was looked for, and what to do. */
MEMOS_MUST_USE enum memos_status retrieval_encoder_spec_parse(const char *text, const char *weights,
    const char *registry, struct retrieval_encoder_spec *out, struct memos_error *err);

/* What to open. The options view spec; fields beside (a key, prefixes, threads) are zero, for the
 * caller to set. */
void retrieval_encoder_spec_options(
    const struct retrieval_encoder_spec *spec, struct retrieval_encoder_options *out);

#endif
