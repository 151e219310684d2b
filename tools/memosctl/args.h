/* The command line: which command, its operands, its options.
 *
 * Options are one table for all commands, so that a name means the same wherever it is taken; a
 * command lists those that it takes (commands.h). Everything here views argv and the environment.
 *
 * Threads: none of its own. */
#ifndef TOOLS_MEMOSCTL_ARGS_H
#define TOOLS_MEMOSCTL_ARGS_H

#include "proto/bytes.h"
#include "tools/memosctl/options.h"

enum ctl_option {
    CTL_NONE,
#define X(id, name, letter, argument, help) CTL_##id,
    CTL_OPTION_TABLE(X)
#undef X
        CTL_OPTIONS_END
};

struct ctl_option_info {
    const char *name;
    char letter;          /* 0: none */
    const char *argument; /* NULL: a flag */
    const char *help;
};
const struct ctl_option_info *ctl_option_info(enum ctl_option option);

/* Taken by every command; ends with CTL_NONE. */
extern const enum ctl_option ctl_global_options[];

struct ctl_command;

enum { CTL_OPERANDS_MAX = 1024, CTL_GIVEN_MAX = 1024 };

struct ctl_args {
    const struct ctl_command *command; /* NULL: none was named */
    const char *operands[CTL_OPERANDS_MAX];
    size_t operands_count;
    struct {
        enum ctl_option option;
        const char *value;
    } given[CTL_GIVEN_MAX];
    size_t given_count;
};

/* Read argv (without the program's name). Finds the command, checks names, arguments and the number
 * of operands; the space of --space or $MEMOS_SPACE becomes the first operand. With --help nothing
 * is missing. INVALID says what is wrong. */
MEMOS_MUST_USE enum memos_status ctl_args_parse(
    int argc, char *const argv[], struct ctl_args *out, struct memos_error *err);

bool ctl_args_has(const struct ctl_args *args, enum ctl_option option);

/* The last value given; NULL when there is none. */
const char *ctl_args_value(const struct ctl_args *args, enum ctl_option option);

/* All values in order: begin with *at = 0; NULL after the last. */
const char *ctl_args_next(const struct ctl_args *args, enum ctl_option option, size_t *at);
size_t ctl_args_count(const struct ctl_args *args, enum ctl_option option);

/* A whole number of the option, or preset when it was not given. INVALID outside [min, max]. */
MEMOS_MUST_USE enum memos_status ctl_args_number(const struct ctl_args *args,
    enum ctl_option option, uint64_t preset, uint64_t min, uint64_t max, uint64_t *out,
    struct memos_error *err);

/* A number of the option from min to max, or preset when it was not given. INVALID outside. */
MEMOS_MUST_USE enum memos_status ctl_args_real(const struct ctl_args *args, enum ctl_option option,
    float preset, float min, float max, float *out, struct memos_error *err);

/* A length of time ("500ms", "30s", "5m", "1h") in milliseconds, or preset_ms. */
MEMOS_MUST_USE enum memos_status ctl_args_duration(const struct ctl_args *args,
    enum ctl_option option, int64_t preset_ms, int64_t *out_ms, struct memos_error *err);

/* Decimal digits only, up to max. */
bool ctl_number_parse(const char *text, uint64_t max, uint64_t *out);

#endif
