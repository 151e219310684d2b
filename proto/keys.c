/* Key pair files. Declared in proto/client.h. */
#include "proto/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define KEY_FILE_BYTES_MAX 4096
#define KEY_TEXT_BYTES 40

enum memos_status memos_key_pair_new(struct memos_key_pair *out, struct memos_error *err)
{
    /* One that begins with '-' would read as an option on a command line. */
    do {
        if (zmq_curve_keypair(out->public_key, out->secret_key) != 0) {
            return memos_fail_foreign(err, MEMOS_UNSUPPORTED, zmq_errno(),
                "this libzmq was built without CURVE");
        }
    } while (out->public_key[0] == '-');
    return MEMOS_OK;
}

static bool write_all(int file, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t wrote = write(file, text, size);
        if (wrote < 0 && errno == EINTR) {
            continue;
        } else if (wrote <= 0) {
            return false;
        }
        text += wrote;
        size -= (size_t)wrote;
    }
    return true;
}

enum memos_status memos_key_pair_write(
    const char *path, const struct memos_key_pair *pair, struct memos_error *err)
{
    char text[256];
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) {
        return memos_fail_errno(err, errno, "cannot make the key file '%s'", path);
    }
    int size = snprintf(text, sizeof text,
        "# A memos key pair. Keep this file to yourself; give only the public key away.\n"
        "public = %s\nsecret = %s\n",
        pair->public_key, pair->secret_key);
    bool good = write_all(file, text, (size_t)size) && fsync(file) == 0;
    int why = errno;
    explicit_bzero(text, sizeof text);
    if (close(file) != 0 && good) {
        good = false;
        why = errno;
    }
    if (!good) {
        (void)unlink(path);
        return memos_fail_errno(err, why, "cannot write the key file '%s'", path);
    }
    return MEMOS_OK;
}

/* A secret that others can read, or replace, is none. */
static enum memos_status check_private(int file, const char *path, struct memos_error *err)
{
    struct stat info;
    if (fstat(file, &info) != 0) {
        return memos_fail_errno(err, errno, "cannot look at the key file '%s'", path);
    }
    if (!S_ISREG(info.st_mode)) {
        return memos_fail(err, MEMOS_INVALID, "the key file '%s' is not a regular file", path);
    }
    if ((info.st_mode & 077) != 0) {
        return memos_fail(err, MEMOS_DENIED,
            "the key file '%s' is open to others (mode %03o): chmod 600 it, and make a new key if "
            "somebody may have read it",
            path, (unsigned)(info.st_mode & 0777));
    }
    if (info.st_uid != geteuid() && info.st_uid != 0) {
        return memos_fail(err, MEMOS_DENIED, "the key file '%s' belongs to another user", path);
    }
    return MEMOS_OK;
}

/* The whole file into text, with a NUL after it. */
static enum memos_status read_text(
    const char *path, char text[KEY_FILE_BYTES_MAX + 1], struct memos_error *err)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) {
        return memos_fail_errno(err, errno, "cannot open the key file '%s'", path);
    }
    enum memos_status status = check_private(file, path, err);
    size_t size = 0;
    while (status == MEMOS_OK && size < KEY_FILE_BYTES_MAX) {
        ssize_t got = read(file, text + size, KEY_FILE_BYTES_MAX - size);
        if (got < 0 && errno == EINTR) {
            continue;
        } else if (got < 0) {
            status = memos_fail_errno(err, errno, "cannot read the key file '%s'", path);
        } else if (got == 0) {
            break;
        } else {
            size += (size_t)got;
        }
    }
    (void)close(file);
    text[size] = 0;
    if (status == MEMOS_OK && (size == KEY_FILE_BYTES_MAX || memchr(text, 0, size))) {
        status = memos_fail(err, MEMOS_INVALID, "'%s' is not a key file", path);
    }
    return status;
}

static bool is_key(const char *text)
{
    uint8_t raw[32];
    bool good = strlen(text) == KEY_TEXT_BYTES && zmq_z85_decode(raw, text) != NULL;
    explicit_bzero(raw, sizeof raw);
    return good;
}

/* "name = value": the value into out. False when it is another line; out is empty when the value is
 * too long to be a key. */
static bool parse_line(const char *line, const char *name, char out[KEY_TEXT_BYTES + 1])
{
    size_t name_size = strlen(name);
    line += strspn(line, " \t");
    if (strncmp(line, name, name_size) != 0) {
        return false;
    }
    line += name_size;
    line += strspn(line, " \t");
    if (*line != '=') {
        return false;
    }
    line++;
    line += strspn(line, " \t");
    size_t size = strcspn(line, " \t\r");
    bool fits = size <= KEY_TEXT_BYTES && line[size + strspn(line + size, " \t\r")] == 0;
    memcpy(out, line, fits ? size : 0);
    out[fits ? size : 0] = 0;
    return true;
}

static enum memos_status parse_text(
    const char *path, char *text, struct memos_key_pair *out, struct memos_error *err)
{
    struct memos_key_pair pair = { 0 };
    char check[KEY_TEXT_BYTES + 1];
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (!parse_line(line, "public", pair.public_key)) {
            (void)parse_line(line, "secret", pair.secret_key);
        }
    }
    enum memos_status status = MEMOS_OK;
    if (!is_key(pair.public_key) || !is_key(pair.secret_key)) {
        status = memos_fail(err, MEMOS_INVALID,
            "'%s' is not a key file: it needs the lines 'public = KEY' and 'secret = KEY' with "
            "keys of %d characters",
            path, KEY_TEXT_BYTES);
    } else if (zmq_curve_public(check, pair.secret_key) != 0 ||
        strcmp(check, pair.public_key) != 0) {
        status = memos_fail(err, MEMOS_INVALID,
            "the public key in '%s' does not belong to the secret one", path);
    } else {
        *out = pair;
    }
    explicit_bzero(&pair, sizeof pair);
    return status;
}

enum memos_status memos_key_pair_read(
    const char *path, struct memos_key_pair *out, struct memos_error *err)
{
    char text[KEY_FILE_BYTES_MAX + 1];
    enum memos_status status = read_text(path, text, err);
    if (status == MEMOS_OK) {
        status = parse_text(path, text, out, err);
    }
    explicit_bzero(text, sizeof text);
    return status;
}
