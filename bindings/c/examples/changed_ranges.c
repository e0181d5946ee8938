/* Lists what changed on a volume since the last time: one line "OFFSET LENGTH data|zero" for each range.
 *
 *   changed_ranges VOLUME MANIFEST      MANIFEST is made the first time, and brought up to date each time
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <blkdelta.h>

static int print_range(void *user, const struct blkdelta_range *range) {
    const char *kind = range->kind == BLKDELTA_RANGE_KIND_ZERO ? "zero" : "data";
    FILE *out = (FILE *)user;
    /* A return that is not zero cancels: nobody reads any more. */
    return fprintf(out, "%llu %llu %s\n", (unsigned long long)range->offset, (unsigned long long)range->length,
                   kind) < 0;
}

int main(int count, char **arguments) {
    struct blkdelta_scan_options options;
    struct blkdelta_summary summary;
    blkdelta_status status;

    if (count != 3) {
        fprintf(stderr, "usage: changed_ranges VOLUME MANIFEST\n");
        return 2;
    }
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.source = arguments[1];
    options.manifest = access(arguments[2], F_OK) == 0 ? arguments[2] : NULL;
    options.write_manifest = arguments[2];
    summary.struct_size = sizeof summary;
    status = blkdelta_scan(&options, NULL, print_range, stdout, &summary, NULL);
    if (status < 0) {
        fprintf(stderr, "changed_ranges: %s\n", blkdelta_last_error());
        return 1;
    }
    fprintf(stderr, "%llu of %llu bytes changed\n", (unsigned long long)summary.bytes_changed,
            (unsigned long long)summary.size_bytes);
    return 0;
}
