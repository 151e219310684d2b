/* Any bytes, searched for dates: ranges are never empty, places lie in the text, in its order. */
#include "retrieval/dates.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { DATES_MAX = 64 };
    static const int64_t references[] = {0, INT64_C(1692198000000000), INT64_MIN, 1,
        INT64_C(-62135596800000000), INT64_C(253402300799000000)};
    struct memos_bytes text = memos_bytes_make(data, size);
    struct retrieval_date dates[DATES_MAX];

    for (size_t r = 0; r < sizeof references / sizeof references[0]; r++) {
        size_t count = retrieval_dates_find(text, references[r], dates, DATES_MAX), end = 0;
        memos_assert(count <= DATES_MAX);
        for (size_t i = 0; i < count; i++) {
            memos_assert(dates[i].from_us < dates[i].to_us);
            memos_assert(dates[i].at >= end && dates[i].size <= size - dates[i].at);
            end = dates[i].at + dates[i].size;
        }
    }
    return 0;
}
