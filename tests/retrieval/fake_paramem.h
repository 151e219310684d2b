/* A model that a test holds the strings of, in place of paramem's: linked into tests only.
 *
 * Its vectors have 8 dimensions and depend on the text and the role alone. A text that begins with
 * "bad" fails the call with CORRUPT, one that begins with "down" with UNAVAILABLE. A test may hold
 * the model at the next call, and see what is in it.
 *
 * Threads: any. */
#ifndef TESTS_RETRIEVAL_FAKE_PARAMEM_H
#define TESTS_RETRIEVAL_FAKE_PARAMEM_H

#include "retrieval/encoder.h"

#define FAKE_DIMS 8

/* The encoder over the fake. */
struct retrieval_encoder *fake_encoder(void);

/* What the fake gives for a text. */
void fake_vector(struct memos_bytes text, enum paramem_role role, float out[FAKE_DIMS]);

/* From now on each call waits inside until it is let through. */
void fake_hold(void);
/* Wait until a call is held. */
void fake_wait_held(void);
/* Let the call that is held through; the next one is held again. */
void fake_step(void);
/* Let all through from now on. */
void fake_release(void);

/* Calls so far, as text: "q:one two|p:three|"; views until the next reset. */
const char *fake_log(void);
void fake_reset(void); /* forget calls, hold nothing */

#endif
