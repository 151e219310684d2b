/* Times of kernels, summed by kernel and shape: profile.cu. */
#ifndef KERNELS_CUDA_PROFILE_CUH
#define KERNELS_CUDA_PROFILE_CUH

#include <cuda_runtime.h>
#include <stdint.h>

struct kern_profile;

/* NULL unless MEMOS_CUDA_PROFILE is set. */
struct kern_profile *kern_profile_open(void);
/* Tell the table. Takes NULL. */
void kern_profile_close(struct kern_profile **profile);

/* Around a launch. kernel: its function, NULL when it is not ours; name (static); shape: what else
 * tells launches apart, the blocks. */
void kern_profile_begin(struct kern_profile *profile, cudaStream_t stream, const void *kernel,
    const char *name, uint64_t shape);
void kern_profile_end(struct kern_profile *profile, cudaStream_t stream);

#endif
