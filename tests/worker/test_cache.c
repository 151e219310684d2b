/* What a user would lose: a worker that grows until it is killed; an answer out of a capture that
 * was damaged on its way; a job whose capture is freed under it. */
#include "memos/worker/cache.h"

#include "tests/memcube/folder.h"
#include "tests/paramem/tiny.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

/* A capture of `tokens` tokens with the number in every place, sealed; on the heap. */
static struct memos_bytes capture_make(size_t tokens, uint32_t number, float value)
{
    const struct paramem_kv_cube_shape shape = {
        .dtype = KERN_F32, .layers = 1, .heads = 1, .head_dim = 8, .tokens = tokens};
    const size_t size = (size_t)paramem_kv_cube_bytes(&shape);
    uint8_t fingerprint[32] = {1};
    struct paramem_kv_cube cube;
    void *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    uint32_t *ids = calloc(tokens, sizeof *ids);
    assert_true(memory && ids);
    for (size_t i = 0; i < tokens; i++) {
        ids[i] = number;
    }
    paramem_kv_cube_begin(&shape, fingerprint, NULL, ids, memory, &cube);
    const size_t floats = cube.blocks * cube.block_bytes / sizeof value;
    float *data = (float *)(uintptr_t)cube.data;
    for (size_t i = 0; i < floats; i++) {
        data[i] = value;
    }
    paramem_kv_cube_seal(&cube, memory, NULL);
    free(ids);
    return memos_bytes_make(memory, size);
}

static void hash_of(uint32_t number, uint8_t out[MEMCUBE_HASH_BYTES])
{
    memset(out, 0, MEMCUBE_HASH_BYTES);
    memcpy(out, &number, sizeof number);
}

static void capture_free(struct memos_bytes capture)
{
    free((void *)(uintptr_t)capture.data);
}

static const struct worker_kept *add(
    struct worker_cache *cache, const char *space, uint32_t number, size_t tokens)
{
    const struct worker_kept *kept = NULL;
    uint8_t hash[MEMCUBE_HASH_BYTES];
    struct memos_error err;
    const struct memos_bytes capture = capture_make(tokens, number, 1.0f);
    hash_of(number, hash);
    if (worker_cache_add(cache, space, hash, capture, &kept, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    capture_free(capture);
    return kept;
}

static bool is_here(struct worker_cache *cache, uint32_t number)
{
    uint8_t hash[MEMCUBE_HASH_BYTES];
    hash_of(number, hash);
    const struct worker_kept *kept = worker_cache_hold(cache, hash);
    worker_cache_release(cache, kept);
    return kept != NULL;
}

static void longest_unused_goes(void **state)
{
    (void)state;
    const struct memos_bytes one = capture_make(32, 0, 1.0f);
    struct worker_cache *cache = NULL;
    OK(worker_cache_create(3 * one.size, &cache, NULL));
    for (uint32_t i = 1; i <= 3; i++) {
        worker_cache_release(cache, add(cache, "s", i, 32));
    }
    assert_int_equal(worker_cache_bytes(cache), 3 * one.size);
    assert_true(is_here(cache, 1)); /* now 2 is the longest unused */
    worker_cache_release(cache, add(cache, "s", 4, 32));
    assert_false(is_here(cache, 2));
    assert_true(is_here(cache, 1) && is_here(cache, 3) && is_here(cache, 4));
    assert_int_equal(worker_cache_bytes(cache), 3 * one.size);
    worker_cache_destroy(&cache);
    capture_free(one);
}

static void held_stays_until_released(void **state)
{
    (void)state;
    const struct memos_bytes one = capture_make(32, 0, 1.0f);
    struct worker_cache *cache = NULL;
    OK(worker_cache_create(one.size, &cache, NULL));
    const struct worker_kept *first = add(cache, "s", 1, 32), *second = add(cache, "s", 2, 32);
    assert_int_equal(worker_cache_bytes(cache), 2 * one.size); /* above the bound while held */
    worker_cache_keep(cache, "s", NULL, 0);                    /* the store vouches for none */
    assert_false(is_here(cache, 1));
    uint32_t id;
    paramem_kv_cube_ids(&first->cube, 31, 1, &id); /* still readable */
    assert_int_equal(id, 1);
    worker_cache_release(cache, first);
    worker_cache_release(cache, second);
    assert_int_equal(worker_cache_bytes(cache), 0);
    worker_cache_destroy(&cache);
    capture_free(one);
}

static void only_that_space_is_dropped(void **state)
{
    (void)state;
    struct worker_cache *cache = NULL;
    struct memos_buffer names = memos_buffer_make(1024);
    uint8_t hash[MEMCUBE_HASH_BYTES];
    OK(worker_cache_create(0, &cache, NULL));
    worker_cache_release(cache, add(cache, "a", 1, 32));
    worker_cache_release(cache, add(cache, "a", 2, 32));
    worker_cache_release(cache, add(cache, "b", 3, 32));
    hash_of(2, hash);
    worker_cache_keep(cache, "a", hash, 1);
    assert_false(is_here(cache, 1));
    assert_true(is_here(cache, 2) && is_here(cache, 3));
    assert_int_equal(worker_cache_spaces(cache, 64, &names), 2);
    assert_int_equal(names.size, 4);
    memos_buffer_reset(&names);
    assert_int_equal(worker_cache_spaces(cache, 1, &names), 1);
    memos_buffer_free(&names);
    worker_cache_destroy(&cache);
}

/* Every byte matters: whichever is turned, the capture is refused, or says the same numbers. */
static void damage_is_refused(void **state)
{
    (void)state;
    struct worker_cache *cache = NULL;
    const struct worker_kept *kept = NULL;
    uint8_t hash[MEMCUBE_HASH_BYTES];
    uint64_t random = 5;
    const struct memos_bytes capture = capture_make(40, 9, 1.0f);
    uint8_t *bytes = (uint8_t *)(uintptr_t)capture.data;
    hash_of(9, hash);
    OK(worker_cache_create(0, &cache, NULL));
    for (int i = 0; i < 300; i++) {
        const size_t at = tiny_below(&random, capture.size);
        const uint8_t bit = (uint8_t)(1 << tiny_below(&random, 8));
        bytes[at] ^= bit;
        assert_int_not_equal(worker_cache_add(cache, "s", hash, capture, &kept, NULL), MEMOS_OK);
        assert_null(kept);
        bytes[at] ^= bit;
    }
    for (size_t size = 0; size < capture.size; size += 1 + size / 7) {
        assert_int_not_equal(
            worker_cache_add(cache, "s", hash, memos_bytes_make(capture.data, size), &kept, NULL),
            MEMOS_OK);
    }
    const struct memos_bytes nan = capture_make(40, 9, 0.0f / 0.0f);
    assert_int_equal(worker_cache_add(cache, "s", hash, nan, &kept, NULL), MEMOS_CORRUPT);
    capture_free(nan);
    assert_int_equal(worker_cache_bytes(cache), 0);
    capture_free(capture);
    worker_cache_destroy(&cache);
}

static void files_are_mapped(void **state)
{
    (void)state;
    char folder[FOLDER_PATH_BYTES], path[FOLDER_PATH_BYTES + 16];
    struct worker_cache *cache = NULL;
    const struct worker_kept *kept = NULL;
    uint8_t hash[MEMCUBE_HASH_BYTES];
    struct memos_error err;
    const struct memos_bytes capture = capture_make(64, 3, 2.0f);
    folder_make(folder);
    (void)snprintf(path, sizeof path, "%s/blob", folder);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(capture.data, 1, capture.size, file), capture.size);
    assert_int_equal(fclose(file), 0);
    hash_of(3, hash);
    OK(worker_cache_create(0, &cache, NULL));
    assert_int_equal(
        worker_cache_map(cache, "s", hash, path, capture.size + 1, &kept, &err), MEMOS_CORRUPT);
    assert_int_equal(
        worker_cache_map(cache, "s", hash, folder, capture.size, &kept, &err), MEMOS_CORRUPT);
    OK(worker_cache_map(cache, "s", hash, path, capture.size, &kept, &err));
    assert_int_equal(kept->source, WORKER_MAPPED);
    folder_remove(folder); /* forgotten by the store: what is mapped can still be read */
    assert_memory_equal(kept->cube.bytes.data, capture.data, capture.size);
    assert_int_equal(
        worker_cache_map(cache, "s", hash, path, capture.size, &kept, &err), MEMOS_NOT_FOUND);
    uint8_t same[MEMCUBE_HASH_BYTES];
    hash_of(3, same);
    const struct worker_kept *again = worker_cache_hold(cache, same);
    worker_cache_release(cache, again);
    worker_cache_release(cache, again); /* once for the map */
    worker_cache_destroy(&cache);
    capture_free(capture);
}

struct crowd {
    struct worker_cache *cache;
    uint64_t random;
};

static void *crowd_run(void *self)
{
    struct crowd *crowd = self;
    for (int i = 0; i < 300; i++) {
        const uint32_t number = 1 + (uint32_t)tiny_below(&crowd->random, 8);
        uint8_t hash[MEMCUBE_HASH_BYTES];
        hash_of(number, hash);
        const struct worker_kept *kept = worker_cache_hold(crowd->cache, hash);
        if (!kept) {
            const struct memos_bytes capture = capture_make(32, number, 1.0f);
            if (worker_cache_add(crowd->cache, "s", hash, capture, &kept, NULL) != MEMOS_OK) {
                return (void *)(uintptr_t) "an honest capture was refused";
            }
            capture_free(capture);
        }
        uint32_t id;
        paramem_kv_cube_ids(&kept->cube, 7, 1, &id);
        if (id != number) {
            return (void *)(uintptr_t) "another capture came";
        }
        worker_cache_release(crowd->cache, kept);
        if (tiny_below(&crowd->random, 16) == 0) {
            worker_cache_keep(crowd->cache, "s", hash, 1);
        }
    }
    return NULL;
}

static void threads_share_it(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    const struct memos_bytes one = capture_make(32, 0, 1.0f);
    struct worker_cache *cache = NULL;
    struct crowd crowds[THREADS];
    pthread_t threads[THREADS];
    OK(worker_cache_create(4 * one.size, &cache, NULL));
    for (size_t i = 0; i < THREADS; i++) {
        crowds[i] = (struct crowd){.cache = cache, .random = i};
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_run, &crowds[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *why = NULL;
        assert_int_equal(pthread_join(threads[i], &why), 0);
        assert_null(why);
    }
    assert_true(worker_cache_bytes(cache) <= 4 * one.size);
    worker_cache_destroy(&cache);
    capture_free(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(longest_unused_goes),
        cmocka_unit_test(held_stays_until_released),
        cmocka_unit_test(only_that_space_is_dropped),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(files_are_mapped),
        cmocka_unit_test(threads_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
