/* memosd: the broker as a program. Options, the log, signals, and telling that it is ready. */
#include "memos/broker/broker.h"
#include "memos/service.h"

#include "proto/log.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum { FLAGS_MAX = 256, KEYS_MAX = 128, FLAG_NAME_BYTES = 64, LIST_BYTES_MAX = 4096 };
enum { OPTION_HELP = 1000, OPTION_VERSION, OPTION_CONFIG, OPTION_CHECK, OPTION_READY };

struct arguments {
    const char *config; /* --config; NULL: the usual files */
    bool check;
    int ready_fd; /* -1: none */
    struct broker_config_flag flags[FLAGS_MAX];
    size_t flags_count;
};

/* The flags' names: those of the keys with '-' for '_', then the program's own. */
struct names {
    struct option options[KEYS_MAX + 6];
    char texts[KEYS_MAX][FLAG_NAME_BYTES];
};

static void names_make(struct names *names)
{
    static const struct option own[] = {
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
        {"config", required_argument, NULL, OPTION_CONFIG},
        {"check-config", no_argument, NULL, OPTION_CHECK},
        {"ready-fd", required_argument, NULL, OPTION_READY},
        {NULL, 0, NULL, 0},
    };
    size_t count;
    const struct broker_config_key *keys = broker_config_keys(&count);
    memos_assert(count <= KEYS_MAX);
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(names->texts[i], FLAG_NAME_BYTES, "%s", keys[i].name);
        for (char *at = names->texts[i]; *at; at++) {
            *at = *at == '_' ? '-' : *at;
        }
        names->options[i] = (struct option){names->texts[i], required_argument, NULL, (int)i};
    }
    memcpy(&names->options[count], own, sizeof own);
}

static void print_help(const struct names *names)
{
    size_t count;
    const struct broker_config_key *keys = broker_config_keys(&count);
    (void)printf("usage: memosd [OPTION]...\n\n"
                 "The memos broker: keeps cubes with their history and serves them over ZeroMQ.\n\n"
                 "  --help                    this text\n"
                 "  --version                 the version\n"
                 "  --config FILE             read this file instead of the usual ones\n"
                 "  --check-config            print what the configuration comes to, and end\n"
                 "  --ready-fd N              write \"ready\" to this descriptor when clients can "
                 "connect\n\n"
                 "Each key of the configuration is an option, and a variable MEMOS_KEY of the "
                 "environment:\n\n");
    for (size_t i = 0; i < count; i++) {
        (void)printf("  --%-23s %s%s%s%s\n", names->texts[i], keys[i].help,
            keys[i].preset[0] ? " [" : "", keys[i].preset, keys[i].preset[0] ? "]" : "");
    }
    (void)printf("\nLists are given with commas, or by giving the option again. memosd(8) says "
                 "more.\n");
}

/* A list's option that is given again adds to the list. */
static const char *joined(struct arguments *out, const struct broker_config_key *key,
    const char *value, char *room, size_t size)
{
    for (size_t i = out->flags_count; key->type == BROKER_CONFIG_LIST && i > 0; i--) {
        if (strcmp(out->flags[i - 1].name, key->name) == 0) {
            (void)snprintf(room, size, "%s,%s", out->flags[i - 1].value, value);
            return strdup(room);
        }
    }
    return strdup(value);
}

/* -1: go on; otherwise the exit status. */
static int arguments_read(int argc, char **argv, struct names *names, struct arguments *out)
{
    size_t count;
    const struct broker_config_key *keys = broker_config_keys(&count);
    char room[LIST_BYTES_MAX];
    for (int option; (option = getopt_long(argc, argv, "", names->options, NULL)) != -1;) {
        if (option == OPTION_HELP) {
            print_help(names);
            return 0;
        } else if (option == OPTION_VERSION) {
            (void)printf("memosd %s\n", BROKER_VERSION);
            return 0;
        } else if (option == OPTION_CONFIG) {
            out->config = optarg;
        } else if (option == OPTION_CHECK) {
            out->check = true;
        } else if (option == OPTION_READY) {
            if (!service_fd_parse(optarg, &out->ready_fd)) {
                (void)fprintf(stderr, "memosd: --ready-fd takes a descriptor, not '%s'\n", optarg);
                return MEMOS_INVALID;
            }
        } else if (option == '?' || out->flags_count == FLAGS_MAX) {
            (void)fprintf(stderr, "memosd: see memosd --help\n");
            return MEMOS_INVALID;
        } else {
            const struct broker_config_key *key = &keys[option];
            const char *value = joined(out, key, optarg, room, sizeof room);
            out->flags[out->flags_count++] = (struct broker_config_flag){key->name, value};
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "memosd: '%s' is no option; see memosd --help\n", argv[optind]);
        return MEMOS_INVALID;
    }
    return -1;
}

static void arguments_free(struct arguments *arguments)
{
    for (size_t i = 0; i < arguments->flags_count; i++) {
        free((char *)(uintptr_t)arguments->flags[i].value);
    }
}

/* Also what SIGHUP does: *config is to be finished in every case. */
static enum memos_status config_make(
    void *self, struct broker_config *config, struct memos_error *err)
{
    const struct arguments *arguments = self;
    enum memos_status status = broker_config_init(config, err);
    if (status == MEMOS_OK) {
        status = broker_config_load(
            config, arguments->config, arguments->flags, arguments->flags_count, err);
    }
    return status == MEMOS_OK ? broker_config_check(config, err) : status;
}

static enum memos_status log_make(const struct broker_config *config, struct memos_error *err)
{
    const struct memos_log_options options = {
        .level = (enum memos_log_level)config->log_level,
        .format = (enum memos_log_format)config->log_format,
    };
    return memos_log_open(&options, err);
}

static int serve(
    struct arguments *arguments, const struct broker_config *config, struct memos_error *err)
{
    struct broker *broker = NULL;
    struct broker_options options = {
        .config = config,
        .signal_fd = service_signals(),
        .reload = config_make,
        .self = arguments,
    };
    enum memos_status status = log_make(config, err);
    if (status == MEMOS_OK) {
        status = broker_create(&options, &broker, err);
    }
    if (status == MEMOS_OK) {
        service_ready(arguments->ready_fd);
        status = broker_run(broker, err);
        service_notify("STOPPING=1\n");
    }
    broker_destroy(&broker);
    return status == MEMOS_OK ? 0 : service_fail("memosd", err);
}

int main(int argc, char **argv)
{
    struct names names = {0};
    struct arguments arguments = {.ready_fd = -1};
    struct broker_config config = {.data_dir = ""};
    struct memos_error err = {0};

    names_make(&names);
    int rc = arguments_read(argc, argv, &names, &arguments);
    if (rc < 0) {
        enum memos_status status = config_make(&arguments, &config, &err);
        if (status != MEMOS_OK) {
            rc = service_fail("memosd", &err);
        } else if (arguments.check) {
            broker_config_print(&config, stdout);
            rc = 0;
        } else {
            rc = serve(&arguments, &config, &err);
        }
        broker_config_finish(&config);
    }
    arguments_free(&arguments);
    return rc;
}
