/* What does a server write, in which order, and what does it make durable?
 *
 * A library for LD_PRELOAD that logs every file operation below the recorded roots, and may hold a process at some of
 * them (recorder_jitter.h). It changes nothing else, and is silent in programs without these variables. Where they are
 * set, a log that cannot be written ends the program.
 *
 *     CRASHLAB_RECORD_LOG    an existing log, made by iolog.create()
 *     CRASHLAB_JITTER        an existing page, made by jitter.Page(); with a log or without
 *     CRASHLAB_RECORD_ROOTS  absolute directories, joined by ":"
 *
 * When is an operation logged, and why is that sound? A record stands for something that happened, so it follows its
 * system call and comes before the server is told: whatever the server does next stands behind it, in any process.
 *     Names, sizes, appends and copies: call and record under the log's lock, so that no process can log a use of a
 *         name before the name itself, and an append knows its offset.
 *     Positioned writes: the record follows the call, the bytes are a private copy made first, because other backends
 *         change hint bits, and add WAL behind, while the kernel reads the page. Bytes at the ends that the file had
 *         already are left out, unless the write is durable by itself. Concurrent writes to one range would be
 *         ambiguous; the server's own locks exclude them.
 *     fsync: the begin before the call, the end after its success. A write logged between them may or may not be
 *         covered, and counts as not covered, which a slower device would have made true.
 * A process killed between a call and its record leaves an operation unlogged. Nobody was told of it, but it is on the
 * disk, so the self-check of such a recording fails: kill a server while nothing is logged (iolog.py).
 *
 * Not seen: writes inside libc (stdio; a file opened by fopen is logged whole when renamed, linked or synced), io_uring,
 * and programs linked statically. A shared writable mapping is logged as BLIND; the self-check finds the rest.
 * A stopped (SIGSTOP) process may hold the lock and so stop all the others. One log is for one server in one PID
 * namespace: the lock knows its holder by number.
 */
#include "recorder_data.h"
#include "recorder_names.h"
#include "recorder_open.h"

/* ---- start ---- */

static const char *find(const char *environment, usize bytes, const char *key) {
    usize n = length_of(key);
    for (usize at = 0; at < bytes; at += length_of(environment + at) + 1)
        if (same_bytes(environment + at, key, n))
            return environment + at + n;
    return 0;
}

static void add_root(const char *path, usize n) {
    if (root_count == ROOTS_MAX || n >= PATH_BYTES || path[0] != '/')
        fail("CRASHLAB_RECORD_ROOTS is not a short list of absolute paths", EINVAL);
    char *root = roots[root_count++];
    copy_bytes(root, path, n);
    root[n] = 0;
    long fd = sys(openat, AT_FDCWD, root, O_PATH | O_CLOEXEC);
    if (fd >= 0) {
        path_of(fd, 0, root);
        sys(close, fd);
    }
}

static void add_roots(const char *list) {
    for (const char *from = list, *to; from && *from; from = *to ? to + 1 : to) {
        for (to = from; *to && *to != ':';)
            to++;
        add_root(from, (usize)(to - from));
    }
    if (!root_count)
        fail("CRASHLAB_RECORD_ROOTS is empty", EINVAL);
}

static void open_log(const char *path) {
    long low = sys(openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (low < 0)
        fail("could not open the log named by CRASHLAB_RECORD_LOG", -low);
    long high = sys(fcntl, low, F_DUPFD_CLOEXEC, 1000); /* out of the way of programs that count descriptors */
    log_fd = (int)(high < 0 ? low : high);
    if (high >= 0)
        sys(close, low);
    long at = sys(mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, log_fd, 0);
    if (at < 0 && at > -4096)
        fail("could not map the log", -at);
    struct about st;
    struct header *mapped = (struct header *)at;
    if (!about_fd(log_fd, &st))
        fail("could not use statx, which Linux 4.11 brought", ENOSYS);
    if (st.size < PAGE || !same_bytes(mapped->magic, "crashlab", 8) || mapped->version != VERSION)
        fail("the log is not one of this version", EINVAL);
    header = mapped;
}

static void log_start(void) {
    char program[PATH_BYTES];
    long n = sys(readlinkat, AT_FDCWD, "/proc/self/exe", program, PATH_BYTES - 1);
    program[n < 0 ? 0 : n] = 0;
    struct section s;
    enter(&s);
    lock();
    log_names(&s, START, 0, 0, 0, program, 0);
    unlock();
    leave(&s);
}

__attribute__((constructor)) static void start(void) {
    const usize space = 4UL << 20; /* twice what the kernel allows by default; only touched pages cost */
    long fd = sys(openat, AT_FDCWD, "/proc/self/environ", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail("could not read /proc/self/environ", -fd);
    u8 *environment = map_memory(space);
    usize bytes = 0;
    for (long n; bytes < space - 1 && (n = sys(read, fd, environment + bytes, space - 1 - bytes)) > 0;)
        bytes += (usize)n;
    sys(close, fd);
    const char *log = find((char *)environment, bytes, "CRASHLAB_RECORD_LOG=");
    const char *held = find((char *)environment, bytes, "CRASHLAB_JITTER=");
    int records = log && *log, holds = held && *held;
    if (records || holds)
        add_roots(find((char *)environment, bytes, "CRASHLAB_RECORD_ROOTS="));
    if (holds)
        open_jitter(held);
    if (records) {
        open_log(log);
        reserve(1 << 16);
        log_start();
        active = 1;
    }
    sys(munmap, environment, space);
}

/* ---- durability ---- */

static int flush(int fd, int datasync) {
    struct file f;
    struct section s;
    char link[40];
    if (!ours(fd, &f))
        return (int)answer(datasync ? sys(fdatasync, fd) : sys(fsync, fd));
    enter(&s);
    lock();
    if (f.is_regular && is_stdio(f.device, f.inode, fd, "", AT_EMPTY_PATH)) {
        append_number(append_text(link, "/proc/self/fd/"), (u64)fd);
        log_content(&s, "", AT_FDCWD, link, 1);
    }
    identify(f.device, f.inode, 0, 0);
    seal(&s, FSYNC_BEGIN, datasync ? DATASYNC : 0, 0);
    u64 token = append();
    unlock();
    leave(&s);
    long result = datasync ? sys(fdatasync, fd) : sys(fsync, fd);
    if (result == 0) {
        enter(&s);
        identify(f.device, f.inode, token, 0);
        seal(&s, FSYNC_END, 0, 0);
        append_locked();
        leave(&s);
    }
    return (int)answer(result);
}

EXPORT int fsync(int fd) { return (int)JITTERED(ON_FLUSH, class_of_fd(fd), flush(fd, 0)); }
EXPORT int fdatasync(int fd) { return (int)JITTERED(ON_FLUSH, class_of_fd(fd), flush(fd, 1)); }

static u64 log_sync(int kind, u64 device, u64 token) {
    struct section s;
    enter(&s);
    identify(device, 0, token, 0);
    seal(&s, kind, 0, 0);
    u64 at = append_locked();
    leave(&s);
    return at;
}

EXPORT int syncfs(int fd) {
    struct about st;
    if (!active || !about_fd(fd, &st))
        return (int)answer(sys(syncfs, fd));
    u64 token = log_sync(SYNCFS_BEGIN, st.device, 0);
    long result = sys(syncfs, fd);
    if (result == 0)
        log_sync(SYNCFS_END, st.device, token);
    return (int)answer(result);
}

EXPORT void sync(void) {
    u64 token = active ? log_sync(SYNCFS_BEGIN, 0, 0) : 0;
    sys(sync);
    if (active)
        log_sync(SYNCFS_END, 0, token);
}
