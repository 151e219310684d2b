/* JSON read as it lies, without a tree: for vocabularies and merges, whose trees would take ten
 * times their bytes and most of the time of loading.
 *
 * The first failure stays; every read after it gives nothing.
 *
 * Threads: one scan belongs to one thread. */
#ifndef PARAMEM_JSON_SCAN_H
#define PARAMEM_JSON_SCAN_H

#include "proto/bytes.h"

struct paramem_scan {
    const char *at, *end;
    bool failed;
    size_t items; /* of the array or object that was skipped last; 0: it was empty, or neither */
};

/* bytes must be well-formed UTF-8 (NUL allowed: JSON refuses it here). */
struct paramem_scan paramem_scan_of(struct memos_bytes bytes);

/* Is `c` next (after white space)? It is read then. */
bool paramem_scan_has(struct paramem_scan *scan, char c);
/* The same, a failure when it is not. */
void paramem_scan_expect(struct paramem_scan *scan, char c);
/* What is next, not read; '\0' at the end. */
char paramem_scan_peek(struct paramem_scan *scan);

/* A string, its escapes undone, appended to out. Returns its bytes. */
size_t paramem_scan_string(struct paramem_scan *scan, struct memos_buffer *out);
/* A whole number up to max. */
uint32_t paramem_scan_count(struct paramem_scan *scan, uint32_t max);
/* Any value, at most 64 deep, passed over. What is between is looked at only as far as is needed to
 * find its end. Returns its bytes. */
struct memos_bytes paramem_scan_skip(struct paramem_scan *scan);

/* Go to the value of `key` in the object that is next. False when there is none. */
bool paramem_scan_enter(struct paramem_scan *scan, const char *key);

#endif
