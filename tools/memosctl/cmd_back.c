/* Taking back: rollback, which can be undone, and forget, which cannot. */
#include "tools/memosctl/input.h"
#include "tools/memosctl/versions.h"

#include "memcube/cube.h"

#include <string.h>

enum { DIFFS_MAX = 100, LINES_MAX = 1000 };

/* Exactly one of --to, --to-time, --to-version. */
static enum memos_status make_target(
    struct ctl *ctl, Memos__Rollback *body, Memos__AsOf *to, struct memos_error *err)
{
    const struct ctl_args *args = ctl->args;
    const char *point = ctl_args_value(args, CTL_TO), *time = ctl_args_value(args, CTL_TO_TIME);
    bool has_version = ctl_args_has(args, CTL_TO_VERSION);
    uint64_t version = 0;
    *to = (Memos__AsOf)MEMOS__AS_OF__INIT;
    if ((point != NULL) + (time != NULL) + has_version != 1) {
        return memos_fail(err, MEMOS_INVALID,
            "say how far back: one of --to SEQ|TIME, --to-time TIME, --to-version N");
    }
    enum memos_status status =
        ctl_args_number(args, CTL_TO_VERSION, 0, 1, UINT32_MAX, &version, err);
    if (status == MEMOS_OK && has_version && args->operands_count != 2) {
        return memos_fail(err, MEMOS_INVALID, "--to-version is for one cube, not for %zu",
            args->operands_count - 1);
    }
    if (status == MEMOS_OK && point) {
        status = ctl_point_parse(ctl, point, to, err);
    } else if (status == MEMOS_OK && time) {
        status = ctl_time_option(ctl, CTL_TO_TIME, &to->time_us, err);
    }
    body->to_version = (uint32_t)version;
    body->to_beginning = !has_version && to->seq == 0 && to->time_us == 0;
    body->to = has_version || body->to_beginning ? NULL : to;
    return status;
}

/* The text of a version for a diff; nothing for version 0 and for one that cannot be read. */
static struct memos_bytes version_text(struct ctl *ctl, const struct memos_id *id, uint32_t number,
    struct memos_message **out_reply, const Memos__Cube **out_cube)
{
    *out_cube = NULL;
    if (number == 0 ||
        ctl_version_get(ctl, id, number, NULL, out_reply, out_cube, NULL) != MEMOS_OK) {
        return memos_bytes_make(NULL, 0);
    }
    return memos_message_frame(*out_reply, (*out_cube)->frame);
}

static enum memos_status print_item_diff(
    struct ctl *ctl, const Memos__RollbackItem *item, struct memos_error *err)
{
    struct memos_id id = ctl_id_of(item->id);
    struct memos_message *a_reply = NULL, *b_reply = NULL;
    const Memos__Cube *a, *b;
    struct memos_bytes a_text = version_text(ctl, &id, item->from, &a_reply, &a);
    struct memos_bytes b_text = version_text(ctl, &id, item->to, &b_reply, &b);
    enum memos_status status = ctl_versions_diff(ctl, a, a_text, b, b_text, err);
    memos_message_free(&a_reply);
    memos_message_free(&b_reply);
    return status;
}

static void print_item(const struct ctl *ctl, const Memos__RollbackItem *item)
{
    char text[MEMOS_ID_TEXT_BYTES];
    struct memos_id id = ctl_id_of(item->id);
    printf("%s%s%s: version %u", ctl_style_on(&ctl->paper, CTL_BOLD), memos_id_format(&id, text),
        ctl_style_off(&ctl->paper), item->from);
    if (item->status == MEMOS_FROZEN) {
        puts(" stays: it is frozen (--include-frozen)");
    } else if (item->status != MEMOS_OK) {
        printf(" stays: %s\n", memos_status_text((enum memos_status)item->status));
    } else if (item->to == 0) {
        puts(" is withdrawn: it did not exist then");
    } else {
        printf(" goes back to %u\n", item->to);
    }
}

static enum memos_status print_rollback(
    struct ctl *ctl, const Memos__Outcome *outcome, struct memos_error *err)
{
    bool is_dry = ctl_args_has(ctl->args, CTL_DRY_RUN);
    enum memos_status status = MEMOS_OK;
    size_t shown = is_dry ? DIFFS_MAX : 20, i;
    for (i = 0; i < outcome->n_rollback && i < shown && status == MEMOS_OK; i++) {
        print_item(ctl, outcome->rollback[i]);
        if (is_dry && outcome->rollback[i]->status == MEMOS_OK) {
            status = print_item_diff(ctl, outcome->rollback[i], err);
        }
    }
    if (status != MEMOS_OK) {
        return status;
    }
    if (i < outcome->n_rollback) {
        printf("and %zu more\n", outcome->n_rollback - i);
    }
    if (is_dry) {
        printf(
            "%zu cubes would be touched; nothing was changed (--dry-run)\n", outcome->n_rollback);
    } else if (outcome->seq == 0) {
        puts("nothing changed");
    } else {
        printf("%srolled back%s: record %llu; undo with --to %llu\n",
            ctl_style_on(&ctl->paper, CTL_GREEN), ctl_style_off(&ctl->paper),
            (unsigned long long)outcome->seq, (unsigned long long)outcome->seq - 1);
    }
    return MEMOS_OK;
}

/* Every line of a dry run with what would change, for programs. */
static json_t *dry_run_json(struct ctl *ctl, const Memos__Outcome *outcome)
{
    json_t *object = ctl_json_outcome(outcome);
    json_t *items = json_object_get(object, "rollback");
    for (size_t i = 0; i < outcome->n_rollback && i < DIFFS_MAX; i++) {
        const Memos__RollbackItem *item = outcome->rollback[i];
        struct memos_id id = ctl_id_of(item->id);
        struct memos_message *a_reply = NULL, *b_reply = NULL;
        const Memos__Cube *a, *b;
        struct memos_bytes a_text = version_text(ctl, &id, item->from, &a_reply, &a);
        struct memos_bytes b_text = version_text(ctl, &id, item->to, &b_reply, &b);
        json_object_set_new(
            json_array_get(items, i), "diff", ctl_versions_diff_json(ctl, a, a_text, b, b_text));
        memos_message_free(&a_reply);
        memos_message_free(&b_reply);
    }
    return object;
}

/* May the whole space go back? A terminal is asked; a script has said what it wants. */
static enum memos_status confirm_space(struct ctl *ctl, struct memos_error *err)
{
    const struct ctl_args *args = ctl->args;
    char question[256];
    if (args->operands_count > 1 || !ctl->asks || ctl_args_has(args, CTL_DRY_RUN) ||
        ctl_args_has(args, CTL_YES)) {
        return MEMOS_OK;
    }
    snprintf(question, sizeof question, "Roll back everything in '%.128s'?", args->operands[0]);
    if (ctl_ask(ctl, question)) {
        return MEMOS_OK;
    }
    ctl->hint = "look first with --dry-run";
    return memos_fail(err, MEMOS_CANCELLED, "nothing was rolled back");
}

enum memos_status ctl_run_rollback(struct ctl *ctl, struct memos_error *err)
{
    Memos__AsOf to;
    Memos__Rollback body = MEMOS__ROLLBACK__INIT;
    Memos__Request request = CTL_REQUEST(ROLLBACK, rollback, &body);
    struct memos_message *reply = NULL;
    enum memos_status status = make_target(ctl, &body, &to, err);
    if (status == MEMOS_OK) {
        status = confirm_space(ctl, err);
    }
    if (status == MEMOS_OK && ctl->args->operands_count > 1) {
        status = ctl_ids_resolve(ctl, 1, &body.ids, &body.n_ids, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    body.space = ctl_field(ctl_operand(ctl, 0));
    body.reason = ctl_field(ctl_args_value(ctl->args, CTL_REASON));
    body.include_frozen = ctl_args_has(ctl->args, CTL_INCLUDE_FROZEN);
    body.dry_run = ctl_args_has(ctl->args, CTL_DRY_RUN);
    status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    if (status == MEMOS_OK) {
        const Memos__Outcome *outcome = memos_message_reply(reply)->outcome;
        if (ctl->json) {
            status = ctl_json_print(
                body.dry_run ? dry_run_json(ctl, outcome) : ctl_json_outcome(outcome), err);
        } else {
            status = print_rollback(ctl, outcome, err);
        }
    }
    memos_message_free(&reply);
    return status;
}

/* ---- forget ---- */

static void print_forgotten(const Memos__Outcome *outcome, bool is_dry)
{
    for (size_t i = 0; i < outcome->n_forgotten && i < LINES_MAX; i++) {
        char text[MEMOS_ID_TEXT_BYTES];
        struct memos_id id = ctl_id_of(outcome->forgotten[i]);
        printf("%s  %s\n", memos_id_format(&id, text), is_dry ? "would be forgotten" : "forgotten");
    }
    if (is_dry) {
        printf("nothing was forgotten (--dry-run)\n");
        return;
    }
    printf("%llu payloads destroyed, %llu kept for other cubes\n",
        (unsigned long long)outcome->payloads_destroyed,
        (unsigned long long)outcome->payloads_shared);
    if (outcome->seq != 0) {
        printf("record %llu%s\n", (unsigned long long)outcome->seq,
            outcome->gone ? "; the bytes are gone from every file of the store" : "");
    }
}

static enum memos_status confirm_forget(struct ctl *ctl, size_t count, struct memos_error *err)
{
    char question[160];
    if (!ctl->asks || ctl_args_has(ctl->args, CTL_DRY_RUN) || ctl_args_has(ctl->args, CTL_YES)) {
        return MEMOS_OK;
    }
    snprintf(question, sizeof question,
        "Destroy %zu cube%s and everything derived from %s, for ever?", count,
        count == 1 ? "" : "s", count == 1 ? "it" : "them");
    return ctl_ask(ctl, question) ? MEMOS_OK
                                  : memos_fail(err, MEMOS_CANCELLED, "nothing was forgotten");
}

enum memos_status ctl_run_forget(struct ctl *ctl, struct memos_error *err)
{
    Memos__Forget body = MEMOS__FORGET__INIT;
    Memos__Request request = CTL_REQUEST(FORGET, forget, &body);
    struct memos_message *reply = NULL;
    enum memos_status status = ctl_ids_resolve(ctl, 1, &body.ids, &body.n_ids, err);
    if (status == MEMOS_OK) {
        status = confirm_forget(ctl, body.n_ids, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    body.space = ctl_field(ctl_operand(ctl, 0));
    body.reason = ctl_field(ctl_args_value(ctl->args, CTL_REASON));
    body.force = ctl_args_has(ctl->args, CTL_FORCE);
    body.dry_run = ctl_args_has(ctl->args, CTL_DRY_RUN);
    status = ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(ctl_json_outcome(memos_message_reply(reply)->outcome), err);
    } else if (status == MEMOS_OK) {
        print_forgotten(memos_message_reply(reply)->outcome, body.dry_run);
    }
    memos_message_free(&reply);
    return status;
}
