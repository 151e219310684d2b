/* Receipts for people: what the answer was, and a line for each cube. */
#include "tools/memosctl/receipt.h"

static void field_hex(const struct ctl_paper *paper, const char *name, ProtobufCBinaryData data)
{
    struct memos_buffer hex = memos_buffer_make(4096);
    ctl_hex_append(&hex, memos_bytes_make(data.data, data.len));
    ctl_paper_field(paper, name, memos_buffer_view(&hex));
    memos_buffer_free(&hex);
}

static void print_head(struct ctl *ctl, const Memos__Receipt *receipt)
{
    char id[MEMOS_ID_TEXT_BYTES], time[MEMOS_TIME_TEXT_BYTES];
    const struct ctl_paper *paper = &ctl->paper;
    struct memos_id name = ctl_id_of(receipt->id);
    ctl_paper_fieldf(paper, "receipt", "%s", memos_id_format(&name, id));
    ctl_paper_fieldf(paper, "time", "%s", memos_time_format(receipt->time_us, time));
    if (receipt->space[0]) {
        ctl_paper_fieldf(paper, "space", "%s as of record %llu", receipt->space,
            (unsigned long long)receipt->seq);
        field_hex(paper, "record", receipt->head);
    }
    ctl_paper_field(paper, "for", memos_bytes_of(receipt->principal));
    ctl_paper_fieldf(paper, "model", "%s, by %s", receipt->model, receipt->worker);
    field_hex(paper, "fingerprint", receipt->fingerprint);
    field_hex(paper, "prompt", receipt->prompt_hash);
    field_hex(paper, "answer", receipt->answer_hash);
    for (size_t i = 0; i < receipt->n_notes; i++) {
        ctl_paper_field(paper, "note", memos_bytes_of(receipt->notes[i]));
    }
}

static const struct ctl_column columns[] = {
    {"MARK", false, false},
    {"ID", false, false},
    {"V", true, false},
    {"USED AS", false, false},
    {"TOKENS", true, false},
    {"FROM", true, false},
    {"BYTES", true, false},
    {"MS", true, false},
    {"SCORE", true, false},
    {"VERDICT", false, true},
};
enum { COLUMNS = sizeof columns / sizeof columns[0] };

static void add_verdict(struct ctl_table *table, const struct ctl_receipt_finding *finding)
{
    static const enum ctl_style styles[] = {[CTL_RECEIPT_OK] = CTL_GREEN,
        [CTL_RECEIPT_GONE] = CTL_YELLOW,
        [CTL_RECEIPT_WRONG] = CTL_RED};
    static const char *const texts[] = {[CTL_RECEIPT_OK] = "ok",
        [CTL_RECEIPT_GONE] = "was forgotten",
        [CTL_RECEIPT_WRONG] = "does not match"};
    ctl_table_printf(table, styles[finding->verdict], "%s%s%s", texts[finding->verdict],
        finding->text[0] ? ": " : "", finding->text);
}

static void add_row(struct ctl_table *table, const Memos__ReceiptItem *item,
    const struct ctl_receipt_finding *finding)
{
    char id[MEMOS_ID_TEXT_BYTES];
    const ProtobufCBinaryData none = {0};
    struct memos_id name = ctl_id_of(item->ref ? item->ref->id : none);
    ctl_table_cell(table, CTL_PLAIN, memos_bytes_of(item->mark));
    ctl_table_cell(table, CTL_YELLOW, memos_bytes_of(memos_id_format(&name, id)));
    ctl_table_printf(table, CTL_PLAIN, "%u", item->ref ? item->ref->number : 0);
    ctl_table_printf(table, CTL_PLAIN, "%s%s", worker_used_as_text(item->used_as),
        item->approximate ? ", approximate" : "");
    ctl_table_printf(table, CTL_PLAIN, "%u", item->tokens);
    ctl_table_printf(table, CTL_DIM, "%u", item->first_token);
    ctl_table_printf(table, CTL_PLAIN, "%llu", (unsigned long long)item->bytes);
    ctl_table_printf(table, CTL_PLAIN, "%.1f", (double)item->micros / 1e3);
    if (item->score > 0.0f) {
        ctl_table_printf(table, CTL_DIM, "%.2f", (double)item->score);
    } else {
        ctl_table_cell(table, CTL_DIM, memos_bytes_of("-"));
    }
    if (finding) {
        add_verdict(table, finding);
    }
}

static enum memos_status print_items(struct ctl *ctl, const Memos__Receipt *receipt,
    const struct ctl_receipt_finding *findings, struct memos_error *err)
{
    struct ctl_table table = ctl_table_make(columns, findings ? COLUMNS : COLUMNS - 1);
    for (size_t i = 0; i < receipt->n_items; i++) {
        add_row(&table, receipt->items[i], findings ? &findings[i] : NULL);
    }
    enum memos_status status = ctl_table_print(&table, &ctl->paper, err);
    ctl_table_free(&table);
    if (receipt->n_items == 0) {
        ctl_note(ctl, "no memory was used");
    }
    return status;
}

enum memos_status ctl_receipt_print(struct ctl *ctl, const Memos__Receipt *receipt,
    const struct ctl_receipt_finding *findings, struct memos_error *err)
{
    print_head(ctl, receipt);
    return print_items(ctl, receipt, findings, err);
}
