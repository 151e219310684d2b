/* BLAKE2b-256 of several pieces of one size at once, each as libsodium makes it alone: where the
 * processor has AVX2, four of them go through its lanes side by side, 2.5 times as fast as one
 * after the other. Weights are hashed so.
 *
 * Source: Aumasson et al., RFC 7693.
 *
 * Threads: no shared state. */
#ifndef PARAMEM_DIGESTS_H
#define PARAMEM_DIGESTS_H

#include "proto/bytes.h"

#define PARAMEM_DIGESTS_LANES 4
#define PARAMEM_DIGEST_BYTES 32

/* Told before bytes from .. from + size - 1 of all pieces are hashed, so that whoever looks at them
 * too finds them in the cache. from is a multiple of `slice`, size is `slice` but for the last. */
typedef void paramem_digests_look(void *self, size_t from, size_t size);

/* The digests of `count` (1 to 4) pieces of `size` bytes each, which may be 0. slice: a multiple of
 * 128, not 0; look may be NULL. */
void paramem_digests(const uint8_t *const *pieces, size_t count, size_t size, size_t slice,
    paramem_digests_look *look, void *self, uint8_t *const *out);

#endif
