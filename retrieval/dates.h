/* Dates in English text: "8 May 2023", "last Friday", "two weeks ago", "between May and July".
 *
 * Each is given as a range of time, resolved against a reference moment: of a memory, when it was
 * said; of a question, now. All in UTC. What people leave open is resolved like this:
 *
 *  - a day without year ("14 June") is the one nearest to the reference, before or after;
 *  - a month, season, weekday or holiday alone ("in May", "on Monday") is the latest that has
 *    begun before the reference's own day; "last" and "next" are the nearest that are wholly
 *    before and after;
 *  - weeks begin on Monday; "last week" is the calendar week before; "the last week" and "the past
 *    three months" end now;
 *  - "two weeks ago" is a week around that day, "two months ago" that month, "two years ago" that
 *    year; "a few" is two to six, "a couple" one to three, "several" three to ten;
 *  - 5/8/2023 is the 8th of May, 13/8/2023 the 13th of August, 8.5.2023 the 8th of May;
 *  - summer is June to August; the winter of 2023 began in December 2022;
 *  - "since", "after", "before" and "until" give ranges that are open to one side.
 *
 * A reference of 0, or outside of the years 1 to 9999, is none: then only what is complete in
 * itself is found.
 *
 * Any bytes are taken; time is linear in them; no memory is needed but a fixed window on the
 * stack. Threads: safe. */
#ifndef RETRIEVAL_DATES_H
#define RETRIEVAL_DATES_H

#include "proto/bytes.h"
#include "retrieval/calendar.h"

/* Ends of ranges that are open. */
#define RETRIEVAL_DATE_BEGIN INT64_MIN
#define RETRIEVAL_DATE_END INT64_MAX

enum retrieval_date_kind {
    RETRIEVAL_DATE_EXPLICIT = 1, /* stands for itself: "8 May 2023", "2022" */
    RETRIEVAL_DATE_RELATIVE = 2, /* was resolved by the reference: "yesterday", "in May" */
};

struct retrieval_date {
    int64_t from_us, to_us; /* [from, to) */
    enum retrieval_date_kind kind;
    size_t at, size; /* bytes of the text that say so */
};

/* The first out_max dates of a text, in its order; how many there are. */
size_t retrieval_dates_find(
    struct memos_bytes text, int64_t reference_us, struct retrieval_date *out, size_t out_max);

#endif
