/* The sources of the configuration in their order, what is worked out, and what must fit together.
 */
#include "memos/broker/config.h"
#include "proto/client.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ADDRESS_BYTES_MAX = 256, SUN_PATH_BYTES_MAX = 100, THREADS_MIN = 2, THREADS_MAX = 16 };

#define IPC "ipc://"
#define TCP "tcp://"

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

bool broker_address_is_ipc(const char *address)
{
    return starts_with(address, IPC);
}

bool broker_address_is_loopback(const char *address)
{
    if (!starts_with(address, TCP)) {
        return false;
    }
    const char *host = address + strlen(TCP);
    unsigned a, b, c, d;
    char after;
    if (sscanf(host, "%3u.%3u.%3u.%3u%c", &a, &b, &c, &d, &after) == 5 && after == ':') {
        return a == 127 && b < 256 && c < 256 && d < 256;
    }
    return starts_with(host, "[::1]:") || starts_with(host, "localhost:");
}

/* Read a file that need not be there. */
static enum memos_status read_if_there(
    struct broker_config *config, const char *path, struct memos_error *err)
{
    if (access(path, F_OK) != 0) {
        return MEMOS_OK;
    }
    return broker_config_read(config, path, err);
}

/* "$VARIABLE/rest", or "$HOME/otherwise/rest" when it is not set; false when neither is. */
static bool xdg_path(
    char *out, size_t size, const char *variable, const char *otherwise, const char *rest)
{
    const char *base = getenv(variable), *home = getenv("HOME");
    int length;
    if (base && base[0] == '/') {
        length = snprintf(out, size, "%s/%s", base, rest);
    } else if (home && home[0] == '/') {
        length = snprintf(out, size, "%s/%s/%s", home, otherwise, rest);
    } else {
        return false;
    }
    return length > 0 && (size_t)length < size;
}

static enum memos_status load_files(
    struct broker_config *config, const char *path, struct memos_error *err)
{
    char own[PATH_MAX];
    if (path) {
        return broker_config_read(config, path, err);
    }
    enum memos_status status = read_if_there(config, "/etc/memos/memosd.conf", err);
    if (status == MEMOS_OK &&
        xdg_path(own, sizeof own, "XDG_CONFIG_HOME", ".config", "memos/memosd.conf")) {
        status = read_if_there(config, own, err);
    }
    return status;
}

static enum memos_status load_environment(struct broker_config *config, struct memos_error *err)
{
    size_t count;
    const struct broker_config_key *keys = broker_config_keys(&count);
    for (size_t i = 0; i < count; i++) {
        char name[80] = "MEMOS_";
        size_t size = strlen(name);
        for (const char *at = keys[i].name; *at && size + 1 < sizeof name; at++) {
            name[size++] = (char)toupper((unsigned char)*at);
        }
        name[size] = '\0';
        const char *value = getenv(name);
        struct broker_config_place place = {.name = name};
        enum memos_status status =
            value ? broker_config_set(config, &place, keys[i].name, value, err) : MEMOS_OK;
        if (status != MEMOS_OK) {
            return status;
        }
    }
    return MEMOS_OK;
}

enum memos_status broker_config_load(struct broker_config *config, const char *path,
    const struct broker_config_flag *flags, size_t flags_count, struct memos_error *err)
{
    static const struct broker_config_place place = {.name = "command line"};

    enum memos_status status = load_files(config, path, err);
    if (status == MEMOS_OK) {
        status = load_environment(config, err);
    }
    for (size_t i = 0; i < flags_count && status == MEMOS_OK; i++) {
        status = broker_config_set(config, &place, flags[i].name, flags[i].value, err);
    }
    return status;
}

static enum memos_status keep(
    struct broker_config *config, const char *text, const char **out, struct memos_error *err)
{
    *out = memos_arena_copy(&config->arena, memos_bytes_of(text));
    return *out ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for the configuration");
}

static enum memos_status list_make(
    struct broker_config *config, size_t count, struct broker_list *list, struct memos_error *err)
{
    list->items = memos_arena_take(&config->arena, count, sizeof *list->items);
    list->count = count;
    return list->items ? MEMOS_OK
                       : memos_fail(err, MEMOS_NO_MEMORY, "no memory for the configuration");
}

static enum memos_status default_data_dir(struct broker_config *config, struct memos_error *err)
{
    char path[PATH_MAX];
    if (config->data_dir[0] != '\0') {
        return MEMOS_OK;
    }
    if (!xdg_path(path, sizeof path, "XDG_DATA_HOME", ".local/share", "memos")) {
        return memos_fail(err, MEMOS_INVALID,
            "data_dir is not set, and neither XDG_DATA_HOME nor HOME says where");
    }
    return keep(config, path, &config->data_dir, err);
}

static enum memos_status default_listen(struct broker_config *config, struct memos_error *err)
{
    char address[ADDRESS_BYTES_MAX];
    if (config->listen.count > 0) {
        return MEMOS_OK;
    }
    enum memos_status status = memos_default_address(address, sizeof address, err);
    if (status == MEMOS_OK) {
        status = list_make(config, 1, &config->listen, err);
    }
    return status == MEMOS_OK ? keep(config, address, &config->listen.items[0], err) : status;
}

/* The events' address beside a listening one: PATH.events, or the next port. */
static enum memos_status events_beside(
    struct broker_config *config, const char *address, const char **out, struct memos_error *err)
{
    char text[ADDRESS_BYTES_MAX + 16];
    const char *colon = strrchr(address, ':');
    if (broker_address_is_ipc(address)) {
        (void)snprintf(text, sizeof text, "%s.events", address);
    } else if (strcmp(colon, ":*") == 0) {
        (void)snprintf(text, sizeof text, "%s", address);
    } else {
        (void)snprintf(text, sizeof text, "%.*s:%lu", (int)(colon - address), address,
            strtoul(colon + 1, NULL, 10) + 1);
    }
    return keep(config, text, out, err);
}

static enum memos_status default_events(struct broker_config *config, struct memos_error *err)
{
    if (config->events.count > 0) {
        return MEMOS_OK;
    }
    enum memos_status status = list_make(config, config->listen.count, &config->events, err);
    for (size_t i = 0; i < config->listen.count && status == MEMOS_OK; i++) {
        status = events_beside(config, config->listen.items[i], &config->events.items[i], err);
    }
    return status;
}

static void default_threads(struct broker_config *config)
{
    if (config->reader_threads > 0) {
        return;
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t threads = cores > 0 ? (uint64_t)cores : THREADS_MIN;
    config->reader_threads = threads < THREADS_MIN   ? THREADS_MIN
                             : threads > THREADS_MAX ? THREADS_MAX
                                                     : threads;
}

static enum memos_status check_tcp(
    const struct broker_config *config, const char *address, struct memos_error *err)
{
    const char *colon = strrchr(address + strlen(TCP), ':');
    char *end;
    if (!colon || colon == address + strlen(TCP)) {
        return memos_fail(err, MEMOS_INVALID, "%s: a tcp address is tcp://HOST:PORT", address);
    }
    unsigned long port = strtoul(colon + 1, &end, 10);
    bool any = strcmp(colon + 1, "*") == 0;
    if (!any && (!isdigit((unsigned char)colon[1]) || *end || port == 0 || port > 65535)) {
        return memos_fail(err, MEMOS_INVALID, "%s: the port must be 1 to 65535, or *", address);
    }
    if (!config->curve && !broker_address_is_loopback(address)) {
        return memos_fail(err, MEMOS_DENIED,
            "%s is off the loopback: set curve = true, so that only known keys get in", address);
    }
    return MEMOS_OK;
}

static enum memos_status check_address(
    const struct broker_config *config, const char *address, struct memos_error *err)
{
    if (strlen(address) > ADDRESS_BYTES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "an address of %zu bytes is too long: %.64s...",
            strlen(address), address);
    }
    if (starts_with(address, TCP)) {
        return check_tcp(config, address, err);
    }
    const char *path = address + strlen(IPC);
    if (!broker_address_is_ipc(address) || path[0] != '/') {
        return memos_fail(
            err, MEMOS_INVALID, "%s: expected ipc:///PATH or tcp://HOST:PORT", address);
    }
    if (strlen(path) > SUN_PATH_BYTES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "%s: the path of a socket has at most %d bytes",
            address, SUN_PATH_BYTES_MAX);
    }
    return MEMOS_OK;
}

static enum memos_status check_list(
    const struct broker_config *config, const struct broker_list *list, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < list->count && status == MEMOS_OK; i++) {
        status = check_address(config, list->items[i], err);
    }
    return status;
}

enum memos_status broker_config_check(struct broker_config *config, struct memos_error *err)
{
    enum memos_status status = default_data_dir(config, err);
    if (status == MEMOS_OK) {
        status = default_listen(config, err);
    }
    if (status == MEMOS_OK) {
        status = check_list(config, &config->listen, err);
    }
    if (status == MEMOS_OK) {
        status = default_events(config, err);
    }
    if (status == MEMOS_OK) {
        status = check_list(config, &config->events, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    if (config->payload_bytes_max > config->message_bytes_max) {
        return memos_fail(err, MEMOS_INVALID,
            "payload_bytes_max (%llu) is larger than message_bytes_max (%llu)",
            (unsigned long long)config->payload_bytes_max,
            (unsigned long long)config->message_bytes_max);
    }
    default_threads(config);
    return MEMOS_OK;
}
