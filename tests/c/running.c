/* A program that looks after its runs: progress, cancelling, limits that are changed on the way, log lines. */
#include <unistd.h>

#include "support.h"

static int calls;
static int lines;
static uint64_t furthest;
static pid_t here;

struct watch {
    int cancel_after;     /* so many calls; 0: never */
    uint64_t new_bwlimit; /* set by the first call */
};

static int watching(void *user, const struct blkdelta_progress *progress) {
    struct watch *watch = (struct watch *)user;
    calls++;
    CHECK(progress->struct_size >= sizeof *progress && progress->note != NULL);
    CHECK(progress->bytes_done <= progress->bytes_total);
    furthest = progress->bytes_done;
    if (watch->new_bwlimit != 0) {
        struct blkdelta_limit_options limits;
        char *json = NULL;
        CLEAR(limits);
        limits.bwlimit = watch->new_bwlimit;
        DONE(blkdelta_limits_set(NULL, (uint32_t)here, &limits, &json));
        CHECK(strstr(json, "\"bwlimit\":1073741824") != NULL);
        blkdelta_string_free(json);
        watch->new_bwlimit = 0;
    }
    return watch->cancel_after != 0 && calls >= watch->cancel_after;
}

static int take_line(void *user, int level, const char *text) {
    CHECK(level >= BLKDELTA_LOG_LEVEL_ERROR && level <= BLKDELTA_LOG_LEVEL_TRACE && text[0] != '\0');
    __atomic_fetch_add(&lines, 1, __ATOMIC_RELAXED);
    return *(const int *)user;
}

static struct blkdelta_run_options run_of(struct watch *watch, struct blkdelta_limit_options *limits) {
    struct blkdelta_run_options run;
    CLEAR(run);
    run.on_progress = watching;
    run.user = watch;
    run.progress_interval_ms = 20;
    run.limits = limits;
    CLEAR(*limits);
    limits->full_speed = 1; /* no niceness: a busy machine would leave it nothing */
    limits->bwlimit = 256 << 10; /* 24 seconds for the volume, which nobody waits for */
    calls = 0;
    return run;
}

static void cancelled(struct blkdelta_repository *repository) {
    struct watch watch = {3, 0};
    struct blkdelta_limit_options limits;
    struct blkdelta_run_options run = run_of(&watch, &limits);
    char *json = NULL;
    IS(back_up(repository, "volume", &run, NULL), BLKDELTA_STATUS_CANCELLED);
    CHECK(calls == 3); /* and none after that */
    DONE(blkdelta_list(repository, NULL, &json));
    CHECK(strcmp(json, "[]") == 0);
    blkdelta_string_free(json);
}

/* An iterator shows its progress while it is waited for; once cancelled it tells nothing more. */
static void an_iterator_is_cancelled(void) {
    struct watch watch = {2, 0};
    struct blkdelta_limit_options limits;
    struct blkdelta_run_options run = run_of(&watch, &limits);
    struct blkdelta_scan_options options;
    struct blkdelta_changes *changes = NULL;
    const struct blkdelta_range *range = NULL;
    blkdelta_status status;
    CLEAR(options);
    options.source = "volume";
    options.write_manifest = "manifest";
    DONE(blkdelta_changes_open(&options, &run, &changes));
    do {
        status = blkdelta_changes_next(changes, &range);
    } while (status == BLKDELTA_STATUS_OK && range != NULL);
    IS(status, BLKDELTA_STATUS_CANCELLED);
    IS(blkdelta_changes_next(changes, &range), BLKDELTA_STATUS_CANCELLED);
    IS(blkdelta_changes_report(changes, NULL, NULL), BLKDELTA_STATUS_WRONG_USE);
    DONE(blkdelta_changes_close(changes));
    CHECK(calls == 2 && access("manifest", F_OK) != 0);
}

static void limits_are_changed(struct blkdelta_repository *repository) {
    struct watch watch = {0, 1 << 30};
    struct blkdelta_limit_options limits;
    struct blkdelta_run_options run = run_of(&watch, &limits);
    struct blkdelta_summary summary;
    char *json = NULL;
    CLEAR(summary);
    limits.bwlimit = 1 << 10; /* 100 minutes, unless the new limit is taken */
    DONE(back_up(repository, "volume", &run, &summary));
    CHECK(watch.new_bwlimit == 0 && summary.duration_s < 3000 && calls > 1);
    CHECK(furthest == VOLUME_SIZE); /* the last call tells the end */
    IS(blkdelta_limits_set(NULL, (uint32_t)here, &limits, NULL), BLKDELTA_STATUS_NOT_FOUND);
    DONE(blkdelta_limits_show(NULL, &json));
    CHECK(strcmp(json, "[]") == 0);
    blkdelta_string_free(json);
}

static void log_lines(struct blkdelta_repository *repository) {
    int answer = 0;
    struct watch watch = {0, 0};
    struct blkdelta_limit_options limits;
    struct blkdelta_run_options run = run_of(&watch, &limits);
    DONE(blkdelta_log_set(take_line, &answer, BLKDELTA_LOG_LEVEL_TRACE));
    DONE(back_up(repository, "volume", NULL, NULL));
    CHECK(lines > 0);
    answer = 1; /* now each line ends all work */
    IS(back_up(repository, "volume", &run, NULL), BLKDELTA_STATUS_CANCELLED);
    DONE(blkdelta_log_set(NULL, NULL, 0));
    lines = 0;
    DONE(back_up(repository, "volume", NULL, NULL));
    CHECK(lines == 0);
}

int main(void) {
    unsigned char *volume = make_volume("volume");
    struct blkdelta_repository *repository = new_repository("repo");
    here = getpid();
    cancelled(repository);
    an_iterator_is_cancelled();
    limits_are_changed(repository);
    log_lines(repository);
    DONE(blkdelta_repository_close(repository));
    free(volume);
    return 0;
}
