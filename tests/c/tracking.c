/* A program that tracks changes by itself: ranges, deltas, and the changed bytes, pulled and pushed. */
#include <unistd.h>

#include "support.h"

static unsigned char *volume;
static unsigned char *copy;

static struct blkdelta_format_options format;

static struct blkdelta_scan_options options_of(const struct blkdelta_read_options *read) {
    struct blkdelta_scan_options options;
    CLEAR(format);
    format.block_size = BLOCK_SIZE;
    format.grain_size = GRAIN_SIZE;
    CLEAR(options);
    options.format = &format;
    options.source = "volume";
    options.manifest = access("manifest", F_OK) == 0 ? "manifest" : NULL;
    options.write_manifest = "manifest";
    options.read = read;
    return options;
}

/* Puts a change into the copy, as a tool that keeps a second volume would. */
static int keep_change(void *user, const struct blkdelta_range *range) {
    (void)count_range(user, range);
    if (range->kind == BLKDELTA_RANGE_KIND_ZERO) {
        CHECK(range->data == NULL);
        memset(copy + range->offset, 0, range->length);
    } else {
        memcpy(copy + range->offset, range->data, range->length);
    }
    return 0;
}

static int stop_at_once(void *user, const struct blkdelta_range *range) {
    (void)user;
    (void)range;
    return 1;
}

static void change(size_t offset) {
    volume[offset] ^= 0xff;
    write_file("volume", volume, VOLUME_SIZE);
}

/* Pulls all changes into the copy and closes the iterator. */
static uint64_t pull(const struct blkdelta_scan_options *options) {
    struct blkdelta_changes *changes = NULL;
    const struct blkdelta_range *range = NULL;
    struct blkdelta_summary summary;
    char *json = NULL;
    bytes_told = 0;
    DONE(blkdelta_changes_open(options, NULL, &changes));
    IS(blkdelta_changes_report(changes, NULL, NULL), BLKDELTA_STATUS_WRONG_USE);
    for (;;) {
        DONE(blkdelta_changes_next(changes, &range));
        if (range == NULL) {
            break;
        }
        keep_change(NULL, range);
    }
    DONE(blkdelta_changes_next(changes, &range)); /* the end stays the end */
    CHECK(range == NULL);
    CLEAR(summary);
    DONE(blkdelta_changes_report(changes, &summary, &json));
    CHECK(summary.bytes_changed == bytes_told && strstr(json, "\"root\"") != NULL);
    blkdelta_string_free(json);
    DONE(blkdelta_changes_close(changes));
    return bytes_told;
}

static void pulled(void) {
    struct blkdelta_scan_options options = options_of(NULL);
    CHECK(pull(&options) == VOLUME_SIZE && memcmp(copy, volume, VOLUME_SIZE) == 0);
    change(12345);
    memset(volume + 4 * BLOCK_SIZE, 0, GRAIN_SIZE);
    change(VOLUME_SIZE - 1);
    options = options_of(NULL);
    CHECK(pull(&options) == 3 * GRAIN_SIZE && memcmp(copy, volume, VOLUME_SIZE) == 0);
    CHECK(pull(&options) == 0);
}

/* What was not asked beyond is told again. */
static void given_up(void) {
    struct blkdelta_changes *changes = NULL;
    const struct blkdelta_range *range = NULL;
    struct blkdelta_scan_options options = options_of(NULL);
    change(77);
    DONE(blkdelta_changes_open(&options, NULL, &changes));
    DONE(blkdelta_changes_next(changes, &range));
    CHECK(range != NULL && range->offset == 0);
    DONE(blkdelta_changes_close(changes));
    IS(blkdelta_changes_each(&options, NULL, stop_at_once, NULL, NULL, NULL), BLKDELTA_STATUS_CANCELLED);
    CHECK(pull(&options) == GRAIN_SIZE && memcmp(copy, volume, VOLUME_SIZE) == 0);
}

static void pushed(void) {
    struct blkdelta_scan_options options = options_of(NULL);
    struct blkdelta_summary summary;
    char *json = NULL;
    CLEAR(summary);
    change(3 * BLOCK_SIZE);
    DONE(blkdelta_changes_each(&options, NULL, keep_change, NULL, &summary, &json));
    CHECK(summary.bytes_changed == GRAIN_SIZE && memcmp(copy, volume, VOLUME_SIZE) == 0);
    blkdelta_string_free(json);
}

/* Ranges and a delta, which is put onto the copy. */
static void delta(void) {
    struct blkdelta_scan_options options = options_of(NULL);
    struct blkdelta_summary summary;
    char *json = NULL;
    FILE *stream;
    CLEAR(summary);
    write_file("copy", copy, VOLUME_SIZE);
    change(BLOCK_SIZE);
    options.delta = "changes.delta";
    ranges_told = 0;
    DONE(blkdelta_scan(&options, NULL, count_range, NULL, &summary, &json));
    CHECK(ranges_told == 1 && summary.bytes_changed == GRAIN_SIZE && strstr(json, "\"parent_root\"") != NULL);
    blkdelta_string_free(json);
    DONE(blkdelta_apply("changes.delta", "copy", 0, NULL, &summary, &json));
    CHECK(same_files("volume", "copy") && summary.root_proven == 1);
    blkdelta_string_free(json);
    volume[1] ^= 1; /* an image that it was not taken against */
    write_file("copy", volume, VOLUME_SIZE);
    IS(blkdelta_apply("changes.delta", "copy", 0, NULL, NULL, NULL), BLKDELTA_STATUS_WRONG_PARENT);
    CHECK(!same_files("volume", "copy"));

    options.delta = NULL; /* and a full one down an open file */
    options.manifest = NULL;
    stream = fopen("full.delta", "wb");
    options.delta_fd = fileno(stream);
    DONE(blkdelta_scan(&options, NULL, NULL, NULL, NULL, NULL));
    CHECK(fclose(stream) == 0 && remove("copy") == 0);
    DONE(blkdelta_apply("full.delta", "copy", 0, NULL, NULL, NULL));
    CHECK(same_files("volume", "copy"));
}

/* A map from another tool: only what it names is read; a map that lies is found out, and all is told again. */
static void hints(void) {
    struct blkdelta_read_options read;
    struct blkdelta_scan_options options;
    struct blkdelta_summary summary;
    const char *map = "[{\"offset\":0,\"length\":1048576,\"exists\":\"true\"}]"; /* of `rbd diff` */
    CLEAR(summary);
    CLEAR(read);
    read.hints = "map.json";
    read.hint_sample = "1";
    read.no_rescan = 1;
    options = options_of(&read);
    IS(blkdelta_scan(&options, NULL, NULL, NULL, NULL, NULL), BLKDELTA_STATUS_NOT_FOUND);
    write_file("map.json", (const unsigned char *)map, strlen(map));
    volume[9] ^= 1;
    write_file("volume", volume, VOLUME_SIZE);
    bytes_told = 0;
    DONE(blkdelta_scan(&options, NULL, count_range, NULL, &summary, NULL));
    CHECK(bytes_told == GRAIN_SIZE && summary.bytes_carried > 0);
    read.hint_sample = "100%";
    change(5 * BLOCK_SIZE);
    IS(blkdelta_scan(&options, NULL, count_range, NULL, &summary, NULL), BLKDELTA_STATUS_DOUBTFUL);
    CHECK(summary.alarm == 1 && summary.bytes_changed == GRAIN_SIZE);
}

int main(void) {
    volume = make_volume("volume");
    copy = (unsigned char *)calloc(1, VOLUME_SIZE);
    pulled();
    given_up();
    pushed();
    delta();
    hints();
    free(copy);
    free(volume);
    return 0;
}
