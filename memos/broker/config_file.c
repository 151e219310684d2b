/* The file's form: lines of `key = value`. */
#include "memos/broker/config_value.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20, NAME_BYTES_MAX = 64 };

/* One line that is being read. */
struct line {
    struct broker_config *config;
    struct broker_config_place place;
    const char *at, *end;
    struct memos_error *err;
};

static enum memos_status line_fail(struct line *line, const char *what)
{
    char place[128];
    return memos_fail(line->err, MEMOS_INVALID, "%s%s",
        broker_config_place_text(&line->place, place, sizeof place), what);
}

static void line_skip_blanks(struct line *line)
{
    while (line->at < line->end && (*line->at == ' ' || *line->at == '\t' || *line->at == '\r')) {
        line->at++;
    }
}

/* Is nothing left but a comment? */
static bool line_over(struct line *line)
{
    line_skip_blanks(line);
    return line->at == line->end || *line->at == '#';
}

static bool line_take(struct line *line, char c)
{
    line_skip_blanks(line);
    if (line->at < line->end && *line->at == c) {
        line->at++;
        return true;
    }
    return false;
}

static bool is_bare(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
}

/* A run of bare characters, copied; NULL when there is none. */
static const char *line_bare(struct line *line, size_t size_max)
{
    const char *first = line->at;
    while (line->at < line->end && is_bare(*line->at)) {
        line->at++;
    }
    size_t size = (size_t)(line->at - first);
    if (size == 0 || size > size_max) {
        return NULL;
    }
    return memos_arena_copy(&line->config->arena, memos_bytes_make(first, size));
}

/* The character after a backslash; 0 when it means nothing. */
static char escaped(char c)
{
    switch (c) {
    case '"':
    case '\\':
        return c;
    case 't':
        return '\t';
    case 'n':
        return '\n';
    default:
        return 0;
    }
}

static enum memos_status line_quoted(struct line *line, const char **out)
{
    char text[BROKER_CONFIG_TEXT_BYTES_MAX];
    size_t size = 0;

    line->at++; /* the opening quote */
    while (line->at < line->end && *line->at != '"') {
        char c = *line->at++;
        if (c == '\\') {
            c = line->at < line->end ? escaped(*line->at++) : 0;
            if (c == 0) {
                return line_fail(line, "after a backslash only \" \\ t and n mean something");
            }
        }
        if (size == sizeof text) {
            return line_fail(line, "the text is longer than 4096 bytes");
        }
        text[size++] = c;
    }
    if (!line_take(line, '"')) {
        return line_fail(line, "the text has no closing quote");
    }
    if (!memos_bytes_utf8(memos_bytes_make(text, size))) {
        return line_fail(line, "the text is not UTF-8");
    }
    *out = memos_arena_copy(&line->config->arena, memos_bytes_make(text, size));
    return *out ? MEMOS_OK : line_fail(line, "the file holds too much");
}

static enum memos_status line_array(struct line *line, struct broker_config_value *value)
{
    line->at++; /* the opening bracket */
    while (!line_take(line, ']')) {
        if (value->count > 0 && !line_take(line, ',')) {
            return line_fail(line, "expected , or ] in the array");
        }
        line_skip_blanks(line);
        if (line->at == line->end || *line->at != '"') {
            return line_fail(line, "an array holds texts in double quotes, on one line");
        }
        if (value->count == BROKER_CONFIG_ITEMS_MAX) {
            return line_fail(line, "the array holds more than 64 texts");
        }
        enum memos_status status = line_quoted(line, &value->items[value->count]);
        if (status != MEMOS_OK) {
            return status;
        }
        value->count++;
    }
    return MEMOS_OK;
}

static enum memos_status line_value(struct line *line, struct broker_config_value *value)
{
    line_skip_blanks(line);
    if (line->at < line->end && *line->at == '[') {
        value->form = BROKER_CONFIG_ARRAY;
        return line_array(line, value);
    }
    value->count = 1;
    if (line->at < line->end && *line->at == '"') {
        value->form = BROKER_CONFIG_QUOTED;
        return line_quoted(line, &value->items[0]);
    }
    value->form = BROKER_CONFIG_BARE;
    value->items[0] = line_bare(line, BROKER_CONFIG_TEXT_BYTES_MAX);
    return value->items[0] ? MEMOS_OK
                           : line_fail(line, "expected a value: 12, true, \"text\" or [");
}

static enum memos_status line_parse(struct line *line)
{
    struct broker_config_value value = {0};

    if (line_over(line)) {
        return MEMOS_OK;
    }
    if (*line->at == '[') {
        return line_fail(line, "sections are not known here: write key = value");
    }
    const char *name = line_bare(line, NAME_BYTES_MAX);
    if (!name) {
        return line_fail(line, "expected the name of a key");
    }
    if (!line_take(line, '=')) {
        return line_fail(line, "expected = after the name of the key");
    }
    enum memos_status status = line_value(line, &value);
    if (status != MEMOS_OK) {
        return status;
    }
    if (!line_over(line)) {
        return line_fail(line, "there is more on the line than one value");
    }
    return broker_config_assign(line->config, &line->place, name, &value, line->err);
}

enum memos_status broker_config_parse(struct broker_config *config, const char *name,
    struct memos_bytes text, struct memos_error *err)
{
    struct line line = {.config = config, .place = {.name = name}, .err = err};
    const char *at = text.data, *end = at + text.size;

    if (text.size > FILE_BYTES_MAX) {
        return memos_fail(
            err, MEMOS_TOO_LARGE, "%s: a configuration of %zu bytes is too large", name, text.size);
    }
    while (text.size > 0 && at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        line.place.line++;
        line.at = at;
        line.end = stop ? stop : end;
        enum memos_status status = line_parse(&line);
        if (status != MEMOS_OK) {
            return status;
        }
        at = stop ? stop + 1 : end;
    }
    return MEMOS_OK;
}

/* Read all of an open file of known size. */
static enum memos_status read_whole(
    int fd, const char *path, uint8_t *data, size_t size, struct memos_error *err)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, data + done, size - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return memos_fail_errno(err, got < 0 ? errno : EIO, "cannot read %s", path);
        }
        done += (size_t)got;
    }
    return MEMOS_OK;
}

enum memos_status broker_config_read(
    struct broker_config *config, const char *path, struct memos_error *err)
{
    enum memos_status status;
    struct stat about;
    uint8_t *data = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &about) != 0) {
        status = memos_fail_errno(err, errno, "cannot open %s", path);
        goto out;
    }
    if (!S_ISREG(about.st_mode) || about.st_size > FILE_BYTES_MAX) {
        status = memos_fail(err, MEMOS_INVALID, "%s is not a file of at most 1 MiB", path);
        goto out;
    }
    size_t size = (size_t)about.st_size;
    data = malloc(size ? size : 1);
    if (!data) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to read %s", path);
        goto out;
    }
    status = read_whole(fd, path, data, size, err);
    if (status == MEMOS_OK) {
        status = broker_config_parse(config, path, memos_bytes_make(data, size), err);
    }
out:
    free(data);
    if (fd >= 0) {
        (void)close(fd);
    }
    return status;
}
