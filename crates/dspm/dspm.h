/* dspm's C ABI (libdspm.so). The library is also SQLite's loadable extension: entry sqlite3_extension_init. */
#ifndef DSPM_H
#define DSPM_H
#ifdef __cplusplus
extern "C" {
#endif

/* code: 1 failed, 2 usage or configuration, 3 unavailable, 4 corrupt data, 5 busy, 6 conflict, 7 too old,
   8 outcome unknown, 9 full, 10 authentication, 11 permission, 12 protocol, 13 not found, 14 refused */
typedef struct {
  int code;
  char message[1024]; /* one sentence */
  char hint[256];     /* what to do about it; may be empty */
} dspm_error;

/* The library's version. Not to be freed. */
const char *dspm_version(void);

/* What the VFS last said went wrong in this process; empty if nothing did. Valid until the thread's next call. */
const char *dspm_last_error(void);

/* The configuration as JSON: `path` or the file that is found (path NULL), then DSPM_* variables, then
   `overrides_json` (an object of key and value, or NULL). 0, or a code with *err filled in. Free *out_json. */
int dspm_config_load(const char *path, const char *overrides_json, char **out_json, dspm_error *err);

/* Frees a string that a function above gave out. */
void dspm_free(void *p);

#ifdef __cplusplus
}
#endif
#endif
