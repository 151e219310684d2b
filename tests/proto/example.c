/* Puts a memory and finds it again: what a program with libmemos looks like.
 *
 *     cc example.c $(pkg-config --cflags --libs memos)
 *     ./a.out "Alice moved to Lisbon in May." "where does Alice live?" */
#include <proto/client.h>

#include <stdio.h>

static char space[] = "example";

/* Print what went wrong, and what to do about it; the status is the exit code. */
static int report(const struct memos_error *err)
{
    (void)fprintf(stderr, "%s: %s\n", memos_status_name(err->status), err->text);
    if (memos_status_hint(err->status)[0]) {
        (void)fprintf(stderr, "%s\n", memos_status_hint(err->status));
    }
    return (int)err->status;
}

/* Texts travel beside the envelope: the draft says in which payload frame. */
static enum memos_status put(struct memos_client *client, const char *text, struct memos_error *err)
{
    Memos__Draft draft = MEMOS__DRAFT__INIT, *drafts[] = { &draft };
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    struct memos_bytes frame = memos_bytes_of(text);
    struct memos_message *reply = NULL;
    draft.frame = 1;
    body.space = space;
    body.drafts = drafts;
    body.n_drafts = 1;
    request.body_case = MEMOS__REQUEST__BODY_PUT;
    request.put = &body;
    enum memos_status status = memos_client_call(client, &request, &frame, 1, &reply, err);
    memos_message_free(&reply);
    return status;
}

static enum memos_status search(struct memos_client *client, char *text, struct memos_error *err)
{
    Memos__Search body = MEMOS__SEARCH__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    struct memos_message *reply = NULL;
    body.space = space;
    body.text = text;
    request.body_case = MEMOS__REQUEST__BODY_SEARCH;
    request.search = &body;
    enum memos_status status = memos_client_call(client, &request, NULL, 0, &reply, err);
    if (status == MEMOS_OK && memos_message_reply(reply)->body_case == MEMOS__REPLY__BODY_HITS) {
        const Memos__Hits *hits = memos_message_reply(reply)->hits;
        for (size_t i = 0; i < hits->n_hits; i++) {
            const Memos__Cube *cube = hits->hits[i]->cube;
            struct memos_bytes words = memos_message_frame(reply, cube ? cube->frame : 0);
            (void)printf("%.2f ", (double)hits->hits[i]->score);
            (void)fwrite(words.data, 1, words.size, stdout);
            (void)printf("\n");
        }
    }
    memos_message_free(&reply);
    return status;
}

int main(int argc, char **argv)
{
    struct memos_client_options options = { .address = NULL }; /* the user's own broker */
    struct memos_client *client = NULL;
    struct memos_error err = { .status = MEMOS_OK };
    if (argc != 3) {
        (void)fprintf(stderr, "usage: %s TEXT QUESTION\n", argv[0]);
        return MEMOS_INVALID;
    }
    enum memos_status status = memos_client_open(&options, &client, &err);
    if (status == MEMOS_OK) {
        status = put(client, argv[1], &err);
    }
    if (status == MEMOS_OK) {
        status = search(client, argv[2], &err);
    }
    memos_client_close(&client);
    return status == MEMOS_OK ? 0 : report(&err);
}
