/* A program that keeps backups: every verb of a repository, and that each gives back what it promises. */
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
    verification();
    DONE(blkdelta_repository_close(repository));
    free(volume);
    return 0;
}
