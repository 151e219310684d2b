/* If the emulator missed what it is there to find, kernels with a missing barrier or a wrong tail
 * would pass the tests. Each kernel here is right until a fault is planted. */
#include "tests/cuda/check.cuh"

#include "kernels/cuda/tile.cuh"

enum fault { NONE, NO_BARRIER, TAIL, BEYOND, UNWRITTEN, SAME_BYTE, DIVERGED, BLOCKS, NO_WAIT };

/* out[i] = in[count - 1 - i] by blocks of 64, through shared memory. */
__global__ void reverse_kernel(const float *in, float *out, unsigned count, enum fault fault)
{
    KERN_SHARED(float, tile, 64);
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    if (i < count + (fault == TAIL)) {
        tile[threadIdx.x] = in[i];
    }
    if (fault == SAME_BYTE) {
        tile[threadIdx.x / 2] = 1;
    }
    if (fault == DIVERGED && threadIdx.x == 5) {
        return;
    }
    if (fault != NO_BARRIER) {
        __syncthreads();
    }
    unsigned end = count - blockIdx.x * 64 < 64 ? count - blockIdx.x * 64 : 64;
    if (threadIdx.x < end + (fault == UNWRITTEN)) {
        float x = tile[fault == UNWRITTEN ? threadIdx.x : end - 1 - threadIdx.x];
        if (fault != UNWRITTEN || x > 1e30F) {
            out[count - blockIdx.x * 64 - end + threadIdx.x + (fault == BEYOND)] = x;
        }
        if (fault == BLOCKS) {
            out[0] = x;
        }
    }
}

/* The same for a copy that runs beside the threads. */
__global__ void copy_kernel(const float *in, float *out, enum fault fault)
{
    KERN_SHARED(float, tile, 128);
    tile_copy(tile + 4 * threadIdx.x, in + 4 * threadIdx.x, true);
    tile_commit();
    if (fault != NO_WAIT) {
        tile_wait<0>();
    }
    if (fault != NO_BARRIER) {
        __syncwarp();
    }
    for (unsigned i = threadIdx.x; i < 128; i += 32) {
        out[i] = tile[127 - i];
    }
    tile_wait<0>();
}

static size_t reversed(unsigned count, enum fault fault, const char *says)
{
    char text[256];
    (void)emulate_faults(nullptr); /* of fences, when memory was freed */
    check_array<float> in(check_floats(count)), out(count);
    KERN_LAUNCH(check_device, reverse_kernel, dim3((count + 63) / 64), dim3(64), 0, in.device,
        out.device, count, fault);
    size_t faults = emulate_faults(text);
    if (fault == NONE) {
        assert_int_equal(faults, 0);
        for (size_t i = 0; i < count; i++) {
            assert_true(out.device[i] == in.host[count - 1 - i]);
        }
    } else if (!strstr(text, says)) {
        print_message("fault %d says: %s\n", (int)fault, text);
        assert_non_null(strstr(text, says));
    }
    return faults;
}

static void test_right(void **)
{
    for (unsigned count = 1; count < 200; count += 13) {
        assert_int_equal(reversed(count, NONE, ""), 0);
    }
}

static void test_planted(void **)
{
    assert_true(reversed(100, TAIL, "outside of device memory") > 0);
    assert_true(reversed(100, BEYOND, "outside of device memory") > 0);
    assert_true(reversed(100, SAME_BYTE, "no barrier between") > 0);
    assert_true(reversed(100, DIVERGED, "waits for ever") > 0);
    assert_true(reversed(100, UNWRITTEN, "nobody wrote") > 0);
    assert_true(reversed(128, BLOCKS, "no barrier between") > 0);
    for (int i = 0; i < 10; i++) { /* in whatever order the threads run */
        assert_true(reversed(128, NO_BARRIER, "") > 0);
    }
}

static void test_copies(void **)
{
    static const enum fault faults[] = {NONE, NO_WAIT, NO_BARRIER};
    for (enum fault fault : faults) {
        check_array<float> in(check_floats(128)), out(128);
        KERN_LAUNCH(check_device, copy_kernel, dim3(1), dim3(32), 0, in.device, out.device, fault);
        size_t count = emulate_faults(nullptr);
        assert_true(fault == NONE ? count == 0 : count > 0);
    }
}

/* Products of tiles by the twins of the instructions, beside sums in a loop. */
__global__ void mma_kernel(const uint16_t *a, const uint16_t *b, float *out)
{
    unsigned lane = threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t left[4], right[4], transposed[4];
    float sums[4] = {};
    tile_load<false>(left, a + lane % 16 * 16 + lane / 16 * 8);
    tile_load<false>(right, b + (lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8);
    tile_mma<KERN_BF16>(sums, left, right[0], right[1]);
    for (unsigned i = 0; i < 4; i++) {
        out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
        sums[i] = 0;
    }
    tile_load<true>(transposed, b + lane % 16 * 16 + lane / 16 * 8);
    tile_mma<KERN_BF16>(sums, left, transposed[0], transposed[1]);
    for (unsigned i = 0; i < 4; i++) {
        out[128 + (g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
    }
}

static void test_mma(void **)
{
    std::vector<float> a = check_floats(256), b = check_floats(256), want(256);
    std::vector<uint16_t> a_bits(256), b_bits(256);
    kern_from_f32(KERN_BF16, a.data(), a_bits.data(), 256);
    kern_from_f32(KERN_BF16, b.data(), b_bits.data(), 256);
    kern_to_f32(KERN_BF16, a_bits.data(), a.data(), 256);
    kern_to_f32(KERN_BF16, b_bits.data(), b.data(), 256);
    check_array<uint16_t> d_a(a_bits), d_b(b_bits);
    check_array<float> out(256);
    KERN_LAUNCH(check_device, mma_kernel, dim3(1), dim3(32), 0, d_a.device, d_b.device, out.device);
    check_no_faults();
    for (size_t i = 0; i < 128; i++) {
        for (size_t k = 0; k < 16; k++) { /* b (n, k), then b (k, n) */
            want[i] += a[i / 8 * 16 + k] * b[i % 8 * 16 + k];
            want[128 + i] += a[i / 8 * 16 + k] * b[k * 16 + i % 8];
        }
    }
    check_close(want.data(), out.device, 256, 1e-5);
}

/* One stream sends a number up, another brings it back: how often it was another one. */
static size_t wrong_numbers(bool waits, bool overwrites)
{
    cudaStream_t up = nullptr, down = nullptr;
    cudaEvent_t sent = nullptr;
    void *device = nullptr, *host = nullptr, *back = nullptr;
    size_t wrong = 0;
    assert_int_equal(cudaStreamCreateWithFlags(&up, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaStreamCreateWithFlags(&down, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaEventCreateWithFlags(&sent, cudaEventDisableTiming), cudaSuccess);
    assert_int_equal(cudaMalloc(&device, 4), cudaSuccess);
    assert_int_equal(cudaMallocHost(&host, 4), cudaSuccess);
    assert_int_equal(cudaMallocHost(&back, 4), cudaSuccess);
    for (int i = 0; i < 100; i++) {
        memcpy(host, &i, 4);
        (void)cudaMemcpyAsync(device, host, 4, cudaMemcpyHostToDevice, up);
        memset(host, 0xff, overwrites ? 4 : 0);
        if (waits) {
            (void)cudaEventRecord(sent, up);
            (void)cudaStreamWaitEvent(down, sent, 0);
        }
        (void)cudaMemcpyAsync(back, device, 4, cudaMemcpyDeviceToHost, down);
        assert_int_equal(cudaStreamSynchronize(down), cudaSuccess);
        wrong += memcmp(back, &i, 4) != 0;
        assert_int_equal(cudaStreamSynchronize(up), cudaSuccess);
    }
    assert_int_equal(cudaFreeHost(back), cudaSuccess);
    assert_int_equal(cudaFreeHost(host), cudaSuccess);
    assert_int_equal(cudaFree(device), cudaSuccess);
    (void)cudaEventDestroy(sent);
    assert_int_equal(cudaStreamDestroy(down), cudaSuccess);
    assert_int_equal(cudaStreamDestroy(up), cudaSuccess);
    return wrong;
}

static void test_waits(void **)
{
    assert_int_equal(wrong_numbers(true, false), 0);
    assert_true(wrong_numbers(false, false) > 0);
    assert_true(wrong_numbers(true, true) > 0);
}

static void test_recording_refuses(void **)
{
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    void *device = nullptr;
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    assert_int_equal(cudaMalloc(&device, 4), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    assert_null(graph);
    assert_int_equal(cudaStreamDestroy(stream), cudaSuccess);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_planted),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_mma),
        cmocka_unit_test(test_waits),
        cmocka_unit_test(test_recording_refuses),
    };
    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
