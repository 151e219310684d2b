/* A broker inside the test's process, with a folder of its own, and clients to it.
 *
 * What cannot be done fails the test. */
#ifndef TESTS_BROKER_FIXTURE_H
#define TESTS_BROKER_FIXTURE_H

#include "memos/broker/broker.h"
#include "proto/client.h"
#include "proto/envelope.h"
#include "proto/id.h"
#include "tests/memcube/folder.h"

#include <pthread.h>

struct fixture {
    char folder[FOLDER_PATH_BYTES];
    struct broker_config config;
    struct broker *broker;
    pthread_t thread;
    struct memos_client *owner; /* over ipc */
};

/* settings: lines of the configuration beside those that say where things are. */
void fixture_start(struct fixture *fixture, const char *settings);
void fixture_stop(struct fixture *fixture); /* the folder stays */
void fixture_end(struct fixture *fixture);

/* A client over TCP with a key that stands for `principal` (NULL: an unknown one; the broker must
 * have `curve = true`); without CURVE, one that comes as "loopback". */
struct memos_client *fixture_client(struct fixture *fixture, const char *principal);

/* A reply that has been taken apart: its status, its text, and whether it has a body. */
struct answer {
    struct memos_message *message;
    const Memos__Reply *reply;
    enum memos_status status;
};
void answer_free(struct answer *answer);

/* Send a request, with one payload frame unless text is NULL, and wait for its last reply. */
struct answer ask(struct memos_client *client, Memos__Request *request, const char *text);

/* Fill in a request: REQUEST(request, GET, get, body) with a body of its own type. */
#define REQUEST(request, NAME, member, body)                                                       \
    do {                                                                                           \
        memos__request__init(&(request));                                                          \
        (request).body_case = MEMOS__REQUEST__BODY_##NAME;                                         \
        (request).member = &(body);                                                                \
    } while (0)

/* Put one text; its id. `reader`: the access list, NULL for none. */
struct memos_id put_text(
    struct memos_client *client, const char *space, const char *text, const char *reader);

/* Destroy it. */
void forget_text(struct memos_client *client, const char *space, const struct memos_id *id);

/* Cancel one of the client's requests, which is answered as well. */
void cancel(struct memos_client *client, uint64_t id);

void grant(struct fixture *fixture, const char *principal, const char *spaces, const char *rights);

#endif
