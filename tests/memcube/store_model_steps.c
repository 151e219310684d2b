/* The steps of the random test. Each does one thing to the store and to the model, after it has
 * said what it expects. */
#include "tests/memcube/store_model_run.h"

#include <stdio.h>
#include <string.h>

struct run run;

/* splitmix64 (Steele, Lea, Flood, 2014) */
uint64_t run_random(void)
{
    uint64_t z = run.random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

int run_below(int limit)
{
    return (int)(run_random() % (uint64_t)limit);
}

bool run_chance(int percent)
{
    return run_below(100) < percent;
}

/* ---- small numbers to texts ---------------------------------------------------------------- */

struct memos_bytes run_word(const char *kind, int number)
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

struct memos_bytes run_payload(int number)
{
    static char texts[RUN_TEXTS][6000];
    char *text = texts[number];

    if (number < RUN_TEXTS - RUN_TEXTS_LARGE) {
        snprintf(text, sizeof texts[number], "words number %d of the memory", number);
        return text_of(text);
    }
    memset(text, 'a' + number % 26, sizeof texts[number]);
    return memos_bytes_make(text, sizeof texts[number]);
}

void run_draft_fill(struct run_draft *d, const struct model_content *content, int external)
{
    d->draft = (struct memcube_draft){
        .kind = MEMCUBE_PLAINTEXT,
        .subtype = text_of("fact"),
        .payload = run_payload(content->text),
        .governance.expires_us = content->expires_us,
        .description.title = run_word("title", content->title),
        .description.speaker = run_word("speaker", content->speaker),
        .description.external_id = run_word("external", external),
        .description.event_us = content->event_us,
        .description.tags = d->tags,
        .derived_from = d->derived,
        .derived_count = (size_t)content->derived_count,
    };
    for (int i = 0; i < RUN_TAGS; i++) {
        if (content->tags & (1u << i)) {
            d->tags[d->draft.description.tags_count++] = run_word("a-tag", i + 1);
        }
    }
    for (int i = 0; i < content->derived_count; i++) {
        d->derived[i] = (struct memcube_ref){
            run.model.cubes[content->derived[i].cube].id, (uint32_t)content->derived[i].number };
    }
}

static struct model_content content_random(void)
{
    struct model_content content = {
        .text = run_below(RUN_TEXTS),
        .title = run_below(3),
        .speaker = run_below(3),
        .tags = (unsigned)run_below(1 << RUN_TAGS),
        .event_us = run_chance(50) ? run.f.now_us - run_below(1000) * INT64_C(1000000) : 0,
        .expires_us = run_chance(15) ? run.f.now_us + run_below(300) * INT64_C(1000000) + 1 : 0,
    };
    for (int i = 0; i < MODEL_DERIVED_MAX && run.model.count > 0 && run_chance(25); i++) {
        const int cube = run_below(run.model.count);
        if (model_state(&run.model.cubes[cube]) == MEMCUBE_STATE_FORGOTTEN) {
            break;
        }
        content.derived[content.derived_count++] =
            (struct model_ref){ cube, 1 + run_below(run.model.cubes[cube].count) };
    }
    return content;
}

static int model_find(const struct memos_id *id)
{
    for (int i = 0; i < run.model.count; i++) {
        if (memos_id_equal(&run.model.cubes[i].id, id)) {
            return i;
        }
    }
    fail_msg("the store names a cube that the model has not");
    return -1;
}

/* A cube that has room for versions; -1: there is none. */
static int cube_random(void)
{
    const int cube = run.model.count > 0 ? run_below(run.model.count) : -1;
    return cube >= 0 && run.model.cubes[cube].count < MODEL_VERSIONS_MAX - 2 &&
                   run.model.cubes[cube].flips_count < MODEL_VERSIONS_MAX * 4 - 8
               ? cube
               : -1;
}

static int cubes_random(int out[RUN_IDS_MAX])
{
    const int wanted = 1 + run_below(RUN_IDS_MAX);
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
    const int changed = made ? model_settle(&run.model) : 0;

    assert_int_equal(outcome->seq, made ? run.model.seq : 0);
    assert_int_equal(outcome->affected_count, changed);
    for (size_t i = 0; i < outcome->affected_count; i++) {
        const struct model_cube *cube = &run.model.cubes[model_find(&outcome->affected[i])];
        assert_int_equal(cube->flips[cube->flips_count - 1].seq, run.model.seq);
    }
}

/* A change that was refused must have left no trace. */
static void refused(enum memos_status expected, enum memos_status status)
{
    assert_int_equal(status, expected);
    assert_false(memcube_write_broken(run.f.write));
}

/* What an update of everything makes of a cube: the status, and in *out_made whether a version. */
static enum memos_status model_update(int at, const struct model_content *content, bool revive,
    enum memcube_operation operation, bool dry, bool *out_made)
{
    struct model_cube *cube = &run.model.cubes[at];
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
        if (model_descends(&run.model, content->derived[i].cube, at)) {
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
        model_append(&run.model, at, content, wakes ? MEMCUBE_STATE_ACTIVATED : head.state,
            operation, model_words_same(content, &head.content) ? &like : NULL);
    }
    return MEMOS_OK;
}

static int external_owner(int external)
{
    for (int i = 0; external != 0 && i < run.model.count; i++) {
        if (run.model.cubes[i].external == external &&
            model_state(&run.model.cubes[i]) != MEMCUBE_STATE_FORGOTTEN) {
            return i;
        }
    }
    return -1;
}

static void do_create(void)
{
    struct model_content content = content_random();
    const int external = run_chance(40) ? 1 + run_below(RUN_EXTERNALS - 1) : 0;
    const int owner = external_owner(external);
    const struct memcube_change change = change_of(RUN_SPACE);
    struct run_draft d;
    struct memcube_outcome outcome;
    enum memos_status expected = MEMOS_OK;
    bool made = true;

    if (run.model.count == MODEL_CUBES_MAX) {
        return;
    }
    if (owner >= 0 && (run.model.cubes[owner].count >= MODEL_VERSIONS_MAX - 2)) {
        return;
    }
    run_draft_fill(&d, &content, external);
    if (owner >= 0) {
        if (content.event_us == 0) {
            content.event_us = model_head(&run.model.cubes[owner])->content.event_us;
        }
        expected = model_update(owner, &content, true, MEMCUBE_OP_UPDATE, true, &made);
    }
    const enum memos_status status =
        memcube_create(run.f.write, &change, &d.draft, 1, &outcome, fixture_error());
    if (expected != MEMOS_OK) {
        refused(expected, status);
        return;
    }
    assert_ok(status);
    if (made) {
        model_record(&run.model, run.f.now_us);
    }
    if (owner >= 0) {
        model_update(owner, &content, true, MEMCUBE_OP_UPDATE, false, &made);
        assert_int_equal(model_find(&outcome.refs[0].id), owner);
    } else {
        struct model_cube *cube = &run.model.cubes[run.model.count++];
        memset(cube, 0, sizeof *cube);
        cube->id = outcome.refs[0].id;
        cube->external = external;
        model_append(&run.model, run.model.count - 1, &content, MEMCUBE_STATE_GENERATED,
            MEMCUBE_OP_CREATE, NULL);
    }
    outcome_check(&outcome, made);
}

static void do_update(void)
{
    const int at = cube_random();
    struct memcube_update update = { .fields = 0 };
    struct run_draft d;
    struct memcube_outcome outcome;
    const struct memcube_change change = change_of(RUN_SPACE);
    bool made = false;

    if (at < 0) {
        return;
    }
    struct model_content content = model_head(&run.model.cubes[at])->content;
    const struct model_content fresh = content_random();
    run_draft_fill(&d, &fresh, 0);
    update.id = run.model.cubes[at].id;
    update.draft = d.draft;
    if (run_chance(60)) {
        update.fields |= MEMCUBE_FIELD_PAYLOAD;
        content.text = fresh.text;
    }
    if (run_chance(30)) {
        update.fields |= MEMCUBE_FIELD_TITLE | MEMCUBE_FIELD_SPEAKER;
        content.title = fresh.title;
        content.speaker = fresh.speaker;
    }
    if (run_chance(40)) {
        update.fields |= MEMCUBE_FIELD_TAGS;
        content.tags = fresh.tags;
    }
    if (run_chance(20)) {
        update.fields |= MEMCUBE_FIELD_EXPIRY;
        content.expires_us = fresh.expires_us;
    }
    if (run_chance(20)) {
        update.fields |= MEMCUBE_FIELD_DERIVED;
        content.derived_count = fresh.derived_count;
        memcpy(content.derived, fresh.derived, sizeof content.derived);
    }
    if (run_chance(20) && fresh.event_us != 0) {
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
        memcube_update(run.f.write, &change, &update, 1, &outcome, fixture_error());
    if (expected != MEMOS_OK) {
        refused(expected, status);
        return;
    }
    assert_ok(status);
    if (made) {
        model_record(&run.model, run.f.now_us);
        model_update(at, &content, false, MEMCUBE_OP_UPDATE, false, &made);
    }
    outcome_check(&outcome, made);
}

/* ---- states -------------------------------------------------------------------------------- */

static enum memos_status transition_expected(
    int at, enum memcube_state to, bool *out_made)
{
    const enum memcube_state from = model_state(&run.model.cubes[at]);

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
    const struct model_version head = *model_head(&run.model.cubes[at]);
    struct model_content content = head.content;

    if (to == MEMCUBE_STATE_ACTIVATED && head.state != MEMCUBE_STATE_GENERATED &&
        head.state != MEMCUBE_STATE_FROZEN && content.expires_us <= run.f.now_us) {
        content.expires_us = 0;
    }
    model_append(&run.model, at, &content, to, operation, &head);
}

static void do_transition(void)
{
    int at[RUN_IDS_MAX];
    struct memos_id ids[RUN_IDS_MAX];
    bool made[RUN_IDS_MAX];
    const int count = cubes_random(at);
    const enum memcube_state to = (enum memcube_state)(2 + run_below(5));
    const struct memcube_change change = change_of(RUN_SPACE);
    struct memcube_outcome outcome;
    enum memos_status expected = MEMOS_OK;
    bool any = false;

    for (int i = 0; i < count; i++) {
        ids[i] = run.model.cubes[at[i]].id;
        if (expected == MEMOS_OK) {
            expected = transition_expected(at[i], to, &made[i]);
            any = any || made[i];
        }
    }
    const enum memos_status status = count == 0
        ? MEMOS_OK
        : memcube_transition(
              run.f.write, &change, ids, (size_t)count, to, &outcome, fixture_error());
    if (expected != MEMOS_OK) {
        refused(expected, status);
        return;
    }
    assert_ok(status);
    if (any) {
        model_record(&run.model, run.f.now_us);
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
    const struct memcube_change change = change_of(RUN_SPACE);
    struct memcube_outcome outcome;
    struct run_draft d;
    bool made_a = false;
    bool made_b = false;

    if (a < 0 || b < 0 || a == b || run.model.count == MODEL_CUBES_MAX) {
        return;
    }
    content.derived_count = 0;
    run_draft_fill(&d, &content, 0);
    const struct memos_id ids[] = { run.model.cubes[a].id, run.model.cubes[b].id };
    enum memos_status expected = transition_expected(a, MEMCUBE_STATE_MERGED, &made_a);
    if (expected == MEMOS_OK) {
        expected = transition_expected(b, MEMCUBE_STATE_MERGED, &made_b);
    }
    const enum memos_status status =
        memcube_merge(run.f.write, &change, ids, 2, &d.draft, &outcome, fixture_error());
    if (expected != MEMOS_OK) {
        refused(expected, status);
        return;
    }
    assert_ok(status);
    content.derived_count = 2;
    content.derived[0] = (struct model_ref){ a, run.model.cubes[a].count };
    content.derived[1] = (struct model_ref){ b, run.model.cubes[b].count };
    model_record(&run.model, run.f.now_us);
    struct model_cube *cube = &run.model.cubes[run.model.count++];
    memset(cube, 0, sizeof *cube);
    cube->id = outcome.refs[0].id;
    model_append(
        &run.model, run.model.count - 1, &content, MEMCUBE_STATE_GENERATED, MEMCUBE_OP_MERGE, NULL);
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

    for (int i = 0; i < run.model.count; i++) {
        any = any || model_expiry(model_head(&run.model.cubes[i])) <= run.f.now_us;
    }
    assert_ok(memcube_sweep(run.f.write, MODEL_CUBES_MAX, &count, &more, fixture_error()));
    assert_false(more);
    if (!any) {
        return;
    }
    model_record(&run.model, run.f.now_us);
    for (int i = 0; i < run.model.count; i++) {
        const struct model_version head = *model_head(&run.model.cubes[i]);
        if (model_expiry(&head) <= run.f.now_us) {
            model_append(&run.model, i, &head.content, MEMCUBE_STATE_EXPIRED, MEMCUBE_OP_EXPIRE,
                &head);
        }
    }
    model_settle(&run.model);
}

/* ---- rollback and forget ------------------------------------------------------------------- */

struct target {
    struct memcube_rollback rollback;
    uint64_t seq; /* gone back to; not with a version */
};

static struct target target_random(int ids_count, int only)
{
    struct target target = { .rollback.include_frozen = run_chance(30) };

    if (ids_count == 1 && run_chance(40)) {
        target.rollback.to_version = 1 + (uint32_t)run_below(run.model.cubes[only].count);
    } else if (run_chance(5)) {
        target.rollback.to_beginning = true;
    } else if (run_chance(50)) {
        target.seq = 1 + run_random() % run.model.seq;
        target.rollback.to.seq = target.seq;
    } else {
        const uint64_t near = 1 + run_random() % run.model.seq;
        target.rollback.to.time_us = run.model.times[near] - run_below(2);
        target.seq = model_seq_of_time(&run.model, target.rollback.to.time_us);
    }
    return target;
}

/* What would be done to one cube: false for nothing. */
static bool item_expected(
    int at, const struct target *target, struct memcube_rollback_item *out)
{
    const struct model_cube *cube = &run.model.cubes[at];
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
    model_record(&run.model, run.f.now_us);
    for (int i = 0; i < count; i++) {
        const struct model_cube *cube = &run.model.cubes[at[i]];
        if (!wanted[i]) {
            continue;
        }
        const struct model_version like =
            item[i].to ? cube->versions[item[i].to - 1] : *model_head(cube);
        struct model_version *made = model_append(&run.model, at[i], &like.content,
            item[i].to ? like.state : MEMCUBE_STATE_WITHDRAWN, MEMCUBE_OP_ROLLBACK, &like);
        made->equals = (int)item[i].to;
    }
}

static bool all_have_room(void)
{
    bool room = true;
    for (int i = 0; i < run.model.count; i++) {
        room = room && run.model.cubes[i].count < MODEL_VERSIONS_MAX - 2 &&
               run.model.cubes[i].flips_count < MODEL_VERSIONS_MAX * 4 - 8;
    }
    return room;
}

static void do_rollback(void)
{
    int at[MODEL_CUBES_MAX];
    struct memos_id ids[RUN_IDS_MAX];
    const bool whole = run_chance(25) && all_have_room();
    const struct memcube_change change = change_of(RUN_SPACE);
    struct memcube_outcome outcome;
    struct memcube_rollback_item *items = NULL;
    size_t items_count = 0;
    int count = whole ? run.model.count : cubes_random(at);
    int made = 0;

    if (count == 0 || run.model.seq == 0) {
        return;
    }
    for (int i = 0; i < count; i++) {
        at[i] = whole ? i : at[i];
        if (!whole) {
            ids[i] = run.model.cubes[at[i]].id;
        }
    }
    struct target target = target_random(whole ? 0 : count, at[0]);
    target.rollback.ids = whole ? NULL : ids;
    target.rollback.ids_count = whole ? 0 : (size_t)count;
    target.rollback.dry_run = true;
    assert_ok(memcube_rollback(run.f.write, &change, &target.rollback, &outcome, &items,
        &items_count, fixture_error()));
    assert_int_equal(outcome.seq, 0);
    items_check(items, items_count, at, count, &target, true, &made);
    target.rollback.dry_run = false;
    assert_ok(memcube_rollback(run.f.write, &change, &target.rollback, &outcome, &items,
        &items_count, fixture_error()));
    items_check(items, items_count, at, count, &target, false, &made);
    if (made > 0) {
        model_rollback(at, count, &target);
    }
    outcome_check(&outcome, made > 0);
}

static void do_forget(void)
{
    int at[RUN_IDS_MAX];
    struct memos_id ids[RUN_IDS_MAX];
    int count = cubes_random(at);
    const struct memcube_change change = change_of(RUN_SPACE);
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    bool gone[MODEL_CUBES_MAX] = { false };
    size_t live = 0;

    count = count > 1 ? 1 : count;
    for (int i = 0; i < count; i++) {
        ids[i] = run.model.cubes[at[i]].id;
        for (int c = 0; c < run.model.count; c++) {
            gone[c] = gone[c] || model_descends(&run.model, c, at[i]);
        }
    }
    for (int c = 0; c < run.model.count; c++) {
        gone[c] = gone[c] && model_state(&run.model.cubes[c]) != MEMCUBE_STATE_FORGOTTEN;
        if (gone[c] && run.model.cubes[c].count >= MODEL_VERSIONS_MAX - 1) {
            return;
        }
        live += gone[c];
    }
    if (count == 0) {
        return;
    }
    assert_ok(memcube_forget(run.f.write, &change, ids, (size_t)count, false, false, &outcome,
        &forgotten, fixture_error()));
    assert_int_equal(forgotten.ids_count, live);
    if (live > 0) {
        model_record(&run.model, run.f.now_us);
    }
    for (int c = 0; c < run.model.count; c++) {
        if (gone[c]) {
            struct model_content content = model_head(&run.model.cubes[c])->content;
            content.text = -1;
            model_append(
                &run.model, c, &content, MEMCUBE_STATE_FORGOTTEN, MEMCUBE_OP_FORGET, NULL);
        }
    }
    outcome_check(&outcome, live > 0);
}

/* ---- one of them ------------------------------------------------------------------------- */

void run_step(void)
{
    const int dice = run_below(100);

    if (dice < 34 || run.model.count < 3) {
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
