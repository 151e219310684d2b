/* Help and completion, made from the tables of commands and options. */
#include "tools/memosctl/ctl.h"

#include <string.h>

enum { HELP_COLUMNS = 79, HELP_INDENT = 28 };

/* Print text, broken at blanks, from column `at` on; further lines begin at `indent`. */
static void print_wrapped(FILE *out, int at, int indent, const char *text)
{
    bool is_first = true; /* on its line */
    while (*text) {
        int size = (int)strcspn(text, " ");
        if (!is_first && at + 1 + size > HELP_COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
            is_first = true;
        }
        fprintf(out, "%s%.*s", is_first ? "" : " ", size, text);
        at += size + !is_first;
        is_first = false;
        text += size;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

/* "  left part            right part". */
static void print_entry(FILE *out, const char *left, const char *right)
{
    int written = fprintf(out, "  %s", left);
    if (written >= HELP_INDENT - 1) {
        fprintf(out, "\n%*s", HELP_INDENT, "");
    } else {
        fprintf(out, "%*s", HELP_INDENT - written, "");
    }
    print_wrapped(out, HELP_INDENT, HELP_INDENT, right);
}

static void print_options(FILE *out, const enum ctl_option *options)
{
    for (; *options != CTL_NONE; options++) {
        const struct ctl_option_info *info = ctl_option_info(*options);
        char left[96], letter[8] = "";
        if (info->letter) {
            snprintf(letter, sizeof letter, "-%c, ", info->letter);
        }
        snprintf(left, sizeof left, "%s--%s%s%s", letter, info->name, info->argument ? " " : "",
            info->argument ? info->argument : "");
        print_entry(out, left, info->help);
    }
}

static void print_program_help(FILE *out)
{
    size_t count;
    const struct ctl_command *all = ctl_commands(&count);
    fputs("usage: memosctl COMMAND [OPERAND...] [OPTION...]\n\nCommands:\n", out);
    for (size_t i = 0; i < count; i++) {
        char left[96];
        snprintf(left, sizeof left, "%s%s%s", all[i].name, all[i].operands[0] ? " " : "",
            all[i].operands);
        print_entry(out, left, all[i].summary);
    }
    fputs("\nOptions of every command:\n", out);
    print_options(out, ctl_global_options);
    fputs("\n", out);
    print_wrapped(out, 0, 0,
        "An ID may be the beginning of one, or ext: and your own id of the cube. TEXT may be "
        "@FILE, "
        "or - for standard input. A TIME is 2026-05-01T12:30:00Z, 2026-05-01, @SECONDS, or an age: "
        "90s, 15m, 3h, 2d, 4w.");
    print_wrapped(out, 0, 0, "See `memosctl help COMMAND`, and memosctl(1).");
}

void ctl_help_print(const struct ctl_command *command, FILE *out)
{
    if (!command) {
        print_program_help(out);
        return;
    }
    fprintf(out, "usage: memosctl %s%s%s [OPTION...]\n\n", command->name,
        command->operands[0] ? " " : "", command->operands);
    char summary[160];
    snprintf(summary, sizeof summary, "%s.", command->summary);
    if (summary[0] >= 'a' && summary[0] <= 'z') {
        summary[0] = (char)(summary[0] - 'a' + 'A');
    }
    print_wrapped(out, 0, 0, summary);
    if (command->details) {
        print_wrapped(out, 0, 0, command->details);
    }
    if (command->options[0] != CTL_NONE) {
        fputs("\nOptions:\n", out);
        print_options(out, command->options);
    }
    fputs("\nOptions of every command:\n", out);
    print_options(out, ctl_global_options);
}

enum memos_status ctl_run_help(struct ctl *ctl, struct memos_error *err)
{
    size_t used = 0;
    const struct ctl_args *args = ctl->args;
    const struct ctl_command *command =
        ctl_command_find(args->operands, args->operands_count, &used);
    if (args->operands_count > 0 && (!command || used != args->operands_count)) {
        return memos_fail(err, MEMOS_INVALID, "there is no command '%s'", args->operands[0]);
    }
    ctl_help_print(command, stdout);
    return MEMOS_OK;
}

enum memos_status ctl_run_version(struct ctl *ctl, struct memos_error *err)
{
    (void)err;
    if (ctl->json) {
        return ctl_json_print(json_pack("{ss}", "version", MEMOS_VERSION), err);
    }
    puts("memosctl " MEMOS_VERSION);
    return MEMOS_OK;
}

/* ---- completion ---- */

static void print_option_words(FILE *out, const enum ctl_option *options)
{
    for (; *options != CTL_NONE; options++) {
        fprintf(out, " --%s", ctl_option_info(*options)->name);
    }
}

/* The second words of a first word of two-word commands. */
static void print_second_words(FILE *out, const struct ctl_command *all, size_t count, size_t at)
{
    size_t first = strcspn(all[at].name, " ");
    for (size_t i = at; i < count && strncmp(all[i].name, all[at].name, first + 1) == 0; i++) {
        fprintf(out, "%s%s", i == at ? "" : " ", all[i].name + first + 1);
    }
}

static bool is_first_of_pair(const struct ctl_command *all, size_t at)
{
    size_t first = strcspn(all[at].name, " ");
    return all[at].name[first] == ' ' &&
           (at == 0 || strncmp(all[at - 1].name, all[at].name, first + 1) != 0);
}

static void print_first_words(FILE *out, const struct ctl_command *all, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t first = strcspn(all[i].name, " ");
        if (all[i].name[first] == '\0' || is_first_of_pair(all, i)) {
            fprintf(out, " %.*s", (int)first, all[i].name);
        }
    }
}

/* Options whose values are a few words or a file. */
static void print_value_cases(FILE *out)
{
    fputs(
        "    case $previous in\n"
        "    --format) COMPREPLY=($(compgen -W 'jsonl messages chatgpt text markdown archive'"
        " -- \"$word\")); return ;;\n"
        "    --color) COMPREPLY=($(compgen -W 'auto always never' -- \"$word\")); return ;;\n"
        "    --kind) COMPREPLY=($(compgen -W 'plaintext activation parametric'"
        " -- \"$word\")); return ;;\n"
        "    --method) COMPREPLY=($(compgen -W 'weighted vote interpolation' -- \"$word\")); return"
        " ;;\n"
        "    --without) COMPREPLY=($(compgen -W 'words vectors neighbours speaker dates statement"
        " form recency priority diversity' -- \"$word\")); return ;;\n"
        "    --weights) COMPREPLY=($(compgen -W 'f32 bf16 int8 i8 q8_0 q4_0' -- \"$word\"));"
        " return ;;\n"
        "    --kv) COMPREPLY=($(compgen -W 'f32 f16 bf16 e4m3' -- \"$word\")); return ;;\n"
        "    --backend) COMPREPLY=($(compgen -W 'auto cpu cuda ref' -- \"$word\")); return ;;\n"
        "    --sensitivity) COMPREPLY=($(compgen -W 'public normal confidential secret'"
        " -- \"$word\")); return ;;\n"
        "    --state) COMPREPLY=($(compgen -W 'all generated activated frozen merged archived"
        " expired withdrawn forgotten' -- \"$word\")); return ;;\n"
        "    "
        "--output|-o|--out|--check|--queries|--memosd|--config|--key-file|--log-file|--data-dir|"
        "--encoder-key-file)\n"
        "        COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n"
        "    esac\n",
        out);
}

void ctl_completion_print(FILE *out)
{
    size_t count;
    const struct ctl_command *all = ctl_commands(&count);
    fputs("# bash completion of memosctl; made by `memosctl completion bash`\n"
          "_memosctl()\n{\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    local command=${COMP_WORDS[1]} second=${COMP_WORDS[2]} options seconds spaces\n"
          "    COMPREPLY=()\n",
        out);
    print_value_cases(out);
    fputs("    if [ \"$COMP_CWORD\" = 1 ]; then\n        COMPREPLY=($(compgen -W '", out);
    print_first_words(out, all, count);
    fputs("' -- \"$word\"))\n        return\n    fi\n    case $command in\n", out);
    for (size_t i = 0; i < count; i++) {
        if (is_first_of_pair(all, i)) {
            fprintf(out, "    %.*s) seconds='", (int)strcspn(all[i].name, " "), all[i].name);
            print_second_words(out, all, count, i);
            fputs("' ;;\n", out);
        }
    }
    fputs("    esac\n    if [ -n \"$seconds\" ] && [ \"$COMP_CWORD\" = 2 ]; then\n"
          "        COMPREPLY=($(compgen -W \"$seconds\" -- \"$word\"))\n        return\n    fi\n"
          "    [ -n \"$seconds\" ] && command=\"$command $second\"\n    case $command in\n",
        out);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "    '%s') options='", all[i].name);
        print_option_words(out, all[i].options);
        fprintf(out, "'%s ;;\n", ctl_command_has_space(&all[i]) ? " spaces=1" : "");
    }
    fputs("    esac\n    if [ \"${word#-}\" != \"$word\" ]; then\n"
          "        COMPREPLY=($(compgen -W \"$options",
        out);
    print_option_words(out, ctl_global_options);
    fputs("\" -- \"$word\"))\n"
          "    elif [ -n \"$spaces\" ] && [ \"$COMP_CWORD\" = 2 ]; then\n"
          "        COMPREPLY=($(compgen -W \"$(memosctl spaces --json --timeout 1s 2>/dev/null |\n"
          "            sed -n 's/^.*\"name\": *\"\\([^\"]*\\)\".*$/\\1/p')\" -- \"$word\"))\n"
          "    else\n        COMPREPLY=($(compgen -f -- \"$word\"))\n    fi\n}\n"
          "complete -F _memosctl memosctl\n",
        out);
}

enum memos_status ctl_run_completion(struct ctl *ctl, struct memos_error *err)
{
    if (strcmp(ctl->args->operands[0], "bash") != 0) {
        return memos_fail(err, MEMOS_INVALID, "there is a completion for bash, none for '%s'",
            ctl->args->operands[0]);
    }
    ctl_completion_print(stdout);
    return MEMOS_OK;
}
