/* Ways to damage a store behind its back: what a bad disk or a forger could do.
 *
 * For cmocka tests: what cannot be done fails the test. */
#ifndef TESTS_MEMCUBE_DAMAGE_H
#define TESTS_MEMCUBE_DAMAGE_H

#include "tests/memcube/store_fixture.h"

#include "memcube/store_internal.h"

#define DAMAGE_VALUE_BYTES 16384

/* A copy of one entry. */
struct damage_entry {
    uint8_t key[512];
    size_t key_size;
    uint8_t value[DAMAGE_VALUE_BYTES];
    size_t value_size;
};

/* The n-th entry of a table (from 0); false when there are not so many. */
bool damage_entry_at(
    struct fixture *f, memcube_table table, size_t n, struct damage_entry *out);

/* Put an entry, as it is; remove it (of a set: this value alone). */
void damage_put(struct fixture *f, memcube_table table, const struct damage_entry *entry);
void damage_remove(
    struct fixture *f, memcube_table table, bool is_set, const struct damage_entry *entry);

/* A hash of everything in a table; chunks of bitmaps without bits say nothing. */
struct memcube_hash damage_table_hash(struct fixture *f, memcube_table table);

/* Change one byte of a file of the store. */
void damage_file(const char *path, size_t at);

#endif
