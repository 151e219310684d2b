#include "tools/memosctl/args.h"

#include "tools/memosctl/commands.h"

#include <stdlib.h>
#include <string.h>

static const struct ctl_option_info infos[CTL_OPTIONS_END] = {
#define X(id, name, letter, argument, help) [CTL_##id] = {name, letter, argument, help},
    CTL_OPTION_TABLE(X)
#undef X
};

const struct ctl_option_info *ctl_option_info(enum ctl_option option)
{
    return &infos[option];
}

/* The words of argv until the command is known are options that every command takes, so the command
 * is found first: it is the first word, or first two, that is neither an option nor its argument.
 */
static size_t find_words(int argc, char *const argv[], const char *words[2], int at[2])
{
    size_t count = 0;
    for (int i = 0; i < argc && count < 2; i++) {
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            at[count] = i;
            words[count++] = argv[i];
            continue;
        }
        for (const enum ctl_option *o = ctl_global_options; *o != CTL_NONE; o++) {
            if (infos[*o].argument &&
                strcmp(argv[i] + 1 + (argv[i][1] == '-'), infos[*o].name) == 0) {
                i++;
                break;
            }
        }
    }
    return count;
}

static bool option_matches(enum ctl_option option, const char *name, size_t size, bool is_letter)
{
    const struct ctl_option_info *info = &infos[option];
    if (is_letter) {
        return info->letter != 0 && info->letter == name[0];
    }
    return strlen(info->name) == size && memcmp(info->name, name, size) == 0;
}

static enum ctl_option find_option(
    const struct ctl_command *command, const char *name, size_t size, bool is_letter)
{
    /* a command's own first: --space may be its own, too */
    const enum ctl_option *lists[] = {command ? command->options : NULL, ctl_global_options};
    for (size_t i = 0; i < 2; i++) {
        for (const enum ctl_option *o = lists[i]; o && *o != CTL_NONE; o++) {
            if (option_matches(*o, name, size, is_letter)) {
                return *o;
            }
        }
    }
    return CTL_NONE;
}

static const char *name_of(const struct ctl_args *args)
{
    return args->command ? args->command->name : "memosctl";
}

/* One option at argv[*at]; moves *at to its last word. */
static enum memos_status take_option(
    int argc, char *const argv[], int *at, struct ctl_args *out, struct memos_error *err)
{
    const char *word = argv[*at];
    bool is_letter = word[1] != '-';
    const char *name = word + (is_letter ? 1 : 2);
    size_t size = is_letter ? 1 : strcspn(name, "=");
    enum ctl_option option = find_option(out->command, name, size, is_letter);
    if (option == CTL_NONE) {
        return memos_fail(err, MEMOS_INVALID, "'%s' takes no option %.*s", name_of(out),
            (int)(size + (is_letter ? 1u : 2u)), word);
    }
    const char *value = NULL;
    if (name[size] != '\0') { /* --name=value, -nvalue */
        value = name + size + (name[size] == '=');
    }
    if (!infos[option].argument && value) {
        return memos_fail(err, MEMOS_INVALID, "--%s takes no value", infos[option].name);
    }
    if (infos[option].argument && !value) {
        if (*at + 1 >= argc) {
            return memos_fail(err, MEMOS_INVALID, "--%s needs a value (%s)", infos[option].name,
                infos[option].argument);
        }
        value = argv[++*at];
    }
    if (out->given_count == CTL_GIVEN_MAX) {
        return memos_fail(err, MEMOS_INVALID, "more than %d options", CTL_GIVEN_MAX);
    }
    out->given[out->given_count].option = option;
    out->given[out->given_count++].value = value;
    return MEMOS_OK;
}

static enum memos_status take_operand(
    struct ctl_args *out, const char *word, struct memos_error *err)
{
    if (out->operands_count == CTL_OPERANDS_MAX) {
        return memos_fail(err, MEMOS_INVALID, "more than %d operands", CTL_OPERANDS_MAX);
    }
    out->operands[out->operands_count++] = word;
    return MEMOS_OK;
}

/* "-0.5" is a number and "-" is standard input; other words that begin so are options. */
static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0' && !strchr(".0123456789", word[1]);
}

/* --space always is the first operand; $MEMOS_SPACE only where one is missing. */
static enum memos_status take_space(struct ctl_args *out, struct memos_error *err)
{
    const char *given = ctl_args_value(out, CTL_SPACE);
    const char *usual = getenv("MEMOS_SPACE");
    if (given && !ctl_command_has_space(out->command)) {
        return memos_fail(err, MEMOS_INVALID, "'%s' takes no space", out->command->name);
    }
    if (!given && ctl_command_has_space(out->command) && usual && usual[0] &&
        (out->operands_count < out->command->operands_min || out->operands_count == 0)) {
        given = usual;
    }
    if (!given) {
        return MEMOS_OK;
    }
    enum memos_status status = take_operand(out, given, err);
    if (status == MEMOS_OK) {
        memmove(
            out->operands + 1, out->operands, (out->operands_count - 1) * sizeof out->operands[0]);
        out->operands[0] = given;
    }
    return status;
}

static enum memos_status check_operands(const struct ctl_args *args, struct memos_error *err)
{
    const struct ctl_command *command = args->command;
    if (args->operands_count < command->operands_min) {
        return memos_fail(err, MEMOS_INVALID, "'%s' needs %s", command->name, command->operands);
    }
    if (args->operands_count > command->operands_max) {
        return memos_fail(err, MEMOS_INVALID, "'%s' takes %s, and '%s' is one too many",
            command->name, command->operands[0] ? command->operands : "no operands",
            args->operands[command->operands_max]);
    }
    return MEMOS_OK;
}

enum memos_status ctl_args_parse(
    int argc, char *const argv[], struct ctl_args *out, struct memos_error *err)
{
    const char *words[2] = {NULL, NULL};
    int at[2] = {-1, -1};
    size_t used = 0;
    size_t words_count = find_words(argc, argv, words, at);
    *out = (struct ctl_args){0};
    out->command = ctl_command_find(words, words_count, &used);
    if (!out->command && words_count > 0) {
        bool has_pairs = ctl_command_find((const char *[]){words[0], "list"}, 2, &used) != NULL;
        const char *second = has_pairs && words_count > 1 ? words[1] : "";
        return memos_fail(err, MEMOS_INVALID, "there is no command '%s%s%s'", words[0],
            second[0] ? " " : "", second);
    }
    enum memos_status status = MEMOS_OK;
    bool only_operands = false;
    for (int i = 0; i < argc && status == MEMOS_OK; i++) {
        if ((used > 0 && i == at[0]) || (used > 1 && i == at[1])) {
            continue;
        } else if (!only_operands && strcmp(argv[i], "--") == 0) {
            only_operands = true;
        } else if (!only_operands && is_option(argv[i])) {
            status = take_option(argc, argv, &i, out, err);
        } else {
            status = take_operand(out, argv[i], err);
        }
    }
    if (status != MEMOS_OK || !out->command || ctl_args_has(out, CTL_HELP)) {
        return status;
    }
    status = take_space(out, err);
    return status == MEMOS_OK ? check_operands(out, err) : status;
}

/* ---- asking ---- */

bool ctl_args_has(const struct ctl_args *args, enum ctl_option option)
{
    return ctl_args_count(args, option) > 0;
}

const char *ctl_args_value(const struct ctl_args *args, enum ctl_option option)
{
    for (size_t i = args->given_count; i-- > 0;) {
        if (args->given[i].option == option) {
            return args->given[i].value;
        }
    }
    return NULL;
}

const char *ctl_args_next(const struct ctl_args *args, enum ctl_option option, size_t *at)
{
    while (*at < args->given_count) {
        size_t i = (*at)++;
        if (args->given[i].option == option) {
            return args->given[i].value;
        }
    }
    return NULL;
}

size_t ctl_args_count(const struct ctl_args *args, enum ctl_option option)
{
    size_t count = 0;
    for (size_t i = 0; i < args->given_count; i++) {
        count += args->given[i].option == option;
    }
    return count;
}

bool ctl_number_parse(const char *text, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;
    if (text[0] == '\0') {
        return false;
    }
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value) || value > max) {
            return false;
        }
    }
    *out = value;
    return true;
}

enum memos_status ctl_args_number(const struct ctl_args *args, enum ctl_option option,
    uint64_t preset, uint64_t min, uint64_t max, uint64_t *out, struct memos_error *err)
{
    const char *text = ctl_args_value(args, option);
    *out = preset;
    if (text && (!ctl_number_parse(text, max, out) || *out < min)) {
        return memos_fail(err, MEMOS_INVALID,
            "--%s takes a whole number from %llu to %llu, not '%s'", infos[option].name,
            (unsigned long long)min, (unsigned long long)max, text);
    }
    return MEMOS_OK;
}

static bool duration_parse(const char *text, int64_t *out_ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"", 1000}};
    char digits[20];
    size_t size = strspn(text, "0123456789");
    uint64_t value;
    if (size == 0 || size >= sizeof digits) {
        return false;
    }
    memcpy(digits, text, size);
    digits[size] = '\0';
    if (!ctl_number_parse(digits, UINT32_MAX, &value)) {
        return false;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text + size, units[i].unit) == 0) {
            *out_ms = (int64_t)value * units[i].ms;
            return *out_ms > 0 && *out_ms <= UINT32_MAX;
        }
    }
    return false;
}

enum memos_status ctl_args_real(const struct ctl_args *args, enum ctl_option option, float preset,
    float min, float max, float *out, struct memos_error *err)
{
    char *end;
    const char *text = ctl_args_value(args, option);
    *out = preset;
    if (!text) {
        return MEMOS_OK;
    }
    *out = strtof(text, &end);
    if (end == text || *end || !(*out >= min && *out <= max)) {
        return memos_fail(err, MEMOS_INVALID, "--%s takes a number from %g to %g, not '%.40s'",
            infos[option].name, (double)min, (double)max, text);
    }
    return MEMOS_OK;
}

enum memos_status ctl_args_duration(const struct ctl_args *args, enum ctl_option option,
    int64_t preset_ms, int64_t *out_ms, struct memos_error *err)
{
    const char *text = ctl_args_value(args, option);
    *out_ms = preset_ms;
    if (text && !duration_parse(text, out_ms)) {
        return memos_fail(err, MEMOS_INVALID, "--%s takes a time as 500ms, 30s, 5m or 1h, not '%s'",
            infos[option].name, text);
    }
    return MEMOS_OK;
}
