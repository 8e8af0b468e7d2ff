/* Loads dspm's extension, then runs the program that this file is linked to.
**
** SQLite's test programs look for their VFS by name before they open anything, so it has to be registered first. Each is
** compiled with main renamed to tested_main. SQLITE_TEST_EXTENSION names the extension; without it the program runs as it is.
*/
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

int tested_main(int argc, char **argv);

static int load(const char *path) {
  sqlite3 *db = 0;
  char *why = 0;
  int rc = sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE, "unix-none");
  if (rc == SQLITE_OK) rc = sqlite3_enable_load_extension(db, 1);
  if (rc == SQLITE_OK) rc = sqlite3_load_extension(db, path, 0, &why);
  if (rc != SQLITE_OK) fprintf(stderr, "cannot load %s: %s\n", path, why ? why : sqlite3_errstr(rc));
  sqlite3_free(why);
  sqlite3_close(db);
  /* The programs configure SQLite before they use it, which it takes only before its first use. */
  if (rc == SQLITE_OK) sqlite3_shutdown();
  return rc;
}

int main(int argc, char **argv) {
  const char *path = getenv("SQLITE_TEST_EXTENSION");
  if (path && load(path) != SQLITE_OK) return 125;
  return tested_main(argc, argv);
}
