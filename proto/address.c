/* Where brokers are. Declared in proto/client.h and proto/client_internal.h. */
#include "proto/client_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

const char *memos_address_ipc_path(const char *address)
{
    return strncmp(address, "ipc://", 6) == 0 ? address + 6 : NULL;
}

enum memos_status memos_address_check(const char *address, struct memos_error *err)
{
    const char *path = memos_address_ipc_path(address);
    size_t size_max = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    if (path && path[0] == 0) {
        return memos_fail(err, MEMOS_INVALID, "the address 'ipc://' has no path");
    }
    if (path && strlen(path) > size_max) {
        return memos_fail(err, MEMOS_INVALID,
            "the socket's path has %zu bytes, and the system takes at most %zu: %s", strlen(path),
            size_max, path);
    }
    if (!path && strncmp(address, "tcp://", 6) != 0) {
        return memos_fail(err, MEMOS_INVALID,
            "'%s' is no address: give ipc:///path/of/memosd.sock or tcp://host:port", address);
    }
    return MEMOS_OK;
}

/* Anybody can make a folder in /tmp: one that is not ours may hold another's socket. */
static enum memos_status check_own_folder(const char *folder, struct memos_error *err)
{
    struct stat info;
    if (lstat(folder, &info) == 0 && (!S_ISDIR(info.st_mode) || info.st_uid != geteuid())) {
        return memos_fail(err, MEMOS_DENIED,
            "'%s' is not a folder of yours: set XDG_RUNTIME_DIR, or give an address", folder);
    }
    return MEMOS_OK;
}

enum memos_status memos_default_address(char *out, size_t size, struct memos_error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char folder[4096];
    int folder_size;
    if (runtime && runtime[0] == '/') {
        folder_size = snprintf(folder, sizeof folder, "%s/memos", runtime);
    } else {
        folder_size = snprintf(folder, sizeof folder, "/tmp/memos-%u", (unsigned)geteuid());
        enum memos_status status = check_own_folder(folder, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    int used = snprintf(out, size, "ipc://%s/memosd.sock", folder);
    if ((size_t)folder_size >= sizeof folder || used < 0 || (size_t)used >= size) {
        return memos_fail(err, MEMOS_INVALID, "the path of the broker's socket is too long");
    }
    return memos_address_check(out, err);
}

enum memos_status memos_address_reachable(const struct memos_client *client, const char *bound,
    char *out, size_t size, struct memos_error *err)
{
    static const char *const anywhere[] = { "tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:" };
    const char *own = memos_client_address(client), *own_port = strrchr(own, ':');
    int used = snprintf(out, size, "%s", bound);
    for (size_t i = 0; i < sizeof anywhere / sizeof anywhere[0]; i++) {
        size_t host_size = strlen(anywhere[i]);
        if (strncmp(bound, anywhere[i], host_size) == 0 && strncmp(own, "tcp://", 6) == 0) {
            used = snprintf(out, size, "%.*s:%s", (int)(own_port - own), own, bound + host_size);
        }
    }
    if (used < 0 || (size_t)used >= size) {
        return memos_fail(err, MEMOS_INVALID, "an address of %d bytes", used);
    }
    return memos_address_check(out, err);
}

enum memos_status memos_address_probe(const char *address, struct memos_error *err)
{
    const char *path = memos_address_ipc_path(address);
    if (!path || path[0] == '@') {
        return MEMOS_OK;
    }
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    memcpy(name.sun_path, path, strlen(path));
    int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (file < 0) {
        return MEMOS_OK;
    }
    int why = connect(file, (const struct sockaddr *)&name, sizeof name) == 0 ? 0 : errno;
    (void)close(file);
    if (why == EACCES || why == EPERM) {
        return memos_fail_foreign(err, MEMOS_DENIED, why,
            "the broker's socket %s belongs to somebody else", path);
    } else if (why == ENOENT || why == ENOTDIR || why == ECONNREFUSED) {
        return memos_fail_foreign(err, MEMOS_UNAVAILABLE, why,
            "no broker listens at %s: start one with `memosctl up`", path);
    }
    return MEMOS_OK;
}
