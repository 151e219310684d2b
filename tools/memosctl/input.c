#include "tools/memosctl/input.h"

#include "memcube/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum memos_status fail_memory(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the request");
}

/* ---- files ---- */

static enum memos_status read_all(
    int file, const char *path, struct memos_buffer *out, struct memos_error *err)
{
    char piece[65536];
    for (;;) {
        ssize_t size = read(file, piece, sizeof piece);
        if (size < 0 && errno == EINTR) {
            continue;
        } else if (size < 0) {
            return memos_fail_errno(err, errno, "cannot read '%.100s'", path);
        } else if (size == 0) {
            return MEMOS_OK;
        }
        memos_buffer_bytes(out, piece, (size_t)size);
        if (out->failed) {
            return memos_fail(
                err, MEMOS_TOO_LARGE, "'%.100s' has more than %zu bytes", path, out->size_max);
        }
    }
}

enum memos_status ctl_file_read(
    const char *path, size_t size_max, struct memos_buffer *out, struct memos_error *err)
{
    *out = memos_buffer_make(size_max);
    if (strcmp(path, "-") == 0) {
        return read_all(STDIN_FILENO, "standard input", out, err);
    }
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return memos_fail_errno(err, errno, "cannot open '%.100s'", path);
    }
    enum memos_status status = read_all(file, path, out, err);
    close(file);
    return status;
}

enum memos_status ctl_payload_read(
    const char *given, struct memos_buffer *out, struct memos_error *err)
{
    if (strcmp(given, "-") == 0 || given[0] == '@') {
        return ctl_file_read(
            given[0] == '@' ? given + 1 : given, (size_t)CTL_FILE_BYTES_MAX, out, err);
    }
    *out = memos_buffer_make((size_t)CTL_FILE_BYTES_MAX);
    memos_buffer_bytes(out, given, strlen(given));
    return out->failed ? fail_memory(err) : MEMOS_OK;
}

enum memos_status ctl_file_create(const char *path, struct ctl_file *out, struct memos_error *err)
{
    *out = (struct ctl_file){.path = path};
    if (strcmp(path, "-") == 0) {
        out->stream = stdout;
        return MEMOS_OK;
    }
    int size = snprintf(out->beside, sizeof out->beside, "%s.%ld.part", path, (long)getpid());
    if (size < 0 || (size_t)size >= sizeof out->beside) {
        return memos_fail(err, MEMOS_INVALID, "'%.100s...' is too long for a file name", path);
    }
    int file = open(out->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    out->stream = file < 0 ? NULL : fdopen(file, "wb");
    if (!out->stream) {
        return memos_fail_errno(err, errno, "cannot write '%.100s'", path);
    }
    return MEMOS_OK;
}

enum memos_status ctl_file_write(
    struct ctl_file *file, struct memos_bytes bytes, struct memos_error *err)
{
    if (bytes.size > 0 && fwrite(bytes.data, 1, bytes.size, file->stream) != bytes.size) {
        return memos_fail_errno(err, errno, "cannot write '%.100s'", file->path);
    }
    return MEMOS_OK;
}

enum memos_status ctl_file_commit(struct ctl_file *file, struct memos_error *err)
{
    FILE *stream = file->stream;
    if (stream == stdout) {
        file->stream = NULL;
        return fflush(stdout) == 0 ? MEMOS_OK
                                   : memos_fail_errno(err, errno, "cannot write the output");
    }
    file->stream = NULL;
    int failed = fflush(stream) != 0 || fsync(fileno(stream)) != 0 ? errno : 0;
    if (fclose(stream) != 0 && !failed) {
        failed = errno;
    }
    if (!failed && rename(file->beside, file->path) != 0) {
        failed = errno;
    }
    if (failed) {
        (void)unlink(file->beside);
        return memos_fail_errno(err, failed, "cannot write '%.100s'", file->path);
    }
    return MEMOS_OK;
}

void ctl_file_abort(struct ctl_file *file)
{
    if (file->stream && file->stream != stdout) {
        (void)fclose(file->stream);
        (void)unlink(file->beside);
    }
    file->stream = NULL;
}

/* ---- times ---- */

static enum memos_status parse_time(
    const struct ctl *ctl, const char *text, int64_t *out_us, struct memos_error *err)
{
    return memos_time_parse(memos_bytes_of(text), ctl->clock.wall_us(ctl->clock.self), out_us, err);
}

enum memos_status ctl_time_option(
    const struct ctl *ctl, enum ctl_option option, int64_t *out_us, struct memos_error *err)
{
    const char *text = ctl_args_value(ctl->args, option);
    *out_us = 0;
    return text ? parse_time(ctl, text, out_us, err) : MEMOS_OK;
}

enum memos_status ctl_point_parse(
    const struct ctl *ctl, const char *text, Memos__AsOf *out, struct memos_error *err)
{
    *out = (Memos__AsOf)MEMOS__AS_OF__INIT;
    if (ctl_number_parse(text, UINT64_MAX, &out->seq)) {
        return MEMOS_OK;
    }
    return parse_time(ctl, text, &out->time_us, err);
}

enum memos_status ctl_as_of(
    const struct ctl *ctl, Memos__AsOf *out, Memos__AsOf **out_given, struct memos_error *err)
{
    const char *text = ctl_args_value(ctl->args, CTL_AS_OF);
    *out_given = text ? out : NULL;
    if (!text) {
        return MEMOS_OK;
    }
    enum memos_status status = ctl_point_parse(ctl, text, out, err);
    if (status == MEMOS_OK && out->seq == 0 && out->time_us == 0) {
        return memos_fail(err, MEMOS_NOT_FOUND, "before its first record there was nothing");
    }
    return status;
}

/* ---- drafts ---- */

enum memos_status ctl_values(struct ctl *ctl, enum ctl_option option, char ***out,
    size_t *out_count, struct memos_error *err)
{
    size_t count = ctl_args_count(ctl->args, option), at = 0;
    char **values = memos_arena_take(&ctl->arena, count + 1, sizeof *values);
    if (!values) {
        return fail_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        values[i] = ctl_field(ctl_args_next(ctl->args, option, &at));
    }
    *out = values;
    *out_count = count;
    return MEMOS_OK;
}

enum memos_status ctl_ref_parse(
    struct ctl *ctl, const char *space, const char *text, Memos__Ref *out, struct memos_error *err)
{
    const char *at = strrchr(text, '@');
    uint64_t number = 0;
    if (at && !ctl_number_parse(at + 1, UINT32_MAX, &number)) {
        return memos_fail(err, MEMOS_INVALID, "'%.60s' is no version: ID@NUMBER", text);
    }
    struct memos_bytes id_text = {text, at ? (size_t)(at - text) : strlen(text)};
    char *name = memos_arena_copy(&ctl->arena, id_text);
    struct memos_id *id = memos_arena_take(&ctl->arena, 1, sizeof *id);
    if (!name || !id) {
        return fail_memory(err);
    }
    enum memos_status status = ctl_id_resolve(ctl, space, name, id, err);
    out->id = ctl_id_field(id);
    out->number = (uint32_t)number;
    return status;
}

/* A reference without a number means the version that stands now. */
static enum memos_status fill_number(struct ctl *ctl, Memos__Ref *ref, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    Memos__Get get = MEMOS__GET__INIT;
    get.space = ctl_field(ctl_operand(ctl, 0));
    get.ids = &ref->id;
    get.n_ids = 1;
    get.no_payload = true;
    get.peek = true;
    Memos__Request request = CTL_REQUEST(GET, get, &get);
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_CUBES, &reply, err);
    if (status == MEMOS_OK && memos_message_reply(reply)->cubes->n_cubes == 1) {
        ref->number = memos_message_reply(reply)->cubes->cubes[0]->number;
    }
    memos_message_free(&reply);
    return status;
}

static enum memos_status make_derived(struct ctl *ctl, Memos__Draft *out, struct memos_error *err)
{
    size_t count = ctl_args_count(ctl->args, CTL_DERIVED), at = 0;
    Memos__Ref *refs = memos_arena_take(&ctl->arena, count + 1, sizeof *refs);
    out->derived_from = memos_arena_take(&ctl->arena, count + 1, sizeof *out->derived_from);
    enum memos_status status = refs && out->derived_from ? MEMOS_OK : fail_memory(err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        memos__ref__init(&refs[i]);
        status = ctl_ref_parse(
            ctl, ctl_operand(ctl, 0), ctl_args_next(ctl->args, CTL_DERIVED, &at), &refs[i], err);
        if (status == MEMOS_OK && refs[i].number == 0) {
            status = fill_number(ctl, &refs[i], err);
        }
        out->derived_from[i] = &refs[i];
    }
    out->n_derived_from = status == MEMOS_OK ? count : 0;
    return status;
}

/* "TYPE:URI", "TYPE:URI#OFFSET+LENGTH". */
static enum memos_status parse_source(
    struct ctl *ctl, const char *text, Memos__Source *out, struct memos_error *err)
{
    const char *colon = strchr(text, ':'), *hash = strrchr(text, '#');
    size_t size = strlen(text);
    if (!colon || colon == text) {
        return memos_fail(
            err, MEMOS_INVALID, "'%.60s' is no source: TYPE:URI[#OFFSET+LENGTH]", text);
    }
    const char *plus = hash ? strchr(hash, '+') : NULL;
    char digits[24];
    if (plus && (size_t)(plus - hash) < sizeof digits) {
        memcpy(digits, hash + 1, (size_t)(plus - hash - 1));
        digits[plus - hash - 1] = '\0';
        if (ctl_number_parse(digits, UINT64_MAX, &out->offset) &&
            ctl_number_parse(plus + 1, UINT64_MAX, &out->length)) {
            size = (size_t)(hash - text);
        } else {
            out->offset = 0; /* a fragment that only looks like a place */
        }
    }
    size_t type_size = (size_t)(colon - text);
    out->type = memos_arena_copy(&ctl->arena, memos_bytes_make(text, type_size));
    out->uri = memos_arena_copy(&ctl->arena, memos_bytes_make(colon + 1, size - type_size - 1));
    return out->type && out->uri ? MEMOS_OK : fail_memory(err);
}

static enum memos_status make_sources(struct ctl *ctl, Memos__Draft *out, struct memos_error *err)
{
    size_t count = ctl_args_count(ctl->args, CTL_SOURCE_OF), at = 0;
    Memos__Source *sources = memos_arena_take(&ctl->arena, count + 1, sizeof *sources);
    out->sources = memos_arena_take(&ctl->arena, count + 1, sizeof *out->sources);
    enum memos_status status = sources && out->sources ? MEMOS_OK : fail_memory(err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        memos__source__init(&sources[i]);
        status = parse_source(ctl, ctl_args_next(ctl->args, CTL_SOURCE_OF, &at), &sources[i], err);
        out->sources[i] = &sources[i];
    }
    out->n_sources = status == MEMOS_OK ? count : 0;
    return status;
}

static enum memos_status make_attributes(
    struct ctl *ctl, Memos__Draft *out, struct memos_error *err)
{
    size_t count = ctl_args_count(ctl->args, CTL_ATTRIBUTE), at = 0;
    Memos__Attribute *attributes = memos_arena_take(&ctl->arena, count + 1, sizeof *attributes);
    out->attributes = memos_arena_take(&ctl->arena, count + 1, sizeof *out->attributes);
    if (!attributes || !out->attributes) {
        return fail_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        const char *text = ctl_args_next(ctl->args, CTL_ATTRIBUTE, &at);
        const char *equals = strchr(text, '=');
        if (!equals || equals == text) {
            return memos_fail(err, MEMOS_INVALID, "'%.60s' is no attribute: NAME=TEXT", text);
        }
        memos__attribute__init(&attributes[i]);
        attributes[i].name =
            memos_arena_copy(&ctl->arena, memos_bytes_make(text, (size_t)(equals - text)));
        attributes[i].value = ctl_field(equals + 1);
        if (!attributes[i].name) {
            return fail_memory(err);
        }
        out->attributes[i] = &attributes[i];
    }
    out->n_attributes = count;
    return MEMOS_OK;
}

static enum memos_status make_times(struct ctl *ctl, Memos__Draft *out, struct memos_error *err)
{
    const struct {
        enum ctl_option option;
        int64_t *to;
    } times[] = {
        {CTL_EVENT_TIME, &out->event_us},
        {CTL_VALID_FROM, &out->valid_from_us},
        {CTL_VALID_TO, &out->valid_to_us},
        {CTL_EXPIRES, &out->expires_us},
        {CTL_RETAIN_UNTIL, &out->retain_until_us},
    };
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        enum memos_status status = ctl_time_option(ctl, times[i].option, times[i].to, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    int64_t ago_us = 0, now_us = ctl->clock.wall_us(ctl->clock.self);
    const char *ttl = ctl_args_value(ctl->args, CTL_TTL);
    if (!ttl) {
        return MEMOS_OK;
    }
    if (strspn(ttl, "0123456789") == 0 || !strchr("smhdw", ttl[strlen(ttl) - 1]) ||
        memos_time_parse(memos_bytes_of(ttl), now_us, &ago_us, err) != MEMOS_OK) {
        return memos_fail(err, MEMOS_INVALID, "--ttl takes an age as 90s, 15m, 3h, 2d, 4w");
    }
    out->expires_us = now_us + (now_us - ago_us);
    return MEMOS_OK;
}

static enum memos_status make_numbers(struct ctl *ctl, Memos__Draft *out, struct memos_error *err)
{
    static const char *const words[] = {"public", "normal", "confidential", "secret"};
    const char *sensitivity = ctl_args_value(ctl->args, CTL_SENSITIVITY);
    const char *kind = ctl_args_value(ctl->args, CTL_KIND);
    uint64_t priority;
    enum memos_status status = ctl_args_number(ctl->args, CTL_PRIORITY, 0, 1, 255, &priority, err);
    if (status != MEMOS_OK) {
        return status;
    }
    out->priority = (uint32_t)priority;
    for (uint32_t i = 0; sensitivity && i < sizeof words / sizeof words[0]; i++) {
        out->sensitivity = strcmp(sensitivity, words[i]) == 0 ? i + 1 : out->sensitivity;
    }
    if (sensitivity && out->sensitivity == 0) {
        return memos_fail(err, MEMOS_INVALID,
            "--sensitivity takes public, normal, confidential or secret, not '%.40s'", sensitivity);
    }
    out->kind = kind ? (uint32_t)memcube_kind_of(memos_bytes_of(kind)) : 0;
    if (kind && out->kind == 0) {
        return memos_fail(err, MEMOS_INVALID,
            "--kind takes plaintext, activation or parametric, not '%.40s'", kind);
    }
    return MEMOS_OK;
}

static uint32_t fields_given(const struct ctl_args *args)
{
    static const struct {
        enum ctl_option option;
        uint32_t field;
    } fields[] = {
        {CTL_TITLE, MEMCUBE_FIELD_TITLE},
        {CTL_TAG, MEMCUBE_FIELD_TAGS},
        {CTL_SOURCE_OF, MEMCUBE_FIELD_SOURCES},
        {CTL_LANGUAGE, MEMCUBE_FIELD_LANGUAGE},
        {CTL_SPEAKER, MEMCUBE_FIELD_SPEAKER},
        {CTL_EVENT_TIME, MEMCUBE_FIELD_EVENT_TIME},
        {CTL_VALID_FROM, MEMCUBE_FIELD_VALIDITY},
        {CTL_VALID_TO, MEMCUBE_FIELD_VALIDITY},
        {CTL_EXPIRES, MEMCUBE_FIELD_EXPIRY},
        {CTL_TTL, MEMCUBE_FIELD_EXPIRY},
        {CTL_RETAIN_UNTIL, MEMCUBE_FIELD_RETENTION},
        {CTL_PRIORITY, MEMCUBE_FIELD_PRIORITY},
        {CTL_SENSITIVITY, MEMCUBE_FIELD_SENSITIVITY},
        {CTL_READER, MEMCUBE_FIELD_READERS},
        {CTL_ATTRIBUTE, MEMCUBE_FIELD_ATTRIBUTES},
        {CTL_DERIVED, MEMCUBE_FIELD_DERIVED},
        {CTL_MODEL, MEMCUBE_FIELD_DERIVED},
        {CTL_SUBTYPE, MEMCUBE_FIELD_SUBTYPE},
    };
    uint32_t given = 0;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        given |= ctl_args_has(args, fields[i].option) ? fields[i].field : 0;
    }
    return given;
}

enum memos_status ctl_draft_make(
    struct ctl *ctl, Memos__Draft *out, uint32_t *out_fields, struct memos_error *err)
{
    static enum memos_status (*const parts[])(
        struct ctl *, Memos__Draft *, struct memos_error *) = {
        make_times, make_numbers, make_sources, make_attributes, make_derived};
    const struct ctl_args *args = ctl->args;
    *out = (Memos__Draft)MEMOS__DRAFT__INIT;
    out->title = ctl_field(ctl_args_value(args, CTL_TITLE));
    out->subtype = ctl_field(ctl_args_value(args, CTL_SUBTYPE));
    out->speaker = ctl_field(ctl_args_value(args, CTL_SPEAKER));
    out->language = ctl_field(ctl_args_value(args, CTL_LANGUAGE));
    out->codec = ctl_field(ctl_args_value(args, CTL_CODEC));
    out->external_id = ctl_field(ctl_args_value(args, CTL_EXTERNAL_ID));
    const char *model = ctl_args_value(args, CTL_MODEL);
    out->model.data = (uint8_t *)ctl_field(model);
    out->model.len = model ? strlen(model) : 0;
    *out_fields = fields_given(args);
    enum memos_status status = ctl_values(ctl, CTL_TAG, &out->tags, &out->n_tags, err);
    if (status == MEMOS_OK) {
        status = ctl_values(ctl, CTL_READER, &out->readers, &out->n_readers, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < sizeof parts / sizeof parts[0]; i++) {
        status = parts[i](ctl, out, err);
    }
    return status;
}

/* ---- filters ---- */

static enum memos_status make_kinds(struct ctl *ctl, Memos__Filter *out, struct memos_error *err)
{
    size_t at = 0, count = ctl_args_count(ctl->args, CTL_ANY_KIND);
    const char *text;
    out->kinds = memos_arena_take(&ctl->arena, count + 1, sizeof *out->kinds);
    if (!out->kinds) {
        return fail_memory(err);
    }
    while ((text = ctl_args_next(ctl->args, CTL_ANY_KIND, &at))) {
        int kind = memcube_kind_of(memos_bytes_of(text));
        if (kind == 0) {
            return memos_fail(err, MEMOS_INVALID,
                "--kind takes plaintext, activation or parametric, not '%.40s'", text);
        }
        out->kinds[out->n_kinds++] = (uint32_t)kind;
    }
    return MEMOS_OK;
}

static enum memos_status make_states(struct ctl *ctl, Memos__Filter *out, struct memos_error *err)
{
    size_t at = 0, count = ctl_args_count(ctl->args, CTL_ANY_STATE);
    const char *text;
    out->states =
        memos_arena_take(&ctl->arena, count + MEMCUBE_STATE_FORGOTTEN, sizeof *out->states);
    if (!out->states) {
        return fail_memory(err);
    }
    while ((text = ctl_args_next(ctl->args, CTL_ANY_STATE, &at))) {
        int state = memcube_state_of(memos_bytes_of(text));
        if (strcmp(text, "all") == 0) {
            out->n_states = 0;
            for (uint32_t s = MEMCUBE_STATE_GENERATED; s <= MEMCUBE_STATE_FORGOTTEN; s++) {
                out->states[out->n_states++] = s;
            }
            out->include_stale = true;
            return MEMOS_OK;
        } else if (state == 0) {
            return memos_fail(err, MEMOS_INVALID,
                "--state takes all, generated, activated, frozen, merged, archived, expired, "
                "withdrawn or forgotten, not '%.40s'",
                text);
        }
        out->states[out->n_states++] = (uint32_t)state;
    }
    return MEMOS_OK;
}

enum memos_status ctl_filter_make(struct ctl *ctl, Memos__Filter *out, struct memos_error *err)
{
    const struct ctl_args *args = ctl->args;
    *out = (Memos__Filter)MEMOS__FILTER__INIT;
    out->source = ctl_field(ctl_args_value(args, CTL_FROM_SOURCE));
    out->speaker = ctl_field(ctl_args_value(args, CTL_BY_SPEAKER));
    out->include_stale = ctl_args_has(args, CTL_STALE);
    enum memos_status status = make_kinds(ctl, out, err);
    if (status == MEMOS_OK) {
        status = make_states(ctl, out, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_values(ctl, CTL_ANY_SUBTYPE, &out->subtypes, &out->n_subtypes, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_values(ctl, CTL_WITH_TAG, &out->tags, &out->n_tags, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_time_option(ctl, CTL_SINCE, &out->from_us, err);
    }
    if (status == MEMOS_OK) {
        status = ctl_time_option(ctl, CTL_UNTIL, &out->to_us, err);
    }
    return status;
}
