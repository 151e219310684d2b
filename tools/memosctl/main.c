/* memosctl: the administrator's hand. Exits with the number of the status (proto/status.h). */
#include "tools/memosctl/ctl.h"

#include <locale.h>
#include <string.h>

static enum memos_status run(struct ctl *ctl, struct memos_error *err)
{
    const struct ctl_args *args = ctl->args;
    if (ctl_args_has(args, CTL_HELP)) {
        ctl_help_print(args->command, stdout);
        return MEMOS_OK;
    }
    if (!args->command) {
        ctl_help_print(NULL, stderr);
        return memos_fail(err, MEMOS_INVALID, "no command was given");
    }
    return args->command->run(ctl, err);
}

int main(int argc, char *argv[])
{
    struct memos_error err = {0};
    struct ctl_args args;
    struct ctl ctl;
    (void)setlocale(LC_CTYPE, "");
    enum memos_status status = ctl_args_parse(argc - 1, argv + 1, &args, &err);
    enum memos_status ready = ctl_init(&ctl, &args, status == MEMOS_OK ? &err : NULL);
    if (status == MEMOS_OK) {
        status = ready;
    }
    if (status != MEMOS_OK) {
        static char hint[96];
        const char *name = args.command ? args.command->name : NULL;
        snprintf(hint, sizeof hint, "see `memosctl help%s%s`", name ? " " : "", name ? name : "");
        ctl.hint = hint;
    } else {
        status = run(&ctl, &err);
    }
    ctl_progress_end(&ctl);
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == MEMOS_OK) {
        status = memos_fail(&err, MEMOS_IO, "cannot write to standard output");
    }
    if (status != MEMOS_OK) {
        ctl_error_print(&ctl, status, &err);
    }
    ctl_finish(&ctl);
    return (int)status;
}
