/* A program that keeps backups: every verb of a repository, and that each gives back what it promises. */
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

static struct blkdelta_repository *repository;
static unsigned char *volume;

static void backups(void) {
    struct blkdelta_summary summary;
    char *json = NULL;
    CLEAR(summary);
    DONE(back_up(repository, "volume", NULL, &summary));
    CHECK(summary.sequence == 1 && summary.bytes_changed == VOLUME_SIZE && summary.size_bytes == VOLUME_SIZE);
    CHECK(strlen(summary.backup_id) == 32 && summary.alarm == 0);

    memset(volume + 2 * BLOCK_SIZE, 0, BLOCK_SIZE); /* a block becomes zero, a grain changes */
    volume[5] ^= 1;
    write_file("volume", volume, VOLUME_SIZE);
    DONE(back_up(repository, "volume", NULL, &summary));
    CHECK(summary.sequence == 2 && summary.bytes_changed == BLOCK_SIZE + GRAIN_SIZE);

    DONE(blkdelta_list(repository, "db", &json));
    CHECK(json[0] == '[' && strstr(json, summary.backup_id) != NULL && strstr(json, "\"kind\":\"full\"") != NULL);
    blkdelta_string_free(json);
    DONE(blkdelta_show(repository, "latest~1", NULL, &summary, &json));
    CHECK(summary.sequence == 1 && strstr(json, summary.backup_id) != NULL);
    blkdelta_string_free(json);
    IS(blkdelta_show(repository, "0123456789", NULL, NULL, NULL), BLKDELTA_STATUS_NOT_FOUND);
}

static void a_group(void) {
    struct blkdelta_backup_options one, two;
    const struct blkdelta_backup_options *volumes[2];
    struct blkdelta_consistency_options consistency;
    const char *tags[1] = {"nightly"};
    char *json = NULL;
    CLEAR(one);
    one.source = "volume";
    one.volume = "first";
    one.tags = tags;
    one.tag_count = 1;
    one.kind = "full";
    one.compression = "none";
    CLEAR(two);
    two.source = "other";
    two.volume = "second";
    volumes[0] = &one;
    volumes[1] = &two;
    CLEAR(consistency);
    consistency.before_snapshot = "echo $BLKDELTA_SOURCES > hooked";
    write_file("other", volume, BLOCK_SIZE);
    DONE(blkdelta_backup(repository, volumes, 2, &consistency, NULL, NULL, &json));
    CHECK(json[0] == '[' && strstr(json, "\"nightly\"") != NULL && strstr(json, "\"second\"") != NULL);
    CHECK(access("hooked", F_OK) == 0);
    blkdelta_string_free(json);

    two.source = "not there"; /* nothing is begun when one of them cannot be */
    IS(blkdelta_backup(repository, volumes, 2, NULL, NULL, NULL, &json), BLKDELTA_STATUS_NOT_FOUND);
    CHECK(json == NULL);
}

static void differences(void) {
    struct blkdelta_summary summary;
    char *json = NULL;
    CLEAR(summary);
    ranges_told = 0, bytes_told = 0;
    DONE(blkdelta_diff(repository, "latest~1", "latest", "db", NULL, count_range, NULL, &summary, &json));
    CHECK(ranges_told == 2 && bytes_told == BLOCK_SIZE + GRAIN_SIZE && summary.bytes_changed == bytes_told);
    CHECK(strstr(json, "\"blocks_changed\":2") != NULL);
    blkdelta_string_free(json);
}

static void restores(void) {
    struct blkdelta_restore_options options;
    struct blkdelta_summary summary;
    unsigned char *part;
    size_t length;
    FILE *stream;
    CLEAR(summary);
    CLEAR(options);
    options.volume = "db";
    options.target = "restored";
    options.read_back = 1;
    DONE(blkdelta_restore(repository, "latest", &options, NULL, &summary, NULL));
    CHECK(summary.root_proven == 1 && same_files("volume", "restored"));
    IS(blkdelta_restore(repository, "latest", &options, NULL, NULL, NULL), BLKDELTA_STATUS_REFUSED);

    CLEAR(options); /* a part, into an open file */
    options.volume = "db";
    stream = fopen("part", "wb");
    options.target_fd = fileno(stream);
    options.range_offset = 3;
    options.range_length = 10000;
    DONE(blkdelta_restore(repository, "latest", &options, NULL, NULL, NULL));
    CHECK(fclose(stream) == 0); /* it stayed ours */
    part = read_file("part", &length);
    CHECK(length == 10000 && memcmp(part, volume + 3, 10000) == 0);
    free(part);
}

static void reads(void) {
    struct blkdelta_reader *reader = NULL;
    unsigned char *bytes = (unsigned char *)malloc(VOLUME_SIZE);
    uint64_t size = 0;
    DONE(blkdelta_reader_open(repository, "latest", "db", NULL, &reader));
    DONE(blkdelta_reader_size(reader, &size));
    CHECK(size == VOLUME_SIZE);
    DONE(blkdelta_reader_read(reader, 0, bytes, VOLUME_SIZE));
    CHECK(memcmp(bytes, volume, VOLUME_SIZE) == 0);
    DONE(blkdelta_reader_read(reader, BLOCK_SIZE - 7, bytes, 14));
    CHECK(memcmp(bytes, volume + BLOCK_SIZE - 7, 14) == 0);
    DONE(blkdelta_reader_read(reader, size, NULL, 0));
    IS(blkdelta_reader_read(reader, size - 1, bytes, 2), BLKDELTA_STATUS_WRONG_USE);
    DONE(blkdelta_reader_close(reader));
    free(bytes);
}

/* Writes over a byte in the middle of the largest delta of a volume. */
static void hurt(const char *pattern) {
    char command[600];
    snprintf(command, sizeof command,
             "file=$(ls -S repo/volumes/%s/deltas/*.delta | head -1) && chmod u+w $file && printf X | "
             "dd of=$file bs=1 seek=$(($(wc -c < $file) / 2)) conv=notrunc status=none",
             pattern);
    CHECK(system(command) == 0);
}

/* The same backups in another repository; copying again finds them there. */
static void copying(void) {
    struct blkdelta_copy_options options;
    struct blkdelta_restore_options restore;
    struct blkdelta_summary summary;
    struct blkdelta_repository *other = new_repository("copies");
    const char *ids[1] = {"latest"};
    char *json = NULL;
    CLEAR(summary);
    CLEAR(options);
    options.volume = "db";
    options.ids = ids;
    options.id_count = 1;
    options.dry_run = 1;
    DONE(blkdelta_copy(repository, other, &options, NULL, &summary, &json));
    CHECK(summary.bytes_written == 0 && strstr(json, "\"dry_run\":true") != NULL);
    blkdelta_string_free(json);
    IS(blkdelta_show(other, "latest", "db", NULL, NULL), BLKDELTA_STATUS_NOT_FOUND);
    options.dry_run = 0;
    options.read_back = 1;
    DONE(blkdelta_copy(repository, other, &options, NULL, &summary, NULL));
    CHECK(summary.bytes_written > 0 && summary.problems == 0);
    DONE(blkdelta_copy(repository, other, &options, NULL, &summary, &json));
    CHECK(summary.bytes_written == 0 && strstr(json, "\"there_already\":1") != NULL);
    blkdelta_string_free(json);
    CLEAR(restore);
    restore.target = "from_copy";
    DONE(blkdelta_restore(other, "latest", &restore, NULL, NULL, NULL));
    CHECK(same_files("volume", "from_copy"));
    IS(blkdelta_copy(repository, repository, NULL, NULL, NULL, NULL), BLKDELTA_STATUS_WRONG_USE);
    DONE(blkdelta_repository_close(other));
}

/* An interrupted restore goes on; one that was never begun cannot. */
static int end_it(void *user, const struct blkdelta_progress *progress) {
    struct stat target; /* as soon as anything is written: several blocks end at once */
    (void)user;
    (void)progress;
    return stat("interrupted", &target) == 0 && target.st_blocks > 0;
}

static void going_on(void) {
    struct blkdelta_restore_options options;
    struct blkdelta_limit_options limits;
    struct blkdelta_run_options run;
    char *json = NULL;
    CLEAR(options);
    options.volume = "db";
    options.target = "interrupted";
    options.resume = 1;
    IS(blkdelta_restore(repository, "latest", &options, NULL, NULL, NULL), BLKDELTA_STATUS_REFUSED);
    options.resume = 0;
    CLEAR(limits);
    limits.write_limit = 512 << 10; /* ten seconds or more, which nobody waits for */
    CLEAR(run);
    run.limits = &limits;
    run.on_progress = end_it;
    run.progress_interval_ms = 1;
    IS(blkdelta_restore(repository, "latest", &options, &run, NULL, NULL), BLKDELTA_STATUS_CANCELLED);
    IS(blkdelta_restore(repository, "latest", &options, NULL, NULL, NULL), BLKDELTA_STATUS_REFUSED);
    options.resume = 1;
    DONE(blkdelta_restore(repository, "latest", &options, NULL, NULL, &json));
    CHECK(strstr(json, "\"resumed_at\":") != NULL && strstr(json, "\"resumed_at\":null") == NULL);
    CHECK(same_files("volume", "interrupted"));
    blkdelta_string_free(json);
}

/* What is damaged is found by a sample of everything, and left out of a restore that is told to. */
static void damage(void) {
    struct blkdelta_verify_options options;
    struct blkdelta_restore_options restore;
    struct blkdelta_summary summary;
    char *json = NULL;
    CLEAR(summary);
    CLEAR(options);
    options.volume = "db";
    options.sample = "100%";
    IS(blkdelta_verify(repository, &options, NULL, &summary, &json), BLKDELTA_STATUS_DAMAGE_FOUND);
    CHECK(summary.problems > 0 && strstr(json, "\"coverage\":{") != NULL);
    blkdelta_string_free(json);
    options.sample = "much";
    IS(blkdelta_verify(repository, &options, NULL, NULL, NULL), BLKDELTA_STATUS_WRONG_USE);
    CLEAR(restore);
    restore.volume = "db";
    restore.target = "holey";
    IS(blkdelta_restore(repository, "latest", &restore, NULL, NULL, NULL), BLKDELTA_STATUS_DAMAGED);
    restore.force = 1;
    restore.skip_damaged = 1;
    IS(blkdelta_restore(repository, "latest", &restore, NULL, &summary, &json), BLKDELTA_STATUS_DOUBTFUL);
    CHECK(summary.problems > 0 && summary.root_proven == 0 && strstr(json, "\"missing\":[{") != NULL);
    blkdelta_string_free(json);
}

static void verification(void) {
    struct blkdelta_verify_options options;
    struct blkdelta_summary summary;
    char *json = NULL;
    CLEAR(summary);
    CLEAR(options);
    options.volume = "db";
    options.data = 1;
    DONE(blkdelta_verify(repository, &options, NULL, &summary, &json));
    CHECK(summary.problems == 0 && summary.backups_checked == 2 && strstr(json, "\"ok\":true") != NULL);
    blkdelta_string_free(json);
    hurt("db");
    IS(blkdelta_verify(repository, &options, NULL, &summary, &json), BLKDELTA_STATUS_DAMAGE_FOUND);
    CHECK(summary.problems > 0 && strstr(json, "\"ok\":false") != NULL);
    blkdelta_string_free(json);
}

/* Two backups become one, by hand and as the bound of a chain; the state of the last one stays. */
static void merging(void) {
    struct blkdelta_backup_options options;
    const struct blkdelta_backup_options *volumes[1];
    struct blkdelta_summary summary;
    char *json = NULL;
    int number;
    CLEAR(summary);
    DONE(blkdelta_merge(repository, NULL, "latest", "db", "lz4", NULL, &summary, &json));
    CHECK(summary.sequence == 2 && strstr(json, "\"kind\":\"full\"") != NULL && strstr(json, "\"removed\":[\"") != NULL);
    blkdelta_string_free(json);
    IS(blkdelta_show(repository, "latest~1", "db", NULL, NULL), BLKDELTA_STATUS_NOT_FOUND);
    reads();
    CLEAR(options);
    options.source = "volume";
    options.volume = "db";
    options.max_chain = 2;
    volumes[0] = &options;
    for (number = 3; number <= 4; number++) {
        volume[number] ^= 1;
        write_file("volume", volume, VOLUME_SIZE);
        DONE(blkdelta_backup(repository, volumes, 1, NULL, NULL, &summary, &json));
        CHECK((strstr(json, "\"merged\":{") != NULL) == (number == 4));
        blkdelta_string_free(json);
    }
    reads();
}

/* A pin keeps an older backup; a dry run keeps all; a prune without a rule is refused. */
static void pruning(void) {
    const char *pin[1] = {"pin"};
    blkdelta_prune_options options;
    char *json = NULL;
    DONE(blkdelta_tag(repository, "latest~1", "db", pin, 1, NULL, 0, &json));
    CHECK(strstr(json, "\"pin\"") != NULL);
    blkdelta_string_free(json);
    IS(blkdelta_prune(repository, NULL, NULL, NULL), BLKDELTA_STATUS_WRONG_USE);
    CLEAR(options);
    options.volume = "db";
    options.keep_last = 1;
    options.keep_within = "never";
    IS(blkdelta_prune(repository, &options, NULL, NULL), BLKDELTA_STATUS_WRONG_USE);
    options.keep_within = NULL;
    options.time_zone = "UTC";
    options.dry_run = 1;
    DONE(blkdelta_prune(repository, &options, NULL, &json));
    CHECK(strstr(json, "\"dry_run\":true") != NULL);
    blkdelta_string_free(json);
    options.dry_run = 0;
    DONE(blkdelta_prune(repository, &options, NULL, NULL));
    DONE(blkdelta_show(repository, "latest~1", "db", NULL, NULL));
    DONE(blkdelta_tag(repository, "latest~1", "db", NULL, 0, pin, 1, NULL));
    reads();
}

static void cleaning(void) {
    char *json = NULL;
    DONE(blkdelta_cleanup(repository, NULL, NULL, &json));
    CHECK(strstr(json, "\"db\"") != NULL);
    blkdelta_string_free(json);
}

static void encryption(void) {
    struct blkdelta_repository *sealed = NULL;
    struct blkdelta_repository *plain = repository;
    unsigned char *stored;
    size_t length = 0;
    char *json = NULL;
    IS(blkdelta_init_encrypted("sealed", NULL, NULL, NULL, &sealed), BLKDELTA_STATUS_WRONG_USE);
    DONE(blkdelta_init_encrypted("sealed", NULL, "correct horse", &json, &sealed));
    CHECK(strstr(json, "aes-256-gcm") != NULL);
    blkdelta_string_free(json);
    DONE(back_up(sealed, "volume", NULL, NULL));
    DONE(blkdelta_repository_close(sealed));
    IS(blkdelta_repository_open("sealed", &sealed), BLKDELTA_STATUS_WRONG_KEY);
    CHECK(strstr(blkdelta_last_error_hint(), "BLKDELTA_PASSWORD_FILE") != NULL);
    IS(blkdelta_repository_open_with("sealed", "battery staple", &sealed), BLKDELTA_STATUS_WRONG_KEY);
    IS(blkdelta_repository_open_with("repo", "correct horse", &sealed), BLKDELTA_STATUS_WRONG_KEY);
    write_file("password", (const unsigned char *)"correct horse\n", 14);
    CHECK(setenv("BLKDELTA_PASSWORD_FILE", "password", 1) == 0);
    DONE(blkdelta_repository_open("sealed", &repository));
    CHECK(unsetenv("BLKDELTA_PASSWORD_FILE") == 0);
    DONE(blkdelta_list(repository, NULL, &json));
    CHECK(strstr(json, "\"db\"") != NULL);
    blkdelta_string_free(json);
    DONE(blkdelta_repository_close(repository));
    repository = plain;
    stored = read_file("sealed/volumes/db/records/0000000001.json", &length);
    CHECK(length > 64 && memcmp(stored, "\x89" "BKS", 4) == 0);
    free(stored);
}

/* Whoever made a repository knows what was in it, as whoever opened it does. */
static void going_back(void) {
    struct blkdelta_repository *made = new_repository("made");
    const char *tag[1] = {"new"};
    char *json = NULL;
    DONE(back_up(made, "volume", NULL, NULL));
    CHECK(system("cp -r made older") == 0);
    DONE(back_up(made, "volume", NULL, NULL));
    CHECK(system("rm -rf made && mv older made") == 0);
    IS(blkdelta_tag(made, "latest", "db", tag, 1, NULL, 0, NULL), BLKDELTA_STATUS_ROLLED_BACK);
    IS(blkdelta_verify(made, NULL, NULL, NULL, &json), BLKDELTA_STATUS_DAMAGE_FOUND);
    CHECK(strstr(json, "went back") != NULL);
    blkdelta_string_free(json);
    DONE(blkdelta_repository_close(made));
}

int main(void) {
    char *json = NULL;
    volume = make_volume("volume");
    repository = new_repository("repo");
    IS(blkdelta_init("repo", NULL, NULL, &repository), BLKDELTA_STATUS_ALREADY_EXISTS);
    DONE(blkdelta_repository_close(repository));
    DONE(blkdelta_repository_open("repo", &repository));
    DONE(blkdelta_list(repository, NULL, &json));
    CHECK(strcmp(json, "[]") == 0);
    blkdelta_string_free(json);
    backups();
    a_group();
    differences();
    restores();
    reads();
    merging();
    pruning();
    cleaning();
    encryption();
    going_back();
    copying();
    going_on();
    verification();
    damage();
    DONE(blkdelta_repository_close(repository));
    free(volume);
    return 0;
}
