/* Pages of keys and values: who has them, and what is found again.
 *
 * If these failed, one request would read what another one cached, or the cache would lose its
 * pages until nobody could be served. */
#include "paramem/kv_cache.h"
#include "tests/paramem/refusing.h"
#include "tests/paramem/tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGES 23
#define KEYS 40

#define OK(call) assert_int_equal(call, MEMOS_OK)

static struct kern_ctx *ctx;
static const uint8_t fingerprint[32] = {1, 2, 3};

static struct paramem_kv_cache *cache_of(enum kern_dtype dtype, const uint8_t *print)
{
    struct paramem_kv_cache *cache = NULL;
    struct paramem_kv_options options = {.ctx = ctx,
        .dtype = dtype,
        .layers = 3,
        .heads = 2,
        .head_dim = 16,
        .pages_count = PAGES,
        .fingerprint = print};
    OK(paramem_kv_create(&options, &cache, NULL));
    return cache;
}

static struct paramem_key key_of(struct paramem_kv_cache *cache, uint32_t number)
{
    struct paramem_key root = paramem_kv_root(cache);
    uint32_t ids[KERN_PAGE_TOKENS] = {number};
    return paramem_kv_key(&root, ids);
}

static void keys_differ(void **state)
{
    (void)state;
    const uint8_t other[32] = {1, 2, 4};
    struct paramem_kv_cache *caches[] = {cache_of(KERN_F32, fingerprint),
        cache_of(KERN_BF16, fingerprint), cache_of(KERN_F32, other)};
    struct paramem_key roots[3];
    uint32_t ids[KERN_PAGE_TOKENS] = {0};
    for (size_t i = 0; i < 3; i++) {
        roots[i] = paramem_kv_root(caches[i]);
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(&roots[i], &roots[j], sizeof roots[i]);
        }
        paramem_kv_destroy(&caches[i]);
    }
    /* Every id counts, with all its bytes, and so does what stands before. */
    struct paramem_key plain = paramem_kv_key(&roots[0], ids);
    struct paramem_key again = paramem_kv_key(&roots[0], ids);
    assert_memory_equal(&plain, &again, sizeof plain);
    for (size_t i = 0; i < (size_t)KERN_PAGE_TOKENS * 32; i++) {
        ids[i / 32] ^= UINT32_C(1) << i % 32;
        struct paramem_key key = paramem_kv_key(&roots[0], ids);
        assert_memory_not_equal(&key, &plain, sizeof key);
        ids[i / 32] = 0;
    }
    struct paramem_key after = paramem_kv_key(&plain, ids);
    assert_memory_not_equal(&after, &plain, sizeof after);
}

static void the_oldest_goes_first(void **state)
{
    (void)state;
    struct paramem_kv_cache *cache = cache_of(KERN_F32, fingerprint);
    uint32_t pages[PAGES], page = 0;
    for (uint32_t i = 0; i < PAGES; i++) {
        struct paramem_key key = key_of(cache, i);
        pages[i] = paramem_kv_take(cache);
        paramem_kv_name(cache, pages[i], &key, 0);
    }
    assert_int_equal(paramem_kv_available(cache), 0);
    for (uint32_t i = 0; i < PAGES; i++) {
        paramem_kv_release(cache, pages[i]);
    }
    assert_int_equal(paramem_kv_kept(cache), PAGES);
    /* 0 is wanted again, so that 1 and 2 are the oldest. */
    struct paramem_key first = key_of(cache, 0);
    assert_true(paramem_kv_find(cache, &first, &page));
    assert_int_equal(page, pages[0]);
    assert_true(paramem_kv_find(cache, &first, &page)); /* twice in use */
    paramem_kv_release(cache, page);
    assert_int_equal(paramem_kv_available(cache), PAGES - 1);
    paramem_kv_release(cache, page);
    assert_int_equal(paramem_kv_take(cache), pages[1]);
    assert_int_equal(paramem_kv_take(cache), pages[2]);
    for (uint32_t i = 0; i < PAGES; i++) {
        struct paramem_key key = key_of(cache, i);
        bool found = paramem_kv_find(cache, &key, &page);
        assert_int_equal(found, i != 1 && i != 2);
        assert_true(!found || page == pages[i]);
    }
    paramem_kv_destroy(&cache);
}

/* Two sequences compute the same page: the first that names it is found, the second is theirs. */
static void one_page_a_key(void **state)
{
    (void)state;
    struct paramem_kv_cache *cache = cache_of(KERN_E4M3, fingerprint);
    struct paramem_key key = key_of(cache, 7);
    uint32_t a = paramem_kv_take(cache), b = paramem_kv_take(cache), page = 0;
    paramem_kv_name(cache, a, &key, 0);
    paramem_kv_name(cache, b, &key, 0);
    paramem_kv_release(cache, a);
    paramem_kv_release(cache, b);
    assert_int_equal(paramem_kv_kept(cache), 1);
    assert_int_equal(paramem_kv_available(cache), PAGES);
    assert_true(paramem_kv_find(cache, &key, &page));
    assert_int_equal(page, a);
    paramem_kv_destroy(&cache);
}

/* ---- against a plain model ----------------------------------------------------------------- */

#define OWNER_OF(key) (1 + (uint64_t)(key) % 3)

struct plain {
    uint32_t uses[PAGES];
    int key[PAGES]; /* -1: none */
};

static size_t plain_in_use(const struct plain *plain)
{
    size_t count = 0;
    for (size_t i = 0; i < PAGES; i++) {
        count += plain->uses[i] > 0;
    }
    return count;
}

static void plain_take(struct plain *plain, struct paramem_kv_cache *cache)
{
    uint32_t page = paramem_kv_take(cache);
    assert_true(page < PAGES && plain->uses[page] == 0);
    plain->uses[page] = 1;
    plain->key[page] = -1;
}

static void plain_name(struct plain *plain, struct paramem_kv_cache *cache, uint32_t page, int key)
{
    struct paramem_key full = key_of(cache, (uint32_t)key);
    bool had = false;
    if (plain->uses[page] == 0 || plain->key[page] >= 0) {
        return;
    }
    paramem_kv_name(cache, page, &full, OWNER_OF(key));
    for (size_t i = 0; i < PAGES; i++) {
        had |= plain->key[i] == key;
    }
    plain->key[page] = had ? -1 : key;
}

static void plain_find(struct plain *plain, struct paramem_kv_cache *cache, int key)
{
    struct paramem_key full = key_of(cache, (uint32_t)key);
    uint32_t page = 0;
    bool has = false;
    for (size_t i = 0; i < PAGES; i++) {
        has |= plain->key[i] == key;
    }
    assert_int_equal(paramem_kv_find(cache, &full, &page), has);
    if (has) {
        assert_int_equal(plain->key[page], key);
        plain->uses[page]++;
    }
}

/* What one owner has is not found any more, or (0) what anybody has. */
static void plain_drop(struct plain *plain, struct paramem_kv_cache *cache, uint64_t owner)
{
    size_t kept = 0;
    paramem_kv_drop(cache, owner);
    for (size_t i = 0; i < PAGES; i++) {
        if (plain->key[i] >= 0 && (owner == 0 || OWNER_OF(plain->key[i]) == owner)) {
            plain->key[i] = -1;
        }
        kept += plain->key[i] >= 0 && plain->uses[i] == 0;
    }
    assert_int_equal(paramem_kv_kept(cache), kept);
}

static void random_use(void **unused)
{
    (void)unused;
    const char *given = getenv("MEMOS_TEST_SEED");
    uint64_t state = given ? strtoull(given, NULL, 0) : 20261127;
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)state);
    struct paramem_kv_cache *cache = cache_of(KERN_F16, fingerprint);
    struct plain plain = {0};
    memset(plain.key, 0xff, sizeof plain.key);
    for (size_t step = 0; step < 20000; step++) {
        uint32_t page = (uint32_t)tiny_below(&state, PAGES);
        int key = (int)tiny_below(&state, KEYS);
        switch (tiny_below(&state, step % 16 == 0 ? 5 : 4)) {
        case 4:
            plain_drop(&plain, cache, tiny_below(&state, 4));
            break;
        case 0:
            if (paramem_kv_available(cache) > 0) {
                plain_take(&plain, cache);
            }
            break;
        case 1:
            plain_name(&plain, cache, page, key);
            break;
        case 2:
            plain_find(&plain, cache, key);
            break;
        default:
            if (plain.uses[page] > 0) {
                paramem_kv_release(cache, page);
                plain.uses[page]--;
            }
            break;
        }
        assert_int_equal(PAGES - paramem_kv_available(cache), plain_in_use(&plain));
    }
    paramem_kv_destroy(&cache);
}

/* ---- memory ends --------------------------------------------------------------------------- */

static void too_little_memory_is_told(void **state)
{
    (void)state;
    struct paramem_kv_cache *cache = NULL;
    struct memos_error err = {0};
    struct paramem_kv_options options = {.ctx = ctx,
        .dtype = KERN_F32,
        .layers = 3,
        .heads = 2,
        .head_dim = 16,
        .pages_count = PAGES,
        .fingerprint = fingerprint};
    for (long i = 0; i < 5; i++) {
        refusing_at = i;
        assert_int_equal(paramem_kv_create(&options, &cache, &err), MEMOS_NO_MEMORY);
        assert_null(cache);
    }
    /* The pages come last: what they needed is said. */
    char want[32];
    (void)snprintf(want, sizeof want, "%zu bytes",
        PAGES * paramem_kv_page_bytes(KERN_F32, options.layers, 2, 16));
    assert_non_null(strstr(err.text, want));
    refusing_at = -1;
    paramem_kv_destroy(&cache);
}

static int setup(void **state)
{
    struct kern_options options = {.backend = "ref", .threads = 1};
    (void)state;
    return kern_ctx_create(&options, &ctx, NULL) == MEMOS_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    kern_ctx_destroy(&ctx);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_differ),
        cmocka_unit_test(the_oldest_goes_first),
        cmocka_unit_test(one_page_a_key),
        cmocka_unit_test(random_use),
        cmocka_unit_test(too_little_memory_is_told),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
