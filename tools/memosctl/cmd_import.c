/* Taking in conversations, texts and archives. */
#include "tools/memosctl/archive.h"
#include "tools/memosctl/input.h"
#include "tools/memosctl/pipeline.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_BYTES_MIN = 100, CHUNK_BYTES_MAX = 1024 * 1024 };

/* A file's bytes: mapped, or read when it is not a plain file. */
struct content {
    void *map;
    size_t map_bytes;
    struct memos_buffer buffer;
    struct memos_bytes bytes;
};

static enum memos_status content_open(
    const char *path, struct content *out, struct memos_error *err)
{
    struct stat info;
    *out = (struct content){.map = MAP_FAILED};
    int file = strcmp(path, "-") == 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 && strcmp(path, "-") != 0) {
        return memos_fail_errno(err, errno, "cannot open '%.100s'", path);
    }
    if (file >= 0 && fstat(file, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0 &&
        (uint64_t)info.st_size <= SIZE_MAX) {
        out->map_bytes = (size_t)info.st_size;
        out->map = mmap(NULL, out->map_bytes, PROT_READ, MAP_PRIVATE, file, 0);
    }
    if (file >= 0) {
        close(file);
    }
    if (out->map != MAP_FAILED) {
        out->bytes = memos_bytes_make(out->map, out->map_bytes);
        return MEMOS_OK;
    }
    enum memos_status status = ctl_file_read(path, (size_t)CTL_FILE_BYTES_MAX, &out->buffer, err);
    out->bytes = memos_buffer_view(&out->buffer);
    return status;
}

static void content_close(struct content *content)
{
    if (content->map != MAP_FAILED) {
        (void)munmap(content->map, content->map_bytes);
    }
    memos_buffer_free(&content->buffer);
}

struct import {
    struct ctl *ctl;
    struct ctl_pipeline_options options;
    struct ctl_import_map map;
    struct ctl_pipeline *pipeline;
    enum ctl_import_format format; /* UNKNOWN: worked out for each file */
    size_t chunk_bytes;
    struct ctl_archive_counts archives;
    size_t archives_count;
};

static enum memos_status read_options(struct import *import, struct memos_error *err)
{
    const struct ctl_args *args = import->ctl->args;
    const char *format = ctl_args_value(args, CTL_FORMAT), *space = ctl_operand(import->ctl, 0);
    const char *map;
    uint64_t chunk_bytes;
    size_t at = 0;
    import->format = format ? ctl_import_format_of(format) : CTL_IMPORT_UNKNOWN;
    if (format && import->format == CTL_IMPORT_UNKNOWN) {
        return memos_fail(err, MEMOS_INVALID,
            "--format takes jsonl, messages, chatgpt, text, markdown or archive, not '%.40s'",
            format);
    }
    while ((map = ctl_args_next(args, CTL_MAP, &at))) {
        enum memos_status status = ctl_import_map_parse(map, &import->map, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    enum memos_status status = ctl_args_number(
        args, CTL_CHUNK_BYTES, 0, CHUNK_BYTES_MIN, CHUNK_BYTES_MAX, &chunk_bytes, err);
    import->chunk_bytes = (size_t)chunk_bytes;
    import->options = (struct ctl_pipeline_options){
        .space = strcmp(space, "-") == 0 ? NULL : space,
        .language = ctl_args_value(args, CTL_LANGUAGE),
        .subtype = ctl_args_value(args, CTL_SUBTYPE),
        .skip_bad = ctl_args_has(args, CTL_SKIP_BAD),
        .dry_run = ctl_args_has(args, CTL_DRY_RUN),
    };
    if (status == MEMOS_OK && !import->options.space && !import->map.names[CTL_IMPORT_SPACE][0]) {
        return memos_fail(
            err, MEMOS_INVALID, "the space is '-', and no --map space=NAME says where it is named");
    }
    return status == MEMOS_OK ? ctl_values(import->ctl, CTL_TAG, &import->options.tags,
                                    &import->options.tags_count, err)
                              : status;
}

/* What the file is called, without its folders: the same wherever it lies. */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return strcmp(path, "-") == 0 ? "standard input" : slash ? slash + 1 : path;
}

static enum memos_status import_archive(
    struct import *import, struct memos_bytes bytes, struct memos_error *err)
{
    if (!import->options.space) {
        return memos_fail(err, MEMOS_INVALID, "an archive needs a SPACE to go to");
    }
    import->archives_count++;
    return import->options.dry_run ? MEMOS_OK
                                   : ctl_archive_import(import->ctl, import->options.space, bytes,
                                         &import->archives, err);
}

static enum memos_status import_file(
    struct import *import, const char *path, struct memos_error *err)
{
    struct content content;
    const char *name = base_name(path);
    enum memos_status status = content_open(path, &content, err);
    if (status != MEMOS_OK) {
        content_close(&content);
        return status;
    }
    enum ctl_import_format format =
        import->format ? import->format : ctl_import_detect(content.bytes, name);
    struct ctl_import_options options = {name, &import->map, import->chunk_bytes};
    struct ctl_import_sink sink = ctl_pipeline_sink(import->pipeline, name);
    if (content.bytes.size == 0) {
        ctl_note(import->ctl, "%s is empty", name);
    } else if (format == CTL_IMPORT_UNKNOWN) {
        import->ctl->hint = "say what it is with --format";
        status = memos_fail(err, MEMOS_INVALID, "'%.100s' is of no format that is known", path);
    } else if (format == CTL_IMPORT_ARCHIVE) {
        status = import_archive(import, content.bytes, err);
    } else {
        status = ctl_import_read(format, content.bytes, &options, &sink, err);
    }
    content_close(&content);
    return status;
}

static enum memos_status print_counts(const struct import *import, struct memos_error *err)
{
    const struct ctl_import_counts *counts = ctl_pipeline_counts(import->pipeline);
    bool is_dry = import->options.dry_run;
    if (import->ctl->json) {
        return ctl_json_print(
            json_pack("{sI,sI,sI,sI,sI,sI,sb}", "new", (json_int_t)counts->created, "updated",
                (json_int_t)counts->updated, "unchanged", (json_int_t)counts->unchanged, "failed",
                (json_int_t)counts->failed, "archives", (json_int_t)import->archives_count,
                "archive_added", (json_int_t)import->archives.added, "dry_run", (int)is_dry),
            err);
    }
    if (import->archives_count > 0) {
        printf("%zu archive%s, %llu of %llu records added\n", import->archives_count,
            import->archives_count == 1 ? "" : "s", (unsigned long long)import->archives.added,
            (unsigned long long)import->archives.total);
        if (counts->created + counts->updated + counts->unchanged + counts->failed == 0) {
            return MEMOS_OK;
        }
    }
    if (is_dry) {
        printf("%llu could be imported, %llu could not (--dry-run)\n",
            (unsigned long long)counts->created, (unsigned long long)counts->failed);
    } else {
        printf("%llu new, %llu updated, %llu unchanged, %llu failed\n",
            (unsigned long long)counts->created, (unsigned long long)counts->updated,
            (unsigned long long)counts->unchanged, (unsigned long long)counts->failed);
    }
    return MEMOS_OK;
}

enum memos_status ctl_run_import(struct ctl *ctl, struct memos_error *err)
{
    struct import import = {.ctl = ctl};
    enum memos_status status = read_options(&import, err);
    if (status == MEMOS_OK) {
        status = ctl_pipeline_create(ctl, &import.options, &import.pipeline, err);
    }
    for (size_t i = 1; i < ctl->args->operands_count && status == MEMOS_OK; i++) {
        status = import_file(&import, ctl_operand(ctl, i), err);
    }
    if (status == MEMOS_OK) {
        status = ctl_pipeline_finish(import.pipeline, err);
    } else if (import.pipeline && ctl_pipeline_is_refused(import.pipeline) &&
               ctl_pipeline_finish(import.pipeline, NULL) == MEMOS_OK) {
        const struct ctl_import_counts *counts = ctl_pipeline_counts(import.pipeline);
        ctl_note(ctl, "before it: %llu new, %llu updated, %llu unchanged",
            (unsigned long long)counts->created, (unsigned long long)counts->updated,
            (unsigned long long)counts->unchanged);
    }
    if (status == MEMOS_OK) {
        status = print_counts(&import, err);
    }
    ctl_pipeline_destroy(&import.pipeline);
    return status;
}
