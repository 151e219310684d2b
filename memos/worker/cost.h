/* Is it quicker to load what a model made of a text, or to read the text again?
 *
 * Everything that was measured teaches one of a few tables: microseconds for a token that is read,
 * for a byte that is loaded (from a mapped file, over the wire), for a byte that is put into the
 * engine's cache. A table has a place for each power of two, since neither is proportional: short
 * texts pay for starting, long ones for attention.
 *
 * The estimates lean so that memory never makes an answer slower: reading is believed to be nearly
 * as quick as it has lately been (what is slower moves the estimate by a twentieth of the
 * difference, what is quicker by a third), loading nearly as slow. Loading must win by a tenth. A
 * decision against loading takes a hundredth from the estimates that made it, so that one slow disk
 * access does not end all loading for ever.
 *
 * Before anything is measured, reading costs what its products take at 100 GFLOP/s (a device:
 * 100 TFLOP/s), and loading 1 GB/s; the first measurement replaces that.
 *
 * Pure: no clock, no thread of its own. Threads: the caller's lock. */
#ifndef MEMOS_WORKER_COST_H
#define MEMOS_WORKER_COST_H

#include "proto/bytes.h"

enum worker_source {
    WORKER_HELD,   /* in this process already */
    WORKER_MAPPED, /* a file of this host */
    WORKER_WIRE,   /* sent by the broker */
    WORKER_SOURCES
};
const char *worker_source_text(enum worker_source source);

enum { WORKER_COST_PLACES = 48 };

/* Microseconds a unit, by the power of two of how many units; 0: not known there. */
struct worker_rates {
    double each[WORKER_COST_PLACES];
};

struct worker_cost {
    double prior_token_us; /* of a model whose reading was never measured */
    struct worker_rates read, attach, load[WORKER_SOURCES];
};

/* parameters: of the model. is_device: it runs on a GPU. */
void worker_cost_init(struct worker_cost *cost, uint64_t parameters, bool is_device);

/* What happened. Nothing is learned from zeros. */
void worker_cost_saw_read(struct worker_cost *cost, size_t tokens, uint64_t micros);
void worker_cost_saw_load(
    struct worker_cost *cost, enum worker_source source, uint64_t bytes, uint64_t micros);
void worker_cost_saw_attach(struct worker_cost *cost, uint64_t bytes, uint64_t micros);

struct worker_choice {
    bool load;
    uint64_t load_us, attach_us, read_us; /* as believed */
};

/* For a capture of `bytes` that spares the reading of `tokens`. */
struct worker_choice worker_cost_choose(
    struct worker_cost *cost, enum worker_source source, uint64_t bytes, size_t tokens);

#endif
