/*
 * A small WiredTiger program: it opens a database, and then does what stands on its input, a command a line. Each answer
 * is one line, flushed: "ok ..." or "failed NUMBER TEXT"; inserts answer "ack KEY" once the commit has returned. It knows
 * nothing of dspm: what loads the file system is the configuration that it is given.
 *
 *   open HOME CONFIG           close                  create TABLE CONFIG         checkpoint
 *   insert TABLE FIRST COUNT SIZE THREADS COMMIT      (COMMIT: commit_transaction's configuration, or -)
 *   scan TABLE SIZE            verify TABLE           flush CONFIG                drop TABLE
 *   fork                       (a child uses the handle and exits; ok and what it met)
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wiredtiger.h>

#define VALUE_MAX (1 << 20)

static WT_CONNECTION *connection;
static pthread_mutex_t out = PTHREAD_MUTEX_INITIALIZER;

static int
on_error(WT_EVENT_HANDLER *handler, WT_SESSION *session, int error, const char *message)
{
    (void)handler;
    (void)session;
    fprintf(stderr, "error %d: %s\n", error, message);
    return (0);
}

static WT_EVENT_HANDLER handler = {.handle_error = on_error};

static void
answer(int error, const char *what)
{
    pthread_mutex_lock(&out);
    if (error == 0)
        printf("ok %s\n", what);
    else
        printf("failed %d %s: %s\n", error, what, wiredtiger_strerror(error));
    fflush(stdout);
    pthread_mutex_unlock(&out);
}

/* A value that only this key has. */
static void
fill(char *value, size_t size, long key)
{
    int n = snprintf(value, size + 1, "%ld.", key);

    for (size_t i = (size_t)n; i < size; i++)
        value[i] = (char)('a' + (i * 31 + (size_t)key * 7) % 26);
    value[size] = '\0';
}

struct load {
    const char *table, *commit;
    long first, count;
    size_t size;
    int error;
};

static int
insert_all(WT_SESSION *session, struct load *load, char *value)
{
    WT_CURSOR *cursor;
    int ret;

    if ((ret = session->open_cursor(session, load->table, NULL, NULL, &cursor)) != 0)
        return (ret);
    for (long key = load->first; key < load->first + load->count; key++) {
        fill(value, load->size, key);
        cursor->set_key(cursor, (int64_t)key);
        cursor->set_value(cursor, value);
        if ((ret = session->begin_transaction(session, NULL)) != 0 || (ret = cursor->insert(cursor)) != 0 ||
          (ret = session->commit_transaction(session, load->commit)) != 0)
            return (ret);
        pthread_mutex_lock(&out);
        printf("ack %ld\n", key);
        fflush(stdout);
        pthread_mutex_unlock(&out);
    }
    return (cursor->close(cursor));
}

static void *
insert_thread(void *argument)
{
    struct load *load = argument;
    WT_SESSION *session;
    char *value = malloc(VALUE_MAX + 1);

    if (value == NULL || connection->open_session(connection, NULL, NULL, &session) != 0)
        load->error = -1;
    else {
        load->error = insert_all(session, load, value);
        session->close(session, NULL);
    }
    free(value);
    return (NULL);
}

static int
insert(const char *table, long first, long count, size_t size, int threads, const char *commit)
{
    pthread_t ids[64];
    struct load loads[64];
    int ret = 0;

    if (threads < 1 || threads > 64 || size < 24 || size > VALUE_MAX)
        return (-1);
    for (int i = 0; i < threads; i++) {
        loads[i] = (struct load){table, strcmp(commit, "-") ? commit : NULL, first + i * count, count, size, 0};
        if (pthread_create(&ids[i], NULL, insert_thread, &loads[i]) != 0)
            abort();
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        ret = ret ? ret : loads[i].error;
    }
    return (ret);
}

/* Prints every key whose value is right, and says how many are wrong. */
static int
scan(WT_SESSION *session, const char *table, size_t size)
{
    WT_CURSOR *cursor;
    const char *found;
    int64_t key;
    int ret;
    long right = 0, wrong = 0;
    char *value;

    if ((ret = session->open_cursor(session, table, NULL, NULL, &cursor)) != 0)
        return (ret);
    if ((value = malloc(VALUE_MAX + 1)) == NULL)
        return (-1);
    while ((ret = cursor->next(cursor)) == 0) {
        if ((ret = cursor->get_key(cursor, &key)) != 0 || (ret = cursor->get_value(cursor, &found)) != 0)
            break;
        fill(value, size, (long)key);
        strcmp(found, value) ? wrong++ : right++;
        if (strcmp(found, value) == 0)
            printf("key %ld\n", (long)key);
    }
    free(value);
    cursor->close(cursor);
    if (ret != WT_NOTFOUND)
        return (ret);
    printf("scanned %ld right %ld wrong\n", right, wrong);
    return (0);
}

/* In a child the parent's database is nothing to be used: a call fails, and the parent goes on. */
static int
fork_and_use(void)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        WT_SESSION *session;
        int ret = connection->open_session(connection, NULL, NULL, &session);
        if (ret == 0)
            ret = session->log_flush(session, "sync=on");
        if (ret == 0)
            ret = session->create(session, "table:of_a_child", "key_format=q,value_format=S");
        _exit(ret == 0 ? 0 : 1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return (-1);
    printf("the child %s\n", WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "succeeded" : "failed");
    return (0);
}

static int
command(WT_SESSION *session, char *line)
{
    char *word[8] = {0}, *rest = line;
    int n = 0;

    while (n < 8 && (word[n] = strsep(&rest, "\t")) != NULL)
        n++;
#define IS(name, words) (strcmp(word[0], name) == 0 && n == (words) + 1)
    if (IS("create", 2))
        return (session->create(session, word[1], word[2]));
    if (IS("insert", 6))
        return (insert(word[1], atol(word[2]), atol(word[3]), (size_t)atol(word[4]), atoi(word[5]), word[6]));
    if (IS("checkpoint", 0))
        return (session->checkpoint(session, NULL));
    if (IS("flush", 1))
        return (session->log_flush(session, word[1]));
    if (IS("verify", 1))
        return (session->verify(session, word[1], NULL));
    if (IS("drop", 1))
        return (session->drop(session, word[1], NULL));
    if (IS("scan", 2))
        return (scan(session, word[1], (size_t)atol(word[2])));
    if (IS("fork", 0))
        return (fork_and_use());
    return (-1);
}

static int
open_database(WT_SESSION **session, const char *home, const char *config)
{
    int ret = wiredtiger_open(home, &handler, config, &connection);

    if (ret != 0)
        connection = NULL;
    return (ret ? ret : connection->open_session(connection, NULL, NULL, session));
}

int
main(void)
{
    WT_SESSION *session = NULL;
    char line[8192], what[32];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        int ret;

        line[strcspn(line, "\n")] = '\0';
        snprintf(what, sizeof(what), "%.*s", (int)strcspn(line, "\t"), line);
        if (strcmp(what, "open") == 0) {
            char *rest = line, *home;
            strsep(&rest, "\t");
            home = strsep(&rest, "\t");
            ret = open_database(&session, home, rest);
        } else if (connection == NULL)
            ret = -1;
        else if (strcmp(what, "close") == 0) {
            ret = connection->close(connection, NULL);
            connection = NULL;
        } else
            ret = command(session, line);
        answer(ret, what);
    }
    return (connection == NULL ? 0 : connection->close(connection, NULL));
}
