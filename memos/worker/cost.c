#include "memos/worker/cost.h"

#include <string.h>

#define QUICK 0.33      /* how far the estimate goes with what confirms caution */
#define SLOW 0.05       /* and against it */
#define MARGIN 0.9      /* of reading, that loading may cost */
#define FORGET 0.99     /* with a decision against loading */
#define PRIOR_BYTE 1e-3 /* microseconds: 1 GB/s */
#define PRIOR_FLOP 1e-5 /* microseconds: 100 GFLOP/s */
#define PRIOR_FLOP_DEVICE 1e-8

static const char *const source_texts[WORKER_SOURCES] = {
    [WORKER_HELD] = "held",
    [WORKER_MAPPED] = "mapped",
    [WORKER_WIRE] = "sent",
};

const char *worker_source_text(enum worker_source source)
{
    return source < WORKER_SOURCES ? source_texts[source] : "?";
}

void worker_cost_init(struct worker_cost *cost, uint64_t parameters, bool is_device)
{
    memset(cost, 0, sizeof *cost);
    cost->prior_token_us = 2.0 * (double)parameters * (is_device ? PRIOR_FLOP_DEVICE : PRIOR_FLOP);
}

static size_t place_of(uint64_t units)
{
    size_t place = 0;
    while (units > 1 && place < WORKER_COST_PLACES - 1) {
        units >>= 1;
        place++;
    }
    return place;
}

static void learn(
    struct worker_rates *rates, uint64_t units, uint64_t micros, double upwards, double downwards)
{
    if (units == 0 || micros == 0) {
        return;
    }
    double *each = &rates->each[place_of(units)];
    const double seen = (double)micros / (double)units;
    if (*each <= 0.0) {
        *each = seen;
    } else {
        *each += (seen - *each) * (seen > *each ? upwards : downwards);
    }
}

void worker_cost_saw_read(struct worker_cost *cost, size_t tokens, uint64_t micros)
{
    learn(&cost->read, tokens, micros, SLOW, QUICK);
}

void worker_cost_saw_load(
    struct worker_cost *cost, enum worker_source source, uint64_t bytes, uint64_t micros)
{
    if (source < WORKER_SOURCES && source != WORKER_HELD) {
        learn(&cost->load[source], bytes, micros, QUICK, SLOW);
    }
}

void worker_cost_saw_attach(struct worker_cost *cost, uint64_t bytes, uint64_t micros)
{
    learn(&cost->attach, bytes, micros, QUICK, SLOW);
}

/* The known place that is nearest, the smaller of two; WORKER_COST_PLACES: none is known. */
static size_t nearest(const struct worker_rates *rates, uint64_t units)
{
    const size_t place = place_of(units);
    for (size_t away = 0; away < WORKER_COST_PLACES; away++) {
        if (place >= away && rates->each[place - away] > 0.0) {
            return place - away;
        }
        if (place + away < WORKER_COST_PLACES && rates->each[place + away] > 0.0) {
            return place + away;
        }
    }
    return WORKER_COST_PLACES;
}

static double believed(const struct worker_rates *rates, uint64_t units, double prior)
{
    const size_t place = nearest(rates, units);
    return (double)units * (place < WORKER_COST_PLACES ? rates->each[place] : prior);
}

static void fade(struct worker_rates *rates, uint64_t units)
{
    const size_t place = nearest(rates, units);
    if (place < WORKER_COST_PLACES) {
        rates->each[place] *= FORGET;
    }
}

struct worker_choice worker_cost_choose(
    struct worker_cost *cost, enum worker_source source, uint64_t bytes, size_t tokens)
{
    const double load =
        source == WORKER_HELD ? 0.0 : believed(&cost->load[source], bytes, PRIOR_BYTE);
    const double attach = believed(&cost->attach, bytes, PRIOR_BYTE);
    const double read = believed(&cost->read, tokens, cost->prior_token_us);
    const struct worker_choice choice = {.load = load + attach <= MARGIN * read,
        .load_us = (uint64_t)load,
        .attach_us = (uint64_t)attach,
        .read_us = (uint64_t)read};
    if (!choice.load) {
        if (source != WORKER_HELD) {
            fade(&cost->load[source], bytes);
        }
        fade(&cost->attach, bytes);
    }
    return choice;
}
