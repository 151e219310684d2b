/* Memory that is refused on demand: calloc, kern_alloc and kern_host_alloc of a test that is linked
 * with refusing.c and its --wrap arguments (meson.build). */
#ifndef TESTS_PARAMEM_REFUSING_H
#define TESTS_PARAMEM_REFUSING_H

#include <stddef.h>

extern long refusing_at;      /* which allocation from now on fails; negative: none */
extern size_t refusing_asked; /* allocations that were asked for */

#endif
