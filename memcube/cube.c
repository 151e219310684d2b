#include "memcube/cube.h"

#include <string.h>

/* ---- the tables ---------------------------------------------------------------------------- */

const char *memcube_kind_text(int kind)
{
    switch (kind) {
#define X(name, number, text)                                                                      \
    case number:                                                                                   \
        return text;
        MEMCUBE_KIND_TABLE(X)
#undef X
    default:
        return NULL;
    }
}

const char *memcube_operation_text(int operation)
{
    switch (operation) {
#define X(name, number, text)                                                                      \
    case number:                                                                                   \
        return text;
        MEMCUBE_OPERATION_TABLE(X)
#undef X
    default:
        return NULL;
    }
}

const char *memcube_state_text(int state)
{
    switch (state) {
#define X(name, number, text, searched)                                                            \
    case number:                                                                                   \
        return text;
        MEMCUBE_STATE_TABLE(X)
#undef X
    default:
        return NULL;
    }
}

int memcube_kind_of(struct memos_bytes text)
{
#define X(name, number, word)                                                                      \
    if (memos_bytes_equal(text, memos_bytes_of(word))) {                                           \
        return number;                                                                             \
    }
    MEMCUBE_KIND_TABLE(X)
#undef X
    return 0;
}

int memcube_state_of(struct memos_bytes text)
{
#define X(name, number, word, searched)                                                            \
    if (memos_bytes_equal(text, memos_bytes_of(word))) {                                           \
        return number;                                                                             \
    }
    MEMCUBE_STATE_TABLE(X)
#undef X
    return 0;
}

bool memcube_state_may_become(enum memcube_state from, enum memcube_state to)
{
#define TO(name) (1u << MEMCUBE_STATE_##name)
    static const unsigned may_become[] = {
        [MEMCUBE_STATE_GENERATED] =
            TO(ACTIVATED) | TO(FROZEN) | TO(ARCHIVED) | TO(EXPIRED) | TO(MERGED),
        [MEMCUBE_STATE_ACTIVATED] = TO(FROZEN) | TO(ARCHIVED) | TO(EXPIRED) | TO(MERGED),
        [MEMCUBE_STATE_FROZEN] = TO(ACTIVATED) | TO(ARCHIVED),
        [MEMCUBE_STATE_MERGED] = TO(ACTIVATED) | TO(ARCHIVED),
        [MEMCUBE_STATE_ARCHIVED] = TO(ACTIVATED),
        [MEMCUBE_STATE_EXPIRED] = TO(ACTIVATED) | TO(ARCHIVED),
        [MEMCUBE_STATE_WITHDRAWN] = 0,
        [MEMCUBE_STATE_FORGOTTEN] = 0,
    };
#undef TO
    if (!memcube_state_text((int)from) || !memcube_state_text((int)to)) {
        return false;
    }
    return (may_become[from] >> to & 1u) != 0;
}

/* ---- names --------------------------------------------------------------------------------- */

static bool is_space_byte(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '.' || byte == '_' || byte == '-';
}

static bool is_dots(const uint8_t *part, size_t size)
{
    return (size == 1 && part[0] == '.') || (size == 2 && part[0] == '.' && part[1] == '.');
}

enum memos_status memcube_space_check(struct memos_bytes space, struct memos_error *err)
{
    const uint8_t *name = space.data;
    if (space.size == 0 || space.size > MEMCUBE_SPACE_BYTES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "a space's name has 1 to %d bytes, this one has %zu",
            MEMCUBE_SPACE_BYTES_MAX, space.size);
    }
    size_t part = 0;
    for (size_t i = 0; i <= space.size; i++) {
        if (i == space.size || name[i] == '/') {
            if (i == part || is_dots(name + part, i - part)) {
                return memos_fail(err, MEMOS_INVALID,
                    "the part at byte %zu of a space's name is empty, '.' or '..'", part);
            }
            part = i + 1;
        } else if (!is_space_byte(name[i])) {
            return memos_fail(err, MEMOS_INVALID,
                "byte %zu of a space's name is 0x%02x; allowed are A-Z a-z 0-9 . _ - and /", i,
                (unsigned)name[i]);
        }
    }
    return MEMOS_OK;
}

/* ---- drafts -------------------------------------------------------------------------------- */

static enum memos_status check_text(struct memos_bytes text, size_t size_min, size_t size_max,
    const char *field, struct memos_error *err)
{
    if (text.size > size_max) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%s has %zu bytes, at most %zu are allowed", field,
            text.size, size_max);
    }
    if (text.size < size_min) {
        return memos_fail(err, MEMOS_INVALID, "%s is empty", field);
    }
    if (!memos_bytes_utf8(text)) {
        return memos_fail(err, MEMOS_INVALID, "%s is not UTF-8", field);
    }
    return MEMOS_OK;
}

static enum memos_status check_count(
    size_t count, size_t count_max, const char *field, struct memos_error *err)
{
    if (count > count_max) {
        return memos_fail(err, MEMOS_TOO_LARGE, "there are %zu %s, at most %zu are allowed", count,
            field, count_max);
    }
    return MEMOS_OK;
}

static enum memos_status check_list(const struct memos_bytes *list, size_t count, size_t count_max,
    const char *lists, const char *field, struct memos_error *err)
{
    enum memos_status status = check_count(count, count_max, lists, err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        status = check_text(list[i], 1, MEMCUBE_NAME_BYTES_MAX, field, err);
    }
    return status;
}

static enum memos_status check_sources(const struct memcube_description *d, struct memos_error *err)
{
    enum memos_status status = check_count(d->sources_count, MEMCUBE_SOURCES_MAX, "sources", err);
    for (size_t i = 0; status == MEMOS_OK && i < d->sources_count; i++) {
        const struct memcube_source *source = &d->sources[i];
        status = check_text(source->type, 0, MEMCUBE_NAME_BYTES_MAX, "a source's type", err);
        if (status == MEMOS_OK) {
            status = check_text(source->uri, 0, MEMCUBE_URI_BYTES_MAX, "a source's uri", err);
        }
    }
    return status;
}

static enum memos_status check_attributes(
    const struct memcube_description *d, struct memos_error *err)
{
    enum memos_status status =
        check_count(d->attributes_count, MEMCUBE_ATTRIBUTES_MAX, "attributes", err);
    for (size_t i = 0; status == MEMOS_OK && i < d->attributes_count; i++) {
        const struct memcube_attribute *a = &d->attributes[i];
        status = check_text(a->name, 1, MEMCUBE_ATTRIBUTE_BYTES_MAX, "an attribute's name", err);
        if (status == MEMOS_OK) {
            status = check_text(a->value, 0, MEMCUBE_ATTRIBUTE_BYTES_MAX - a->name.size,
                "an attribute's value", err);
        }
    }
    return status;
}

enum memos_status memcube_description_check(
    const struct memcube_description *d, struct memos_error *err)
{
    const struct {
        struct memos_bytes text;
        size_t size_max;
        const char *field;
    } texts[] = {
        {d->title, MEMCUBE_TITLE_BYTES_MAX, "the title"},
        {d->language, MEMCUBE_NAME_BYTES_MAX, "the language"},
        {d->speaker, MEMCUBE_NAME_BYTES_MAX, "the speaker"},
        {d->external_id, MEMCUBE_EXTERNAL_ID_BYTES_MAX, "the external id"},
    };
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; status == MEMOS_OK && i < sizeof texts / sizeof texts[0]; i++) {
        status = check_text(texts[i].text, 0, texts[i].size_max, texts[i].field, err);
    }
    if (status == MEMOS_OK) {
        status = check_list(d->tags, d->tags_count, MEMCUBE_TAGS_MAX, "tags", "a tag", err);
    }
    if (status == MEMOS_OK) {
        status = check_list(
            d->readers, d->readers_count, MEMCUBE_READERS_MAX, "readers", "a reader", err);
    }
    if (status == MEMOS_OK) {
        status = check_sources(d, err);
    }
    if (status == MEMOS_OK) {
        status = check_attributes(d, err);
    }
    return status;
}

static enum memos_status check_governance(
    const struct memcube_governance *g, struct memos_error *err)
{
    if (g->sensitivity > MEMCUBE_SENSITIVITY_MAX) {
        return memos_fail(err, MEMOS_INVALID, "sensitivity %u is not 1 to %d",
            (unsigned)g->sensitivity, MEMCUBE_SENSITIVITY_MAX);
    }
    if (g->expires_us < 0 || g->retain_until_us < 0) {
        return memos_fail(err, MEMOS_INVALID, "%s lies before 1970",
            g->expires_us < 0 ? "the expiry" : "the retention");
    }
    if (g->valid_from_us != 0 && g->valid_to_us != 0 && g->valid_to_us < g->valid_from_us) {
        return memos_fail(err, MEMOS_INVALID, "valid_to lies before valid_from");
    }
    return MEMOS_OK;
}

static enum memos_status check_derived(
    const struct memcube_ref *refs, size_t count, struct memos_error *err)
{
    enum memos_status status = check_count(count, MEMCUBE_DERIVED_MAX, "derived_from", err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        if (memos_id_is_nil(&refs[i].id) || refs[i].number == 0) {
            status =
                memos_fail(err, MEMOS_INVALID, "derived_from[%zu] names no version of a cube", i);
        }
    }
    return status;
}

/* What is searched and printed as text must be text. */
static bool is_text_codec(struct memos_bytes codec)
{
    return codec.size == 0 || (codec.size >= 5 && memcmp(codec.data, "text/", 5) == 0);
}

enum memos_status memcube_draft_check(const struct memcube_draft *draft, struct memos_error *err)
{
    if (!memcube_kind_text((int)draft->kind)) {
        return memos_fail(err, MEMOS_INVALID, "there is no kind %d", (int)draft->kind);
    }
    if (draft->kind == MEMCUBE_PLAINTEXT && is_text_codec(draft->codec) &&
        !memos_bytes_utf8(draft->payload)) {
        return memos_fail(err, MEMOS_INVALID, "the payload is not UTF-8 text");
    }
    enum memos_status status =
        check_text(draft->subtype, 0, MEMCUBE_SUBTYPE_BYTES_MAX, "the subtype", err);
    if (status == MEMOS_OK) {
        status = check_text(draft->model, 0, MEMCUBE_NAME_BYTES_MAX, "the model", err);
    }
    if (status == MEMOS_OK) {
        status = check_text(draft->codec, 0, MEMCUBE_NAME_BYTES_MAX, "the codec", err);
    }
    if (status == MEMOS_OK) {
        status = check_governance(&draft->governance, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_description_check(&draft->description, err);
    }
    if (status == MEMOS_OK) {
        status = check_derived(draft->derived_from, draft->derived_count, err);
    }
    return status;
}
