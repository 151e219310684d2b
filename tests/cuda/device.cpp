/* The emulator's functions for tests on a real GPU: the same tests then run the real kernels.
 * Memory is the host's, pinned, on which a GPU works as on its own; fences are looked at when it is
 * freed. What was written is told by the poison that is no longer there. */
#include "tests/cuda/check.cuh"

#define FENCE_BYTES 4096
#define FENCE 0xa5

namespace
{

struct piece {
    char *memory;
    size_t bytes;
};

struct kern_ctx *device;
std::vector<piece> pieces;
uint64_t random_state;
size_t faults_count;
char faults_text[256];

void fault(const char *text)
{
    if (faults_count++ == 0) {
        (void)snprintf(faults_text, sizeof faults_text, "%s", text);
    }
}

} // namespace

struct kern_ctx *emulate_context(void)
{
    struct kern_options options = {"cuda", nullptr, 1};
    struct memos_error err;
    if (!device && kern_ctx_create(&options, &device, &err) != MEMOS_OK) {
        print_message("no GPU: %s\n", err.text);
        exit(77);
    }
    print_message("testing cuda: %s\n", kern_ctx_name(device));
    return device;
}

void emulate_context_done(void)
{
    kern_ctx_destroy(&device);
}

void *emulate_alloc(size_t bytes, const void *from)
{
    void *memory = nullptr;
    size_t all = bytes + 2 * FENCE_BYTES;
    assert_int_equal(kern_host_alloc(device, all, &memory, nullptr), MEMOS_OK);
    char *at = (char *)memory + FENCE_BYTES;
    memset(memory, FENCE, all);
    memset(at, 0xff, bytes);
    if (from) {
        memcpy(at, from, bytes);
    }
    pieces.push_back({at, bytes});
    return at;
}

void emulate_free(void *memory)
{
    assert_int_equal(kern_sync(device, nullptr), MEMOS_OK);
    for (size_t i = 0; i < pieces.size(); i++) {
        piece p = pieces[i];
        if (p.memory != memory) {
            continue;
        }
        for (size_t j = 0; j < FENCE_BYTES; j++) {
            if ((unsigned char)p.memory[-(ptrdiff_t)j - 1] != FENCE ||
                (unsigned char)p.memory[p.bytes + j] != FENCE) {
                fault("a fence was written over");
                break;
            }
        }
        void *all = p.memory - FENCE_BYTES;
        kern_host_release(device, &all);
        pieces.erase(pieces.begin() + (ptrdiff_t)i);
        return;
    }
}

bool emulate_written(const void *memory, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)memory;
    for (size_t i = 0; i < bytes; i++) {
        if (at[i] != 0xff) {
            return true;
        }
    }
    return bytes == 0;
}

void emulate_seed(uint64_t seed)
{
    random_state = seed;
}

uint64_t emulate_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

size_t emulate_faults(char *text)
{
    struct memos_error err;
    if (kern_sync(device, &err) != MEMOS_OK) {
        fault(err.text);
    }
    size_t count = faults_count;
    if (text) {
        memcpy(text, faults_text, sizeof faults_text);
    }
    faults_count = 0;
    faults_text[0] = '\0';
    return count;
}
