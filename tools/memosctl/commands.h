/* The commands of memosctl: one table, from which --help, `help COMMAND`, the completion of bash
 * and the test against the manual page are made. */
#ifndef TOOLS_MEMOSCTL_COMMANDS_H
#define TOOLS_MEMOSCTL_COMMANDS_H

#include "tools/memosctl/args.h"

#include <stdio.h>

struct ctl;

struct ctl_command {
    const char *name;     /* "put", or two words: "key new" */
    const char *operands; /* "SPACE ID..."; for help */
    const char *summary;
    const char *details;            /* more for its help; NULL: nothing */
    const enum ctl_option *options; /* beside the global ones; ends with CTL_NONE */
    unsigned operands_min, operands_max;
    bool is_long; /* waits an hour, unless --timeout says otherwise */
    /* Runs it and prints its result; a failure is printed by the caller. */
    enum memos_status (*run)(struct ctl *ctl, struct memos_error *err);
};

enum { CTL_TEXTS_MAX = 256 }; /* of one classify */

/* The whole table, in the order of help. */
const struct ctl_command *ctl_commands(size_t *out_count);

/* Does its first operand name a space? */
bool ctl_command_has_space(const struct ctl_command *command);

/* Does it take this option, as one of its own or a global one that none of its own hides? */
bool ctl_command_takes(const struct ctl_command *command, enum ctl_option option);

/* Find a command by its one or two words; *out_words is how many there were. NULL: none. */
const struct ctl_command *ctl_command_find(
    const char *const words[], size_t count, size_t *out_words);

/* ---- help.c ---- */

/* command NULL: of the program. */
void ctl_help_print(const struct ctl_command *command, FILE *out);
void ctl_completion_print(FILE *out);

#define CTL_RUN(command)                                                                           \
    enum memos_status ctl_run_##command(struct ctl *ctl, struct memos_error *err)

CTL_RUN(help);
CTL_RUN(completion);
CTL_RUN(version);

/* ---- the commands, by file ---- */

CTL_RUN(put); /* cmd_cube.c */
CTL_RUN(get);
CTL_RUN(update);
CTL_RUN(tag);
CTL_RUN(merge);
CTL_RUN(state);
CTL_RUN(freeze);
CTL_RUN(thaw);
CTL_RUN(archive);
CTL_RUN(restore);
CTL_RUN(feedback);
CTL_RUN(list); /* cmd_find.c */
CTL_RUN(search);
CTL_RUN(classify); /* cmd_meaning.c */
CTL_RUN(correct);
CTL_RUN(tree);
CTL_RUN(encoder_status);
CTL_RUN(log); /* cmd_history.c */
CTL_RUN(show);
CTL_RUN(history);
CTL_RUN(diff);
CTL_RUN(rollback); /* cmd_back.c */
CTL_RUN(forget);
CTL_RUN(verify); /* cmd_proof.c */
CTL_RUN(checkpoint);
CTL_RUN(fsck);
CTL_RUN(spaces); /* cmd_space.c */
CTL_RUN(stats);
CTL_RUN(status);
CTL_RUN(key_new); /* cmd_access.c */
CTL_RUN(key_allow);
CTL_RUN(key_revoke);
CTL_RUN(key_list);
CTL_RUN(grant_add);
CTL_RUN(grant_remove);
CTL_RUN(grant_list);
CTL_RUN(watch); /* cmd_live.c */
CTL_RUN(top);
CTL_RUN(up); /* cmd_service.c */
CTL_RUN(down);
CTL_RUN(export);      /* cmd_archive.c */
CTL_RUN(import);      /* cmd_import.c */
CTL_RUN(encoder_add); /* cmd_encoder.c */
CTL_RUN(encoder_list);
CTL_RUN(encoder_show);
CTL_RUN(encoder_embed);
CTL_RUN(encoder_remove);
CTL_RUN(generate);     /* cmd_generate.c */
CTL_RUN(score);        /* cmd_score.c */
CTL_RUN(tokenize);     /* cmd_tokenize.c */
CTL_RUN(chat);         /* cmd_chat.c */
CTL_RUN(capture);      /* cmd_capture.c */
CTL_RUN(receipt_show); /* cmd_receipt.c */
CTL_RUN(receipt_verify);
CTL_RUN(worker_start); /* cmd_worker.c */
CTL_RUN(worker_list);
CTL_RUN(worker_drain);
CTL_RUN(worker_stop);
CTL_RUN(model_add); /* cmd_model.c */
CTL_RUN(model_list);
CTL_RUN(model_show);
CTL_RUN(model_remove);

#endif
