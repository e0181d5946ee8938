/* A program with many threads: handles that they share, errors that they do not, and a handle that is closed under them. */
#include <pthread.h>

#include "support.h"

#define THREADS 4

static struct blkdelta_repository *repository;
static struct blkdelta_reader *reader;
static unsigned char *volume;

static void *read_here_and_there(void *argument) {
    size_t number = (size_t)argument, round;
    unsigned char *bytes = (unsigned char *)malloc(BLOCK_SIZE);
    char name[32];
    for (round = 0; round < 8; round++) {
        size_t offset = (round * 7919 + number * 1299709) % (VOLUME_SIZE - BLOCK_SIZE);
        DONE(blkdelta_reader_read(reader, offset, bytes, BLOCK_SIZE));
        CHECK(memcmp(bytes, volume + offset, BLOCK_SIZE) == 0);
        snprintf(name, sizeof name, "f%u-missing", (unsigned)number);
        IS(blkdelta_show(repository, name, "db", NULL, NULL), BLKDELTA_STATUS_NOT_FOUND);
        CHECK(strstr(blkdelta_last_error(), name) != NULL); /* each thread its own */
    }
    free(bytes);
    return NULL;
}

/* Until somebody closes it, reads are right; afterwards they are wrong use. */
static void *read_until_closed(void *argument) {
    unsigned char bytes[512];
    blkdelta_status status;
    (void)argument;
    do {
        status = blkdelta_reader_read(reader, 4096, bytes, sizeof bytes);
        CHECK(status == BLKDELTA_STATUS_WRONG_USE || memcmp(bytes, volume + 4096, sizeof bytes) == 0);
    } while (status == BLKDELTA_STATUS_OK);
    IS(status, BLKDELTA_STATUS_WRONG_USE);
    return NULL;
}

static void *lock_out(void *argument) {
    *(blkdelta_status *)argument = back_up(repository, "volume", NULL, NULL);
    return NULL;
}

static void together(void *(*work)(void *)) {
    pthread_t threads[THREADS];
    size_t number;
    for (number = 0; number < THREADS; number++) {
        CHECK(pthread_create(&threads[number], NULL, work, (void *)number) == 0);
    }
    if (work == read_until_closed) {
        DONE(blkdelta_reader_close(reader));
    }
    for (number = 0; number < THREADS; number++) {
        CHECK(pthread_join(threads[number], NULL) == 0);
    }
}

/* Two backups of one volume at once: each is done, or told that the other holds the volume. */
static void two_backups(void) {
    pthread_t threads[2];
    blkdelta_status statuses[2];
    int number, done = 0;
    for (number = 0; number < 2; number++) {
        CHECK(pthread_create(&threads[number], NULL, lock_out, &statuses[number]) == 0);
    }
    for (number = 0; number < 2; number++) {
        CHECK(pthread_join(threads[number], NULL) == 0);
        done += statuses[number] == BLKDELTA_STATUS_OK;
        CHECK(statuses[number] == BLKDELTA_STATUS_OK || statuses[number] == BLKDELTA_STATUS_LOCKED);
    }
    CHECK(done >= 1);
}

int main(void) {
    volume = make_volume("volume");
    repository = new_repository("repo");
    DONE(back_up(repository, "volume", NULL, NULL));
    DONE(blkdelta_reader_open(repository, "latest", "db", NULL, &reader));
    together(read_here_and_there);
    together(read_until_closed);
    two_backups();
    DONE(blkdelta_repository_close(repository));
    free(volume);
    return 0;
}
