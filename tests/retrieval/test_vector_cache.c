/* What is remembered of vectors.
 *
 * If these failed, a question would be answered with the vector of another one, or the memory of
 * the broker would grow without end. */
#include "retrieval/vector_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { DIMS = 4, NAMES = 64 };

static void vector_of(unsigned name, float out[DIMS])
{
    for (size_t i = 0; i < DIMS; i++) {
        out[i] = (float)(name * 10 + i);
    }
}

static struct retrieval_cache_key key_of(const struct retrieval_cache *cache, unsigned name)
{
    char text[16];
    snprintf(text, sizeof text, "text %u", name);
    return retrieval_cache_key(cache, memos_bytes_of(text));
}

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* How many it holds: put until it grows no more. */
static size_t capacity_of(struct retrieval_cache *cache)
{
    float vector[DIMS] = {0};
    size_t before = SIZE_MAX;
    for (unsigned i = 1000; retrieval_cache_count(cache) != before; i++) {
        struct retrieval_cache_key key = key_of(cache, i);
        before = retrieval_cache_count(cache);
        retrieval_cache_put(cache, &key, vector);
    }
    return before;
}

/* The model: names by when they were asked for, the newest first. */
struct model {
    unsigned names[NAMES];
    size_t count;
};

static bool model_touch(struct model *model, unsigned name)
{
    for (size_t i = 0; i < model->count; i++) {
        if (model->names[i] == name) {
            memmove(model->names + 1, model->names, i * sizeof model->names[0]);
            model->names[0] = name;
            return true;
        }
    }
    return false;
}

static void model_put(struct model *model, unsigned name, size_t capacity)
{
    if (!model_touch(model, name)) {
        model->count += model->count < capacity;
        memmove(model->names + 1, model->names, (model->count - 1) * sizeof model->names[0]);
        model->names[0] = name;
    }
}

static void it_forgets_what_was_not_asked_for(void **state)
{
    struct retrieval_cache *cache = NULL;
    struct model model = {.count = 0};
    const char *given = getenv("MEMOS_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 4711;
    (void)state;

    printf("MEMOS_TEST_SEED=%llu\n", (unsigned long long)seed);
    assert_int_equal(retrieval_cache_create(3000, DIMS, &cache, NULL), MEMOS_OK);
    size_t capacity = capacity_of(cache);
    assert_in_range(capacity, 8, NAMES - 8);
    retrieval_cache_destroy(&cache);
    assert_int_equal(retrieval_cache_create(3000, DIMS, &cache, NULL), MEMOS_OK);
    for (int round = 0; round < 20000; round++) {
        unsigned name = (unsigned)(next(&seed) % NAMES);
        struct retrieval_cache_key key = key_of(cache, name);
        float vector[DIMS];
        vector_of(name, vector);
        if (next(&seed) % 2) {
            const float *found = retrieval_cache_get(cache, &key);
            assert_int_equal(found != NULL, model_touch(&model, name));
            if (found) {
                assert_memory_equal(found, vector, sizeof vector);
            }
        } else {
            retrieval_cache_put(cache, &key, vector);
            model_put(&model, name, capacity);
        }
        assert_int_equal(retrieval_cache_count(cache), model.count);
        assert_true(retrieval_cache_bytes(cache) <= 3000);
    }
    retrieval_cache_destroy(&cache);
    assert_null(cache);
    retrieval_cache_destroy(&cache);
}

static void it_may_remember_nothing(void **state)
{
    struct retrieval_cache *cache = NULL;
    float vector[DIMS] = {1};
    (void)state;
    for (size_t bytes = 0; bytes < 40; bytes += 39) {
        assert_int_equal(retrieval_cache_create(bytes, DIMS, &cache, NULL), MEMOS_OK);
        struct retrieval_cache_key key = key_of(cache, 1);
        retrieval_cache_put(cache, &key, vector);
        assert_null(retrieval_cache_get(cache, &key));
        assert_int_equal(retrieval_cache_count(cache), 0);
        retrieval_cache_destroy(&cache);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_forgets_what_was_not_asked_for),
        cmocka_unit_test(it_may_remember_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
