/* Backs a volume up into a repository, which is made if it is not there, and shows how far it is. Ctrl-C ends it; what was
 * stored before is whole.
 *
 *   backup REPOSITORY VOLUME NAME
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <blkdelta.h>

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

static int show_progress(void *user, const struct blkdelta_progress *progress) {
    (void)user;
    fprintf(stderr, "\r%llu of %llu MiB, %llu MiB changed %-24s", (unsigned long long)progress->bytes_done >> 20,
            (unsigned long long)progress->bytes_total >> 20, (unsigned long long)progress->bytes_changed >> 20,
            progress->note);
    return interrupted; /* not zero cancels */
}

static int failed(void) {
    const char *hint = blkdelta_last_error_hint();
    fprintf(stderr, "\nbackup: %s\n", blkdelta_last_error());
    if (hint != NULL) {
        fprintf(stderr, "HINT: %s\n", hint);
    }
    return 1;
}

int main(int count, char **arguments) {
    struct blkdelta_repository *repository = NULL;
    struct blkdelta_backup_options options;
    const struct blkdelta_backup_options *volumes[1];
    struct blkdelta_run_options run;
    struct blkdelta_summary summary;
    blkdelta_status status;

    if (count != 4) {
        fprintf(stderr, "usage: backup REPOSITORY VOLUME NAME\n");
        return 2;
    }
    signal(SIGINT, on_signal);
    status = blkdelta_repository_open(arguments[1], &repository);
    if (status == BLKDELTA_STATUS_NO_REPOSITORY) {
        status = blkdelta_init(arguments[1], NULL, NULL, &repository);
    }
    if (status < 0) {
        return failed();
    }
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.source = arguments[2];
    options.volume = arguments[3];
    volumes[0] = &options;
    memset(&run, 0, sizeof run);
    run.struct_size = sizeof run;
    run.on_progress = show_progress;
    summary.struct_size = sizeof summary;
    status = blkdelta_backup(repository, volumes, 1, NULL, &run, &summary, NULL);
    blkdelta_repository_close(repository);
    if (status < 0) {
        return failed();
    }
    fprintf(stderr, "\nbackup %s: %llu bytes changed, %llu stored\n", summary.backup_id,
            (unsigned long long)summary.bytes_changed, (unsigned long long)summary.bytes_stored);
    return status == BLKDELTA_STATUS_OK ? 0 : 3;
}
