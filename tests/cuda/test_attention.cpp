/* A row that sees a token too many or too few, or another sequence's page, answers from what it
 * should not know. */
#include "tests/cuda/check.cuh"

static const enum kern_dtype types[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_E4M3};

/* What a step asks for. */
struct step {
    enum kern_dtype type;
    size_t kv_heads, group, d, sequences, rows_max, length_max, window;
};

/* An output in bf16 may be one step of bf16 beside that. */
static void compare(enum kern_dtype type, enum kern_dtype out_type, const void *want_out,
    const void *got_out, size_t count)
{
    std::vector<float> want = check_values(out_type, want_out, count);
    std::vector<float> got = check_values(out_type, got_out, count);
    for (size_t i = 0; i < count && out_type == KERN_BF16; i++) {
        float off = got[i] - want[i], step = fabsf(want[i]) / 128;
        got[i] -= off > step ? step : off < -step ? -step : off;
    }
    check_close(want.data(), got.data(), count, type == KERN_F32 ? 3e-5 : 3e-2);
}

/* Put random keys and values at all tokens that there are, on both sides. */
static void fill(const struct kern_kv &kv, const struct kern_kv &host,
    const std::vector<uint32_t> &lengths, const std::vector<uint32_t> &tables, size_t stride)
{
    for (size_t b = 0; b < lengths.size(); b++) {
        std::vector<uint32_t> slots;
        for (size_t i = 0; i < lengths[b]; i++) {
            slots.push_back((uint32_t)(tables[b * stride + i / 32] * 32 + i % 32));
        }
        std::vector<float> key = check_floats(slots.size() * kv.heads * kv.head_dim);
        std::vector<float> value = check_floats(slots.size() * kv.heads * kv.head_dim);
        if (slots.empty()) {
            continue;
        }
        check_array<float> d_key(key), d_value(value);
        check_array<uint32_t> d_slots(slots);
        struct kern_kv_write put = {&kv, nullptr, d_key.device, d_value.device, KERN_F32, nullptr,
            d_slots.device, slots.size(), kv.heads * kv.head_dim};
        struct kern_kv_write want = {&host, nullptr, key.data(), value.data(), KERN_F32, nullptr,
            slots.data(), slots.size(), kv.heads * kv.head_dim};
        kern_cuda_kv_write(check_device, &put);
        kern_ref_kv_write(check_ctx, &want);
    }
    check_no_faults();
}

static void run(const struct step &s)
{
    std::vector<uint32_t> starts(1, 0), lengths, tables;
    size_t stride = (s.length_max + 31) / 32 + 1, heads = s.kv_heads * s.group;
    size_t pages = s.sequences * stride + 1,
           page_bytes = kern_kv_page_bytes(s.type, s.kv_heads, s.d);
    for (size_t b = 0; b < s.sequences; b++) {
        size_t rows = check_size(1, s.rows_max);
        size_t length = rows > s.length_max ? rows : check_size(rows, s.length_max);
        bool unused = s.sequences > 1 && emulate_random() % 5 == 0;
        starts.push_back(starts[b] + (uint32_t)rows);
        lengths.push_back(unused ? 0 : (uint32_t)length);
        for (size_t i = 0; i < stride; i++) { /* scattered; unused entries name no page */
            bool used = !unused && i < (length + 31) / 32;
            tables.push_back(used ? (uint32_t)((b * stride + i) * 7 % pages) : 0x7fffffff);
        }
    }
    while (pages % 7 == 0) {
        pages++;
    }
    for (size_t b = 0; b < s.sequences; b++) {
        for (size_t i = 0; i < stride; i++) {
            uint32_t *entry = &tables[b * stride + i];
            *entry = *entry == 0x7fffffff ? *entry : (uint32_t)((b * stride + i) * 7 % pages);
        }
    }
    size_t used = starts[s.sequences], t = used + check_size(0, 2);
    size_t q_stride = heads * s.d + 4 * check_size(0, 2);
    enum kern_dtype out_type = emulate_random() % 2 ? KERN_F32 : KERN_BF16;

    /* Only the tokens that there are have been written. */
    std::vector<unsigned char> memory(pages * page_bytes + 256);
    void *base = (void *)(((uintptr_t)memory.data() + 255) / 256 * 256);
    struct kern_kv host = {base, pages, s.kv_heads, s.d, s.type};
    check_array<unsigned char> d_pages(pages * page_bytes);
    struct kern_kv kv = host;
    kv.pages = d_pages.device;
    fill(kv, host, lengths, tables, stride);

    check_array<float> query(check_floats(t * q_stride));
    check_array<uint32_t> d_starts(starts), d_lengths(lengths), d_tables(tables);
    check_array<unsigned char> out(t * heads * s.d * kern_dtype_bytes(out_type));
    size_t workspace_bytes = kern_cuda_attention_workspace_bytes(
        check_device, t, s.sequences, heads, s.kv_heads, s.d, s.length_max);
    check_array<unsigned char> workspace(workspace_bytes + 1);
    std::vector<double> ref_workspace(s.length_max + s.rows_max);
    struct kern_attention a = {query.device, &kv, d_starts.device, d_lengths.device,
        d_tables.device, t, s.sequences, heads, q_stride, stride, s.rows_max, s.length_max,
        s.window, 1.0F / sqrtf((float)s.d), out.device, out_type, workspace.device};
    struct kern_attention want = a;
    want.query = query.host.data();
    want.kv = &host;
    want.starts = starts.data();
    want.lengths = lengths.data();
    want.tables = tables.data();
    want.out = out.host.data();
    want.workspace = ref_workspace.data();
    kern_cuda_attention(check_device, &a);
    check_no_faults();
    kern_ref_attention(check_ctx, &want);
    size_t count = used * heads * s.d, bytes = kern_dtype_bytes(out_type);
    assert_true(out.written(0, count * bytes));
    for (size_t i = count * bytes; i < out.host.size(); i++) {
        assert_false(out.written(i, 1)); /* rows past the last sequence stay */
    }
    compare(s.type, out_type, out.host.data(), out.device, count);
}

static void test_small(void **)
{
    for (size_t round = 0; round < 24; round++) {
        struct step s = {types[round % 4], check_size(1, 2), check_size(1, 4), 8 * check_size(1, 9),
            check_size(1, 3), check_size(1, 6), check_size(6, 100), 0};
        s.window = round % 3 == 0 ? check_size(1, 70) : 0;
        run(s);
    }
}

static void test_decode(void **)
{
    static const size_t dims[] = {64, 128, 256};
    for (size_t round = 0; round < 12; round++) {
        struct step s = {types[round % 4], check_size(1, 2), check_size(1, 8), dims[round / 4],
            check_size(1, 3), 1, check_size(300, 700), 0};
        s.window = round % 5 == 0 ? check_size(1, 400) : 0;
        run(s);
    }
}

static void test_prefill(void **)
{
    static const size_t dims[] = {64, 128, 256};
    for (size_t round = 0; round < 12; round++) {
        struct step s = {types[round % 4], check_size(1, 2), check_size(1, 4), dims[round / 4],
            check_size(1, 2), check_size(2, 50), check_size(90, 200), 0};
        s.window = round % 5 == 0 ? check_size(1, 100) : 0;
        run(s);
    }
}

/* Few rows after many tokens: several blocks share the tokens. */
static void test_question(void **)
{
    for (size_t round = 0; round < 6; round++) {
        struct step s = {types[1 + round % 3], 1, check_size(1, 3), round % 2 ? 64UL : 128UL,
            check_size(1, 2), check_size(2, 6), check_size(600, 900), 0};
        s.window = round == 5 ? 700 : 0;
        run(s);
    }
}

/* A step in which no sequence has a row launches nothing: a grid may not be empty. */
static void test_no_rows(void **)
{
    for (enum kern_dtype type : types) {
        struct kern_kv kv = {nullptr, 0, 1, 64, type};
        struct kern_attention a = {};
        a.kv = &kv;
        a.t = 2;
        a.sequences = a.heads = a.length_max = 1;
        kern_cuda_attention(check_device, &a);
        check_no_faults();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_prefill),
        cmocka_unit_test(test_question),
        cmocka_unit_test(test_no_rows),
    };
    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
