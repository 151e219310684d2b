/* Numbers with units, as people write them in configurations and options.
 *
 * Threads: no state. */
#ifndef MEMOS_QUANTITY_H
#define MEMOS_QUANTITY_H

#include <stdbool.h>
#include <stdint.h>

enum quantity {
    QUANTITY_COUNT, /* "12" */
    QUANTITY_BYTES, /* "65536", "64K", "1G" */
    QUANTITY_MS,    /* "1500ms", "30s", "5m", "1h"; in milliseconds */
};

/* False: it is none, or too large. */
bool quantity_parse(enum quantity quantity, const char *text, uint64_t *out);

#endif
