/* Thousands of random steps, done to the store and to a plain model of it, compared all the way.
 *
 * If this fails, memory that a user was told is there is not (or the other way about): a version, a
 * state, a flag, a search's candidates, now or in the past, differ from what was done.
 *
 * MEMOS_TEST_SEED=n repeats a run, MEMOS_TEST_STEPS=n sets its length. */
#include "memcube/record.h"
#include "tests/memcube/store_fixture.h"
#include "tests/memcube/store_model.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEPS = 1200,
    TEXTS = 24,
    TEXTS_LARGE = 4, /* the last ones are blob files */
    TAGS = 4,
    EXTERNALS = 12,
    IDS_MAX = 4,
};

#define SPACE "acme/model"

static struct fixture f;
static struct model model;
static struct model saved; /* as it was when the write began */
static uint64_t rng;
static uint64_t step_number;

/* splitmix64 (Steele, Lea, Flood, 2014) */
static uint64_t random_u64(void)
{
    uint64_t z = rng += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static int below(int limit)
{
    return (int)(random_u64() % (uint64_t)limit);
}

static bool chance(int percent)
{
    return below(100) < percent;
}

/* ---- small numbers to texts ---------------------------------------------------------------- */

static struct memos_bytes word_of(const char *kind, int number)
{
    static char texts[64][64][24]; /* kinds x numbers */
    const int row = kind[0] % 64; /* no two kinds here begin alike */
    char *text = texts[row][number];

    if (number == 0) {
        return memos_bytes_make("", 0);
    }
    snprintf(text, sizeof texts[row][number], "%s-%d", kind, number);
    return text_of(text);
}

static struct memos_bytes payload_of(int number)
{
    static char texts[TEXTS][6000];
    char *text = texts[number];

    if (number < TEXTS - TEXTS_LARGE) {
        snprintf(text, sizeof texts[number], "words number %d of the memory", number);
        return text_of(text);
    }
    memset(text, 'a' + number % 26, sizeof texts[number]);
    return memos_bytes_make(text, sizeof texts[number]);
}

/* A draft and the room that it points to. */
struct drafting {
    struct memcube_draft draft;
    struct memos_bytes tags[TAGS];
    struct memcube_ref derived[MODEL_DERIVED_MAX];
};

static void draft_fill(struct drafting *d, const struct model_content *content, int external)
{
    d->draft = (struct memcube_draft){
        .kind = MEMCUBE_PLAINTEXT,
        .subtype = text_of("fact"),
        .payload = payload_of(content->text),
        .governance.expires_us = content->expires_us,
        .description.title = word_of("title", content->title),
        .description.speaker = word_of("speaker", content->speaker),
        .description.external_id = word_of("external", external),
        .description.event_us = content->event_us,
        .description.tags = d->tags,
        .derived_from = d->derived,
        .derived_count = (size_t)content->derived_count,
    };
    for (int i = 0; i < TAGS; i++) {
        if (content->tags & (1u << i)) {
            d->tags[d->draft.description.tags_count++] = word_of("a-tag", i + 1);
        }
    }
    for (int i = 0; i < content->derived_count; i++) {
        d->derived[i] = (struct memcube_ref){
            model.cubes[content->derived[i].cube].id, (uint32_t)content->derived[i].number };
    }
}

static struct model_content content_random(void)
{
    struct model_content content = {
        .text = below(TEXTS),
        .title = below(3),
        .speaker = below(3),
        .tags = (unsigned)below(1 << TAGS),
        .event_us = chance(50) ? f.now_us - below(1000) * INT64_C(1000000) : 0,
        .expires_us = chance(15) ? f.now_us + below(300) * INT64_C(1000000) + 1 : 0,
    };
    for (int i = 0; i < MODEL_DERIVED_MAX && model.count > 0 && chance(25); i++) {
        const int cube = below(model.count);
        if (model_state(&model.cubes[cube]) == MEMCUBE_STATE_FORGOTTEN) {
            break;
        }
        content.derived[content.derived_count++] =
            (struct model_ref){ cube, 1 + below(model.cubes[cube].count) };
    }
    return content;
}

static int model_find(const struct memos_id *id)
{
    for (int i = 0; i < model.count; i++) {
        if (memos_id_equal(&model.cubes[i].id, id)) {
            return i;
        }
    }
    fail_msg("the store names a cube that the model has not");
    return -1;
}

/* A cube that has room for versions; -1: there is none. */
static int cube_random(void)
{
    const int cube = model.count > 0 ? below(model.count) : -1;
    return cube >= 0 && model.cubes[cube].count < MODEL_VERSIONS_MAX - 2 &&
                   model.cubes[cube].flips_count < MODEL_VERSIONS_MAX * 4 - 8
               ? cube
               : -1;
}

static int cubes_random(int out[IDS_MAX])
{
    const int wanted = 1 + below(IDS_MAX);
    int count = 0;

    for (int i = 0; i < wanted; i++) {
        const int cube = cube_random();
        bool known = cube < 0;
        for (int j = 0; j < count; j++) {
            known = known || out[j] == cube;
        }
        if (!known) {
            out[count++] = cube;
        }
    }
    return count;
}

/* ---- what the store did, against what the model did ---------------------------------------- */

static void outcome_check(const struct memcube_outcome *outcome, bool made)
{
    const int changed = made ? model_settle(&model) : 0;

    assert_int_equal(outcome->seq, made ? model.seq : 0);
    assert_int_equal(outcome->affected_count, changed);
    for (size_t i = 0; i < outcome->affected_count; i++) {
        const struct model_cube *cube = &model.cubes[model_find(&outcome->affected[i])];
        assert_int_equal(cube->flips[cube->flips_count - 1].seq, model.seq);
    }
}

/* A change that was refused must have left no trace. */
static void refused(enum memos_status expected, enum memos_status status)
{
    assert_int_equal(status, expected);
    assert_false(memcube_write_broken(f.write));
}

/* What an update of everything makes of a cube: the status, and in *out_made whether a version. */
static enum memos_status model_update(int at, const struct model_content *content, bool revive,
    enum memcube_operation operation, bool dry, bool *out_made)
{
    struct model_cube *cube = &model.cubes[at];
    const struct model_version head = *model_head(cube);

    *out_made = false;
    if (head.state == MEMCUBE_STATE_FORGOTTEN) {
        return MEMOS_FORGOTTEN;
    }
    if (head.state == MEMCUBE_STATE_WITHDRAWN && !revive) {
        return MEMOS_NOT_FOUND;
    }
    if (head.state == MEMCUBE_STATE_FROZEN) {
        return MEMOS_FROZEN;
    }
    for (int i = 0; i < content->derived_count; i++) {
        if (model_descends(&model, content->derived[i].cube, at)) {
            return MEMOS_INVALID;
        }
    }
    if (model_content_same(content, &head.content) && head.state != MEMCUBE_STATE_WITHDRAWN) {
        return MEMOS_OK;
    }
    *out_made = true;
    if (!dry) {
        const bool wakes = head.state == MEMCUBE_STATE_GENERATED ||
                           head.state == MEMCUBE_STATE_WITHDRAWN;
        const struct model_version like = head;
        model_append(&model, at, content, wakes ? MEMCUBE_STATE_ACTIVATED : head.state,
            operation, model_words_same(content, &head.content) ? &like : NULL);
    }
    return MEMOS_OK;
}

static int external_owner(int external)
{
    for (int i = 0; external != 0 && i < model.count; i++) {
        if (model.cubes[i].external == external &&
            model_state(&model.cubes[i]) != MEMCUBE_STATE_FORGOTTEN) {
            return i;
        }
    }
    return -1;
}

static void do_create(void)
{
    struct model_content content = content_random();
    const int external = chance(40) ? 1 + below(EXTERNALS - 1) : 0;
    const int owner = external_owner(external);
    const struct memcube_change change = change_of(SPACE);
    struct drafting d;
    struct memcube_outcome outcome;
    enum memos_status expected = MEMOS_OK;
    bool made = true;

    if (model.count == MODEL_CUBES_MAX) {
        return;
    }
    if (owner >= 0 && (model.cubes[owner].count >= MODEL_VERSIONS_MAX - 2)) {
        return;
    }
    draft_fill(&d, &content, external);
    if (owner >= 0) {
        if (content.event_us == 0) {
            content.event_us = model_head(&model.cubes[owner])->content.event_us;
        }
        expected = model_update(owner, &content, true, MEMCUBE_OP_UPDATE, true, &made);
    }
    const enum memos_status status =
        memcube_create(f.write, &change, &d.draft, 1, &outcome, fixture_error());
    if (expected != MEMOS_OK) {
        refused(expected, status);
        return;
    }
    assert_ok(status);
    if (made) {
        model_record(&model, f.now_us);
    }
    if (owner >= 0) {
        model_update(owner, &content, true, MEMCUBE_OP_UPDATE, false, &made);
        assert_int_equal(model_find(&outcome.refs[0].id), owner);
    } else {
        struct model_cube *cube = &model.cubes[model.count++];
        memset(cube, 0, sizeof *cube);
        cube->id = outcome.refs[0].id;
        cube->external = external;
        model_append(&model, model.count - 1, &content, MEMCUBE_STATE_GENERATED,
            MEMCUBE_OP_CREATE, NULL);
    }
    outcome_check(&outcome, made);
}

static void do_update(void)
{
    const int at = cube_random();
    struct memcube_update update = { .fields = 0 };
    struct drafting d;
    struct memcube_outcome outcome;
    const struct memcube_change change = change_of(SPACE);
    bool made = false;

    if (at < 0) {
        return;
    }
    struct model_content content = model_head(&model.cubes[at])->content;
    const struct model_content fresh = content_random();
    draft_fill(&d, &fresh, 0);
    update.id = model.cubes[at].id;
    update.draft = d.draft;
    if (chance(60)) {
        update.fields |= MEMCUBE_FIELD_PAYLOAD;
        content.text = fresh.text;
    }
    if (chance(30)) {
        update.fields |= MEMCUBE_FIELD_TITLE | MEMCUBE_FIELD_SPEAKER;
        content.title = fresh.title;
        content.speaker = fresh.speaker;
    }
    if (chance(40)) {
        update.fields |= MEMCUBE_FIELD_TAGS;
        content.tags = fresh.tags;
    }
    if (chance(20)) {
        update.fields |= MEMCUBE_FIELD_EXPIRY;
        content.expires_us = fresh.expires_us;
    }
    if (chance(20)) {
        update.fields |= MEMCUBE_FIELD_DERIVED;
        content.derived_count = fresh.derived_count;
        memcpy(content.derived, fresh.derived, sizeof content.derived);
    }
    if (chance(20) && fresh.event_us != 0) {
        update.fields |= MEMCUBE_FIELD_EVENT_TIME;
        content.event_us = fresh.event_us;
    }
    struct model_content checked = content;
    if (!(update.fields & MEMCUBE_FIELD_DERIVED)) {
        checked.derived_count = content.derived_count;
    }
    const enum memos_status expected =
        model_update(at, &checked, false, MEMCUBE_OP_UPDATE, true, &made);
    const enum memos_status status =
        memcube_update(f.write, &change, &update, 1, &outcome, fixture_error());
    if (expected != MEMOS_OK) {
        refused(expected, status);
        return;
    }
    assert_ok(status);
    if (made) {
        model_record(&model, f.now_us);
        model_update(at, &content, false, MEMCUBE_OP_UPDATE, false, &made);
    }
    outcome_check(&outcome, made);
}

/* ---- states -------------------------------------------------------------------------------- */

static enum memos_status transition_expected(
    int at, enum memcube_state to, bool *out_made)
{
    const enum memcube_state from = model_state(&model.cubes[at]);

    *out_made = false;
    if (from == MEMCUBE_STATE_FORGOTTEN || from == MEMCUBE_STATE_WITHDRAWN) {
        return from == MEMCUBE_STATE_FORGOTTEN ? MEMOS_FORGOTTEN : MEMOS_NOT_FOUND;
    }
    *out_made = from != to;
    if (from == to || memcube_state_may_become(from, to)) {
        return MEMOS_OK;
    }
    return from == MEMCUBE_STATE_FROZEN ? MEMOS_FROZEN : MEMOS_CONFLICT;
}

static void model_transition(int at, enum memcube_state to, enum memcube_operation operation)
{
    const struct model_version head = *model_head(&model.cubes[at]);
    struct model_content content = head.content;

    if (to == MEMCUBE_STATE_ACTIVATED && content.expires_us <= f.now_us) {
        content.expires_us = 0;
    }
    model_append(&model, at, &content, to, operation, &head);
}

static void do_transition(void)
{
    int at[IDS_MAX];
    struct memos_id ids[IDS_MAX];
    bool made[IDS_MAX];
    const int count = cubes_random(at);
    const enum memcube_state to = (enum memcube_state)(2 + below(5));
    const struct memcube_change change = change_of(SPACE);
    struct memcube_outcome outcome;
    enum memos_status expected = MEMOS_OK;
    bool any = false;

    for (int i = 0; i < count; i++) {
        ids[i] = model.cubes[at[i]].id;
        if (expected == MEMOS_OK) {
            expected = transition_expected(at[i], to, &made[i]);
            any = any || made[i];
        }
    }
    const enum memos_status status = count == 0
        ? MEMOS_OK
        : memcube_transition(
              f.write, &change, ids, (size_t)count, to, &outcome, fixture_error());
    if (expected != MEMOS_OK) {
        refused(expected, status);
        return;
    }
    assert_ok(status);
    if (any) {
        model_record(&model, f.now_us);
    }
    for (int i = 0; i < count; i++) {
        if (made[i]) {
            model_transition(at[i], to, MEMCUBE_OP_TRANSITION);
        }
    }
    if (count > 0) {
        outcome_check(&outcome, any);
    }
}

static void do_merge(void)
{
    const int a = cube_random();
    const int b = cube_random();
    struct model_content content = content_random();
    const struct memcube_change change = change_of(SPACE);
    struct memcube_outcome outcome;
    struct drafting d;
    bool made_a = false;
    bool made_b = false;

    if (a < 0 || b < 0 || a == b || model.count == MODEL_CUBES_MAX) {
        return;
    }
    content.derived_count = 0;
    draft_fill(&d, &content, 0);
    const struct memos_id ids[] = { model.cubes[a].id, model.cubes[b].id };
    enum memos_status expected = transition_expected(a, MEMCUBE_STATE_MERGED, &made_a);
    if (expected == MEMOS_OK) {
        expected = transition_expected(b, MEMCUBE_STATE_MERGED, &made_b);
    }
    const enum memos_status status =
        memcube_merge(f.write, &change, ids, 2, &d.draft, &outcome, fixture_error());
    if (expected != MEMOS_OK) {
        refused(expected, status);
        return;
    }
    assert_ok(status);
    content.derived_count = 2;
    content.derived[0] = (struct model_ref){ a, model.cubes[a].count };
    content.derived[1] = (struct model_ref){ b, model.cubes[b].count };
    model_record(&model, f.now_us);
    struct model_cube *cube = &model.cubes[model.count++];
    memset(cube, 0, sizeof *cube);
    cube->id = outcome.refs[0].id;
    model_append(
        &model, model.count - 1, &content, MEMCUBE_STATE_GENERATED, MEMCUBE_OP_MERGE, NULL);
    if (made_a) {
        model_transition(a, MEMCUBE_STATE_MERGED, MEMCUBE_OP_MERGE);
    }
    if (made_b) {
        model_transition(b, MEMCUBE_STATE_MERGED, MEMCUBE_OP_MERGE);
    }
    outcome_check(&outcome, true);
}

static void do_sweep(void)
{
    size_t count = 0;
    bool more = true;
    bool any = false;

    for (int i = 0; i < model.count; i++) {
        any = any || model_expiry(model_head(&model.cubes[i])) <= f.now_us;
    }
    assert_ok(memcube_sweep(f.write, MODEL_CUBES_MAX, &count, &more, fixture_error()));
    assert_false(more);
    if (!any) {
        return;
    }
    model_record(&model, f.now_us);
    for (int i = 0; i < model.count; i++) {
        const struct model_version head = *model_head(&model.cubes[i]);
        if (model_expiry(&head) <= f.now_us) {
            model_append(&model, i, &head.content, MEMCUBE_STATE_EXPIRED, MEMCUBE_OP_EXPIRE,
                &head);
        }
    }
    model_settle(&model);
}

/* ---- rollback and forget ------------------------------------------------------------------- */

struct target {
    struct memcube_rollback rollback;
    uint64_t seq; /* gone back to; not with a version */
};

static struct target target_random(int ids_count, int only)
{
    struct target target = { .rollback.include_frozen = chance(30) };

    if (ids_count == 1 && chance(40)) {
        target.rollback.to_version = 1 + (uint32_t)below(model.cubes[only].count);
    } else if (chance(5)) {
        target.rollback.to_beginning = true;
    } else if (chance(50)) {
        target.seq = 1 + random_u64() % model.seq;
        target.rollback.to.seq = target.seq;
    } else {
        const uint64_t near = 1 + random_u64() % model.seq;
        target.rollback.to.time_us = model.times[near] - below(2);
        target.seq = model_seq_of_time(&model, target.rollback.to.time_us);
    }
    return target;
}

/* What would be done to one cube: false for nothing. */
static bool item_expected(
    int at, const struct target *target, struct memcube_rollback_item *out)
{
    const struct model_cube *cube = &model.cubes[at];
    const struct model_version *head = model_head(cube);
    const int to = target->rollback.to_version ? (int)target->rollback.to_version
                                               : model_as_of(cube, target->seq);

    *out = (struct memcube_rollback_item){
        .id = cube->id, .from = (uint32_t)cube->count, .to = (uint32_t)to };
    if (to == cube->count) {
        return false;
    }
    if (head->state == MEMCUBE_STATE_FORGOTTEN) {
        out->status = MEMOS_FORGOTTEN;
        return true;
    }
    if (to == 0 && head->state == MEMCUBE_STATE_WITHDRAWN) {
        return false;
    }
    if (to > 0 && cube->versions[to - 1].state == head->state &&
        model_content_same(&cube->versions[to - 1].content, &head->content)) {
        return false;
    }
    if (head->state == MEMCUBE_STATE_FROZEN && !target->rollback.include_frozen) {
        out->status = MEMOS_FROZEN;
    }
    return true;
}

static void items_check(const struct memcube_rollback_item *items, size_t items_count,
    const int *at, int count, const struct target *target, bool dry, int *out_made)
{
    size_t expected = 0;

    *out_made = 0;
    for (int i = 0; i < count; i++) {
        struct memcube_rollback_item item;
        if (!item_expected(at[i], target, &item)) {
            continue;
        }
        expected++;
        size_t found = 0;
        while (found < items_count && !memos_id_equal(&items[found].id, &item.id)) {
            found++;
        }
        assert_true(found < items_count);
        assert_int_equal(items[found].from, item.from);
        assert_int_equal(items[found].to, item.to);
        assert_int_equal(items[found].status, item.status);
        *out_made += item.status == MEMOS_OK;
        assert_int_equal(
            items[found].made, item.status == MEMOS_OK && !dry ? item.from + 1 : 0);
    }
    assert_int_equal(items_count, expected);
}

static void model_rollback(const int *at, int count, const struct target *target)
{
    struct memcube_rollback_item item[MODEL_CUBES_MAX];
    bool wanted[MODEL_CUBES_MAX];

    for (int i = 0; i < count; i++) {
        wanted[i] = item_expected(at[i], target, &item[i]) && item[i].status == MEMOS_OK;
    }
    model_record(&model, f.now_us);
    for (int i = 0; i < count; i++) {
        const struct model_cube *cube = &model.cubes[at[i]];
        if (!wanted[i]) {
            continue;
        }
        const struct model_version like =
            item[i].to ? cube->versions[item[i].to - 1] : *model_head(cube);
        struct model_version *made = model_append(&model, at[i], &like.content,
            item[i].to ? like.state : MEMCUBE_STATE_WITHDRAWN, MEMCUBE_OP_ROLLBACK, &like);
        made->equals = (int)item[i].to;
    }
}

static bool all_have_room(void)
{
    bool room = true;
    for (int i = 0; i < model.count; i++) {
        room = room && model.cubes[i].count < MODEL_VERSIONS_MAX - 2 &&
               model.cubes[i].flips_count < MODEL_VERSIONS_MAX * 4 - 8;
    }
    return room;
}

static void do_rollback(void)
{
    int at[MODEL_CUBES_MAX];
    struct memos_id ids[IDS_MAX];
    const bool whole = chance(25) && all_have_room();
    const struct memcube_change change = change_of(SPACE);
    struct memcube_outcome outcome;
    struct memcube_rollback_item *items = NULL;
    size_t items_count = 0;
    int count = whole ? model.count : cubes_random(at);
    int made = 0;

    if (count == 0 || model.seq == 0) {
        return;
    }
    for (int i = 0; i < count; i++) {
        at[i] = whole ? i : at[i];
        if (!whole) {
            ids[i] = model.cubes[at[i]].id;
        }
    }
    struct target target = target_random(whole ? 0 : count, at[0]);
    target.rollback.ids = whole ? NULL : ids;
    target.rollback.ids_count = whole ? 0 : (size_t)count;
    target.rollback.dry_run = true;
    assert_ok(memcube_rollback(f.write, &change, &target.rollback, &outcome, &items,
        &items_count, fixture_error()));
    assert_int_equal(outcome.seq, 0);
    items_check(items, items_count, at, count, &target, true, &made);
    target.rollback.dry_run = false;
    assert_ok(memcube_rollback(f.write, &change, &target.rollback, &outcome, &items,
        &items_count, fixture_error()));
    items_check(items, items_count, at, count, &target, false, &made);
    if (made > 0) {
        model_rollback(at, count, &target);
    }
    outcome_check(&outcome, made > 0);
}

static void do_forget(void)
{
    int at[IDS_MAX];
    struct memos_id ids[IDS_MAX];
    int count = cubes_random(at);
    const struct memcube_change change = change_of(SPACE);
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    bool gone[MODEL_CUBES_MAX] = { false };
    size_t live = 0;

    count = count > 1 ? 1 : count;
    for (int i = 0; i < count; i++) {
        ids[i] = model.cubes[at[i]].id;
        for (int c = 0; c < model.count; c++) {
            gone[c] = gone[c] || model_descends(&model, c, at[i]);
        }
    }
    for (int c = 0; c < model.count; c++) {
        gone[c] = gone[c] && model_state(&model.cubes[c]) != MEMCUBE_STATE_FORGOTTEN;
        if (gone[c] && model.cubes[c].count >= MODEL_VERSIONS_MAX - 1) {
            return;
        }
        live += gone[c];
    }
    if (count == 0) {
        return;
    }
    assert_ok(memcube_forget(f.write, &change, ids, (size_t)count, false, false, &outcome,
        &forgotten, fixture_error()));
    assert_int_equal(forgotten.ids_count, live);
    if (live > 0) {
        model_record(&model, f.now_us);
    }
    for (int c = 0; c < model.count; c++) {
        if (gone[c]) {
            struct model_content content = model_head(&model.cubes[c])->content;
            content.text = -1;
            model_append(
                &model, c, &content, MEMCUBE_STATE_FORGOTTEN, MEMCUBE_OP_FORGET, NULL);
        }
    }
    outcome_check(&outcome, live > 0);
}

/* ---- comparing ----------------------------------------------------------------------------- */

static void version_check(const struct memcube_space *space, int at, int number)
{
    const struct model_cube *cube = &model.cubes[at];
    const struct model_version *expected = &cube->versions[number - 1];
    const bool forgotten = model_state(cube) == MEMCUBE_STATE_FORGOTTEN;
    struct memcube_read *read = f.write ? memcube_write_read(f.write) : f.read;
    struct memcube_version v;
    struct memos_bytes payload;
    struct drafting d;

    assert_ok(memcube_version_get(
        read, space, &cube->id, (uint32_t)number, NULL, &v, fixture_error()));
    assert_int_equal(v.number, number);
    assert_int_equal(v.parent, number - 1);
    assert_int_equal(v.operation, expected->operation);
    assert_int_equal(v.seq, expected->seq);
    assert_int_equal(v.doc, expected->doc);
    assert_int_equal(v.equals, expected->equals);
    assert_int_equal(v.time_us, model.times[expected->seq]);
    assert_int_equal(v.derived_count, expected->content.derived_count);
    assert_int_equal(v.state, forgotten ? MEMCUBE_STATE_FORGOTTEN : expected->state);
    assert_int_equal(v.stale, number == cube->count && cube->stale);
    const enum memos_status status =
        memcube_payload_get(read, space, &v, true, &payload, fixture_error());
    if (forgotten) {
        assert_int_equal(status, MEMOS_FORGOTTEN);
        assert_int_equal(v.description.tags_count + v.description.title.size, 0);
        return;
    }
    assert_ok(status);
    draft_fill(&d, &expected->content, cube->external);
    assert_true(memos_bytes_equal(payload, payload_of(expected->content.text)));
    assert_true(memos_bytes_equal(v.description.title, d.draft.description.title));
    assert_true(memos_bytes_equal(v.description.speaker, d.draft.description.speaker));
    assert_true(memos_bytes_equal(v.description.external_id, d.draft.description.external_id));
    assert_int_equal(v.description.tags_count, d.draft.description.tags_count);
    assert_int_equal(v.description.event_us, expected->content.event_us);
    assert_int_equal(v.governance.expires_us, expected->content.expires_us);
}

static bool select_expected(int at, const struct memcube_as_of *as_of,
    const struct memcube_filter *filter, int tag, int speaker, int64_t time_us)
{
    const struct model_cube *cube = &model.cubes[at];
    const bool now = as_of->seq == 0 && as_of->time_us == 0;
    const uint64_t seq = now          ? model.seq
                         : as_of->seq ? as_of->seq
                                      : model_seq_of_time(&model, as_of->time_us);
    const int number = model_as_of(cube, seq);
    const unsigned states =
        filter->states ? filter->states
                       : 1u << MEMCUBE_STATE_GENERATED | 1u << MEMCUBE_STATE_ACTIVATED |
                             1u << MEMCUBE_STATE_FROZEN;

    if (number == 0 || model_state(cube) == MEMCUBE_STATE_FORGOTTEN) {
        return false;
    }
    const struct model_version *version = &cube->versions[number - 1];
    return (states & (1u << version->state)) != 0 &&
           (filter->include_stale || !model_stale_as_of(cube, seq)) &&
           model_expiry(version) > time_us &&
           (tag == 0 || (version->content.tags & (1u << (tag - 1))) != 0) &&
           (speaker == 0 || version->content.speaker == speaker) &&
           (filter->from_us == 0 || version->content.event_us >= filter->from_us);
}

static void select_check(const struct memcube_space *space)
{
    struct memcube_read *read = f.write ? memcube_write_read(f.write) : f.read;
    const int tag = chance(40) ? 1 + below(TAGS) : 0;
    const int speaker = chance(30) ? 1 + below(2) : 0;
    const struct memos_bytes tags[] = { word_of("a-tag", tag) };
    const struct memcube_filter filter = {
        .states = chance(30) ? 1u << (1 + below(7)) : 0,
        .tags = tags,
        .tags_count = tag != 0,
        .speaker = word_of("speaker", speaker),
        .include_stale = chance(30),
        .from_us = chance(20) ? f.now_us - below(500) * INT64_C(1000000) : 0,
    };
    struct memcube_as_of as_of = { .seq = 0 };
    int64_t time_us = f.now_us;
    struct memcube_docs docs;
    uint32_t expected = 0;

    if (chance(50) && model.seq > 0) {
        as_of.seq = 1 + random_u64() % model.seq;
        time_us = model.times[as_of.seq];
    } else if (chance(30) && model.seq > 0) {
        as_of.time_us = model.times[1 + random_u64() % model.seq];
        time_us = as_of.time_us;
    }
    assert_ok(memcube_docs_select(read, space, &filter, &as_of, &docs, fixture_error()));
    assert_int_equal(docs.docs_end, model.docs + 1);
    for (int i = 0; i < model.count; i++) {
        const struct model_cube *cube = &model.cubes[i];
        const bool wanted = select_expected(i, &as_of, &filter, tag, speaker, time_us);
        const bool now = as_of.seq == 0 && as_of.time_us == 0;
        const uint64_t seq = now         ? model.seq
                             : as_of.seq ? as_of.seq
                                         : model_seq_of_time(&model, as_of.time_us);
        const int number = model_as_of(cube, seq);
        const uint32_t doc = number ? cube->versions[number - 1].doc : 0;
        if (doc != 0) {
            assert_int_equal(docs.words[doc / 64] >> (doc % 64) & 1, wanted);
        }
        expected += wanted;
    }
    assert_int_equal(docs.count, expected);
}

/* All pages of a list together are the selection, in order. */
static void list_check(const struct memcube_space *space)
{
    struct memcube_read *read = f.write ? memcube_write_read(f.write) : f.read;
    struct memcube_list_query query = { .count_max = (size_t)(1 + below(20)) };
    struct memcube_version versions[20];
    const bool oldest = query.oldest_first = chance(50);
    struct memcube_docs docs;
    size_t total = 0;
    int64_t last_us = oldest ? INT64_MIN : INT64_MAX;

    assert_ok(memcube_docs_select(read, space, &query.filter, NULL, &docs, fixture_error()));
    do {
        size_t count = 0;
        assert_ok(memcube_list(
            read, space, &query, versions, &count, &query.cursor, fixture_error()));
        for (size_t i = 0; i < count; i++) {
            const int64_t at_us = versions[i].description.event_us;
            assert_true(oldest ? at_us >= last_us : at_us <= last_us);
            last_us = at_us;
        }
        total += count;
    } while (query.cursor != 0);
    assert_int_equal(total, docs.count);
}

static void space_check(const struct memcube_space *space)
{
    uint64_t cubes = 0;
    uint64_t versions = 0;

    for (int i = 0; i < model.count; i++) {
        const enum memcube_state state = model_state(&model.cubes[i]);
        cubes += state != MEMCUBE_STATE_WITHDRAWN && state != MEMCUBE_STATE_FORGOTTEN;
        versions += (uint64_t)model.cubes[i].count;
    }
    assert_int_equal(space->seq, model.seq);
    assert_int_equal(space->docs, model.docs);
    assert_int_equal(space->cubes, cubes);
    assert_int_equal(space->versions, versions);
}

static void compare_some(void)
{
    if (model.count == 0) {
        return;
    }
    const struct memcube_space space = fixture_space(&f, SPACE);
    space_check(&space);
    for (int i = 0; i < 4; i++) {
        const int at = below(model.count);
        version_check(&space, at, 1 + below(model.cubes[at].count));
    }
    select_check(&space);
    if (chance(20)) {
        list_check(&space);
    }
}

static void compare_all(void)
{
    if (model.count == 0) {
        return;
    }
    const struct memcube_space space = fixture_space(&f, SPACE);
    struct memcube_hash previous = { .bytes = { 0 } };
    space_check(&space);
    for (int at = 0; at < model.count; at++) {
        for (int number = 1; number <= model.cubes[at].count; number++) {
            version_check(&space, at, number);
        }
    }
    for (uint64_t seq = 1; seq <= model.seq; seq++) {
        struct memcube_read *read = f.write ? memcube_write_read(f.write) : f.read;
        struct memcube_log_record record;
        size_t count = 0;
        assert_ok(memcube_log_read(
            read, &space, seq, false, &record, 1, &count, fixture_error()));
        assert_int_equal(count, 1);
        assert_true(memcube_hash_equal(&record.previous, &previous));
        assert_int_equal(record.time_us, model.times[seq]);
        previous = record.hash;
    }
    assert_true(memcube_hash_equal(&previous, &space.head));
    for (int i = 0; i < 20; i++) {
        select_check(&space);
    }
    list_check(&space);
}

static void problem_print(void *self, const char *problem)
{
    (void)self;
    print_error("fsck: %s\n", problem);
}

/* The store's own proof: history, and everything that is derived from it. */
static void fsck_check(void)
{
    struct memcube_fsck_result result;

    memcube_read_end(&f.read);
    assert_ok(memcube_fsck(f.store, false, NULL, problem_print, NULL, &result, fixture_error()));
    assert_int_equal(result.problems, 0);
    assert_int_equal(result.cubes, model.count);
}

/* ---- the run ------------------------------------------------------------------------------- */

static void step_random(void)
{
    const int dice = below(100);

    if (dice < 34 || model.count < 3) {
        do_create();
    } else if (dice < 62) {
        do_update();
    } else if (dice < 74) {
        do_transition();
    } else if (dice < 78) {
        do_merge();
    } else if (dice < 92) {
        do_rollback();
    } else if (dice < 94) {
        do_forget();
    } else {
        do_sweep();
    }
}

static void write_random(void)
{
    memcpy(&saved, &model, sizeof saved);
    fixture_write(&f);
    for (int i = 1 + below(4); i > 0; i--) {
        f.now_us += chance(90) ? below(60) * INT64_C(1000000) : -below(30) * INT64_C(1000000);
        step_random();
        step_number++;
        if (chance(20)) {
            compare_some();
        }
    }
    if (chance(10)) {
        memcube_write_abort(&f.write);
        memcpy(&model, &saved, sizeof model);
    } else {
        fixture_commit(&f);
    }
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && text[0] != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

static void test_store_does_what_the_model_does(void **state)
{
    const uint64_t steps = number_of("MEMOS_TEST_STEPS", STEPS);

    (void)state;
    while (step_number < steps && model.seq < MODEL_RECORDS_MAX - 64) {
        write_random();
        compare_some();
        if (chance(2)) {
            fixture_reopen(&f);
        }
        if (chance(1)) {
            compare_all();
            fsck_check();
        }
    }
    compare_all();
    fsck_check();
}

static int setup(void **state)
{
    (void)state;
    assert_true(sodium_init() >= 0);
    uint64_t fresh = 0;
    randombytes_buf(&fresh, sizeof fresh);
    rng = number_of("MEMOS_TEST_SEED", fresh >> 32);
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)rng);
    fixture_make(&f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    print_message("%llu steps, %llu records, %d cubes\n", (unsigned long long)step_number,
        (unsigned long long)model.seq, model.count);
    fixture_drop(&f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_store_does_what_the_model_does, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
