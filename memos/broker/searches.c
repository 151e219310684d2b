/* Searches: what answers a question, why, and what was said around it. */
#include "memos/broker/state.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PART_NOTE_BYTES = 64 };

static enum memos_status fail_full(struct memos_error *err)
{
    return memos_fail(err, MEMOS_TOO_LARGE, "the reply needs more memory than one may take");
}

/* One search on its way. */
struct searching {
    struct broker_request *rq;
    struct memcube_read *read;
    struct memcube_space space;
    const struct broker_call_search *search;
    struct memcube_docs visible; /* for neighbours */
};

/* ---- one cube -------------------------------------------------------------------------------- */

static enum memos_status cube_short(struct broker_request *rq,
    const struct memcube_version *version, Memos__Cube *cube, struct memos_error *err)
{
    struct memos_id *id = memos_arena_take(&rq->work, 1, sizeof *id);
    if (!id) {
        return fail_full(err);
    }
    memos__cube__init(cube);
    *id = version->id;
    cube->id = (ProtobufCBinaryData){.len = sizeof id->bytes, .data = id->bytes};
    cube->number = version->number;
    return broker_text_make(&rq->work, version->description.external_id, &cube->external_id, err);
}

static enum memos_status cube_of_doc(
    struct searching *s, uint32_t doc, Memos__Cube **out, struct memos_error *err)
{
    const struct broker_wanted wanted = {.payload = !s->search->no_payload};
    struct memcube_version version;
    Memos__Cube *cube = memos_arena_take(&s->rq->work, 1, sizeof *cube);
    enum memos_status status = cube ? memcube_version_of_doc(s->read, &s->space, doc,
                                          &s->search->query.as_of, &version, err)
                                    : fail_full(err);
    if (status != MEMOS_OK) {
        return status;
    }
    *out = cube;
    if (s->search->ids_only) {
        return cube_short(s->rq, &version, cube, err);
    }
    broker_count_read(s->rq, &s->space, &version.id);
    return broker_cube_fill(s->rq, s->read, &s->space, &version, &wanted, cube, err);
}

/* ---- why ------------------------------------------------------------------------------------- */

static enum memos_status part_fill(struct broker_request *rq, const struct retrieval_hit *hit,
    enum retrieval_part part, Memos__HitPart *out, struct memos_error *err)
{
    char note[PART_NOTE_BYTES] = "";
    memos__hit_part__init(out);
    out->name = (char *)(uintptr_t)retrieval_part_name(part);
    out->value = hit->parts[part];
    if (part == RETRIEVAL_PART_WORDS && !isnan(hit->bm25)) {
        (void)snprintf(note, sizeof note, "BM25 %.2f", (double)hit->bm25);
    } else if (part == RETRIEVAL_PART_VECTORS && !isnan(hit->cosine)) {
        (void)snprintf(note, sizeof note, "cosine %.3f", (double)hit->cosine);
    }
    return broker_text_make(&rq->work, memos_bytes_of(note), &out->note, err);
}

/* The parts that had a say; the two main ones always. */
static enum memos_status explain(struct broker_request *rq, const struct retrieval_hit *hit,
    Memos__Hit *out, struct memos_error *err)
{
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(&rq->work, RETRIEVAL_PARTS, sizeof(Memos__HitPart), &pointers, err);
    for (int part = 0; part < RETRIEVAL_PARTS && status == MEMOS_OK; part++) {
        bool main = part == RETRIEVAL_PART_WORDS || part == RETRIEVAL_PART_VECTORS;
        if (main || hit->parts[part] != 0.0f) {
            status = part_fill(rq, hit, (enum retrieval_part)part, pointers[out->n_parts++], err);
        }
    }
    out->parts = (Memos__HitPart **)pointers;
    return status;
}

/* ---- what was said around it ----------------------------------------------------------------- */

static enum memos_status cubes_of_docs(struct searching *s, const uint32_t *docs, size_t count,
    bool reversed, Memos__Cube ***out, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    Memos__Cube **cubes = memos_arena_take(&s->rq->work, count, sizeof *cubes);
    if (!cubes) {
        return fail_full(err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = cube_of_doc(s, docs[reversed ? count - 1 - i : i], &cubes[i], err);
    }
    *out = cubes;
    return status;
}

static enum memos_status surround(
    struct searching *s, uint32_t doc, Memos__Hit *out, struct memos_error *err)
{
    uint32_t before[RETRIEVAL_NEIGHBOURS_MAX], after[RETRIEVAL_NEIGHBOURS_MAX];
    size_t before_count = 0, after_count = 0;
    enum memos_status status = retrieval_neighbours(s->rq->broker->retrieval, s->read, &s->space,
        doc, &s->visible, s->search->neighbours, before, &before_count, after, &after_count, err);
    if (status == MEMOS_OK) {
        status = cubes_of_docs(s, before, before_count, true, &out->before, err);
        out->n_before = before_count;
    }
    if (status == MEMOS_OK) {
        status = cubes_of_docs(s, after, after_count, false, &out->after, err);
        out->n_after = after_count;
    }
    return status;
}

/* ---- the answer ------------------------------------------------------------------------------ */

static enum memos_status hit_fill(
    struct searching *s, const struct retrieval_hit *from, Memos__Hit *out, struct memos_error *err)
{
    memos__hit__init(out);
    out->score = from->score;
    enum memos_status status = cube_of_doc(s, from->doc, &out->cube, err);
    if (status == MEMOS_OK && s->search->explain) {
        status = explain(s->rq, from, out, err);
    }
    if (status == MEMOS_OK && s->search->neighbours > 0) {
        status = surround(s, from->doc, out, err);
    }
    return status;
}

static enum memos_status report_fill(struct searching *s, const struct retrieval_report *report,
    const struct retrieval_encoder_info *encoder, Memos__Hits *out, struct memos_error *err)
{
    char **notes = memos_arena_take(&s->rq->work, RETRIEVAL_NOTES_MAX, sizeof *notes);
    enum memos_status status = notes ? MEMOS_OK : fail_full(err);
    out->missing = report->missing;
    if (status == MEMOS_OK && report->vectors) {
        status = broker_text_make(&s->rq->work, memos_bytes_of(encoder->name), &out->encoder, err);
    }
    for (size_t i = 0; i < report->notes_count && status == MEMOS_OK && s->search->explain; i++) {
        status = broker_text_make(&s->rq->work, memos_bytes_of(report->notes[i]), &notes[i], err);
        out->n_notes = i + 1;
    }
    out->notes = notes;
    return status;
}

static enum memos_status hits_fill(struct searching *s, const struct retrieval_hit *found,
    size_t count, Memos__Hits *out, struct memos_error *err)
{
    void **pointers = NULL;
    enum memos_status status =
        broker_array_make(&s->rq->work, count, sizeof(Memos__Hit), &pointers, err);
    if (status == MEMOS_OK && s->search->neighbours > 0) {
        const struct memcube_filter seen = {.viewer = s->search->query.filter.viewer};
        status = memcube_docs_select(
            s->read, &s->space, &seen, &s->search->query.as_of, &s->visible, err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = hit_fill(s, &found[i], pointers[i], err);
    }
    out->hits = (Memos__Hit **)pointers;
    out->n_hits = count;
    return status;
}

/* "last week" starts from when the question is asked: as the client says, or as of when it looks
 * at, or now. */
static int64_t asked_at(struct searching *s)
{
    const struct retrieval_query *query = &s->search->query;
    const struct memos_clock *clock = &s->rq->broker->clock;
    if (query->now_us != 0) {
        return query->now_us;
    }
    return query->as_of.time_us != 0 ? query->as_of.time_us : clock->wall_us(clock->self);
}

static enum memos_status search_fill(
    struct searching *s, size_t index, Memos__Hits *out, struct memos_error *err)
{
    struct retrieval_query query = s->search->query;
    struct retrieval_encoder_info encoder = {.name = ""};
    struct retrieval_report report = {0};
    size_t count = 0;
    struct retrieval_hit *found = memos_arena_take(&s->rq->work, query.top_k, sizeof *found);
    if (!found) {
        return fail_full(err);
    }
    query.now_us = asked_at(s);
    if (broker_meaning_describe(s->rq->broker->meaning, &encoder)) {
        query.vector = broker_meaning_vector(s->rq, index);
        query.dims = encoder.dims;
        query.fingerprint = encoder.fingerprint;
    }
    enum memos_status status = retrieval_search(
        s->rq->broker->retrieval, s->read, &s->space, &query, found, &count, &report, err);
    if (status == MEMOS_OK) {
        status = hits_fill(s, found, count, out, err);
    }
    if (status == MEMOS_OK) {
        status = report_fill(s, &report, &encoder, out, err);
    }
    return status == MEMOS_OK ? memcube_as_of_seq(s->read, &s->space, &query.as_of, &out->seq, err)
                              : status;
}

static enum memos_status search_one(struct broker_request *rq, struct memcube_read *read,
    size_t index, struct memos_bytes viewer, Memos__Hits **out, struct memos_error *err)
{
    struct memos_clock *clock = &rq->broker->clock;
    struct broker_call_search *search = &rq->call.search.searches[index];
    struct searching s = {.rq = rq, .read = read, .search = search};
    int64_t begin_us = clock->mono_us(clock->self);
    Memos__Hits *hits = memos_arena_take(&rq->work, 1, sizeof *hits);

    search->query.filter.viewer = viewer;
    enum memos_status status =
        hits ? broker_reader_space(rq->reader, search->space, &s.space, err) : fail_full(err);
    if (status == MEMOS_OK) {
        memos__hits__init(hits);
        status = search_fill(&s, index, hits, err);
    }
    if (status == MEMOS_OK) {
        hits->micros = (uint64_t)(clock->mono_us(clock->self) - begin_us);
        *out = hits;
    }
    return status;
}

enum memos_status broker_search(
    struct broker_request *rq, struct memcube_read *read, struct memos_error *err)
{
    Memos__Hits *hits = NULL;
    enum memos_status status = search_one(rq, read, 0, rq->viewer, &hits, err);
    if (status == MEMOS_OK) {
        rq->reply.body_case = MEMOS__REPLY__BODY_HITS;
        rq->reply.hits = hits;
    }
    return status;
}

/* One of many: its own right, its own status. */
static enum memos_status search_of_many(struct broker_request *rq, struct memcube_read *read,
    size_t index, Memos__HitsOrError *out, struct memos_error *err)
{
    const struct broker_call_search *search = &rq->call.search.searches[index];
    struct memos_error own = {0};
    enum broker_right right = broker_access_right(rq->access, rq->principal, search->space);
    struct memos_bytes nobody = {NULL, 0};
    enum memos_status status = search->status;
    if (status != MEMOS_OK) {
        own = search->err;
    } else if (right < BROKER_RIGHT_READ) {
        status = broker_request_denied(rq, BROKER_RIGHT_READ, search->space, &own);
    } else {
        status = search_one(
            rq, read, index, right == BROKER_RIGHT_ADMIN ? nobody : rq->viewer, &out->hits, &own);
    }
    out->status = (uint32_t)status;
    if (status == MEMOS_OK) {
        return broker_request_check(rq, err);
    }
    return broker_text_make(&rq->work, memos_bytes_of(own.text), &out->message, err);
}

enum memos_status broker_search_many(
    struct broker_request *rq, struct memcube_read *read, struct memos_error *err)
{
    size_t count = rq->call.search.count;
    void **pointers = NULL;
    Memos__HitsMany *many = memos_arena_take(&rq->work, 1, sizeof *many);
    enum memos_status status =
        broker_array_make(&rq->work, count, sizeof(Memos__HitsOrError), &pointers, err);
    if (!many || status != MEMOS_OK) {
        return fail_full(err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        memos__hits_or_error__init(pointers[i]);
        status = search_of_many(rq, read, i, pointers[i], err);
    }
    memos__hits_many__init(many);
    many->results = (Memos__HitsOrError **)pointers;
    many->n_results = count;
    rq->reply.body_case = MEMOS__REPLY__BODY_HITS_MANY;
    rq->reply.hits_many = many;
    return status;
}
