/* What the C tests share: checks that say where they failed, volumes, options, and reading files back.
 *
 * Each test is a program that is run in an empty folder; it ends with 1 at the first check that fails. Runs under
 * valgrind and AddressSanitizer, so volumes are small.
 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <blkdelta.h>

#define VOLUME_SIZE ((size_t)6 << 20)
#define BLOCK_SIZE ((uint32_t)1 << 20)
#define GRAIN_SIZE 8192u

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);            \
            fprintf(stderr, "  last error: %s\n", blkdelta_last_error());                      \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* The call has this status. */
#define IS(call, wanted)                                                                       \
    do {                                                                                       \
        blkdelta_status status_ = (call);                                                      \
        if (status_ != (wanted)) {                                                             \
            fprintf(stderr, "%s:%d: status %d: %s\n", __FILE__, __LINE__, (int)status_, #call);  \
            fprintf(stderr, "  last error: %s\n", blkdelta_last_error());                      \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

#define DONE(call) IS(call, BLKDELTA_STATUS_OK)

/* Clears a struct of the library and sets its size. */
#define CLEAR(options)                                                                         \
    do {                                                                                       \
        memset(&(options), 0, sizeof(options));                                                \
        (options).struct_size = sizeof(options);                                               \
    } while (0)

static inline void write_file(const char *path, const unsigned char *bytes, size_t length) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(bytes, 1, length, file) == length && fclose(file) == 0);
}

static inline unsigned char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    unsigned char *bytes;
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    *length = (size_t)ftell(file);
    bytes = (unsigned char *)malloc(*length + 1);
    rewind(file);
    CHECK(bytes != NULL && fread(bytes, 1, *length, file) == *length && fclose(file) == 0);
    return bytes;
}

static inline int same_files(const char *one, const char *other) {
    size_t first = 0, second = 0;
    unsigned char *a = read_file(one, &first), *b = read_file(other, &second);
    int same = first == second && memcmp(a, b, first) == 0;
    free(a);
    free(b);
    return same;
}

/* A volume of bytes that do not repeat. */
static inline unsigned char *make_volume(const char *path) {
    unsigned char *bytes = (unsigned char *)malloc(VOLUME_SIZE);
    uint64_t state = 88172645463325252u;
    size_t at;
    CHECK(bytes != NULL);
    for (at = 0; at < VOLUME_SIZE; at++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[at] = (unsigned char)state;
    }
    write_file(path, bytes, VOLUME_SIZE);
    return bytes;
}

static int ranges_told;
static uint64_t bytes_told;

static inline int count_range(void *user, const struct blkdelta_range *range) {
    (void)user;
    CHECK(range->struct_size >= sizeof *range && range->length > 0);
    ranges_told++;
    bytes_told += range->length;
    return 0;
}

static inline struct blkdelta_repository *new_repository(const char *path) {
    struct blkdelta_format_options format;
    struct blkdelta_repository *repository = NULL;
    CLEAR(format);
    format.block_size = BLOCK_SIZE;
    format.grain_size = GRAIN_SIZE;
    DONE(blkdelta_init(path, &format, NULL, &repository));
    CHECK(repository != NULL);
    return repository;
}

static inline blkdelta_status back_up(struct blkdelta_repository *repository, const char *source,
                                      struct blkdelta_run_options *run, struct blkdelta_summary *summary) {
    struct blkdelta_backup_options options;
    const struct blkdelta_backup_options *volumes[1];
    CLEAR(options);
    options.source = source;
    options.volume = "db";
    volumes[0] = &options;
    return blkdelta_backup(repository, volumes, 1, NULL, run, summary, NULL);
}

#endif
