/* A wrong token here is a wrong word in an answer, and nothing else would notice. */
#include "tests/cuda/check.cuh"

static float draw_float(void)
{
    return (float)((double)(emulate_random() >> 40) * 0x1p-24);
}

struct logits_kind {
    const char *name;
    float scale;
    int levels; /* > 0: so many different numbers only: many are equal */
};

static std::vector<float> logits_of(const struct logits_kind &kind, size_t count)
{
    std::vector<float> out = check_floats(count, kind.scale);
    for (float &x : out) {
        if (kind.levels > 0) {
            x = (float)(int)(x * (float)kind.levels) / (float)kind.levels;
        }
        if (emulate_random() % 50 == 0) {
            x = -INFINITY;
        }
    }
    return out;
}

/* Where the running sum meets draw * sum within rounding, either of two ids is right: the one that
 * was taken must then be the same for a draw that differs a little. The smallest offset is what all
 * ids may weigh together that are below the device's unit of weight, 2^-44 of the largest: it never
 * draws them. */
static bool nearly(const struct kern_sample &want, size_t row, const std::vector<float> &logits,
    uint32_t got, void *workspace)
{
    struct kern_sample_row how = want.rows[row];
    for (float off : {-2e-6F, -1e-6F, 0.0F, 3e-10F, 1e-6F, 2e-6F}) {
        for (float p = -1e-6F; p <= 1e-6F; p += 1e-6F) {
            struct kern_sample_row one = how;
            std::vector<float> copy(
                &logits[row * want.vocab], &logits[row * want.vocab] + want.vocab);
            uint32_t id, tops[KERN_TOP_MAX];
            float logprob, top_logprobs[KERN_TOP_MAX];
            one.draw = fminf(fmaxf(how.draw + off, 0), 0.9999999F);
            one.top_p = how.top_p < 1 ? fminf(how.top_p + p, 1) : 1;
            one.min_p = how.min_p > 0 ? fminf(how.min_p * (1 + p), 1) : 0;
            struct kern_sample a = {copy.data(), &one, want.adjusts, 1, want.vocab, 0, &id,
                &logprob, tops, top_logprobs, workspace};
            kern_ref_sample(check_ctx, &a);
            if (id == got) {
                return true;
            }
        }
    }
    return false;
}

static void run(size_t vocab, size_t rows, const struct logits_kind &kind, size_t top)
{
    std::vector<float> logits = logits_of(kind, rows * vocab);
    std::vector<struct kern_adjust> adjusts;
    std::vector<struct kern_sample_row> how(rows);
    for (struct kern_sample_row &row : how) {
        row.temperature = emulate_random() % 4 == 0 ? 0 : 0.3F + draw_float() * 1.5F;
        size_t most = emulate_random() % 2 ? vocab + 3 : 60; /* few: what most requests ask for */
        row.top_k = emulate_random() % 2 ? (uint32_t)check_size(1, most) : 0;
        row.top_p = emulate_random() % 2 ? 0.05F + 0.9F * draw_float() : 1;
        row.min_p = emulate_random() % 3 ? 0 : 0.2F * draw_float();
        row.repetition = 1.3F;
        row.draw = emulate_random() % 8 == 0 ? 0 : fminf(draw_float(), 0.99999F);
        row.adjust_start = (uint32_t)adjusts.size();
        for (uint32_t id = 0; id < vocab; id++) {
            if (emulate_random() % 40 == 0) {
                adjusts.push_back({id, (uint32_t)(emulate_random() % 2),
                    emulate_random() % 3 ? check_float() : -INFINITY});
            }
        }
        row.adjust_count = (uint32_t)adjusts.size() - row.adjust_start;
    }
    adjusts.push_back({0, 0, 0});
    top = top < vocab ? top : vocab;
    check_array<float> d_logits(logits), logprobs(rows), top_logprobs(rows * top + 1);
    check_array<struct kern_sample_row> d_how(how);
    check_array<struct kern_adjust> d_adjusts(adjusts);
    check_array<uint32_t> ids(rows), top_ids(rows * top + 1);
    check_array<unsigned char> workspace(
        kern_cuda_sample_workspace_bytes(check_device, rows, vocab) + 1);
    std::vector<uint64_t> ref_workspace(vocab * rows + 64);
    struct kern_sample a = {d_logits.device, d_how.device, d_adjusts.device, rows, vocab, top,
        ids.device, logprobs.device, top_ids.device, top_logprobs.device, workspace.device};
    struct kern_sample want = {d_logits.host.data(), how.data(), adjusts.data(), rows, vocab, top,
        ids.host.data(), logprobs.host.data(), top_ids.host.data(), top_logprobs.host.data(),
        ref_workspace.data()};
    kern_cuda_sample(check_device, &a);
    check_no_faults();
    kern_ref_sample(check_ctx, &want);
    for (size_t r = 0; r < rows; r++) {
        if (ids.device[r] != ids.host[r]) {
            print_message(
                "%s, vocab %zu: %u, not %u\n", kind.name, vocab, ids.device[r], ids.host[r]);
            assert_true(nearly(want, r, logits, ids.device[r], ref_workspace.data()));
        } else {
            check_close(&logprobs.host[r], &logprobs.device[r], 1, 1e-4);
        }
    }
    assert_memory_equal(top_ids.device, top_ids.host.data(), rows * top * sizeof(uint32_t));
    check_close(top_logprobs.host.data(), top_logprobs.device, rows * top, 1e-5);
}

static void test_kinds(void **)
{
    static const struct logits_kind kinds[] = {
        {"wide", 4, 0}, {"narrow", 0.01F, 0}, {"levels", 3, 4}, {"equal", 0, 0}};
    static const size_t vocabs[] = {1, 5, 33, 500, 4096, 5003};
    for (const struct logits_kind &kind : kinds) {
        for (size_t vocab : vocabs) {
            run(vocab, 2, kind, vocab % 3 == 0 ? KERN_TOP_MAX : 3);
        }
    }
}

static void test_not_numbers(void **)
{
    for (int round = 0; round < 4; round++) {
        std::vector<float> logits = check_floats(50);
        logits[7] = round == 0 ? NAN : round == 1 ? INFINITY : logits[7];
        for (float &x : logits) {
            x = round == 2 ? -INFINITY : round == 3 ? NAN : x;
        }
        std::vector<struct kern_sample_row> how(1, {0.8F, 1, 0, 1, 0.4F, 0, 0, 0});
        check_array<float> d_logits(logits), logprob(1);
        check_array<struct kern_sample_row> d_how(how);
        check_array<uint32_t> id(1);
        std::vector<uint64_t> workspace(128);
        struct kern_sample a = {d_logits.device, d_how.device, nullptr, 1, 50, 0, id.device,
            logprob.device, nullptr, nullptr, nullptr};
        struct kern_sample want = {d_logits.host.data(), how.data(), nullptr, 1, 50, 0,
            id.host.data(), logprob.host.data(), nullptr, nullptr, workspace.data()};
        kern_cuda_sample(check_device, &a);
        check_no_faults();
        kern_ref_sample(check_ctx, &want);
        assert_true(isnan(logprob.device[0]) && isnan(logprob.host[0]));
        if (round > 0) { /* a NaN's weight in the draw is nobody's */
            assert_int_equal(id.device[0], id.host[0]);
        }
        assert_true(id.device[0] != 7 || round == 1);
    }
}

static void test_logprobs(void **)
{
    for (int round = 0; round < 8; round++) {
        size_t rows = check_size(1, 4), vocab = check_size(1, 3000);
        std::vector<float> logits = check_floats(rows * vocab, 5);
        std::vector<uint32_t> ids(rows);
        for (uint32_t &id : ids) {
            id = (uint32_t)check_size(0, vocab - 1);
        }
        if (round == 7) {
            logits[0] = NAN;
        }
        check_array<float> d_logits(logits), out(rows);
        check_array<uint32_t> d_ids(ids);
        kern_cuda_logprobs(check_device, d_logits.device, d_ids.device, rows, vocab, out.device);
        check_no_faults();
        kern_ref_logprobs(check_ctx, logits.data(), ids.data(), rows, vocab, out.host.data());
        check_close(out.host.data(), out.device, rows, 1e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_not_numbers),
        cmocka_unit_test(test_logprobs),
    };
    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
