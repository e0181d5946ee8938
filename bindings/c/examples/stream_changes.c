/* Streams the bytes of changed blocks to standard output, for a tool that knows nothing of blkdelta, and where each of them
 * belongs to a list: "OFFSET LENGTH data|zero" a line. The bytes of a zero range are not sent.
 *
 *   stream_changes VOLUME MANIFEST LIST | zstd > changes.zst
 *
 * Only when the stream was taken to its end is MANIFEST brought up to date: if the tool dies, the next run sends the same
 * changes again. Change maps are not used, so that nothing is ever sent twice within a run.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <blkdelta.h>

static int failed(const char *what, const char *why) {
    fprintf(stderr, "stream_changes: %s: %s\n", what, why);
    return 1;
}

static int send_range(const struct blkdelta_range *range, FILE *list) {
    int zero = range->data == NULL;
    if (fprintf(list, "%llu %llu %s\n", (unsigned long long)range->offset, (unsigned long long)range->length,
                zero ? "zero" : "data") < 0) {
        return -1;
    }
    if (zero || fwrite(range->data, 1, (size_t)range->length, stdout) == range->length) {
        /* Before more is asked for: what is asked beyond is taken as kept. */
        return fflush(list) == 0 && fflush(stdout) == 0 ? 0 : -1;
    }
    return -1;
}

static int stream(struct blkdelta_changes *changes, FILE *list) {
    const struct blkdelta_range *range = NULL;
    for (;;) {
        if (blkdelta_changes_next(changes, &range) < 0) {
            return failed("reading the volume", blkdelta_last_error());
        }
        if (range == NULL) {
            return 0;
        }
        if (send_range(range, list) != 0) {
            return failed("sending", strerror(errno));
        }
    }
}

int main(int count, char **arguments) {
    struct blkdelta_scan_options options;
    struct blkdelta_read_options read_options;
    struct blkdelta_changes *changes = NULL;
    FILE *list;
    int result;

    if (count != 4) {
        fprintf(stderr, "usage: stream_changes VOLUME MANIFEST LIST\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    memset(&read_options, 0, sizeof read_options);
    read_options.struct_size = sizeof read_options;
    read_options.hints = "off";
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.source = arguments[1];
    options.manifest = access(arguments[2], F_OK) == 0 ? arguments[2] : NULL;
    options.write_manifest = arguments[2];
    options.read = &read_options;
    list = fopen(arguments[3], "w");
    if (list == NULL) {
        return failed(arguments[3], strerror(errno));
    }
    if (blkdelta_changes_open(&options, NULL, &changes) < 0) {
        result = failed("opening the volume", blkdelta_last_error());
    } else {
        result = stream(changes, list);
    }
    blkdelta_changes_close(changes);
    fclose(list);
    return result;
}
