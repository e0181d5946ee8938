/* Restores a backup into a file or onto a device; every block is proven before it is written.
 *
 *   restore REPOSITORY VOLUME-NAME ID TARGET      ID: the beginning of an id, latest or latest~1
 */
#include <stdio.h>
#include <string.h>

#include <blkdelta.h>

int main(int count, char **arguments) {
    struct blkdelta_repository *repository = NULL;
    struct blkdelta_restore_options options;
    struct blkdelta_summary summary;
    char *report = NULL;
    blkdelta_status status;

    if (count != 5) {
        fprintf(stderr, "usage: restore REPOSITORY VOLUME-NAME ID TARGET\n");
        return 2;
    }
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.volume = arguments[2];
    options.target = arguments[4];
    summary.struct_size = sizeof summary;
    status = blkdelta_repository_open(arguments[1], &repository);
    if (status >= 0) {
        status = blkdelta_restore(repository, arguments[3], &options, NULL, &summary, &report);
    }
    if (status < 0) {
        fprintf(stderr, "restore: %s\n", blkdelta_last_error());
        blkdelta_repository_close(repository);
        return 1;
    }
    puts(report); /* the document of `blkdelta restore --json` */
    fprintf(stderr, "%llu bytes written, root %s\n", (unsigned long long)summary.bytes_written,
            summary.root_proven ? "proven" : "not proven");
    blkdelta_string_free(report);
    blkdelta_repository_close(repository);
    return 0;
}
