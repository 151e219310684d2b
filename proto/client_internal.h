/* What the files of the client share. */
#ifndef PROTO_CLIENT_INTERNAL_H
#define PROTO_CLIENT_INTERNAL_H

#include "proto/client.h"

/* The path of an ipc address, viewed in it; NULL of another. */
const char *memos_address_ipc_path(const char *address);

/* INVALID: no address that a client can connect to, or a path too long for a socket. */
MEMOS_MUST_USE enum memos_status memos_address_check(const char *address, struct memos_error *err);

/* UNAVAILABLE or DENIED when a connection to address cannot come about: a socket's file that is not
 * there, that nobody listens on, or that is not for us. OK promises nothing. */
MEMOS_MUST_USE enum memos_status memos_address_probe(const char *address, struct memos_error *err);

/* The address to connect to for one that the broker bound: where it listens on all of its
 * host's addresses, the host is the one that this client reached it by. Writes at most size
 * bytes. INVALID as memos_address_check. */
MEMOS_MUST_USE enum memos_status memos_address_reachable(const struct memos_client *client,
    const char *bound, char *out, size_t size, struct memos_error *err);

/* Where the client connects to. Views until the client is closed. */
const char *memos_client_address(const struct memos_client *client);

/* A socket of the client's context with the limits and the keys that its connection has; close it
 * before the client. */
MEMOS_MUST_USE enum memos_status memos_client_socket(
    struct memos_client *client, int type, void **out_socket, struct memos_error *err);

#endif
