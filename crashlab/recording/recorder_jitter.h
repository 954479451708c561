/* At which operations is a process held, and for how long?
 *
 * A perturbation of the schedule: what two processes do at nearly the same time comes in another order if one of them
 * stands still for some milliseconds right before or right after an operation. Where nobody asked for it, it costs the
 * test of one static word.
 *
 * The page that CRASHLAB_JITTER names says where and how long, and counts what happened; jitter.py writes and reads it.
 * A hold takes place outside of the log's lock and with no signal blocked, so a held process can be killed, stops
 * nobody who does not wait for it, and still obeys the server's own signals; a signal does not shorten it.
 *
 * What is drawn for a process depends on the seed, on its kind (the words that its title begins with), on its number
 * among those of this kind (in the order in which they first came to an operation that could be held) and on how
 * many such operations it had done. The kernel's schedule, and with it the order of processes, is nobody's choice.
 */
#ifndef RECORDER_JITTER_H
#define RECORDER_JITTER_H

#include "recorder_files.h"

#define HOLDS_MAX 32
#define KINDS_MAX 64
#define CLOCK_MONOTONIC 1
#define TIMER_ABSTIME 1

enum { BEFORE, AFTER };
enum { ON_CREATE, ON_WRITE, ON_TRUNCATE, ON_RENAME, ON_UNLINK, ON_FLUSH };

/* In the order of FileClass (disk/fileclass.py); 0 is a file outside of the roots, and in a hold: of any class. */
enum { WAL = 1, RELATION, FSM, VM, INIT, XACT, SLRU, RELATION_MAP, TWO_PHASE, CONTROL, REPLICATION, TABLESPACE_LINK,
       CONFIGURATION, TEMPORARY, STATISTICS, DIRECTORY, OTHER };

struct jitter {
    char magic[8];
    u32 on; /* set and cleared while the server runs */
    u32 count;
    u64 share; /* of 2^32 operations, so many are held */
    u64 low_us, span_us;
    u32 processes[KINDS_MAX]; /* that have come, by a hash of their kind */
    struct hold {
        u32 when, operation, class, unused;
        u64 seed;
        u64 seen, begun, ended, drawn_us;
    } holds[HOLDS_MAX];
};

static struct jitter *jitter;
static u32 jitters; /* bits of the operations at which somebody may be held; 0: off */
static int holder; /* pid for which the next two stand; a forked child finds its parent's */
static u64 identity;
static u64 drawn[HOLDS_MAX]; /* draws for each hold */

/* ---- classes of files ---- */

/* Return what is left of a path behind a pattern; 0: it does not fit. "#" is digits, "*" the rest of a name, "^" the
 * name of a WAL segment. */
static const char *behind(const char *pattern, const char *path) {
    for (; *pattern; pattern++) {
        const char *from = path;
        if (*pattern == '#')
            while (*path >= '0' && *path <= '9')
                path++;
        else if (*pattern == '^')
            while (path - from < 24 && ((*path >= '0' && *path <= '9') || (*path >= 'A' && *path <= 'F')))
                path++;
        else if (*pattern == '*')
            while (*path && *path != '/')
                path++;
        else if (*path++ != *pattern)
            return 0;
        if ((*pattern == '#' && path == from) || (*pattern == '^' && path - from < 24))
            return 0;
    }
    return path;
}

/* Does a path have these names, anywhere, or at its end? */
static int has(const char *path, const char *pattern, int at_end) {
    for (const char *from = path; *from; from++) {
        const char *rest = from == path || from[-1] == '/' ? behind(pattern, from) : 0;
        if (rest && !(at_end && *rest))
            return 1;
    }
    return 0;
}

static int ends_with(const char *path, const char *tail) {
    usize n = length_of(path), m = length_of(tail);
    return n >= m && same_bytes(path + n - m, tail, m);
}

/* A relation's file, by its fork: "base/5/1259_vm.1". */
static int is_fork(const char *path, const char *fork) {
    static const char *const places[] = {"base/#/", "global/", "PG_*/#/"};
    for (const char *from = path; *from; from++)
        for (int i = 0; i < 3 && (from == path || from[-1] == '/'); i++) {
            const char *name = behind(places[i], from), *rest = name ? behind(fork, name) : 0;
            if (rest && *rest == '.')
                rest = behind(".#", rest);
            if (rest && !*rest)
                return 1;
        }
    return 0;
}

static int class_of(const char *path) {
    static const struct {
        const char *fork;
        int class;
    } forks[] = {{"t#_#*", TEMPORARY}, {"#_fsm", FSM}, {"#_vm", VM}, {"#_init", INIT}, {"#", RELATION}};
    static const struct {
        const char *names;
        int at_end, class;
    } others[] = {{"pg_filenode.map", 1, RELATION_MAP}, {"pg_filenode.map.tmp", 1, RELATION_MAP},
                  {"global/pg_control", 1, CONTROL},    {"^", 1, WAL},
                  {"^.partial", 1, WAL},                {"xlogtemp.#", 1, WAL},
                  {"pg_wal/*", 1, WAL},                 {"pg_xact/", 0, XACT},
                  {"pg_multixact/", 0, SLRU},           {"pg_commit_ts/", 0, SLRU},
                  {"pg_subtrans/", 0, SLRU},            {"pg_notify/", 0, SLRU},
                  {"pg_serial/", 0, SLRU},              {"pg_twophase/", 0, TWO_PHASE},
                  {"pg_replslot/", 0, REPLICATION},     {"pg_logical/", 0, REPLICATION},
                  {"pg_tblspc/#", 1, TABLESPACE_LINK},  {"pg_stat/", 0, STATISTICS},
                  {"pg_stat_tmp/", 0, STATISTICS},      {"PG_VERSION", 1, CONFIGURATION}};
    if (has(path, "pgsql_tmp/", 0) || has(path, "pgsql_tmp#", 0) || has(path, "pgsql_tmp", 1))
        return TEMPORARY;
    for (usize i = 0; i < sizeof forks / sizeof *forks; i++)
        if (is_fork(path, forks[i].fork))
            return forks[i].class;
    for (usize i = 0; i < sizeof others / sizeof *others; i++)
        if (has(path, others[i].names, others[i].at_end))
            return others[i].class;
    return ends_with(path, ".conf") || ends_with(path, ".conf.tmp") ? CONFIGURATION : OTHER;
}

static int class_of_fd(long fd) {
    char name[PATH_BYTES];
    struct about st;
    if (fd < 0 || !about_fd(fd, &st) || !(S_ISREG(st.mode) || S_ISDIR(st.mode)) || !name_of(fd, &st, name))
        return 0;
    return S_ISDIR(st.mode) ? DIRECTORY : class_of(name);
}

static int class_of_path(int dir, const char *path) {
    struct place p;
    find_place(&p, dir, path);
    return p.ours ? class_of(p.name) : 0;
}

/* ---- draws ---- */

static u64 mixed(u64 x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15UL;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9UL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebUL;
    return x ^ x >> 31;
}

/* "postgres: io worker 0" gives what identifies "io worker ". */
static u64 kind_of_process(void) {
    static const char begin[] = "postgres: ";
    char title[256];
    u64 kind = 0;
    long fd = sys(openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    long n = fd < 0 ? 0 : sys(read, fd, title, sizeof title - 1);
    if (fd >= 0)
        sys(close, fd);
    title[n < 0 ? 0 : n] = 0;
    if (same_bytes(title, begin, sizeof begin - 1))
        for (const char *c = title + sizeof begin - 1; *c == ' ' || (*c >= 'a' && *c <= 'z'); c++)
            kind = mixed(kind ^ (u8)*c);
    return kind;
}

static void know_holder(void) {
    int pid = (int)sys(getpid);
    if (pid == holder)
        return;
    u64 kind = kind_of_process();
    u32 number = __atomic_fetch_add(&jitter->processes[kind % KINDS_MAX], 1, __ATOMIC_RELAXED);
    identity = mixed(kind ^ mixed(number));
    for (int i = 0; i < HOLDS_MAX; i++)
        drawn[i] = 0;
    holder = pid;
}

static void stand_still(u64 us) {
    long until[2];
    if (sys(clock_gettime, CLOCK_MONOTONIC, until) < 0)
        return;
    u64 ns = (u64)until[1] + us * 1000;
    until[0] += (long)(ns / 1000000000UL);
    until[1] = (long)(ns % 1000000000UL);
    while (sys(clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, until, 0) == -EINTR)
        continue;
}

static void hold_if_drawn(u32 when, u32 operation, u32 class) {
    for (u32 i = 0; i < jitter->count && __atomic_load_n(&jitter->on, __ATOMIC_RELAXED); i++) {
        struct hold *h = &jitter->holds[i];
        if (h->when != when || h->operation != operation || (h->class && h->class != class))
            continue;
        know_holder();
        u64 draw = mixed(h->seed ^ mixed(identity ^ mixed(drawn[i]++)));
        __atomic_fetch_add(&h->seen, 1, __ATOMIC_RELAXED);
        if (draw >> 32 >= jitter->share)
            continue;
        u64 us = jitter->low_us + ((mixed(draw) >> 32) * (jitter->span_us + 1) >> 32);
        __atomic_fetch_add(&h->drawn_us, us, __ATOMIC_RELAXED);
        __atomic_fetch_add(&h->begun, 1, __ATOMIC_SEQ_CST);
        stand_still(us);
        __atomic_fetch_add(&h->ended, 1, __ATOMIC_SEQ_CST);
    }
}

static inline int is_held_at(u32 operation) {
    return jitters & 1U << operation && __atomic_load_n(&jitter->on, __ATOMIC_RELAXED);
}

/* Make a call, with what may be held before it and, if it succeeds, after it. */
#define JITTERED(operation, class, call)                                                                               \
    ({                                                                                                                 \
        u32 class_ = __builtin_expect(is_held_at(operation), 0) ? (u32)(class) : 0;                                    \
        if (class_)                                                                                                    \
            hold_if_drawn(BEFORE, operation, class_);                                                                  \
        long result_ = (call);                                                                                         \
        if (class_ && result_ >= 0)                                                                                    \
            hold_if_drawn(AFTER, operation, class_);                                                                   \
        result_;                                                                                                       \
    })

static void open_jitter(const char *path) {
    long fd = sys(openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail("could not open the page named by CRASHLAB_JITTER", -fd);
    long at = sys(mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    sys(close, fd);
    if (at < 0 && at > -4096)
        fail("could not map the page named by CRASHLAB_JITTER", -at);
    jitter = (struct jitter *)at;
    if (!same_bytes(jitter->magic, "jitter1", 8) || jitter->count > HOLDS_MAX)
        fail("the page named by CRASHLAB_JITTER is not one of this version", EINVAL);
    for (u32 i = 0; i < jitter->count; i++)
        jitters |= 1U << jitter->holds[i].operation;
}

#endif
