/* A value of the configuration, between its text and its key: what the parser of the file and the
 * environment hand to the table. */
#ifndef MEMOS_BROKER_CONFIG_VALUE_H
#define MEMOS_BROKER_CONFIG_VALUE_H

#include "memos/broker/config.h"

enum { BROKER_CONFIG_ITEMS_MAX = 64, BROKER_CONFIG_TEXT_BYTES_MAX = 4096 };

/* How a value was written: the file's types must fit the key's; bare text fits all. */
enum broker_config_form {
    BROKER_CONFIG_BARE,   /* 12, true, 64K; or a text without quotes from outside a file */
    BROKER_CONFIG_QUOTED, /* "..." */
    BROKER_CONFIG_ARRAY,  /* [ "...", "..." ] */
};

struct broker_config_value {
    enum broker_config_form form;
    const char *items[BROKER_CONFIG_ITEMS_MAX];
    size_t count;
};

/* Set a key. Texts are copied into the config. */
MEMOS_MUST_USE enum memos_status broker_config_assign(struct broker_config *config,
    const struct broker_config_place *place, const char *name,
    const struct broker_config_value *value, struct memos_error *err);

/* "memosd.conf:12: " or "environment: ", for messages. Returns out. */
char *broker_config_place_text(const struct broker_config_place *place, char *out, size_t size);

#endif
