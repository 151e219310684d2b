#include "tests/bench/bench.h"

#include "commit.h"

#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define MACHINE_BYTES 256

static void usage(FILE *out, const char *name)
{
    (void)fprintf(out,
        "usage: %s [--quick | --full] [--json] [--dir FOLDER]\n\n"
        "  --quick       smaller amounts; ends in under a minute\n"
        "  --full        the largest amounts too, where there are any: many minutes, gigabytes\n"
        "  --json        one JSON object instead of the table\n"
        "  --dir FOLDER  where its files go (default $TMPDIR, else /tmp)\n",
        name);
}

void bench_say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
}

void bench_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

void bench_check(enum memos_status status, const struct memos_error *err, const char *what)
{
    if (status != MEMOS_OK) {
        bench_fail("%s: %s: %s", what, memos_status_text(status), err->text);
    }
}

int bench_options_take(const struct bench_option *options, size_t count, int argc, char **argv)
{
    int kept = 1;
    for (int i = 1; i < argc; i++) {
        bool taken = false;
        for (size_t o = 0; o < count && !taken; o++) {
            if (strcmp(argv[i], options[o].name) == 0 && i + 1 < argc) {
                *options[o].value = argv[++i];
                taken = true;
            }
        }
        if (!taken) {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = NULL;
    return kept;
}

void bench_begin(struct bench *bench, const char *name, int argc, char **argv)
{
    const char *base = getenv("TMPDIR");

    *bench = (struct bench){.name = name};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            bench->json = true;
        } else if (strcmp(argv[i], "--quick") == 0) {
            bench->quick = true;
        } else if (strcmp(argv[i], "--full") == 0) {
            bench->full = true;
        } else if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc) {
            base = argv[++i];
        } else {
            bool help = strcmp(argv[i], "--help") == 0;
            usage(help ? stdout : stderr, argv[0]);
            exit(help ? 0 : 2);
        }
    }
    int length = snprintf(
        bench->folder, sizeof bench->folder, "%s/%s-XXXXXX", base && *base ? base : "/tmp", name);
    if (length < 0 || (size_t)length >= sizeof bench->folder / 2) {
        bench_fail("the path of the folder is too long");
    }
    if (!mkdtemp(bench->folder)) {
        bench_fail("%s: %s", bench->folder, strerror(errno));
    }
}

static int remove_entry(const char *path, const struct stat *about, int type, struct FTW *walk)
{
    (void)about;
    (void)type;
    (void)walk;
    return remove(path);
}

void bench_add(struct bench *bench, struct bench_row row)
{
    if (bench->rows_count == BENCH_ROWS_MAX) {
        bench_fail("more rows than BENCH_ROWS_MAX");
    }
    bench->rows[bench->rows_count++] = row;
}

static double row_ratio(const struct bench_row *row)
{
    return row->limit > 0 ? row->value / row->limit : 0;
}

static bool row_holds(const struct bench_row *row)
{
    double ratio = row_ratio(row);
    return row->higher_is_better ? ratio >= row->bar : ratio <= row->bar;
}

/* "x86_64, 2 cores, Some Processor 3000, Linux 6.1" */
static void machine_describe(char out[MACHINE_BYTES])
{
    struct utsname system;
    char model[128] = "unknown processor";
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");

    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            (void)snprintf(model, sizeof model, "%.127s", strchr(line, ':') + 2);
            model[strcspn(model, "\n\"\\")] = '\0';
            break;
        }
    }
    if (file) {
        (void)fclose(file);
    }
    if (uname(&system) != 0) {
        bench_fail("uname: %s", strerror(errno));
    }
    (void)snprintf(out, MACHINE_BYTES, "%.16s, %ld cores, %.100s, %.16s %.64s", system.machine,
        sysconf(_SC_NPROCESSORS_ONLN), model, system.sysname, system.release);
}

static void print_json(const struct bench *bench, const char *machine)
{
    (void)printf("{\"bench\": \"%s\", \"commit\": \"%s\", \"machine\": \"%s\", \"rows\": [",
        bench->name, BENCH_COMMIT, machine);
    for (size_t i = 0; i < bench->rows_count; i++) {
        const struct bench_row *row = &bench->rows[i];
        (void)printf("%s{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", ", i ? ", " : "",
            row->name, row->value, row->unit);
        if (row->limit > 0 && row->bar > 0) {
            (void)printf("\"limit\": %.6g, \"limit_name\": \"%s\", \"ratio\": %.4g, "
                         "\"bar\": %.4g, \"better\": \"%s\", \"holds\": %s}",
                row->limit, row->limit_name, row_ratio(row), row->bar,
                row->higher_is_better ? "higher" : "lower", row_holds(row) ? "true" : "false");
        } else if (row->limit > 0) {
            (void)printf("\"limit\": %.6g, \"limit_name\": \"%s\", \"ratio\": %.4g, "
                         "\"bar\": null, \"better\": \"%s\", \"holds\": null}",
                row->limit, row->limit_name, row_ratio(row),
                row->higher_is_better ? "higher" : "lower");
        } else {
            (void)printf("\"limit\": null, \"limit_name\": null, \"ratio\": null, \"bar\": null, "
                         "\"better\": \"%s\", \"holds\": null}",
                row->higher_is_better ? "higher" : "lower");
        }
    }
    (void)printf("]}\n");
}

static void print_table(const struct bench *bench, const char *machine)
{
    (void)printf(
        "%s at %s on %s%s\n\n", bench->name, BENCH_COMMIT, machine, bench->quick ? " (quick)" : "");
    (void)printf("%-46s %12s %-9s %12s  %-34s %7s %7s  %s\n", "what", "value", "unit", "limit",
        "which is", "ratio", "bar", "holds");
    for (size_t i = 0; i < bench->rows_count; i++) {
        const struct bench_row *row = &bench->rows[i];
        (void)printf("%-46s %12.6g %-9s", row->name, row->value, row->unit);
        if (row->limit > 0) {
            (void)printf(" %12.6g  %-34s %7.3f", row->limit, row->limit_name, row_ratio(row));
        }
        if (row->limit > 0 && row->bar > 0) {
            (void)printf(" %s%5.2f  %s", row->higher_is_better ? ">=" : "<=", row->bar,
                row_holds(row) ? "yes" : "NO");
        }
        (void)putchar('\n');
    }
}

int bench_end(struct bench *bench)
{
    char machine[MACHINE_BYTES];

    machine_describe(machine);
    if (bench->json) {
        print_json(bench, machine);
    } else {
        print_table(bench, machine);
    }
    if (nftw(bench->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0) {
        bench_fail("%s: %s", bench->folder, strerror(errno));
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

int64_t bench_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t bench_cpu_ns(void)
{
    struct timespec used;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static int compare_times(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

double bench_percentile(int64_t *times_ns, size_t count, double p)
{
    qsort(times_ns, count, sizeof *times_ns, compare_times);
    size_t rank = (size_t)((double)(count - 1) * p / 100 + 0.5);
    return (double)times_ns[rank];
}

void *bench_memory(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);

    if (!memory) {
        bench_fail("no memory for %zu x %zu bytes", count, size);
    }
    return memory;
}

/* Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (2014). */
uint64_t bench_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

void bench_path(const struct bench *bench, const char *name, char out[BENCH_PATH_BYTES])
{
    int length = snprintf(out, BENCH_PATH_BYTES, "%s/%s", bench->folder, name);

    if (length < 0 || length >= BENCH_PATH_BYTES) {
        bench_fail("%s: the path is too long", name);
    }
}
