/* A folder of one test's own, and what is in its files.
 *
 * For cmocka tests: what cannot be done fails the test. */
#ifndef TESTS_MEMCUBE_FOLDER_H
#define TESTS_MEMCUBE_FOLDER_H

#include "proto/bytes.h"

#define FOLDER_PATH_BYTES 512

/* Make an empty folder under $TMPDIR (or /tmp). */
void folder_make(char out_path[FOLDER_PATH_BYTES]);

/* Remove it with everything in it. */
void folder_remove(const char *path);

/* How often do these bytes occur in the files of the folder, at any depth? */
size_t folder_scan(const char *path, struct memos_bytes needle);

/* How many files, at any depth, have a name with this part ("": all)? */
size_t folder_count(const char *path, const char *name_part);

#endif
