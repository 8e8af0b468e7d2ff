/* dspm's C ABI (libdspm.so). The library is also SQLite's loadable extension: entry sqlite3_extension_init.

   A dataset is a named, growable array of bytes in pages of 4096, numbered from 0, with a size in bytes. It has one
   sequence of commits: commit n makes LSN n, an empty dataset has LSN 0. A snapshot is one such state and never
   changes. What lies beyond the size, or was never written, reads as zeros.

   Calls that return int return 0, or a code (DSPM_E_*) with *err filled in; err may be NULL, and what they give out is
   untouched then. None waits longer than the configuration's commit_timeout, but for dspm_transaction_reserve, which
   waits as long as it was asked besides. All may be called from any thread; what ends a handle (close, end, free) must
   not run while another thread uses it. Texts are UTF-8.

   Handles keep alive what they stand on: a dataset may be closed before its snapshots and transactions. A forked
   child cannot use its parent's handles (DSPM_E_USAGE): it opens the dataset again; ending them there is harmless.

   `config` is the path of a config file, or NULL: DSPM_CONFIG, the user's, the system's. Names are as a program opens
   them: the configured namespace comes before them. */
#ifndef DSPM_H
#define DSPM_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define DSPM_PAGE_SIZE 4096

#define DSPM_E_FAILED 1       /* something that has no better name; the message says what */
#define DSPM_E_USAGE 2        /* wrong arguments or configuration */
#define DSPM_E_UNAVAILABLE 3  /* no cluster, or no answer within commit_timeout */
#define DSPM_E_CORRUPT 4      /* damaged or foreign bytes, and no good copy */
#define DSPM_E_BUSY 5         /* another transaction writes; try again */
#define DSPM_E_CONFLICT 6     /* another commit came first; begin the transaction again */
#define DSPM_E_TOO_OLD 7      /* the snapshot is no longer kept; begin a new one */
#define DSPM_E_UNKNOWN 8      /* a commit was sent and nobody could be asked whether it happened: read back */
#define DSPM_E_FULL 9         /* a limit: memory, disk, size of a commit */
#define DSPM_E_AUTH 10        /* the cluster's key is wrong */
#define DSPM_E_PERMISSION 11  /* the system, or DSPM_READONLY, says no */
#define DSPM_E_PROTOCOL 12    /* the peer speaks another version of dspm */
#define DSPM_E_NOT_FOUND 13   /* no dataset of that name */
#define DSPM_E_REFUSED 14     /* a node refused; the message says why */

typedef struct {
  int code;
  char message[1024]; /* one sentence */
  char hint[256];     /* what to do about it; may be empty */
} dspm_error;

/* ---- library, configuration ---- */

/* The library's version. Not to be freed. */
const char *dspm_version(void);

/* What the VFS last said went wrong in this process; empty if nothing did. Valid until the thread's next call. */
const char *dspm_last_error(void);

/* The configuration as JSON: `path` or the file that is found (path NULL), then DSPM_* variables, then
   `overrides_json` (an object of key and value, or NULL). Free *out_json. */
int dspm_config_load(const char *path, const char *overrides_json, char **out_json, dspm_error *err);

/* The entry of WiredTiger's extension for a program with that version of WiredTiger, such as "11.3.1". Free *out. */
int dspm_wiredtiger_entry(const char *version, char **out, dspm_error *err);

/* Frees a string that a function above or below gave out (char **). NULL is nothing. */
void dspm_free(void *p);

/* ---- datasets by name ---- */

/* {"datasets": [{name, dataset, group, set, durability, copies, min_copies}]}, names whole. Free *out_json. */
int dspm_list(const char *config, char **out_json, dspm_error *err);

/* Where a dataset is: {entry, set, nodes, lease_ms, created}. DSPM_E_NOT_FOUND. Free *out_json. */
int dspm_locate(const char *config, const char *name, char **out_json, dspm_error *err);

/* Removes a dataset from all nodes; whoever has it open gets errors. DSPM_E_NOT_FOUND. */
int dspm_remove(const char *config, const char *name, dspm_error *err);

/* Gives a dataset another name, in one step; the dataset that has that name now becomes `aside`. With `aside` NULL the
   new name must be free. DSPM_E_NOT_FOUND; DSPM_E_FAILED when a new name is taken. Handles go on. */
int dspm_rename(const char *config, const char *name, const char *to, const char *aside, dspm_error *err);

/* ---- a dataset ---- */

typedef struct dspm_dataset dspm_dataset;
typedef struct dspm_snapshot dspm_snapshot;
typedef struct dspm_transaction dspm_transaction;

#define DSPM_CREATE 1    /* made if it is missing */
#define DSPM_EXCLUSIVE 2 /* with DSPM_CREATE: DSPM_E_FAILED if it exists */
#define DSPM_READONLY 4  /* no transactions */

/* Opens a dataset. `options_json` is NULL or an object of
     durability "memory" | "disk", copies, min_copies: how it is made, if it is; otherwise the cluster's values;
     settings {key: value}: keys of the configuration for this handle. Handles of other settings share no cache.
   Close *out. DSPM_E_NOT_FOUND without DSPM_CREATE. */
int dspm_dataset_open(const char *config, const char *name, int flags, const char *options_json, dspm_dataset **out,
                      dspm_error *err);

/* Closes it; NULL is nothing. The process's last handle gives the write lease back. */
void dspm_dataset_close(dspm_dataset *dataset);

/* Its id: random, never used again, kept when it is renamed. No round trip. */
uint64_t dspm_dataset_id(const dspm_dataset *dataset);

/* Its name at the time it was opened, namespace included. Free *out. No round trip. */
int dspm_dataset_name(const dspm_dataset *dataset, char **out, dspm_error *err);

/* {mode, config, dataset, lsn, durability, copies, copies_now, lease, transport, round_trips, cache_hits,
   cache_misses}: what this process knows, from memory. Free *out_json. */
int dspm_dataset_status(const dspm_dataset *dataset, char **out_json, dspm_error *err);

/* 1 if some handle of this process has a transaction reserved, else 0. No round trip. */
int dspm_dataset_is_reserved(const dspm_dataset *dataset);

/* Keeps the write lease with this process once it has it (keep = 1), whoever asks for it, until called with 0 or its
   last handle is closed. One switch a dataset and process. DSPM_E_PERMISSION for a handle of DSPM_READONLY. */
int dspm_dataset_hold(const dspm_dataset *dataset, int keep, dspm_error *err);

/* ---- reading ---- */

/* Begins a read: *out shows a state at least as new as every commit acknowledged, to anybody, before the call. *lsn is
   its LSN, *size its size in bytes. At most one round trip. End *out: old versions are kept for it. */
int dspm_snapshot_begin(const dspm_dataset *dataset, uint64_t *lsn, uint64_t *size, dspm_snapshot **out,
                        dspm_error *err);

/* Begins a read of the past. `time` is a commit's number ("17"), or how long ago ("-1500ms", "-30s", "-10m", "-2h": the
   newest commit of that moment, or of one before it by at most a 256th of the dataset's `history`); "0" and "now" are
   dspm_snapshot_begin. DSPM_E_TOO_OLD: no longer kept; DSPM_E_USAGE: not there yet, or another text. One round trip, for
   "ago" two. Nothing can be written on top of it. End *out: all versions since are kept for it. */
int dspm_snapshot_as_of(const dspm_dataset *dataset, const char *time, uint64_t *lsn, uint64_t *size,
                        dspm_snapshot **out, dspm_error *err);

/* Ends a read; NULL is nothing. */
void dspm_snapshot_end(dspm_snapshot *snapshot);

/* Copies pages first … first + count - 1 into `into`, which has room for count × 4096 bytes. After an error its content
   is undefined. DSPM_E_TOO_OLD. */
int dspm_snapshot_read(const dspm_snapshot *snapshot, uint64_t first, size_t count, void *into, dspm_error *err);

/* Copies `count` listed pages, in any order, into `into`, one behind the other. */
int dspm_snapshot_read_list(const dspm_snapshot *snapshot, const uint64_t *pages, size_t count, void *into,
                            dspm_error *err);

/* ---- writing ---- */

#define DSPM_ANY_LSN UINT64_MAX

/* Makes a transaction, not reserved yet. No round trip. DSPM_E_PERMISSION for a handle of DSPM_READONLY. Free *out. */
int dspm_transaction_new(const dspm_dataset *dataset, dspm_transaction **out, dspm_error *err);

/* Becomes the dataset's only writer, here and on other machines. While another transaction writes it waits up to
   `wait_ms` milliseconds and then says DSPM_E_BUSY; its place in the queue is kept, so call it again, or release.
   *lsn and *size show the newest state, on which the transaction is based. With `expected_lsn` other than DSPM_ANY_LSN:
   DSPM_E_CONFLICT, and not reserved, when the newest state is another one. Others wait until the release: be quick. */
int dspm_transaction_reserve(dspm_transaction *transaction, uint64_t expected_lsn, uint32_t wait_ms, uint64_t *lsn,
                             uint64_t *size, dspm_error *err);

/* The same for an engine whose caller has read already, a SQLite VFS above all. It begins the read by
   dspm_transaction_snapshot, which is dspm_snapshot_begin, but with a place in the queue waits for its turn first, at
   most `wait_ms` milliseconds (a state taken before would be outdated then); then it reserves on top of that snapshot.
   dspm_transaction_reserve_at waits for nobody's transaction: DSPM_E_BUSY, and the place in the queue is kept;
   DSPM_E_CONFLICT: there were commits after `base`. `base` stays the caller's. */
int dspm_transaction_snapshot(dspm_transaction *transaction, uint32_t wait_ms, uint64_t *lsn, uint64_t *size,
                              dspm_snapshot **out, dspm_error *err);
int dspm_transaction_reserve_at(dspm_transaction *transaction, const dspm_snapshot *base, dspm_error *err);

/* As dspm_snapshot_read, of the state that the transaction is based on, then of its last commit. */
int dspm_transaction_read(const dspm_transaction *transaction, uint64_t first, size_t count, void *into,
                          dspm_error *err);

/* Commits: `count` pages with ascending numbers, none twice, none beyond `size`; their contents one behind the other
   (count × 4096 bytes); the dataset's new size in bytes, which cuts off or grows. Bytes of the last page beyond the
   size are to be zeros. When it returns 0 all members hold the commit, *lsn is its LSN, and the transaction is still
   reserved and based on it. Nothing to change makes no LSN: it is only asked whether this is still the writer. At most 64 MiB of pages (DSPM_E_FULL).
   DSPM_E_CONFLICT, DSPM_E_FULL: nothing was committed. DSPM_E_UNKNOWN: nobody knows yet. After any error release it;
   it may then be reserved again. */
int dspm_transaction_commit(dspm_transaction *transaction, const uint64_t *pages, const void *content, size_t count,
                            uint64_t size, uint64_t *lsn, dspm_error *err);

/* What one of several transactions changes, each as in dspm_transaction_commit; `lsn` is filled in. */
typedef struct {
  const dspm_transaction *transaction;
  const uint64_t *pages;
  const void *content;
  size_t count;
  uint64_t size;
  uint64_t lsn;
} dspm_part;

#define DSPM_PARTS_MAX 129

/* Commits all of these transactions or none, whatever dies; otherwise as dspm_transaction_commit. They are of different
   datasets of one cluster, at most DSPM_PARTS_MAX. Who reads several datasets may see the commit in one a moment before
   another. DSPM_E_CONFLICT, DSPM_E_FULL: nothing was committed in any. After any error release all of them. */
int dspm_commit_together(dspm_part *parts, size_t count, dspm_error *err);

/* Asks, with one round trip, whether this is still the writer: DSPM_E_CONFLICT if not. For the end of a transaction
   that wrote nothing. */
int dspm_transaction_confirm(dspm_transaction *transaction, dspm_error *err);

/* Ends the reservation; *out shows what the transaction read last: its last commit, else what it was based on, whatever
   others commit meanwhile. End *out. Never waits. */
int dspm_transaction_finish(dspm_transaction *transaction, uint64_t *lsn, uint64_t *size, dspm_snapshot **out,
                            dspm_error *err);

/* Ends the reservation, and gives the place in the queue back. What was not committed is gone. Never waits. */
void dspm_transaction_release(dspm_transaction *transaction);

/* Releases and frees it; NULL is nothing. */
void dspm_transaction_free(dspm_transaction *transaction);

#ifdef __cplusplus
}
#endif
#endif
