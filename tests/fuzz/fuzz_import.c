/* The readers of imports on any bytes. The first byte chooses the reader: j JSON lines, m messages,
 * c a ChatGPT export, t text, d Markdown, anything else: whatever it is taken for.
 *
 * Whatever comes, an item is UTF-8 where it must be, lies in bounds, and shows no control character
 * on a terminal. */
#include "tools/memosctl/import.h"
#include "tools/memosctl/text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct state {
    size_t bytes;
    bool is_text;
};

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_shown(struct memos_bytes text)
{
    struct memos_buffer shown = memos_buffer_make(1 << 24);
    ctl_text_clean(&shown, text, false);
    require(memos_bytes_utf8(memos_buffer_view(&shown)));
    for (size_t i = 0; i < shown.size; i++) {
        require(shown.data[i] >= 0x20 && shown.data[i] != 0x7f);
    }
    memos_buffer_reset(&shown);
    (void)ctl_text_fit(&shown, text, 7);
    memos_buffer_free(&shown);
}

static enum memos_status take(
    void *self, const struct ctl_import_item *item, struct memos_error *err)
{
    const struct state *state = self;
    (void)err;
    require(item->text.size > 0);
    require(item->pairs_count <= CTL_IMPORT_PAIRS_MAX && item->tags_count <= CTL_IMPORT_TAGS_MAX);
    if (state->is_text) {
        require(memos_bytes_utf8(item->text) && memos_bytes_utf8(item->title));
        require(item->offset <= state->bytes && item->length <= state->bytes - item->offset);
    }
    check_shown(item->text);
    check_shown(item->title);
    check_shown(item->speaker);
    return MEMOS_OK;
}

static enum memos_status bad(void *self, uint64_t line, const char *why, struct memos_error *err)
{
    (void)self;
    (void)line;
    (void)err;
    require(why && why[0]);
    return MEMOS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char letters[] = "?jmctd";
    struct ctl_import_map map = {.names = {[CTL_IMPORT_SPACE] = "conv"}};
    struct ctl_import_options options = {"file", &map, 100};
    struct memos_error err = {0};
    int64_t time_us;
    if (size == 0) {
        return 0;
    }
    struct memos_bytes bytes = memos_bytes_make(data + 1, size - 1);
    const char *letter = data[0] ? strchr(letters, data[0]) : NULL;
    enum ctl_import_format format = CTL_IMPORT_UNKNOWN;
    if (letter) {
        format = (enum ctl_import_format)(letter - letters);
    }
    if (format == CTL_IMPORT_UNKNOWN) {
        format = ctl_import_detect(bytes, "file");
        if (ctl_import_time(bytes, &time_us, &err) == MEMOS_OK) {
            require(memos_bytes_utf8(bytes));
        }
    }
    struct state state = {bytes.size, format == CTL_IMPORT_TEXT || format == CTL_IMPORT_MARKDOWN};
    struct ctl_import_sink sink = {take, bad, &state};
    if (ctl_import_read(format, bytes, &options, &sink, &err) != MEMOS_OK) {
        require(err.text[0]);
    }
    return 0;
}
