/* What a user would lose: an answer that comes later because memory was loaded that would have been
 * read sooner, or one that waits for reading although what was read lies there. */
#include "memos/worker/cost.h"

#include "tests/paramem/tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A machine that always takes the same time for the same thing. */
struct machine {
    double token_us, attention_us; /* a token; a token for each 1,000 before it */
    double start_us, byte_us;      /* a load; a byte of it */
    double attach_byte_us;
    double token_bytes;
};

static uint64_t read_us(const struct machine *m, size_t tokens)
{
    const double n = (double)tokens;
    return (uint64_t)(m->token_us * n + m->attention_us * n * n / 2000.0) + 1;
}

static uint64_t load_us(const struct machine *m, uint64_t bytes)
{
    return (uint64_t)(m->start_us + m->byte_us * (double)bytes) + 1;
}

static uint64_t attach_us(const struct machine *m, uint64_t bytes)
{
    return (uint64_t)(m->attach_byte_us * (double)bytes) + 1;
}

static void teach(struct worker_cost *cost, const struct machine *m, enum worker_source source)
{
    for (size_t tokens = 16; tokens <= 8192; tokens *= 2) {
        const uint64_t bytes = (uint64_t)(m->token_bytes * (double)tokens);
        for (int i = 0; i < 20; i++) {
            worker_cost_saw_read(cost, tokens, read_us(m, tokens));
            worker_cost_saw_load(cost, source, bytes, load_us(m, bytes));
            worker_cost_saw_attach(cost, bytes, attach_us(m, bytes));
        }
    }
}

static const struct machine machines[] = {
    {20000, 500, 300, 4e-4, 1e-4, 32768}, /* 1B on two cores, mapped: loading always wins */
    {20, 1, 300, 1e-3, 2e-5, 32768},      /* a GPU over the wire */
    {2, 0.1, 300, 1e-3, 2e-5, 131072},    /* a quick GPU, large captures: reading always wins */
    {100, 2, 100000, 1e-4, 1e-5, 4096},   /* a far broker: long texts alone are worth it */
};

/* Whatever the machine, no decision costs more than what was possible, and a twentieth. */
static void no_answer_is_slower(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        const struct machine *m = &machines[i];
        struct worker_cost cost;
        worker_cost_init(&cost, 1000000000, false);
        teach(&cost, m, WORKER_MAPPED);
        for (size_t tokens = 32; tokens <= 8192; tokens += 97) {
            const uint64_t bytes = (uint64_t)(m->token_bytes * (double)tokens);
            const struct worker_choice choice =
                worker_cost_choose(&cost, WORKER_MAPPED, bytes, tokens);
            const double load = (double)(load_us(m, bytes) + attach_us(m, bytes));
            const double read = (double)read_us(m, tokens);
            if (choice.load) {
                assert_true(load <= 1.05 * read);
            } else {
                assert_true(load >= 0.4 * read); /* what is so much better is not missed */
            }
        }
    }
}

static void what_is_there_is_used_at_once(void **state)
{
    (void)state;
    struct worker_cost cost;
    worker_cost_init(&cost, 1000000000, false); /* 20 ms a token, before anything is known */
    const struct worker_choice held =
        worker_cost_choose(&cost, WORKER_HELD, (uint64_t)100 * 32768, 100);
    assert_true(held.load);
    assert_int_equal(held.load_us, 0);
    assert_int_equal(held.read_us, 2000000);
    worker_cost_init(&cost, 1000, false); /* 20 ns a token: read it */
    assert_false(worker_cost_choose(&cost, WORKER_WIRE, (uint64_t)100 * 32768, 100).load);
}

/* One access to a disk that slept ends loading for a while, not for ever. */
static void one_slow_load_is_forgiven(void **state)
{
    (void)state;
    const struct machine *m = &machines[0];
    const uint64_t bytes = (uint64_t)(m->token_bytes * 64);
    struct worker_cost cost;
    worker_cost_init(&cost, 1000000000, false);
    teach(&cost, m, WORKER_MAPPED);
    assert_true(worker_cost_choose(&cost, WORKER_MAPPED, bytes, 64).load);
    worker_cost_saw_load(&cost, WORKER_MAPPED, bytes, 60000000);
    assert_false(worker_cost_choose(&cost, WORKER_MAPPED, bytes, 64).load);
    int refused = 1;
    while (!worker_cost_choose(&cost, WORKER_MAPPED, bytes, 64).load) {
        assert_true(refused++ < 1000);
    }
    worker_cost_saw_load(&cost, WORKER_MAPPED, bytes, load_us(m, bytes));
    assert_true(worker_cost_choose(&cost, WORKER_MAPPED, bytes, 64).load);
}

/* Requests beside it make reading seem slow; that must not make loading seem quick. */
static void company_does_not_deceive(void **state)
{
    (void)state;
    struct worker_cost cost;
    uint64_t random = 7;
    worker_cost_init(&cost, 1000000000, false);
    for (int i = 0; i < 200; i++) {
        const uint64_t crowd = 1 + tiny_below(&random, 4);
        worker_cost_saw_read(&cost, 1000, 100000 * crowd);
    }
    const struct worker_choice choice = worker_cost_choose(&cost, WORKER_WIRE, 1 << 20, 1000);
    assert_in_range(choice.read_us, 100000, 180000);
}

static void nothing_is_learned_from_nothing(void **state)
{
    (void)state;
    struct worker_cost cost, same;
    worker_cost_init(&cost, 5, true);
    same = cost;
    worker_cost_saw_read(&cost, 0, 100);
    worker_cost_saw_read(&cost, 100, 0);
    worker_cost_saw_load(&cost, WORKER_HELD, 100, 100);
    worker_cost_saw_load(&cost, WORKER_SOURCES, 100, 100);
    worker_cost_saw_attach(&cost, 0, 5);
    assert_memory_equal(&cost, &same, sizeof cost);
    assert_string_equal(worker_source_text(WORKER_MAPPED), "mapped");
    assert_string_equal(worker_source_text(WORKER_SOURCES), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_answer_is_slower),
        cmocka_unit_test(what_is_there_is_used_at_once),
        cmocka_unit_test(one_slow_load_is_forgiven),
        cmocka_unit_test(company_does_not_deceive),
        cmocka_unit_test(nothing_is_learned_from_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
