/* Who may do what: keys and grants. */
#include "tools/memosctl/ctl.h"

#include <string.h>

/* Send a change that has only an outcome to tell. */
static enum memos_status change(
    struct ctl *ctl, Memos__Request *request, const char *done, struct memos_error *err)
{
    struct memos_message *reply = NULL;
    enum memos_status status =
        ctl_call(ctl, request, NULL, 0, MEMOS__REPLY__BODY_OUTCOME, &reply, err);
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(ctl_json_outcome(memos_message_reply(reply)->outcome), err);
    } else if (status == MEMOS_OK) {
        puts(memos_message_reply(reply)->outcome->seq ? done : "nothing changed");
    }
    memos_message_free(&reply);
    return status;
}

static char *day(int64_t time_us, char out[MEMOS_TIME_TEXT_BYTES])
{
    memos_time_format(time_us, out);
    out[10] = '\0';
    return out;
}

/* ---- keys ---- */

enum memos_status ctl_run_key_new(struct ctl *ctl, struct memos_error *err)
{
    struct memos_key_pair pair;
    const char *path = ctl_operand(ctl, 0);
    enum memos_status status = memos_key_pair_new(&pair, err);
    if (status == MEMOS_OK) {
        status = memos_key_pair_write(path, &pair, err);
    }
    if (status == MEMOS_OK && ctl->json) {
        status = ctl_json_print(
            json_pack("{ss,so}", "public_key", pair.public_key, "file", ctl_json_string(path)),
            err);
    } else if (status == MEMOS_OK) {
        puts(pair.public_key);
        ctl_note(ctl,
            "the key pair is in %s; an administrator lets it in with: "
            "memosctl key allow '%s' NAME",
            path, pair.public_key);
    }
    explicit_bzero(&pair, sizeof pair);
    return status;
}

static enum memos_status set_key(
    struct ctl *ctl, const char *principal, const char *done, struct memos_error *err)
{
    Memos__KeySet body = MEMOS__KEY_SET__INIT;
    Memos__Request request = CTL_REQUEST(KEY_SET, key_set, &body);
    body.public_key = ctl_field(ctl_operand(ctl, 0));
    body.principal = ctl_field(principal);
    if (strlen(body.public_key) != 40) {
        return memos_fail(err, MEMOS_INVALID,
            "a public key has 40 characters, as memosctl key new prints them; '%.48s' has %zu",
            body.public_key, strlen(body.public_key));
    }
    return change(ctl, &request, done, err);
}

enum memos_status ctl_run_key_allow(struct ctl *ctl, struct memos_error *err)
{
    if (!ctl_operand(ctl, 1)[0]) {
        return memos_fail(err, MEMOS_INVALID, "a key stands for somebody: the name is empty");
    }
    return set_key(ctl, ctl_operand(ctl, 1), "allowed", err);
}

enum memos_status ctl_run_key_revoke(struct ctl *ctl, struct memos_error *err)
{
    return set_key(ctl, "", "revoked", err);
}

enum memos_status ctl_run_key_list(struct ctl *ctl, struct memos_error *err)
{
    static const struct ctl_column columns[] = {
        {"PUBLIC KEY", false, false}, {"PRINCIPAL", false, true}, {"SINCE", false, false}};
    Memos__KeyList body = MEMOS__KEY_LIST__INIT;
    Memos__Request request = CTL_REQUEST(KEY_LIST, key_list, &body);
    struct memos_message *reply = NULL;
    char time[MEMOS_TIME_TEXT_BYTES];
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_KEYS, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__Keys *keys = memos_message_reply(reply)->keys;
    json_t *array = json_array();
    struct ctl_table table = ctl_table_make(columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < keys->n_keys; i++) {
        const Memos__Key *key = keys->keys[i];
        json_array_append_new(array,
            json_pack("{so,so,so}", "public_key", ctl_json_string(key->public_key), "principal",
                ctl_json_string(key->principal), "since", ctl_json_time(key->since_us)));
        ctl_table_cell(&table, CTL_YELLOW, memos_bytes_of(key->public_key));
        ctl_table_cell(&table, CTL_PLAIN, memos_bytes_of(key->principal));
        ctl_table_cell(&table, CTL_DIM, memos_bytes_of(day(key->since_us, time)));
    }
    status = ctl->json ? ctl_json_print(json_pack("{sO}", "keys", array), err)
                       : ctl_table_print(&table, &ctl->paper, err);
    json_decref(array);
    ctl_table_free(&table);
    memos_message_free(&reply);
    return status;
}

/* ---- grants ---- */

static enum memos_status set_grant(
    struct ctl *ctl, const char *rights, const char *done, struct memos_error *err)
{
    Memos__GrantSet body = MEMOS__GRANT_SET__INIT;
    Memos__Request request = CTL_REQUEST(GRANT_SET, grant_set, &body);
    body.principal = ctl_field(ctl_operand(ctl, 0));
    body.spaces = ctl_field(ctl_operand(ctl, 1));
    body.rights = ctl_field(rights);
    return change(ctl, &request, done, err);
}

enum memos_status ctl_run_grant_add(struct ctl *ctl, struct memos_error *err)
{
    const char *rights = ctl_operand(ctl, 2);
    if (strcmp(rights, "read") != 0 && strcmp(rights, "write") != 0 &&
        strcmp(rights, "admin") != 0) {
        return memos_fail(
            err, MEMOS_INVALID, "rights are read, write or admin, not '%.40s'", rights);
    }
    return set_grant(ctl, rights, "granted", err);
}

enum memos_status ctl_run_grant_remove(struct ctl *ctl, struct memos_error *err)
{
    return set_grant(ctl, "", "removed", err);
}

enum memos_status ctl_run_grant_list(struct ctl *ctl, struct memos_error *err)
{
    static const struct ctl_column columns[] = {{"PRINCIPAL", false, true}, {"SPACES", false, true},
        {"RIGHTS", false, false}, {"SINCE", false, false}};
    Memos__GrantList body = MEMOS__GRANT_LIST__INIT;
    Memos__Request request = CTL_REQUEST(GRANT_LIST, grant_list, &body);
    struct memos_message *reply = NULL;
    char time[MEMOS_TIME_TEXT_BYTES];
    enum memos_status status =
        ctl_call(ctl, &request, NULL, 0, MEMOS__REPLY__BODY_GRANTS, &reply, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const Memos__Grants *grants = memos_message_reply(reply)->grants;
    json_t *array = json_array();
    struct ctl_table table = ctl_table_make(columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < grants->n_grants; i++) {
        const Memos__Grant *grant = grants->grants[i];
        json_array_append_new(
            array, json_pack("{so,so,so,so}", "principal", ctl_json_string(grant->principal),
                       "spaces", ctl_json_string(grant->spaces), "rights",
                       ctl_json_string(grant->rights), "since", ctl_json_time(grant->since_us)));
        ctl_table_cell(&table, CTL_YELLOW, memos_bytes_of(grant->principal));
        ctl_table_cell(&table, CTL_PLAIN, memos_bytes_of(grant->spaces));
        ctl_table_cell(&table, CTL_PLAIN, memos_bytes_of(grant->rights));
        ctl_table_cell(&table, CTL_DIM, memos_bytes_of(day(grant->since_us, time)));
    }
    status = ctl->json ? ctl_json_print(json_pack("{sO}", "grants", array), err)
                       : ctl_table_print(&table, &ctl->paper, err);
    json_decref(array);
    ctl_table_free(&table);
    memos_message_free(&reply);
    return status;
}
