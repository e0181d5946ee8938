/* Pulls all changes of a volume and looks at each byte's page: what benches/bindings times for C.
 *
 *   iterate VOLUME [MANIFEST]      prints how many bytes were told, and the seconds that the iterating took
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <blkdelta.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int count, char **arguments) {
    struct blkdelta_scan_options options;
    struct blkdelta_limit_options limits;
    struct blkdelta_run_options run;
    struct blkdelta_changes *changes = NULL;
    const struct blkdelta_range *range = NULL;
    unsigned long long bytes = 0;
    unsigned seen = 0;
    double begun = now();

    memset(&options, 0, sizeof options);
    memset(&limits, 0, sizeof limits);
    memset(&run, 0, sizeof run);
    options.struct_size = sizeof options;
    limits.struct_size = sizeof limits;
    run.struct_size = sizeof run;
    options.source = arguments[1];
    options.manifest = count > 2 ? arguments[2] : NULL;
    limits.full_speed = 1;
    run.limits = &limits;
    if (blkdelta_changes_open(&options, &run, &changes) < 0) {
        fprintf(stderr, "iterate: %s\n", blkdelta_last_error());
        return 1;
    }
    for (;;) {
        if (blkdelta_changes_next(changes, &range) < 0) {
            fprintf(stderr, "iterate: %s\n", blkdelta_last_error());
            return 1;
        }
        if (range == NULL) {
            break;
        }
        bytes += range->length;
        for (size_t at = 0; range->data != NULL && at < range->length; at += 4096) {
            seen += range->data[at];
        }
    }
    blkdelta_changes_close(changes);
    printf("%llu %f\n", bytes, now() - begun);
    return seen == 1; /* so that nobody leaves the looking out */
}
