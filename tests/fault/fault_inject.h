/* Makes the disk fail on purpose.
 *
 * A shared library that stands before the C library's write, pwrite, writev, pwritev (with their 64
 * twins), fsync, fdatasync, msync, ftruncate and rename. A *plan* says which calls fail and how:
 *
 *     ERRNO CALLS SKIP COUNT [PATH]
 *
 * ERRNO is ENOSPC or EIO; CALLS is a list joined by commas of write, sync, truncate, rename, or
 * "all"; with "late" in the list the call is carried out and then reported as failed, as a write to
 * a synchronous file is when its pages reached the cache but not the disk. SKIP is how many
 * matching calls still work; COUNT is how many fail then (0: all of them); PATH, when given, must
 * be part of the file's path. "ENOSPC write,sync 3 1 data.mdb" fails the fourth write or sync of
 * that file. An empty plan lets everything through.
 *
 * A test links the library and calls fault_plan. A program under test is started with it in
 * LD_PRELOAD and a plan in MEMOS_FAULT, or with the name of a file in MEMOS_FAULT_FILE whose first
 * line is the plan; that file is looked at before each call, so that the plan can be changed while
 * the program runs (write it under another name and rename it).
 *
 * Threads: any thread may call what is wrapped; plans are for one thread at a time. */
#ifndef TESTS_FAULT_FAULT_INJECT_H
#define TESTS_FAULT_FAULT_INJECT_H

/* Begin to follow a plan ("" or NULL: none) and count from zero. Returns 0, or -1 for a plan that
 * is not understood. */
int fault_plan(const char *plan);

/* Matching calls since the plan began, and how many of them were made to fail. */
unsigned long fault_calls(void);
unsigned long fault_hits(void);

#endif
