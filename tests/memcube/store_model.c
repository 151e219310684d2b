#include "tests/memcube/store_model.h"

#include <string.h>

const struct model_version *model_head(const struct model_cube *cube)
{
    return &cube->versions[cube->count - 1];
}

enum memcube_state model_state(const struct model_cube *cube)
{
    return model_head(cube)->state;
}

int64_t model_expiry(const struct model_version *version)
{
    const bool mortal = version->state == MEMCUBE_STATE_GENERATED ||
                        version->state == MEMCUBE_STATE_ACTIVATED;
    return mortal && version->content.expires_us != 0 ? version->content.expires_us : INT64_MAX;
}

int model_as_of(const struct model_cube *cube, uint64_t seq)
{
    int number = 0;
    while (number < cube->count && cube->versions[number].seq <= seq) {
        number++;
    }
    return number;
}

bool model_stale_as_of(const struct model_cube *cube, uint64_t seq)
{
    bool stale = false;
    for (int i = 0; i < cube->flips_count && cube->flips[i].seq <= seq; i++) {
        stale = cube->flips[i].stale;
    }
    return stale;
}

uint64_t model_seq_of_time(const struct model *model, int64_t time_us)
{
    uint64_t seq = 0;
    while (seq < model->seq && model->times[seq + 1] <= time_us) {
        seq++;
    }
    return seq;
}

bool model_words_same(const struct model_content *a, const struct model_content *b)
{
    return a->text == b->text && a->title == b->title && a->speaker == b->speaker &&
           a->event_us == b->event_us;
}

static bool derived_same(const struct model_content *a, const struct model_content *b)
{
    bool same = a->derived_count == b->derived_count;
    for (int i = 0; same && i < a->derived_count; i++) {
        same = a->derived[i].cube == b->derived[i].cube &&
               a->derived[i].number == b->derived[i].number;
    }
    return same;
}

bool model_content_same(const struct model_content *a, const struct model_content *b)
{
    return model_words_same(a, b) && a->tags == b->tags && a->expires_us == b->expires_us &&
           derived_same(a, b);
}

bool model_descends(const struct model *model, int cube, int from)
{
    if (cube == from) {
        return true;
    }
    for (int v = 0; v < model->cubes[cube].count; v++) {
        const struct model_content *content = &model->cubes[cube].versions[v].content;
        for (int i = 0; i < content->derived_count; i++) {
            if (model_descends(model, content->derived[i].cube, from)) {
                return true;
            }
        }
    }
    return false;
}

void model_record(struct model *model, int64_t now_us)
{
    const int64_t before = model->times[model->seq];
    model->seq++;
    model->times[model->seq] = now_us > before ? now_us : before;
}

struct model_version *model_append(struct model *model, int cube,
    const struct model_content *content, enum memcube_state state,
    enum memcube_operation operation, const struct model_version *like)
{
    struct model_cube *at = &model->cubes[cube];
    struct model_version version = {
        .content = *content,
        .state = state,
        .operation = operation,
        .seq = model->seq,
        .doc = like ? like->doc : 0,
    };
    if (version.content.event_us == 0 && state != MEMCUBE_STATE_FORGOTTEN) {
        version.content.event_us = model->times[model->seq];
    }
    if (!like && state != MEMCUBE_STATE_FORGOTTEN) {
        version.doc = ++model->docs;
    }
    at->versions[at->count] = version;
    return &at->versions[at->count++];
}

/* ---- what stands --------------------------------------------------------------------------- */

static bool stands(const struct model *model, const struct model_ref *ref)
{
    const struct model_cube *source = &model->cubes[ref->cube];
    const enum memcube_state state = model_state(source);

    return state != MEMCUBE_STATE_EXPIRED && state != MEMCUBE_STATE_WITHDRAWN &&
           state != MEMCUBE_STATE_FORGOTTEN &&
           source->versions[ref->number - 1].content.text == model_head(source)->content.text;
}

enum { UNKNOWN, FRESH, STALE };

static bool is_stale(const struct model *model, int cube, char *known)
{
    const struct model_version *head = model_head(&model->cubes[cube]);

    if (known[cube] == UNKNOWN) {
        bool stale = false;
        for (int i = 0; i < head->content.derived_count; i++) {
            stale = stale || !stands(model, &head->content.derived[i]) ||
                    is_stale(model, head->content.derived[i].cube, known);
        }
        known[cube] = stale && head->state != MEMCUBE_STATE_FORGOTTEN ? STALE : FRESH;
    }
    return known[cube] == STALE;
}

int model_settle(struct model *model)
{
    char known[MODEL_CUBES_MAX];
    int changed = 0;

    memset(known, UNKNOWN, sizeof known);
    for (int i = 0; i < model->count; i++) {
        struct model_cube *cube = &model->cubes[i];
        const bool stale = is_stale(model, i, known);
        if (stale == cube->stale) {
            continue;
        }
        cube->stale = stale;
        /* A forgotten cube loses its flag without a word about it. */
        changed += model_state(cube) != MEMCUBE_STATE_FORGOTTEN;
        cube->flips[cube->flips_count++] = (struct model_flip){ model->seq, stale };
    }
    return changed;
}
