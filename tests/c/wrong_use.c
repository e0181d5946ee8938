/* A program that does everything wrong: each mistake that can be told is told, and nothing crashes. */
#include "support.h"

#define WRONG(call) IS(call, BLKDELTA_STATUS_WRONG_USE)

static struct blkdelta_repository *repository;

static void handles(void) {
    struct blkdelta_repository *closed = NULL, *kept;
    struct blkdelta_reader *reader = NULL;
    const struct blkdelta_range *range = NULL;
    char *json = NULL;
    int ours = 1;
    WRONG(blkdelta_list(NULL, NULL, &json));
    WRONG(blkdelta_list((struct blkdelta_repository *)(void *)&ours, NULL, &json)); /* a pointer from elsewhere */
    DONE(blkdelta_repository_open("repo", &closed));
    kept = closed;
    DONE(blkdelta_repository_close(closed));
    WRONG(blkdelta_list(kept, NULL, &json));
    CHECK(strstr(blkdelta_last_error(), "closed before") != NULL && blkdelta_last_error_hint() != NULL);
    WRONG(blkdelta_repository_close(kept));
    DONE(blkdelta_repository_close(NULL));
    WRONG(blkdelta_reader_close((struct blkdelta_reader *)(void *)repository)); /* one of another kind */
    WRONG(blkdelta_changes_next((struct blkdelta_changes *)(void *)repository, &range));
    DONE(blkdelta_list(repository, NULL, &json)); /* it is still open */
    blkdelta_string_free(json);
    blkdelta_string_free(NULL);
    WRONG(blkdelta_reader_open(repository, "latest", NULL, NULL, NULL));
    DONE(blkdelta_reader_open(repository, "latest", NULL, NULL, &reader));
    WRONG(blkdelta_reader_read(reader, 0, NULL, 1));
    WRONG(blkdelta_reader_size(reader, NULL));
    WRONG(blkdelta_reader_read(reader, UINT64_MAX, (uint8_t *)&ours, 1));
    DONE(blkdelta_reader_close(reader));
    WRONG(blkdelta_reader_close(reader));
}

static void missing_arguments(void) {
    struct blkdelta_scan_options scan;
    struct blkdelta_restore_options restore;
    struct blkdelta_repository *other = NULL;
    struct blkdelta_changes *changes = NULL;
    WRONG(blkdelta_init("x", NULL, NULL, NULL));
    WRONG(blkdelta_init(NULL, NULL, NULL, &other));
    WRONG(blkdelta_repository_open(NULL, &other));
    WRONG(blkdelta_list(repository, NULL, NULL));
    WRONG(blkdelta_show(repository, NULL, NULL, NULL, NULL));
    WRONG(blkdelta_diff(repository, "latest", NULL, NULL, NULL, NULL, NULL, NULL, NULL));
    WRONG(blkdelta_backup(repository, NULL, 0, NULL, NULL, NULL, NULL));
    WRONG(blkdelta_backup(repository, NULL, 1, NULL, NULL, NULL, NULL));
    WRONG(blkdelta_backup(repository, NULL, SIZE_MAX, NULL, NULL, NULL, NULL));
    WRONG(back_up(repository, NULL, NULL, NULL));
    WRONG(blkdelta_apply(NULL, "x", 0, NULL, NULL, NULL));
    WRONG(blkdelta_scan(NULL, NULL, NULL, NULL, NULL, NULL));
    CLEAR(scan);
    scan.source = "volume";
    WRONG(blkdelta_changes_each(&scan, NULL, NULL, NULL, NULL, NULL));
    WRONG(blkdelta_changes_open(&scan, NULL, NULL));
    scan.delta = "x";
    WRONG(blkdelta_changes_open(&scan, NULL, &changes));
    scan.delta_fd = 2;
    WRONG(blkdelta_scan(&scan, NULL, NULL, NULL, NULL, NULL));
    CLEAR(restore);
    WRONG(blkdelta_restore(repository, "latest", &restore, NULL, NULL, NULL));
    restore.target_fd = -5;
    WRONG(blkdelta_restore(repository, "latest", &restore, NULL, NULL, NULL));
    restore.target_fd = 1000000; /* not open */
    IS(blkdelta_restore(repository, "latest", &restore, NULL, NULL, NULL), BLKDELTA_STATUS_IO);
    CHECK(blkdelta_last_error_errno() != 0);
    restore.target_fd = 0;
    restore.target = "out";
    restore.range_offset = UINT64_MAX;
    WRONG(blkdelta_restore(repository, "latest", &restore, NULL, NULL, NULL));
    restore.range_length = 2;
    WRONG(blkdelta_restore(repository, "latest", &restore, NULL, NULL, NULL));
    CHECK(other == NULL && changes == NULL); /* nothing is handed out by a failure */
}

static void sizes(void) {
    struct blkdelta_run_options run;
    struct blkdelta_summary summary;
    struct {
        struct blkdelta_verify_options known;
        uint64_t newer;
    } grown;
    struct {
        struct blkdelta_summary known;
        uint64_t newer;
    } more;
    memset(&run, 0, sizeof run); /* without its size */
    WRONG(back_up(repository, "volume", &run, NULL));
    run.struct_size = sizeof run - 1;
    WRONG(back_up(repository, "volume", &run, NULL));
    run.struct_size = SIZE_MAX;
    WRONG(back_up(repository, "volume", &run, NULL));
    CLEAR(run);
    run.reserved[sizeof run.reserved - 1] = 1;
    IS(back_up(repository, "volume", &run, NULL), BLKDELTA_STATUS_UNSUPPORTED);
    memset(&summary, 0, sizeof summary);
    WRONG(blkdelta_show(repository, "latest", NULL, &summary, NULL));

    memset(&grown, 0, sizeof grown); /* a program of a newer header: fine as long as it uses nothing new */
    grown.known.struct_size = sizeof grown;
    CLEAR(summary);
    DONE(blkdelta_verify(repository, &grown.known, NULL, &summary, NULL));
    CHECK(summary.backups_checked == 1);
    memset(&more, 0xff, sizeof more); /* and what it does not get from an older library is zero */
    more.known.struct_size = sizeof more;
    DONE(blkdelta_show(repository, "latest", NULL, &more.known, NULL));
    CHECK(more.known.sequence == 1 && more.known.bytes_written == 0 && more.newer == 0);
    grown.newer = 1;
    IS(blkdelta_verify(repository, &grown.known, NULL, NULL, NULL), BLKDELTA_STATUS_UNSUPPORTED);
}

static int take_no_line(void *user, int level, const char *text) {
    (void)user;
    (void)level;
    return text == NULL;
}

static void texts(void) {
    const char *not_utf8 = "caf\xe9";
    struct blkdelta_format_options format;
    struct blkdelta_limit_options limits;
    struct blkdelta_run_options run;
    struct blkdelta_scan_options scan;
    struct blkdelta_repository *other = NULL;
    unsigned char byte = 7;
    char *json = NULL;
    int nice = 99;
    WRONG(blkdelta_list(repository, not_utf8, &json));
    CHECK(strstr(blkdelta_last_error(), "UTF-8") != NULL);
    WRONG(blkdelta_show(repository, not_utf8, NULL, NULL, NULL));
    WRONG(blkdelta_show(repository, "", NULL, NULL, NULL));
    DONE(blkdelta_init(not_utf8, NULL, NULL, &other)); /* as a path it is fine */
    DONE(blkdelta_repository_close(other));
    write_file("vol\xe9", &byte, 1);
    CLEAR(scan);
    scan.source = "vol\xe9";
    DONE(blkdelta_scan(&scan, NULL, NULL, NULL, NULL, &json));
    blkdelta_string_free(json);
    CLEAR(format);
    format.digest = "md5";
    WRONG(blkdelta_init("y", &format, NULL, &other));
    format.digest = NULL;
    format.block_size = 12345;
    WRONG(blkdelta_init("y", &format, NULL, &other));
    CLEAR(run);
    CLEAR(limits);
    run.limits = &limits;
    limits.latency_target = "soon";
    WRONG(back_up(repository, "volume", &run, NULL));
    limits.latency_target = NULL;
    limits.nice = &nice;
    WRONG(back_up(repository, "volume", &run, NULL));
    WRONG(blkdelta_log_set(take_no_line, NULL, 6));
    IS(blkdelta_repository_open("nowhere", &other), BLKDELTA_STATUS_NO_REPOSITORY);
    IS(back_up(repository, "nowhere", NULL, NULL), BLKDELTA_STATUS_NOT_FOUND);
    CHECK(strstr(blkdelta_last_error(), "No such file or directory") != NULL); /* the whole cause */
    CHECK(blkdelta_last_error_errno() == 2);
}

int main(void) {
    unsigned char *volume = make_volume("volume");
    CHECK(blkdelta_abi_version() == BLKDELTA_ABI_VERSION && strlen(blkdelta_version()) >= 5);
    CHECK(blkdelta_last_error()[0] == '\0' && blkdelta_last_error_hint() == NULL);
    repository = new_repository("repo");
    DONE(back_up(repository, "volume", NULL, NULL));
    handles();
    missing_arguments();
    sizes();
    texts();
    DONE(blkdelta_repository_close(repository));
    free(volume);
    return 0;
}
