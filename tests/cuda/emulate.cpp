/* The emulator: fibres, their meetings, and who touched which byte last (emulate.cuh). Compiled
 * without instrumentation. */
#include "tests/cuda/emulate.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include <algorithm>
#include <vector>

extern "C" {
#include "kernels/kern.h"
}

#define THREADS_MAX 1024
#define WARPS_MAX (THREADS_MAX / 32)
#define STACK_BYTES ((size_t)64 << 10)
#define COLOURS 29                       /* stacks begin at different lines of the cache */
#define SHARED_BYTES ((size_t)227 << 10) /* of a block, at most */
#define STATIC_BYTES ((size_t)48 << 10)  /* of it, declared with a size */
#define FENCE_BYTES 4096
#define FENCE 0xa5
#define TEXT_BYTES 256

struct emulate_place emulate_place;

namespace
{

[[noreturn]] void give_up(const char *text)
{
    fprintf(stderr, "emulator: %s\n", text);
    abort();
}

/* ---- faults -------------------------------------------------------------------------------- */

struct kern_ctx *device; /* a test's, which counts faults; NULL: nobody does */
size_t faults_count;
char faults_text[TEXT_BYTES];
bool stopped; /* an access that nobody counts has lost the device: the grid ends */
const char *launched = "";

void fault(const char *format, ...)
{
    if (faults_count++ == 0) {
        int at =
            snprintf(faults_text, sizeof faults_text, "%s: block %u,%u,%u thread %u: ", launched,
                blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x);
        va_list list;
        va_start(list, format);
        (void)vsnprintf(faults_text + at, sizeof faults_text - (size_t)at, format, list);
        va_end(list);
    }
}

/* ---- a switch between stacks ----------------------------------------------------------------- */

#ifdef __x86_64__
using Stack = void *;
extern "C" void emulate_switch(Stack *from, Stack to);
/* What a call must keep goes on the stack; the other stack's comes off. */
__asm__(".text\n.globl emulate_switch\n.type emulate_switch,@function\n"
        "emulate_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
        ".size emulate_switch,.-emulate_switch\n");

void stack_make(Stack *stack, char *memory, size_t bytes, void (*entry)(void))
{
    void **top = (void **)(void *)(memory + bytes) - 1;
    top[0] = nullptr;       /* where entry would return to (it does not): 8 off a multiple of 16 */
    *--top = (void *)entry; /* taken by ret */
    memset(top - 6, 0, 6 * sizeof *top);
    *stack = top - 6;
}
#else
using Stack = ucontext_t;
void emulate_switch(Stack *from, Stack &to)
{
    (void)swapcontext(from, &to);
}
void stack_make(Stack *stack, char *memory, size_t bytes, void (*entry)(void))
{
    (void)getcontext(stack);
    stack->uc_stack.ss_sp = memory;
    stack->uc_stack.ss_size = bytes;
    stack->uc_link = nullptr;
    makecontext(stack, entry, 0);
}
#endif

/* ---- the block that runs --------------------------------------------------------------------- */

enum state { READY, AT_BLOCK, AT_WARP, DONE };

struct copy {
    void *to;
    const void *from;
    size_t bytes, filled; /* of them, the last `filled` are zeros */
};

struct fibre {
    Stack stack;
    enum state state;
    uint3 place;
    std::vector<copy> copies;    /* of cp.async that have not been waited for */
    std::vector<size_t> commits; /* ends of groups in copies */
};

struct warp {
    uint32_t arrived;
    bool ordered;
    uint64_t in[32], out[32];
    uint32_t tick; /* of the last __syncwarp */
};

struct fibre fibres[THREADS_MAX];
struct warp warps[WARPS_MAX];
char *stacks;
Stack scheduler;
thread_local bool inside; /* a fibre runs in this thread */
unsigned now;             /* which */
unsigned threads, arrived;
unsigned order[THREADS_MAX], turn; /* of the threads; where in it `now` is */
const char *met_file;
int met_line;
void (*body)(void *);
void *body_self;
size_t body_bytes;
uint64_t random_state = 1;

/* Every barrier gets a new tick. What was written before the last one is safe to read. */
uint32_t tick = 1, launch_tick, block_tick, barrier_tick;
uint32_t next_uid = 32, block_uid; /* a number of its own for every thread ever */

uint64_t random_next(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/* To the next thread that can run, or, at the end of the order, to block_run. */
void leave(enum state state)
{
    Stack *from = &fibres[now].stack;
    fibres[now].state = state;
    for (turn++; turn < threads && !stopped; turn++) {
        if (fibres[order[turn]].state == READY) {
            now = order[turn];
            emulate_place.thread = fibres[now].place;
            emulate_switch(from, fibres[now].stack);
            return;
        }
    }
    inside = false;
    emulate_switch(from, scheduler);
}

void fibre_main(void)
{
    body(body_self);
    if (!fibres[now].copies.empty()) {
        fault("ends with a copy that it has not waited for");
    }
    leave(DONE);
    give_up("a fibre that was done ran on");
}

void enter(void)
{
    now = order[turn];
    emulate_place.thread = fibres[now].place;
    inside = true;
    emulate_switch(&scheduler, fibres[now].stack);
}

/* ---- memory and who touched it ----------------------------------------------------------------
 */

enum : uint32_t { NOBODY, HOST, ATOMICALLY, MANY };
#define MANY_OF_WARP 0x80000000U

struct shadow {
    uint32_t writer, write_tick, reader, read_tick;
};

struct region {
    char *memory; /* with a fence on both sides */
    size_t bytes;
    struct shadow *shadows;
};

std::vector<region> regions; /* by address */

alignas(256) char shared_memory[SHARED_BYTES];
struct shadow shared_shadows[SHARED_BYTES];
struct shared_piece {
    const void *site;
    size_t at, bytes;
};
std::vector<shared_piece> shared_pieces;
size_t shared_used, shared_static;

uint32_t warp_of(uint32_t uid)
{
    return (uid - block_uid) / 32;
}

/* Does what `who` did at `when` come before what the present thread does? */
inline bool before(uint32_t who, uint32_t when, uint32_t me)
{
    if (who == me || when < launch_tick || who == NOBODY || who == HOST) {
        return true;
    } else if (who == ATOMICALLY || who == MANY) {
        return when < barrier_tick && when >= block_tick;
    } else if (who & MANY_OF_WARP) {
        uint32_t warp = who & ~MANY_OF_WARP;
        return warp >= block_uid / 32 && when >= block_tick &&
               (when < barrier_tick ||
                   (warp - block_uid / 32 == warp_of(me) && when < warps[warp_of(me)].tick));
    }
    return who >= block_uid &&
           (when < barrier_tick || (warp_of(who) == warp_of(me) && when < warps[warp_of(me)].tick));
}

inline void note_reader(struct shadow *s, uint32_t me)
{
    uint32_t warp = MANY_OF_WARP | me / 32;
    if (s->reader == me || s->reader == NOBODY || before(s->reader, s->read_tick, me)) {
        s->reader = me;
    } else if (s->reader == warp || (!(s->reader & MANY_OF_WARP) && s->reader > MANY &&
                                        s->reader >= block_uid && s->reader / 32 == me / 32)) {
        s->reader = warp;
    } else {
        s->reader = MANY;
    }
    s->read_tick = tick;
}

inline const char *touch_byte(struct shadow *s, enum emulate_access access, uint32_t oldest)
{
    uint32_t me = block_uid + now;
    bool written = s->writer != NOBODY && s->write_tick >= oldest;
    const char *wrong = nullptr;
    if (access != EMULATE_WRITE && !written) {
        wrong = "read of a byte that nobody wrote";
    } else if (access == EMULATE_ATOMIC && s->writer == ATOMICALLY) {
        wrong = nullptr;
    } else if (written && !before(s->writer, s->write_tick, me)) {
        wrong = access == EMULATE_READ
                    ? "read of what another thread wrote, with no barrier between"
                    : "write over another thread's, with no barrier between";
    } else if (access != EMULATE_READ && s->reader != NOBODY && s->read_tick >= oldest &&
               !before(s->reader, s->read_tick, me)) {
        wrong = "write of what another thread reads, with no barrier between";
    }
    if (access == EMULATE_READ) {
        note_reader(s, me);
    } else {
        s->writer = access == EMULATE_ATOMIC ? (uint32_t)ATOMICALLY : me;
        s->write_tick = tick;
        s->reader = NOBODY;
    }
    return wrong;
}

void touch(struct shadow *shadows, size_t at, size_t bytes, enum emulate_access access,
    uint32_t oldest, const char *where)
{
    const char *wrong = nullptr;
    for (size_t i = 0; i < bytes; i++) {
        const char *here = touch_byte(shadows + at + i, access, oldest);
        wrong = wrong ? wrong : here;
    }
    if (wrong) {
        fault("%s (%s, byte %zu)", wrong, where, at);
    }
}

void touch_shared(size_t at, size_t bytes, enum emulate_access access)
{
    for (const shared_piece &piece : shared_pieces) {
        if (at - piece.at < piece.bytes && bytes <= piece.bytes - (at - piece.at)) {
            touch(shared_shadows, at, bytes, access, block_tick, "shared");
            return;
        }
    }
    fault("%s outside of shared memory (byte %zu)", access == EMULATE_READ ? "read" : "write", at);
}

/* The first region behind an address. */
std::vector<region>::iterator region_after(const void *at)
{
    return std::upper_bound(regions.begin(), regions.end(), (const char *)at,
        [](const char *address, const region &r) { return address < r.memory; });
}

bool within(const region &r, const void *at, size_t bytes)
{
    size_t offset = (size_t)((const char *)at - r.memory);
    return offset <= r.bytes && bytes <= r.bytes - offset;
}

/* What bytes lie in; NULL: they do not. */
region *region_of(const void *at, size_t bytes)
{
    static size_t last; /* a thread stays where it is for a while */
    if (last < regions.size() && within(regions[last], at, bytes)) {
        return &regions[last];
    }
    last = (size_t)(region_after(at) - regions.begin());
    return last-- > 0 && within(regions[last], at, bytes) ? &regions[last] : nullptr;
}

bool touch_region(const char *at, size_t bytes, enum emulate_access access)
{
    region *r = region_of(at, bytes);
    if (r) {
        touch(r->shadows, (size_t)(at - r->memory), bytes, access, 0, "device");
    }
    return r != nullptr;
}

extern "C" char __executable_start, _end;

bool within(const char *at, const char *memory, size_t bytes)
{
    return (size_t)(at - memory) < bytes;
}

void touched(const void *where, size_t bytes, enum emulate_access access)
{
    const char *at = (const char *)where;
    if (!inside || within(at, stacks, THREADS_MAX * STACK_BYTES)) {
        return;
    } else if ((bytes & (bytes - 1)) == 0 && (uintptr_t)at % (bytes < 16 ? bytes : 16) != 0) {
        fault("an address that is not a multiple of %zu", bytes);
    }
    if (within(at, shared_memory, SHARED_BYTES)) {
        touch_shared((size_t)(at - shared_memory), bytes, access);
    } else if (within(at, (char *)body_self, body_bytes) ||
               within(at, &__executable_start, (size_t)(&_end - &__executable_start))) {
        if (access != EMULATE_READ) {
            fault("write to an argument or a constant");
        }
    } else if (!touch_region(at, bytes, access)) {
        long off = 0;
        for (const region &r : regions) {
            if (within(at, r.memory - FENCE_BYTES, r.bytes + 2 * FENCE_BYTES)) {
                off = at < r.memory ? (long)(at - r.memory) : (long)(at - r.memory - r.bytes);
            }
        }
        fault("%s outside of device memory (%ld bytes off a piece of it)",
            access == EMULATE_READ ? "read" : "write", off);
        if (!device) {
            stopped = true;
            leave(DONE);
        }
    }
}

/* ---- blocks -------------------------------------------------------------------------------- */

void shared_take(const void *site, size_t bytes, size_t align)
{
    size_t at = (shared_used + align - 1) / align * align;
    if (bytes > SHARED_BYTES || at > SHARED_BYTES - bytes) {
        give_up("more shared memory than there is");
    }
    shared_static += site ? bytes : 0;
    if (shared_static > STATIC_BYTES) {
        give_up("more declared shared memory than there may be");
    }
    shared_pieces.push_back({site, at, bytes});
    shared_used = at + bytes + 16; /* a gap, which nobody may touch */
}

void block_begin(size_t dynamic)
{
    block_tick = barrier_tick = ++tick;
    block_uid = next_uid;
    next_uid += (threads + 31) / 32 * 32;
    arrived = 0;
    shared_pieces.clear();
    shared_used = shared_static = 0;
    shared_take(nullptr, dynamic, 256);
    memset(shared_memory, 0xff, sizeof shared_memory);
    for (unsigned i = 0; i < threads; i++) {
        const dim3 &b = blockDim;
        fibres[i].place = {i % b.x, i / b.x % b.y, i / b.x / b.y};
        fibres[i].state = READY;
        fibres[i].copies.clear();
        fibres[i].commits.clear();
        stack_make(
            &fibres[i].stack, stacks + i * STACK_BYTES, STACK_BYTES - i % COLOURS * 64, fibre_main);
    }
    for (unsigned i = 0; i < threads / 32; i++) {
        warps[i].arrived = 0;
        warps[i].tick = tick;
    }
}

void block_run(void)
{
    for (unsigned i = 0; i < threads; i++) {
        unsigned j = (unsigned)(random_next() % (i + 1));
        order[i] = order[j];
        order[j] = i;
    }
    for (bool ran = true; ran && !stopped;) {
        ran = false;
        for (turn = 0; turn < threads && !stopped; turn++) {
            if (fibres[order[turn]].state == READY) {
                enter(); /* comes back behind the last one that could run */
                ran = true;
            }
        }
    }
    for (unsigned i = 0; i < threads && !stopped; i++) {
        if (fibres[i].state != DONE) {
            emulate_place.thread = fibres[i].place;
            fault("waits for ever: not all threads come to %s",
                fibres[i].state == AT_BLOCK ? "a __syncthreads" : "a meeting of its warp");
            return;
        }
    }
}

/* Numbers of threads and barriers begin anew before they run out: nothing runs now, so that what
 * was written is as if the host had done it. */
void count_anew(void)
{
    for (const region &r : regions) {
        for (size_t i = 0; i < r.bytes; i++) {
            r.shadows[i] = {r.shadows[i].writer == NOBODY ? NOBODY : HOST, 0, NOBODY, 0};
        }
    }
    memset(shared_shadows, 0, sizeof shared_shadows);
    tick = 1;
    next_uid = 32;
}

} // namespace

void emulate_grid(const char *what, dim3 grid, dim3 block, size_t shared, void (*run)(void *),
    void *self, size_t self_bytes)
{
    size_t count = (size_t)block.x * block.y * block.z;
    if (!stacks) {
        stacks = (char *)mmap(nullptr, THREADS_MAX * STACK_BYTES, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (stacks == MAP_FAILED || count == 0 || count > THREADS_MAX || count % 32 != 0) {
        give_up("a block must be 32 to 1024 threads, a multiple of 32");
    } else if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
        give_up("a grid must not be empty, and y and z at most 65535");
    }
    launched = what;
    threads = (unsigned)count;
    body = run;
    body_self = self;
    body_bytes = self_bytes;
    emulate_place.threads = block;
    emulate_place.blocks = grid;
    if (next_uid > MANY_OF_WARP / 2 || tick > UINT32_MAX / 2) {
        count_anew();
    }
    launch_tick = ++tick;
    stopped = false;
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x && !stopped; x++) {
                emulate_place.block = {x, y, z};
                block_begin(shared);
                block_run();
            }
        }
    }
}

/* ---- meetings ------------------------------------------------------------------------------ */

void emulate_meet_block(const char *file, int line)
{
    if (arrived == 0) {
        met_file = file;
        met_line = line;
    } else if (met_line != line || strcmp(met_file, file) != 0) {
        fault(
            "is at the barrier in line %d while others are at the one in line %d", line, met_line);
    }
    if (++arrived < threads) {
        leave(AT_BLOCK);
        return;
    }
    arrived = 0;
    barrier_tick = ++tick;
    for (unsigned i = 0; i < threads; i++) {
        if (fibres[i].state == AT_BLOCK) {
            fibres[i].state = READY;
        }
    }
}

bool emulate_meet_or(const char *file, int line, bool vote)
{
    static bool gathered, told;
    gathered = (arrived > 0 && gathered) || vote;
    if (arrived + 1 == threads) {
        told = gathered;
    }
    emulate_meet_block(file, line);
    return told;
}

/* What was brought stays until all have come to the next meeting. */
const uint64_t *emulate_meet_warp(uint32_t mask, uint64_t value, bool ordered)
{
    unsigned lane = now % 32;
    struct warp *warp = &warps[now / 32];
    if (mask != UINT32_MAX) {
        give_up("a meeting of some of a warp: only whole warps are emulated");
    } else if (warp->arrived == 0) {
        warp->ordered = ordered;
    } else if (warp->ordered != ordered) {
        fault(
            "is at a __syncwarp while others of its warp shuffle or vote, or the other way round");
    }
    warp->in[lane] = value;
    warp->arrived |= 1U << lane;
    if (warp->arrived != UINT32_MAX) {
        leave(AT_WARP);
    } else {
        warp->arrived = 0;
        memcpy(warp->out, warp->in, sizeof warp->out);
        if (ordered) {
            warp->tick = ++tick;
        }
        for (unsigned i = now / 32 * 32; i < now / 32 * 32 + 32; i++) {
            fibres[i].state = READY;
        }
    }
    return warp->out;
}

uint32_t emulate_ballot(uint32_t mask, bool vote)
{
    const uint64_t *all = emulate_meet_warp(mask, vote, false);
    uint32_t out = 0;
    for (unsigned i = 0; i < 32; i++) {
        out |= (uint32_t)all[i] << i;
    }
    return out;
}

/* ---- shared memory, copies ------------------------------------------------------------------- */

void *emulate_shared(const void *site, size_t bytes, size_t align)
{
    for (const shared_piece &piece : shared_pieces) {
        if (piece.site == site) {
            return shared_memory + piece.at;
        }
    }
    shared_take(site, bytes, align);
    return shared_memory + shared_pieces.back().at;
}

void *emulate_dynamic_shared(void)
{
    return shared_memory;
}

void emulate_touch(const void *at, size_t bytes, enum emulate_access access)
{
    touched(at, bytes, access);
}

void emulate_copy_later(void *to, const void *from, size_t bytes, size_t filled)
{
    if ((uintptr_t)to % bytes != 0 || (uintptr_t)from % bytes != 0) {
        fault("a copy whose addresses are no multiples of %zu", bytes);
    }
    fibres[now].copies.push_back({to, from, bytes, filled});
}

void emulate_copy_commit(void)
{
    fibres[now].commits.push_back(fibres[now].copies.size());
}

void emulate_copy_wait(size_t left)
{
    struct fibre *f = &fibres[now];
    size_t groups = f->commits.size() > left ? f->commits.size() - left : 0;
    size_t end = groups > 0 ? f->commits[groups - 1] : 0;
    for (size_t i = 0; i < end; i++) {
        const copy &c = f->copies[i];
        if (c.filled < c.bytes) {
            touched(c.from, c.bytes - c.filled, EMULATE_READ);
        }
        touched(c.to, c.bytes, EMULATE_WRITE);
        memcpy(c.to, c.from, c.bytes - c.filled);
        memset((char *)c.to + c.bytes - c.filled, 0, c.filled);
    }
    f->copies.erase(f->copies.begin(), f->copies.begin() + (ptrdiff_t)end);
    f->commits.erase(f->commits.begin(), f->commits.begin() + (ptrdiff_t)groups);
    for (size_t &commit : f->commits) {
        commit -= end;
    }
}

/* ---- device memory ------------------------------------------------------------------------- */

void *emulate_piece(size_t bytes)
{
    size_t all = (bytes + 2 * FENCE_BYTES + 4095) / 4096 * 4096;
    char *memory = (char *)aligned_alloc(4096, all);
    struct shadow *shadows = (struct shadow *)calloc(bytes + 1, sizeof *shadows);
    if (!memory || !shadows) {
        give_up("no memory");
    }
    memset(memory, FENCE, all);
    memory += FENCE_BYTES;
    memset(memory, 0xff, bytes);
    regions.insert(region_after(memory), {memory, bytes, shadows});
    return memory;
}

void emulate_piece_free(void *memory)
{
    region *found = region_of(memory, 0);
    if (!found || found->memory != memory) {
        give_up("freed what is no piece of device memory");
    }
    region r = *found;
    for (size_t j = 0; j < FENCE_BYTES; j++) {
        if ((unsigned char)r.memory[-(ptrdiff_t)j - 1] != FENCE ||
            (unsigned char)r.memory[r.bytes + j] != FENCE) {
            fault("a fence around %zu bytes was written over", r.bytes);
            break;
        }
    }
    free(r.memory - FENCE_BYTES);
    free(r.shadows);
    regions.erase(regions.begin() + (found - regions.data()));
}

static region *need_region(const void *memory, size_t bytes)
{
    region *r = region_of(memory, bytes);
    if (!r) {
        give_up("asked about memory that is not the device's");
    }
    return r;
}

bool emulate_holds(const void *memory, size_t bytes)
{
    return region_of(memory, bytes) != nullptr;
}

void emulate_from_host(void *memory, size_t bytes)
{
    const region *r = need_region(memory, bytes);
    std::fill_n(r->shadows + ((char *)memory - r->memory), bytes, shadow{HOST, 0, NOBODY, 0});
}

void emulate_from_device(void *to, const void *from, size_t bytes)
{
    const region *left = need_region(to, bytes), *right = need_region(from, bytes);
    for (size_t i = 0; i < bytes; i++) {
        uint32_t writer = right->shadows[(const char *)from - right->memory + (ptrdiff_t)i].writer;
        left->shadows[(char *)to - left->memory + (ptrdiff_t)i] = {
            writer == NOBODY ? NOBODY : HOST, 0, NOBODY, 0};
    }
}

bool emulate_lost(void)
{
    if (stopped) {
        fprintf(stderr, "emulator: %s\n", faults_text);
    }
    return stopped;
}

void emulate_end_if_faulty(void)
{
    if (!device && faults_count > 0) {
        fprintf(stderr, "emulator: %zu faults; the first: %s\n", faults_count, faults_text);
        abort();
    }
}

/* ---- a test's side ------------------------------------------------------------------------- */

struct kern_ctx *emulate_context(void)
{
    struct kern_options options = {"cuda", nullptr, 1};
    struct memos_error err;
    if (kern_ctx_create(&options, &device, &err) != MEMOS_OK) {
        give_up(err.text);
    }
    return device;
}

void emulate_context_done(void)
{
    kern_ctx_destroy(&device);
}

/* What was launched has run. */
static void finish(void)
{
    struct memos_error err;
    if (device && kern_sync(device, &err) != MEMOS_OK) {
        fault("%s", err.text);
    }
}

void *emulate_alloc(size_t bytes, const void *from)
{
    void *memory = emulate_piece(bytes);
    if (from) {
        memcpy(memory, from, bytes);
        emulate_from_host(memory, bytes);
    }
    return memory;
}

void emulate_free(void *memory)
{
    finish();
    emulate_piece_free(memory);
}

bool emulate_written(const void *memory, size_t bytes)
{
    finish();
    const region *r = need_region(memory, bytes);
    const struct shadow *first = r->shadows + ((const char *)memory - r->memory);
    return std::none_of(first, first + bytes, [](const shadow &s) { return s.writer == NOBODY; });
}

void emulate_forget(void *memory, size_t bytes)
{
    finish();
    const region *r = need_region(memory, bytes);
    memset(r->shadows + ((char *)memory - r->memory), 0, bytes * sizeof *r->shadows);
    memset(memory, 0xff, bytes);
}

void emulate_seed(uint64_t seed)
{
    random_state = seed;
}

uint64_t emulate_random(void)
{
    return random_next();
}

size_t emulate_faults(char *text)
{
    finish();
    size_t count = faults_count;
    if (text) {
        memcpy(text, faults_text, sizeof faults_text);
    }
    faults_count = 0;
    faults_text[0] = '\0';
    return count;
}

/* ---- what the compiler calls ----------------------------------------------------------------- */

extern "C" {
void __tsan_init(void);
void __tsan_func_entry(void *);
void __tsan_func_exit(void *);
void __tsan_init(void)
{
}
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit(void *)
{
}
#define ACCESS(bytes)                                                                              \
    void __tsan_read##bytes(void *at);                                                             \
    void __tsan_write##bytes(void *at);                                                            \
    void __tsan_unaligned_read##bytes(void *at);                                                   \
    void __tsan_unaligned_write##bytes(void *at);                                                  \
    void __tsan_read##bytes(void *at)                                                              \
    {                                                                                              \
        touched(at, bytes, EMULATE_READ);                                                          \
    }                                                                                              \
    void __tsan_write##bytes(void *at)                                                             \
    {                                                                                              \
        touched(at, bytes, EMULATE_WRITE);                                                         \
    }                                                                                              \
    void __tsan_unaligned_read##bytes(void *at)                                                    \
    {                                                                                              \
        touched(at, bytes, EMULATE_READ);                                                          \
    }                                                                                              \
    void __tsan_unaligned_write##bytes(void *at)                                                   \
    {                                                                                              \
        touched(at, bytes, EMULATE_WRITE);                                                         \
    }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *at, size_t bytes);
void __tsan_write_range(void *at, size_t bytes);
void __tsan_read_range(void *at, size_t bytes)
{
    touched(at, bytes, EMULATE_READ);
}
void __tsan_write_range(void *at, size_t bytes)
{
    touched(at, bytes, EMULATE_WRITE);
}
void __tsan_vptr_update(void *, void *);
void __tsan_vptr_update(void *, void *)
{
}
void __tsan_vptr_read(void *);
void __tsan_vptr_read(void *)
{
}
/* The host's own. */
int32_t __tsan_atomic32_fetch_add(volatile int32_t *at, int32_t by, int order);
int32_t __tsan_atomic32_fetch_add(volatile int32_t *at, int32_t by, int)
{
    return __atomic_fetch_add(at, by, __ATOMIC_SEQ_CST);
}
int64_t __tsan_atomic64_fetch_add(volatile int64_t *at, int64_t by, int order);
int64_t __tsan_atomic64_fetch_add(volatile int64_t *at, int64_t by, int)
{
    return __atomic_fetch_add(at, by, __ATOMIC_SEQ_CST);
}
int64_t __tsan_atomic64_load(const volatile int64_t *at, int order);
int64_t __tsan_atomic64_load(const volatile int64_t *at, int)
{
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
}
