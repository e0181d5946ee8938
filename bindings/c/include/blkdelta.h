/* blkdelta: changed-block tracking and backup of raw volumes. The C interface; docs/C.md tells how to use it.
 *
 * Statuses  Functions return a blkdelta_status: 0 done, positive done with a doubt, negative failed. Results are handed
 *           out unless it is negative. After a failure blkdelta_last_error() tells the whole cause.
 * Structs   Clear them, set struct_size to their sizeof, fill in what you need: what is zero is the default.
 * Text      Paths are bytes, all other text is UTF-8. Arguments are the caller's and are not kept after the call.
 * Handles   Are closed once. A handle that is NULL, closed or of another kind is told as BLKDELTA_STATUS_WRONG_USE.
 * Threads   Functions may be called from any thread at once; an iterator over changes is for one thread at a time.
 *           Callbacks run on the thread that made the call. Do not fork() while calls or iterators go on.
 *
 * Made from the sources of the library by cbindgen; not to be edited. */


#ifndef BLKDELTA_H
#define BLKDELTA_H

#include <stddef.h>
#include <stdint.h>

// Version of the binary interface in this header, which is also the number behind `.so.` in the library's name. It
// grows only when a program that was built before would no longer work.
#define BLKDELTA_ABI_VERSION 1

// What a call came to. Zero: done. Positive: done, results were handed out, and something should be looked at.
// Negative: failed, nothing was handed out; treat a negative number that you do not know as a failure.
enum blkdelta_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Done.
    BLKDELTA_STATUS_OK = 0,
    // Done, but something could not be read or proven: the report says what (the command's exit code 3).
    BLKDELTA_STATUS_DOUBTFUL = 3,
    // blkdelta_verify() found damage: the report says where (the command's exit code 14).
    BLKDELTA_STATUS_DAMAGE_FOUND = 14,
    // The caller asked for something that makes no sense: NULL, a freed or foreign handle, a bad size, a wrong value.
    BLKDELTA_STATUS_WRONG_USE = -1,
    // There is no repository there.
    BLKDELTA_STATUS_NO_REPOSITORY = -2,
    // Another process works on the same volume.
    BLKDELTA_STATUS_LOCKED = -3,
    // The key or passphrase does not open the repository.
    BLKDELTA_STATUS_WRONG_KEY = -4,
    // The backup, volume or file is not there.
    BLKDELTA_STATUS_NOT_FOUND = -5,
    // Something that must be new is there already.
    BLKDELTA_STATUS_ALREADY_EXISTS = -6,
    // It would be unsafe: a live source, a mounted target, a target that holds data.
    BLKDELTA_STATUS_REFUSED = -7,
    // The volume is not the one that the name, manifest or delta belongs to.
    BLKDELTA_STATUS_IDENTITY_MISMATCH = -8,
    // A delta or manifest does not belong to this parent.
    BLKDELTA_STATUS_WRONG_PARENT = -9,
    // The source changed while it was read.
    BLKDELTA_STATUS_SOURCE_CHANGED = -10,
    // The snapshot no longer holds the state at which it was taken.
    BLKDELTA_STATUS_SNAPSHOT_LOST = -11,
    // The source could not be read.
    BLKDELTA_STATUS_UNREADABLE = -12,
    // Stored data does not match its checksums or contradicts itself.
    BLKDELTA_STATUS_DAMAGED = -13,
    // Written by a newer version, or an option that this version does not know.
    BLKDELTA_STATUS_UNSUPPORTED = -14,
    // No room left on the device.
    BLKDELTA_STATUS_NO_SPACE = -15,
    // A callback cancelled.
    BLKDELTA_STATUS_CANCELLED = -16,
    // Any other failure of the operating system.
    BLKDELTA_STATUS_IO = -17,
    // The repository went back to an older state, or became another one, since this host last saw it.
    BLKDELTA_STATUS_ROLLED_BACK = -18,
    // A failure of a kind that has no number yet.
    BLKDELTA_STATUS_OTHER = -98,
    // A mistake in the library; the message says where. What was stored before is untouched.
    BLKDELTA_STATUS_INTERNAL = -99,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blkdelta_status blkdelta_status;
#else
typedef int32_t blkdelta_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a range holds now.
enum blkdelta_range_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Bytes that are not all zero.
    BLKDELTA_RANGE_KIND_DATA = 1,
    // Zero.
    BLKDELTA_RANGE_KIND_ZERO = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blkdelta_range_kind blkdelta_range_kind;
#else
typedef int32_t blkdelta_range_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How important a log line is.
enum blkdelta_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Something failed.
    BLKDELTA_LOG_LEVEL_ERROR = 1,
    // Something should be looked at.
    BLKDELTA_LOG_LEVEL_WARN = 2,
    // What is being done.
    BLKDELTA_LOG_LEVEL_INFO = 3,
    // How it is being done.
    BLKDELTA_LOG_LEVEL_DEBUG = 4,
    // Everything.
    BLKDELTA_LOG_LEVEL_TRACE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum blkdelta_log_level blkdelta_log_level;
#else
typedef int32_t blkdelta_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A pass over a volume that tells what changed. Used by one thread at a time; closed once, by blkdelta_changes_close().
typedef struct blkdelta_changes blkdelta_changes;

// An open backup. May be used by any number of threads at once; closed once, by blkdelta_reader_close().
typedef struct blkdelta_reader blkdelta_reader;

// An open repository. May be used by any number of threads at once; closed once, by blkdelta_repository_close().
typedef struct blkdelta_repository blkdelta_repository;

// How gently others on the same device are treated; the names are those of the command's flags. What is NULL or 0 stays
// as it is: the usual for a run that begins, the present for one that goes on.
typedef struct blkdelta_limit_options {
    // sizeof of this struct.
    size_t struct_size;
    // "auto", "off" or a time such as "5ms".
    const char *latency_target;
    // Read at most so many bytes a second.
    uint64_t bwlimit;
    // At most so many read requests a second.
    uint64_t iops_limit;
    // Store or write at most so many bytes a second.
    uint64_t write_limit;
    // Bytes a second that latency_target leaves in any case.
    uint64_t min_rate;
    // Other bwlimits at some hours, such as "mon-fri 09:00-18:00=50MiB/s".
    const char *const *limit_at;
    // How many they are.
    size_t limit_at_count;
    // "idle", "best-effort:0" to "best-effort:7", "realtime:0" to "realtime:7". Only for a run that begins.
    const char *ionice;
    // Niceness of the working threads, -20 to 19. Only for a run that begins.
    const int *nice;
    // Not 0: join a control group of our own, if we may. Only for a run that begins.
    uint32_t cgroup;
    // Not 0: take no care of others; limits that are named still hold.
    uint32_t full_speed;
    // Zero.
    uint8_t reserved[64];
} blkdelta_limit_options;

// How far a run has come. Belongs to the library; valid during the callback.
typedef struct blkdelta_progress {
    // Size of this struct in the library that runs.
    size_t struct_size;
    // Bytes of the volume or range that will be passed; grows or starts again when another pass begins.
    uint64_t bytes_total;
    // Bytes passed so far.
    uint64_t bytes_done;
    // Bytes found changed, or written by a restore.
    uint64_t bytes_changed;
    // Bytes stored.
    uint64_t bytes_stored;
    // What slows the run down now, in a few words; empty when nothing does. Never NULL.
    const char *note;
} blkdelta_progress;

// Called a few times a second on the thread that made the call, and once in the end. A non-zero return cancels: the
// call then ends with BLKDELTA_STATUS_CANCELLED. Must not throw, longjmp or close handles that the call uses.
typedef int (*blkdelta_progress_callback)(void *user, const struct blkdelta_progress *progress);

// What all long work takes. NULL in its place gives all defaults.
typedef struct blkdelta_run_options {
    // sizeof of this struct.
    size_t struct_size;
    // Folder of the local state; NULL: BLKDELTA_STATE, as root /var/lib/blkdelta, else below the user's home.
    const char *state;
    // Limits; NULL: gentle to others, as the command is.
    const struct blkdelta_limit_options *limits;
    // Told how far it is; NULL: nobody is.
    blkdelta_progress_callback on_progress;
    // Handed to on_progress as it is.
    void *user;
    // Milliseconds between two calls of on_progress; 0: 100.
    uint32_t progress_interval_ms;
    // Zero.
    uint8_t reserved[60];
} blkdelta_run_options;

// What a call did, in numbers; what has no meaning for the verb is 0. The caller sets struct_size, the library the rest.
typedef struct blkdelta_summary {
    // sizeof of this struct, set by the caller.
    size_t struct_size;
    // Bytes of the volume.
    uint64_t size_bytes;
    // Blocks of the volume that differ.
    uint64_t blocks_changed;
    // Bytes read from the source.
    uint64_t bytes_read;
    // Bytes believed unchanged on a hint, without having been read.
    uint64_t bytes_carried;
    // Bytes that changed.
    uint64_t bytes_changed;
    // Bytes that the repository or the delta grew by.
    uint64_t bytes_stored;
    // Bytes written to a target, or into the repository that was copied to.
    uint64_t bytes_written;
    // Problems that verify found, ranges that a restore left out, backups that could not be copied.
    uint64_t problems;
    // Backups that verify looked at.
    uint64_t backups_checked;
    // Wall time in seconds.
    double duration_s;
    // Part of it spent waiting for limits, in seconds.
    double throttled_s;
    // Number of the backup inside its volume.
    uint32_t sequence;
    // 1: a hint was proven wrong, and the volume was read in full.
    uint32_t alarm;
    // 1: the root of the whole volume was proven on what was written.
    uint32_t root_proven;
    // Id of the backup, 32 hexadecimal digits; empty when there is none.
    char backup_id[36];
    // Zero.
    uint8_t reserved[64];
} blkdelta_summary;

// How a source is read; the names are those of the command's flags. What is NULL or 0 is the default.
typedef struct blkdelta_read_options {
    // sizeof of this struct.
    size_t struct_size;
    // Where to learn what may have changed: "auto" (as NULL), "off", or the path of a map of changes ("./off" is a file).
    const char *hints;
    // How many of the blocks that a hint calls unchanged are read all the same: "64", "2%" or "auto" (as NULL).
    const char *hint_sample;
    // Read every block at least once in so many backups; 0: 30.
    uint32_t rescan_every;
    // Not 0: never read all in turn, whatever rescan_every says.
    uint32_t no_rescan;
    // Reads in flight at most, 1 to 256; 0: the default.
    uint32_t queue_depth;
    // Not 0: read a source that others may write to.
    uint32_t allow_live;
    // Not 0: accept another volume under this name or manifest.
    uint32_t new_identity;
    // Zero.
    uint8_t reserved[44];
} blkdelta_read_options;

// One volume of a backup; the names are those of the command's flags. Only `source` must be set.
typedef struct blkdelta_backup_options {
    // sizeof of this struct.
    size_t struct_size;
    // Block device, image file, or "zfs:POOL/VOL".
    const char *source;
    // Name of the volume (UTF-8); NULL: HOST/NAME.
    const char *volume;
    // "auto" (as NULL), "full", "incremental" or "differential".
    const char *kind;
    // Build on this backup instead of the newest; leaves no choice of kind.
    const char *parent;
    // "none", "lz4", "zstd" or "zstd:LEVEL"; NULL: the repository's.
    const char *compression;
    // Labels (UTF-8).
    const char *const *tags;
    // How many they are.
    size_t tag_count;
    // How the source is read; NULL: as usual.
    const struct blkdelta_read_options *read;
    // Which layer takes a snapshot: "auto" (as NULL), "lvm", "zfs" or "none".
    const char *snapshot;
    // Room for a thick snapshot: bytes such as "20GiB" or a share such as "10%" (as NULL).
    const char *snapshot_size;
    // Whether the snapshot stays: "auto" (as NULL), "always" or "never".
    const char *keep_snapshot;
    // Afterwards merge the oldest backups of the chain into a new full, if it is longer than so many; 0: not.
    uint32_t max_chain;
    // Zero.
    uint8_t reserved[60];
} blkdelta_backup_options;

// What is done around the snapshots, so that what they hold is consistent; the names are those of the command's flags.
typedef struct blkdelta_consistency_options {
    // sizeof of this struct.
    size_t struct_size;
    // Run this (with sh) before anything is frozen.
    const char *before_snapshot;
    // Run this after the snapshots were taken, also when that failed.
    const char *after_snapshot;
    // Mount points and folders of control groups to freeze.
    const char *const *freeze;
    // How many they are.
    size_t freeze_count;
    // How long writers may be held back, such as "30s" (as NULL).
    const char *freeze_timeout;
    // A libpq connection string; "" is the local server, NULL none.
    const char *postgresql;
    // File of options for the client of MySQL or MariaDB; "" is the usual, NULL none.
    const char *mysql;
    // Zero.
    uint8_t reserved[64];
} blkdelta_consistency_options;

// How volumes are cut, digested and compressed; what is NULL or 0 is the command's default.
typedef struct blkdelta_format_options {
    // sizeof of this struct.
    size_t struct_size;
    // "blake3", "sha256" or "xxh3".
    const char *digest;
    // "none", "lz4", "zstd" or "zstd:LEVEL".
    const char *compression;
    // Unit of reading in bytes, 64 KiB to 64 MiB.
    uint32_t block_size;
    // Unit of change in bytes, 4 KiB to 64 KiB.
    uint32_t grain_size;
    // Zero.
    uint8_t reserved[32];
} blkdelta_format_options;

// What a scan takes; the names are those of the command's flags. Only `source` must be set.
typedef struct blkdelta_scan_options {
    // sizeof of this struct.
    size_t struct_size;
    // Block device or image file.
    const char *source;
    // Compare with this manifest; NULL: everything that is not zero is told.
    const char *manifest;
    // Write the manifest of what was read; may be the same file. NULL: none.
    const char *write_manifest;
    // Write what changed as a delta into this file. NULL: none, or into delta_fd. Only for blkdelta_scan().
    const char *delta;
    // How the volume is cut when there is no manifest to take that from; its compression is the delta's. NULL: defaults.
    const struct blkdelta_format_options *format;
    // How the source is read; NULL: as usual.
    const struct blkdelta_read_options *read;
    // Write the delta into this open file instead, such as a pipe; 0: not. Hints are then not used. Stays the caller's.
    int32_t delta_fd;
    // Zero.
    uint8_t reserved[60];
} blkdelta_scan_options;

// A range of the volume that changed. Belongs to the library; valid during the callback, or until the next call of the
// iterator.
typedef struct blkdelta_range {
    // Size of this struct in the library that runs.
    size_t struct_size;
    // Where it starts, in bytes.
    uint64_t offset;
    // How long it is, in bytes.
    uint64_t length;
    // Its bytes, as long as the struct itself is valid; NULL for a range that is zero now, and where only ranges are told.
    const uint8_t *data;
    // Data or zero.
    blkdelta_range_kind kind;
} blkdelta_range;

// Called for each changed range in the order of the volume, on the thread that made the call. A non-zero return cancels.
// An offset that is not larger than the one before says that all is told again from the start, because a hint was
// proven wrong: forget what was told. Must not throw, longjmp or close handles that the call uses.
typedef int (*blkdelta_range_callback)(void *user, const struct blkdelta_range *range);

// What a copy takes; the names are those of the command's flags.
typedef struct blkdelta_copy_options {
    // sizeof of this struct.
    size_t struct_size;
    // Backups, named as for blkdelta_show(), with what they build on; all unless given.
    const char *const *ids;
    // How many they are.
    size_t id_count;
    // Only this volume (UTF-8); NULL: all.
    const char *volume;
    // Not 0: read each file again there and compare its digest.
    uint32_t read_back;
    // Not 0: only say what would be copied.
    uint32_t dry_run;
    // Zero.
    uint8_t reserved[64];
} blkdelta_copy_options;

// Called for each log line, from any thread, also from several at once. `level` is a blkdelta_log_level; `text` is
// one line and valid during the call. A non-zero return cancels all work of this process that goes on. Must not call the
// library, throw or longjmp.
typedef int (*blkdelta_log_callback)(void *user, int level, const char *text);

// Which backups stay; rules add up, and hold for each volume by itself. A number of 0 is no rule.
typedef struct blkdelta_prune_options {
    // The size of this struct.
    size_t struct_size;
    // Only this volume (UTF-8); NULL: all.
    const char *volume;
    // The newest so many.
    uint32_t keep_last;
    // The newest of each hour, for the newest so many hours that have a backup.
    uint32_t keep_hourly;
    // The same for days.
    uint32_t keep_daily;
    // The same for weeks, from Monday.
    uint32_t keep_weekly;
    // The same for months.
    uint32_t keep_monthly;
    // The same for years.
    uint32_t keep_yearly;
    // All that were taken in this time before now, such as "30d"; NULL: no rule.
    const char *keep_within;
    // All with one of these tags.
    const char *const *keep_tag;
    // How many tags.
    size_t keep_tag_count;
    // Nothing goes that was finished in this time before now; NULL: no such limit.
    const char *min_age;
    // Where hours and days begin, such as "Europe/Berlin"; NULL: the host's.
    const char *time_zone;
    // Not 0: only say what would go, and why.
    uint32_t dry_run;
    // Zero.
    uint8_t reserved[60];
} blkdelta_prune_options;

// What a restore takes; the names are those of the command's flags. Only `target` or `target_fd` must be set.
typedef struct blkdelta_restore_options {
    // sizeof of this struct.
    size_t struct_size;
    // Block device or file; NULL: into target_fd.
    const char *target;
    // What latest is of (UTF-8); NULL when the repository has one volume.
    const char *volume;
    // Of what was taken at this time or before (RFC 3339); NULL: of all.
    const char *at;
    // Only the bytes from here on, at their own offset.
    uint64_t range_offset;
    // So many bytes; 0: the whole volume.
    uint64_t range_length;
    // Write into this open file, from front to back, such as a pipe; a range is then written alone. Stays the caller's.
    int32_t target_fd;
    // Not 0: read the target and write only what differs.
    uint32_t in_place;
    // Not 0: overwrite a target that holds something.
    uint32_t force;
    // Not 0: read the target again afterwards and prove the root on it.
    uint32_t read_back;
    // Not 0: restore what can be proven; what is damaged is left out and stands in the report as missing.
    uint32_t skip_damaged;
    // Not 0: go on where an interrupted restore of this backup onto this target was.
    uint32_t resume;
    // Zero.
    uint8_t reserved[56];
} blkdelta_restore_options;

// What a verification takes; the names are those of the command's flags.
typedef struct blkdelta_verify_options {
    // sizeof of this struct.
    size_t struct_size;
    // Backups, named as for blkdelta_show(); all unless given.
    const char *const *ids;
    // How many they are.
    size_t id_count;
    // Only this volume (UTF-8); NULL: all.
    const char *volume;
    // Not 0: read every byte and prove each volume's root.
    uint32_t data;
    // Zero.
    uint32_t zero;
    // Prove this much of what is stored, that whose last proof is oldest, such as "5%" or "20GiB"; NULL: no sample.
    const char *sample;
    // Zero.
    uint8_t reserved[24];
} blkdelta_verify_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Puts a delta from blkdelta_scan() onto the image that it was taken against; any other is refused before its first
// byte is written. May be repeated after a crash.
//
// `delta`: the delta file. `target`: device or file. `force`: not 0: overwrite a target that holds something, when the
// delta is a full one. `run`: NULL for the defaults; its limits are not used. `summary`, `json`: the report (`blkdelta
// apply --json`), freed with blkdelta_string_free(); NULL: not wanted. Any thread; returns when all is done.
blkdelta_status blkdelta_apply(const char *delta,
                               const char *target,
                               uint32_t force,
                               const struct blkdelta_run_options *run,
                               struct blkdelta_summary *summary,
                               char **json);

// Backs volumes up: full the first time, then what changed. With several volumes the snapshots of all are taken at one
// moment, before the first is read.
//
// `volumes`: an array of `count` pointers, one for each volume. `consistency`: NULL when nothing is to be done around the
// snapshots. `run`: NULL for the defaults. `summary`: the numbers of the last volume; NULL: not wanted. `json`: receives
// the report of one volume as `blkdelta backup --json`, or an array of reports (`--group`) when `count` is larger than 1;
// freed with blkdelta_string_free(); NULL: not wanted. With several volumes each is committed by itself: when the
// call fails after some were, `json` tells those, and is NULL otherwise. BLKDELTA_STATUS_DOUBTFUL: a hint was proven
// wrong, and the volume was read in full. Any thread; returns when all is done.
blkdelta_status blkdelta_backup(const struct blkdelta_repository *repository,
                                const struct blkdelta_backup_options *const *volumes,
                                size_t count,
                                const struct blkdelta_consistency_options *consistency,
                                const struct blkdelta_run_options *run,
                                struct blkdelta_summary *summary,
                                char **json);

// Begins a scan whose changes are pulled with their bytes: blkdelta_changes_next() until it tells NULL, then
// blkdelta_changes_report() if wanted, then blkdelta_changes_close().
//
// `options`: as for blkdelta_scan(), without a delta. `run`: NULL for the defaults; on_progress is called by
// blkdelta_changes_next(), and its `user` has to live until the iterator is closed. `changes`: receives the handle. Any
// thread. A source or manifest that cannot be used may be told here or by the first blkdelta_changes_next().
blkdelta_status blkdelta_changes_open(const struct blkdelta_scan_options *options,
                                      const struct blkdelta_run_options *run,
                                      struct blkdelta_changes **changes);

// Tells the next changed range with its bytes, waiting for it; a range never spans two blocks of the volume.
//
// `range`: receives a pointer that belongs to the library and is valid until the next call with this iterator, or NULL
// when all was told. Only then the new manifest gets its name: what a program did not ask beyond is told again by its next
// scan. An offset that is not larger than the one before says that all is told again from the start, because a
// hint was proven wrong. After a failure there are no more changes. One thread at a time.
blkdelta_status blkdelta_changes_next(struct blkdelta_changes *changes,
                                      const struct blkdelta_range **range);

// Tells what the scan did, once blkdelta_changes_next() has told NULL: `summary` and `json` as for blkdelta_scan(), and
// the same status. One thread at a time.
blkdelta_status blkdelta_changes_report(const struct blkdelta_changes *changes,
                                        struct blkdelta_summary *summary,
                                        char **json);

// Closes an iterator; before its end this cancels the scan, and its new manifest is not made. NULL is fine; a handle that
// was closed before is BLKDELTA_STATUS_WRONG_USE. Any thread.
blkdelta_status blkdelta_changes_close(struct blkdelta_changes *changes);

// The same as a loop of the library's: `on_range` is told each changed range with its bytes, valid during the callback.
//
// The other arguments and the result are those of blkdelta_scan(). When the callback cancels, the new manifest is not
// made, also not at the last range. Any thread; returns when all is done.
blkdelta_status blkdelta_changes_each(const struct blkdelta_scan_options *options,
                                      const struct blkdelta_run_options *run,
                                      blkdelta_range_callback on_range,
                                      void *user,
                                      struct blkdelta_summary *summary,
                                      char **json);

// Removes what interrupted backups left: unfinished files, snapshots. The next backup of each volume would do the same.
//
// `volume`: only this one (UTF-8); NULL: all. `run`: its state folder is used; NULL for the defaults. `json`: receives
// what was done (`blkdelta cleanup --json`), freed with blkdelta_string_free(); NULL: not wanted.
// BLKDELTA_STATUS_DOUBTFUL: a volume was left as it is, and `json` says why. Any thread.
blkdelta_status blkdelta_cleanup(const struct blkdelta_repository *repository,
                                 const char *volume,
                                 const struct blkdelta_run_options *run,
                                 char **json);

// Copies backups from one repository into another: the same ids, the same records, proven while they are read. What is
// there already is left alone. Cancelled or failed, what was copied stays: copy again for the rest.
//
// `from`, `to`: of the same block size, grain size and digest, each with its own key. `options`: NULL for all backups.
// `run`: NULL for the defaults. `summary`, `json`: the report (`blkdelta copy --json`), freed with
// blkdelta_string_free(); NULL: not wanted. BLKDELTA_STATUS_DOUBTFUL: some could not be copied, and `json` says why. Any
// thread; returns when all is done.
blkdelta_status blkdelta_copy(const struct blkdelta_repository *from,
                              const struct blkdelta_repository *to,
                              const struct blkdelta_copy_options *options,
                              const struct blkdelta_run_options *run,
                              struct blkdelta_summary *summary,
                              char **json);

// Tells the ranges that differ between two backups of a volume; no data is read.
//
// `from`, `to`: the older and the newer side, named as for blkdelta_show(). `volume`: what latest is of (UTF-8), or
// NULL. `run`: NULL for the defaults. `on_range`: told each range (its data is NULL), with `user`; NULL: nobody is.
// `summary`, `json`: the totals (`blkdelta diff --json` without its ranges), freed with blkdelta_string_free(); NULL: not
// wanted. Any thread.
blkdelta_status blkdelta_diff(const struct blkdelta_repository *repository,
                              const char *from,
                              const char *to,
                              const char *volume,
                              const struct blkdelta_run_options *run,
                              blkdelta_range_callback on_range,
                              void *user,
                              struct blkdelta_summary *summary,
                              char **json);

// The last failure of a call on this thread, with its whole cause, in one line; empty when there was none. Never NULL.
//
// The text belongs to the library and is valid until the next call on this thread that fails. Only to be asked after a
// call that failed: a call that succeeds leaves it as it is. Any thread; each has its own.
const char *blkdelta_last_error(void);

// What a person can do next after the last failure on this thread; NULL when nothing is known. Valid as long as the
// text of blkdelta_last_error().
const char *blkdelta_last_error_hint(void);

// The errno of the operating system that is the cause of the last failure on this thread; 0 when there is none.
int blkdelta_last_error_errno(void);

// Frees a string that a function of this library handed out. NULL is fine. Each string once, and no other: a second
// time, as with free(), anything may happen. Any thread.
void blkdelta_string_free(char *text);

// Makes a repository in a directory, which is made too, and opens it.
//
// `path`: the directory. `format`: NULL for the defaults. `json`: receives the configuration (`blkdelta init --json`),
// freed with blkdelta_string_free(); NULL: not wanted. `repository`: receives the handle, closed with
// blkdelta_repository_close(). Any thread.
blkdelta_status blkdelta_init(const char *path,
                              const struct blkdelta_format_options *format,
                              char **json,
                              struct blkdelta_repository **repository);

// Makes an encrypted repository in a directory, and opens it.
//
// `passphrase`: opens it from now on; NULL: what the environment names (see blkdelta_repository_open()), which must name
// something then. The rest as for blkdelta_init(). Any thread.
blkdelta_status blkdelta_init_encrypted(const char *path,
                                        const struct blkdelta_format_options *format,
                                        const char *passphrase,
                                        char **json,
                                        struct blkdelta_repository **repository);

// Opens the repository in a directory.
//
// An encrypted one opens with what the environment names: BLKDELTA_PASSWORD_FILE, BLKDELTA_PASSWORD_COMMAND or
// BLKDELTA_KEY_FILE; BLKDELTA_STATUS_WRONG_KEY when that does not fit or is not there.
// `repository`: receives the handle, closed with blkdelta_repository_close(). Any thread.
blkdelta_status blkdelta_repository_open(const char *path,
                                         struct blkdelta_repository **repository);

// Opens the repository in a directory, an encrypted one with a passphrase.
//
// `passphrase`: NULL: as blkdelta_repository_open(). One that is given for a repository that is not encrypted is
// BLKDELTA_STATUS_WRONG_KEY: somebody may have put it there instead of yours. Any thread.
blkdelta_status blkdelta_repository_open_with(const char *path,
                                              const char *passphrase,
                                              struct blkdelta_repository **repository);

// Closes a repository. Calls that still use it in other threads end as usual, and so do readers that came from it. NULL
// is fine; a handle that was closed before is BLKDELTA_STATUS_WRONG_USE. Any thread.
blkdelta_status blkdelta_repository_close(struct blkdelta_repository *repository);

// Tells what runs, in this process or another, and under which limits: a JSON array as `blkdelta limits show --json`.
//
// `state`: folder of the local state, NULL: the usual one. `json`: receives a string that the caller frees with
// blkdelta_string_free(). Any thread.
blkdelta_status blkdelta_limits_show(const char *state,
                                     char **json);

// Changes the limits of work that is running: of the process `pid`, or of all when it is 0. A run takes new limits
// within a quarter of a second.
//
// `state`: folder of the local state that the runs use, NULL: the usual one. `limits`: what is to change. `json`:
// receives the new limits as an array (`blkdelta limits set --json`), freed with blkdelta_string_free(); NULL: not wanted.
// Any thread, also from a callback.
blkdelta_status blkdelta_limits_set(const char *state,
                                    uint32_t pid,
                                    const struct blkdelta_limit_options *limits,
                                    char **json);

// Lists backups by volume and sequence: a JSON array of records as `blkdelta list --json`.
//
// `volume`: only this one (UTF-8); NULL: all. `json`: receives a string that the caller frees with
// blkdelta_string_free(). When a record cannot be read, the others are told with BLKDELTA_STATUS_DOUBTFUL, and
// blkdelta_last_error() says which. Any thread.
blkdelta_status blkdelta_list(const struct blkdelta_repository *repository,
                              const char *volume,
                              char **json);

// Sets who receives log lines of this process, up to `level` (a blkdelta_log_level); NULL ends it. When this
// returns, the receiver before is not called any more.
//
// `user` is handed to the callback as it is and has to live until another receiver is set. Any thread, but never from
// a callback.
blkdelta_status blkdelta_log_set(blkdelta_log_callback callback,
                                 void *user,
                                 int level);

// Merges the backups from `first` to `last` into one, without the volume. The state of `last` stays, under its id too;
// those before it go, unless others build on them. Failed or cancelled, nothing was changed.
//
// `first`, `last`: named as for blkdelta_show(); `first` NULL: the full that `last` builds on, and the result is a full.
// `volume`: what latest is of (UTF-8), or NULL. `compression`: of what is encoded anew, such as "zstd:3"; NULL: the
// repository's. `run`: NULL for the defaults. `summary`, `json`: the report (`blkdelta merge --json`), freed with
// blkdelta_string_free(); NULL: not wanted. Any thread; returns when all is done.
blkdelta_status blkdelta_merge(const struct blkdelta_repository *repository,
                               const char *first,
                               const char *last,
                               const char *volume,
                               const char *compression,
                               const struct blkdelta_run_options *run,
                               struct blkdelta_summary *summary,
                               char **json);

// Removes the backups that no rule keeps. No chain and no group is broken; the newest and the last good backup of a volume
// and those with the tag "pin" stay. Cancelled, what is removed is removed.
//
// `options`: at least one rule. `run`: for progress and cancelling; NULL for the defaults. `json`: receives each backup
// and why it stays or goes (`blkdelta prune --json`), freed with blkdelta_string_free(); NULL: not wanted.
// BLKDELTA_STATUS_DOUBTFUL: a volume was left alone, and `json` says why. Any thread.
blkdelta_status blkdelta_prune(const struct blkdelta_repository *repository,
                               const struct blkdelta_prune_options *options,
                               const struct blkdelta_run_options *run,
                               char **json);

// Opens a backup for reads at any place. The table of digests is proven here; each block is proven when it is read.
//
// `id`, `volume`: as for blkdelta_show(); `at`: of what was taken at this time or before (RFC 3339), or NULL. `reader`:
// receives the handle, closed with blkdelta_reader_close(). The repository may be closed before it. Any thread.
blkdelta_status blkdelta_reader_open(const struct blkdelta_repository *repository,
                                     const char *id,
                                     const char *volume,
                                     const char *at,
                                     struct blkdelta_reader **reader);

// Tells the bytes of the volume. Any thread.
blkdelta_status blkdelta_reader_size(const struct blkdelta_reader *reader, uint64_t *size);

// Reads `length` bytes from `offset` into `buffer`, all or none; whatever is handed out was proven. Bytes beyond the end are
// BLKDELTA_STATUS_WRONG_USE. After a failure the buffer may hold anything. Any thread, also several at once.
blkdelta_status blkdelta_reader_read(const struct blkdelta_reader *reader,
                                     uint64_t offset,
                                     uint8_t *buffer,
                                     size_t length);

// Closes a reader. NULL is fine; a handle that was closed before is BLKDELTA_STATUS_WRONG_USE. Any thread.
blkdelta_status blkdelta_reader_close(struct blkdelta_reader *reader);

// Restores a backup; every block is proven before it is written. Others on the target's device are taken care of only
// if run->limits has a latency_target, because somebody waits for a restore.
//
// `id`: the beginning of an id, "latest" or "latest~N". `run`: NULL for the defaults. `summary`, `json`: the report
// (`blkdelta restore --json`), freed with blkdelta_string_free(); NULL: not wanted. Any thread; returns when all is
// done. Cancelled or failed, the target is incomplete: restore it again with resume, and only the rest is written.
// BLKDELTA_STATUS_DOUBTFUL: with skip_damaged something is missing; summary->problems counts the ranges.
blkdelta_status blkdelta_restore(const struct blkdelta_repository *repository,
                                 const char *id,
                                 const struct blkdelta_restore_options *options,
                                 const struct blkdelta_run_options *run,
                                 struct blkdelta_summary *summary,
                                 char **json);

// Tracks changes without a repository: tells the ranges of a volume that differ from a manifest, and may write the new
// manifest and a delta. For the bytes themselves see blkdelta_changes_open() and blkdelta_changes_each().
//
// `run`: NULL for the defaults. `on_range`: told each range (its data is NULL), with `user`; NULL: nobody is. `summary`,
// `json`: the report; NULL: not wanted. The document is that of `blkdelta scan --json` without its ranges, freed with
// blkdelta_string_free(). BLKDELTA_STATUS_DOUBTFUL: a hint was proven wrong, and the volume was read in full. Any
// thread; returns when all is done. Cancelled or failed, no manifest and no delta file is left.
blkdelta_status blkdelta_scan(const struct blkdelta_scan_options *options,
                              const struct blkdelta_run_options *run,
                              blkdelta_range_callback on_range,
                              void *user,
                              struct blkdelta_summary *summary,
                              char **json);

// Shows one backup: its record as `blkdelta show --json`.
//
// `id`: the beginning of an id, "latest" or "latest~N". `volume`: what latest is of; NULL when there is only one.
// `summary`: its numbers; NULL: not wanted. `json`: receives the record, freed with blkdelta_string_free(); NULL: not
// wanted. Any thread.
blkdelta_status blkdelta_show(const struct blkdelta_repository *repository,
                              const char *id,
                              const char *volume,
                              struct blkdelta_summary *summary,
                              char **json);

// Gives a backup tags and takes some away. One with the tag "pin" is never pruned, and stays in a merge.
//
// `id`, `volume`: as for blkdelta_show(). `add`, `remove`: so many tags (UTF-8); NULL with a count of 0. `json`: receives
// all its tags as a JSON array, freed with blkdelta_string_free(); NULL: not wanted. Any thread.
blkdelta_status blkdelta_tag(const struct blkdelta_repository *repository,
                             const char *id,
                             const char *volume,
                             const char *const *add,
                             size_t add_count,
                             const char *const *remove,
                             size_t remove_count,
                             char **json);

// Checks what is stored: without `ids` also tags, key slots and the audit log, and whether the repository went back to an
// older state since this host last saw it. Damage is no failure of the call: it is BLKDELTA_STATUS_DAMAGE_FOUND and stands
// in the report. BLKDELTA_STATUS_DOUBTFUL: nothing is damaged, but a newer version wrote some of it.
//
// `options`: NULL for all backups without their data. `run`: NULL for the defaults. `summary`, `json`: the report
// (`blkdelta verify --json`), freed with blkdelta_string_free(); NULL: not wanted. Any thread; returns when all is
// done.
blkdelta_status blkdelta_verify(const struct blkdelta_repository *repository,
                                const struct blkdelta_verify_options *options,
                                const struct blkdelta_run_options *run,
                                struct blkdelta_summary *summary,
                                char **json);

// The version of the library that runs, such as "0.1.0". The text is constant. Any thread.
const char *blkdelta_version(void);

// The version of the binary interface of the library that runs: compare it with BLKDELTA_ABI_VERSION. Any thread.
uint32_t blkdelta_abi_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BLKDELTA_H */
