/* A folder of its own for each test program. */
#ifndef TESTS_PROTO_TEMP_H
#define TESTS_PROTO_TEMP_H

#include <stdbool.h>
#include <stddef.h>

/* "<folder>/<name>" in a new folder below $TMPDIR that is removed with all in it when the
 * program ends. Short enough for a socket. Returns out. */
char *temp_path(const char *name, char *out, size_t size);

/* size bytes of text into a file, with these permissions. */
void temp_write(const char *path, const void *text, size_t size, unsigned mode);

#endif
