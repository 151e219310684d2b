/* Any bytes as a configuration file. What is taken must print, and read again as the same.
 *
 * Input: the file. */
#include "memos/broker/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *print(const struct broker_config *config, size_t *out_size)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, out_size);
    if (!out) {
        abort();
    }
    broker_config_print(config, out);
    if (fclose(out) != 0) {
        abort();
    }
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct broker_config config, again;
    struct memos_error err = {0};

    if (broker_config_init(&config, NULL) != MEMOS_OK ||
        broker_config_init(&again, NULL) != MEMOS_OK) {
        abort();
    }
    if (broker_config_parse(&config, "fuzz", memos_bytes_make(data, size), &err) == MEMOS_OK) {
        size_t first_size, second_size;
        char *first = print(&config, &first_size);
        if (broker_config_parse(&again, "again", memos_bytes_make(first, first_size), &err) !=
            MEMOS_OK) {
            abort();
        }
        char *second = print(&again, &second_size);
        if (first_size != second_size || memcmp(first, second, first_size) != 0) {
            abort();
        }
        free(first);
        free(second);
        err.status = broker_config_check(&config, &err);
    }
    broker_config_finish(&config);
    broker_config_finish(&again);
    return 0;
}
