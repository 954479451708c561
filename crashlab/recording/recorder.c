/* What does a server write, in which order, and what does it make durable?
 *
 * A library for LD_PRELOAD that logs every file operation below the recorded roots. It changes nothing else, and is
 * silent in programs without CRASHLAB_RECORD_LOG. Where that is set, a log that cannot be written ends the program.
 *
 *     CRASHLAB_RECORD_LOG    an existing log, made by iolog.create()
 *     CRASHLAB_RECORD_ROOTS  absolute directories, joined by ":"
 *
 * When is an operation logged, and why is that sound? A record stands for something that happened, so it follows its
 * system call and comes before the server is told: whatever the server does next stands behind it, in any process.
 *     Names, sizes, appends and copies: call and record under the log's lock, so that no process can log a use of a
 *         name before the name itself, and an append knows its offset.
 *     Positioned writes: the record follows the call, the bytes are a private copy made first, because other backends
 *         change hint bits, and add WAL behind, while the kernel reads the page. Concurrent writes to one range would
 *         be ambiguous; the server's own locks exclude them.
 *     fsync: the begin before the call, the end after its success. A write logged between them may or may not be
 *         covered, and counts as not covered, which a slower device would have made true.
 * A process killed between a call and its record leaves an operation unlogged. Nobody was told of it, but it is on the
 * disk, so the self-check of such a recording fails: record a clean run.
 *
 * Not seen: writes inside libc (stdio; a file opened by fopen is logged whole when renamed, linked or synced), io_uring,
 * and programs linked statically. A shared writable mapping is logged as BLIND; the self-check finds the rest.
 * A stopped (SIGSTOP) process may hold the lock and so stop all the others.
 */
#include "recorder_files.h"

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
    struct stat st;
    struct header *mapped = (struct header *)at;
    if (sys(fstat, log_fd, &st) < 0 || (u64)st.st_size < PAGE || !same_bytes(mapped->magic, "crashlab", 8) ||
        mapped->version != VERSION)
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
    const char *list = find((char *)environment, bytes, "CRASHLAB_RECORD_ROOTS=");
    if (log && *log) {
        for (const char *from = list, *to; from && *from; from = *to ? to + 1 : to) {
            for (to = from; *to && *to != ':';)
                to++;
            add_root(from, (usize)(to - from));
        }
        if (!root_count)
            fail("CRASHLAB_RECORD_ROOTS is empty", EINVAL);
        open_log(log);
        reserve(1 << 16);
        log_start();
        active = 1;
    }
    sys(munmap, environment, space);
}

/* ---- open ---- */

static void log_opened(struct section *s, long fd, int created, int truncated) {
    struct stat st;
    char name[PATH_BYTES];
    if (sys(fstat, fd, &st) < 0 || !S_ISREG(st.st_mode) || !name_of(fd, &st, name))
        return;
    log_names(s, created ? CREATE : BIND, 0, &st, st.st_mode & (created ? 07777 : ~0U), name, 0);
    if (truncated && !created) {
        identify(st.st_dev, st.st_ino, 0, 0);
        seal(s, TRUNCATE, 0, 0);
        append();
    }
    remember(fd, st.st_dev, st.st_ino, OURS);
}

/* An open that may create or empty a file, under the lock. Only for what is a regular file or nothing yet: opening a
 * pipe waits for its other end. */
static long open_under_lock(int dir, const char *path, int flags, unsigned mode) {
    struct section s;
    int created = 0;
    long fd = -ENOENT;
    enter(&s);
    lock();
    if (flags & O_CREAT) {
        fd = sys(openat, dir, path, flags | O_EXCL, mode);
        created = fd >= 0;
    }
    if (!created && !(flags & O_EXCL)) {
        struct stat before; /* absent here: a dangling link, through which the file is created */
        int absent = sys(newfstatat, dir, path, &before, 0) < 0;
        if (absent || S_ISREG(before.st_mode))
            fd = sys(openat, dir, path, flags, mode);
        created = absent && fd >= 0;
    }
    forget(fd);
    if (fd >= 0)
        log_opened(&s, fd, created, flags & O_TRUNC);
    unlock();
    leave(&s);
    return fd;
}

static long open_any(int dir, const char *path, int flags, unsigned mode) {
    struct stat st;
    long fd;
    if (!active || !(flags & (O_CREAT | O_TRUNC)) || (flags & TMPFILE_BIT))
        fd = sys(openat, dir, path, flags, mode);
    else if (sys(newfstatat, dir, path, &st, 0) == 0 && !S_ISREG(st.st_mode))
        fd = sys(openat, dir, path, flags, mode);
    else {
        fd = -ENOENT;
        if (!(flags & (O_TRUNC | O_EXCL))) /* the common case: it is there, nothing changes */
            fd = sys(openat, dir, path, flags & ~O_CREAT, mode);
        if (fd < 0)
            return answer(open_under_lock(dir, path, flags, mode));
    }
    forget(fd);
    return answer(fd);
}

#define MODE_ARGUMENT(flags, last)                                                                                     \
    unsigned mode = 0;                                                                                                 \
    if ((flags) & (O_CREAT | TMPFILE_BIT)) {                                                                           \
        va_list arguments;                                                                                             \
        va_start(arguments, last);                                                                                     \
        mode = va_arg(arguments, unsigned);                                                                            \
        va_end(arguments);                                                                                             \
    }

EXPORT int open(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, flags)
    return (int)open_any(AT_FDCWD, path, flags, mode);
}

EXPORT int openat(int dir, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, flags)
    return (int)open_any(dir, path, flags, mode);
}

EXPORT int creat(const char *path, unsigned mode) {
    return (int)open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int open64(const char *path, int flags, ...) ALIAS("open");
int openat64(int dir, const char *path, int flags, ...) ALIAS("openat");
int creat64(const char *path, unsigned mode) ALIAS("creat");
EXPORT int __open_2(const char *path, int flags) { return (int)open_any(AT_FDCWD, path, flags, 0); }
EXPORT int __openat_2(int dir, const char *path, int flags) { return (int)open_any(dir, path, flags, 0); }
int __open64_2(const char *path, int flags) ALIAS("__open_2");
int __openat64_2(int dir, const char *path, int flags) ALIAS("__openat_2");

/* fopen is open and fdopen, so that the file's creation is seen; what libc then writes into it is not. */
EXPORT void *fopen(const char *path, const char *mode) {
    int flags = mode[0] == 'r' ? 0 : mode[0] == 'w' ? O_CREAT | O_TRUNC : O_CREAT | O_APPEND;
    int writes = mode[0] != 'r', reads = mode[0] == 'r';
    for (const char *c = mode; *c && *c != ','; c++) {
        if (*c == '+')
            writes = reads = 1;
        flags |= *c == 'x' ? O_EXCL : *c == 'e' ? O_CLOEXEC : 0;
    }
    long fd = open_any(AT_FDCWD, path, flags | (writes && reads ? O_RDWR : writes ? O_WRONLY : O_RDONLY), 0666);
    struct file f;
    if (fd < 0)
        return 0;
    if (writes && ours(fd, &f))
        remember_stdio(fd, f.device, f.inode);
    void *stream = fdopen ? fdopen((int)fd, mode) : 0;
    if (!stream)
        sys(close, fd);
    return stream;
}
void *fopen64(const char *path, const char *mode) ALIAS("fopen");

/* ---- descriptors: the log's own must survive, a reused number must not be mistaken ---- */

EXPORT int close(int fd) {
    if (fd == log_fd && fd >= 0)
        return (int)answer(-EBADF);
    forget(fd);
    return (int)answer(sys(close, fd));
}

EXPORT int close_range(unsigned first, unsigned last, int flags) {
    unsigned mine = (unsigned)log_fd;
    if (log_fd < 0 || mine < first || mine > last)
        return (int)answer(sys(close_range, first, last, flags));
    long result = 0;
    if (first < mine)
        result = sys(close_range, first, mine - 1, flags);
    if (result == 0 && mine < last)
        result = sys(close_range, mine + 1, last, flags);
    return (int)answer(result);
}

static long duplicate(int from, int to, int flags) {
    if (to == log_fd && to >= 0) { /* make way */
        struct section s;
        enter(&s);
        long moved = sys(fcntl, log_fd, F_DUPFD_CLOEXEC, log_fd + 1);
        if (moved < 0)
            fail("could not keep the log open", -moved);
        log_fd = (int)moved;
        leave(&s);
    }
    forget(to);
    return sys(dup3, from, to, flags);
}

EXPORT int dup3(int from, int to, int flags) { return (int)answer(duplicate(from, to, flags)); }

EXPORT int dup2(int from, int to) {
    if (from == to)
        return (int)answer(sys(fcntl, from, F_GETFD) < 0 ? -EBADF : to);
    return (int)answer(duplicate(from, to, 0));
}

EXPORT int dup(int from) {
    long to = sys(dup, from);
    forget(to);
    return (int)answer(to);
}

/* ---- data ---- */

static void log_write(struct section *s, const struct file *f, u64 offset, usize n, int durable) {
    identify(f->device, f->inode, offset, n);
    seal(s, WRITE, durable ? DURABLE : 0, without_zeros((u8 *)PAYLOAD, n));
}

/* Write a private copy, at the descriptor's own position if `offset` is -1. */
static long write_copy(int fd, const struct file *f, const struct iovec *parts, long count, long offset, int rwf) {
    struct section s;
    usize total = 0;
    for (long i = 0; i < count; i++)
        total += parts[i].iov_len;
    if (total > DATA_BYTES_MAX)
        total = DATA_BYTES_MAX;
    enter(&s);
    reserve(total);
    usize filled = 0;
    for (long i = 0; i < count && filled < total; i++) {
        usize n = parts[i].iov_len < total - filled ? parts[i].iov_len : total - filled;
        copy_bytes(PAYLOAD + filled, parts[i].iov_base, n);
        filled += n;
    }
    struct iovec copy = {PAYLOAD, total};
    int durable = (f->flags & O_DSYNC) != 0 || (rwf & (RWF_DSYNC | RWF_SYNC)) != 0;
    int at_end = (f->flags & O_APPEND) != 0 || (rwf & RWF_APPEND) != 0;
    int moving = offset == -1 || at_end;
    if (moving)
        lock();
    long n = rwf           ? sys(pwritev2, fd, &copy, 1, offset, offset == -1 ? -1L : 0, rwf)
             : offset == -1 ? sys(write, fd, PAYLOAD, total)
                            : sys(pwrite64, fd, PAYLOAD, total, offset);
    if (n > 0) {
        if (at_end) {
            struct stat st;
            offset = sys(fstat, fd, &st) == 0 ? (long)st.st_size - n : 0;
        } else if (offset == -1)
            offset = sys(lseek, fd, 0, SEEK_CUR) - n;
        log_write(&s, f, (u64)offset, (usize)n, durable);
        if (moving)
            append();
        else
            append_locked();
    }
    if (moving)
        unlock();
    leave(&s);
    return n;
}

EXPORT long write(int fd, const void *data, usize n) {
    struct file f;
    struct iovec part = {(void *)data, n};
    if (!n || !ours(fd, &f) || !f.is_regular)
        return answer(sys(write, fd, data, n));
    return answer(write_copy(fd, &f, &part, 1, -1, 0));
}

EXPORT long pwrite(int fd, const void *data, usize n, long offset) {
    struct file f;
    struct iovec part = {(void *)data, n};
    if (!n || offset < 0 || !ours(fd, &f) || !f.is_regular)
        return answer(sys(pwrite64, fd, data, n, offset));
    return answer(write_copy(fd, &f, &part, 1, offset, 0));
}

static int gathers(int fd, struct file *f, int count) {
    return count > 0 && count <= 1024 && ours(fd, f) && f->is_regular;
}

EXPORT long writev(int fd, const struct iovec *parts, int count) {
    struct file f;
    if (!gathers(fd, &f, count))
        return answer(sys(writev, fd, parts, count));
    return answer(write_copy(fd, &f, parts, count, -1, 0));
}

EXPORT long pwritev(int fd, const struct iovec *parts, int count, long offset) {
    struct file f;
    if (offset < 0 || !gathers(fd, &f, count))
        return answer(sys(pwritev, fd, parts, count, offset, 0));
    return answer(write_copy(fd, &f, parts, count, offset, 0));
}

EXPORT long pwritev2(int fd, const struct iovec *parts, int count, long offset, int rwf) {
    struct file f;
    if (offset < -1 || !gathers(fd, &f, count))
        return answer(sys(pwritev2, fd, parts, count, offset, offset == -1 ? -1L : 0, rwf));
    return answer(write_copy(fd, &f, parts, count, offset, rwf));
}

long pwrite64(int fd, const void *data, usize n, long offset) ALIAS("pwrite");
long pwritev64(int fd, const struct iovec *parts, int count, long offset) ALIAS("pwritev");
long pwritev64v2(int fd, const struct iovec *parts, int count, long offset, int rwf) ALIAS("pwritev2");

/* ---- copies inside the kernel: logged with the bytes, read back from the source under the lock ---- */

#define COPY_BYTES_MAX (1UL << 20)

static void log_copy(struct section *s, const struct file *to, int from_fd, u64 from, u64 offset, usize n) {
    char link[40];
    append_number(append_text(link, "/proc/self/fd/"), (u64)from_fd);
    long fd = sys(openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    reserve(n);
    for (usize done = 0; done < n;) {
        long got = sys(pread64, fd < 0 ? from_fd : fd, PAYLOAD + done, n - done, from + done);
        if (got <= 0)
            fail("could not read back a copied range", got ? -got : EIO);
        done += (usize)got;
    }
    if (fd >= 0)
        sys(close, fd);
    identify(to->device, to->inode, offset, n);
    seal(s, COPY, (to->flags & O_DSYNC) ? DURABLE : 0, n);
    append();
}

static long copy_range(int in, long *in_at, int out, long *out_at, usize n, unsigned flags, int by_sendfile) {
    struct file f;
    int recorded = ours(out, &f) && f.is_regular;
    struct section s;
    if (recorded) {
        n = n < COPY_BYTES_MAX ? n : COPY_BYTES_MAX;
        enter(&s);
        lock();
    }
    long from = recorded ? (in_at ? *in_at : sys(lseek, in, 0, SEEK_CUR)) : 0;
    long result = by_sendfile ? sys(sendfile, out, in, in_at, n) : sys(copy_file_range, in, in_at, out, out_at, n, flags);
    if (recorded) {
        if (result > 0) {
            long end = out_at ? *out_at : sys(lseek, out, 0, SEEK_CUR);
            log_copy(&s, &f, in, (u64)from, (u64)(end - result), (usize)result);
        }
        unlock();
        leave(&s);
    }
    return answer(result);
}

EXPORT long copy_file_range(int in, long *in_at, int out, long *out_at, usize n, unsigned flags) {
    return copy_range(in, in_at, out, out_at, n, flags, 0);
}

EXPORT long sendfile(int out, int in, long *in_at, usize n) { return copy_range(in, in_at, out, 0, n, 0, 1); }
long sendfile64(int out, int in, long *in_at, usize n) ALIAS("sendfile");

static long clone_range(int fd, unsigned long request, void *argument) {
    struct file f;
    struct stat st;
    if (!ours(fd, &f) || !f.is_regular)
        return answer(sys(ioctl, fd, request, argument));
    struct file_clone_range whole = {.src_fd = (long)argument};
    struct file_clone_range *r = request == FICLONE ? &whole : argument;
    struct section s;
    enter(&s);
    lock();
    long result = sys(ioctl, fd, request, argument);
    if (result == 0 && sys(fstat, r->src_fd, &st) == 0) {
        u64 n = r->src_length ? r->src_length : (u64)st.st_size - r->src_offset;
        for (u64 done = 0; done < n; done += COPY_BYTES_MAX)
            log_copy(&s, &f, (int)r->src_fd, r->src_offset + done, r->dest_offset + done,
                     n - done < COPY_BYTES_MAX ? n - done : COPY_BYTES_MAX);
    }
    unlock();
    leave(&s);
    return answer(result);
}

EXPORT int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (active && ((u32)request == FICLONE || (u32)request == FICLONERANGE))
        return (int)clone_range(fd, (u32)request, argument);
    return (int)answer(sys(ioctl, fd, request, argument));
}

/* ---- sizes ---- */

static void log_size(struct section *s, u64 device, u64 inode, int kind, u64 offset, u64 length) {
    identify(device, inode, offset, length);
    seal(s, kind, 0, 0);
    append();
}

EXPORT int ftruncate(int fd, long size) {
    struct file f;
    struct section s;
    if (!ours(fd, &f))
        return (int)answer(sys(ftruncate, fd, size));
    enter(&s);
    lock();
    long result = sys(ftruncate, fd, size);
    if (result == 0)
        log_size(&s, f.device, f.inode, TRUNCATE, (u64)size, 0);
    unlock();
    leave(&s);
    return (int)answer(result);
}

EXPORT int truncate(const char *path, long size) {
    struct file f;
    struct stat st;
    struct section s;
    long fd = active ? sys(openat, AT_FDCWD, path, O_PATH | O_CLOEXEC) : -1;
    forget(fd);
    if (fd < 0 || !ours(fd, &f) || !f.is_regular) {
        if (fd >= 0)
            sys(close, fd);
        return (int)answer(sys(truncate, path, size));
    }
    enter(&s);
    lock();
    long result = sys(truncate, path, size);
    if (result == 0 && sys(fstat, fd, &st) == 0)
        log_size(&s, st.st_dev, st.st_ino, TRUNCATE, (u64)size, 0);
    unlock();
    leave(&s);
    sys(close, fd);
    return (int)answer(result);
}

static long allocate(int fd, int mode, long offset, long length) {
    struct file f;
    struct section s;
    if (!ours(fd, &f) || !f.is_regular)
        return sys(fallocate, fd, mode, offset, length);
    enter(&s);
    lock();
    long result = sys(fallocate, fd, mode, offset, length);
    if (result == 0 && mode == 0)
        log_size(&s, f.device, f.inode, ALLOCATE, (u64)offset, (u64)length);
    else if (result == 0 && mode != FALLOC_FL_KEEP_SIZE) {
        char name[PATH_BYTES];
        struct stat st;
        if (sys(fstat, fd, &st) == 0 && name_of(fd, &st, name))
            log_names(&s, BLIND, 0, &st, 0, name, "fallocate");
    }
    unlock();
    leave(&s);
    return result;
}

EXPORT int fallocate(int fd, int mode, long offset, long length) {
    return (int)answer(allocate(fd, mode, offset, length));
}

/* Where the file system cannot allocate, libc writes a zero byte into every block that has none; so does this. */
EXPORT int posix_fallocate(int fd, long offset, long length) {
    struct stat st;
    long result = allocate(fd, 0, offset, length);
    if (result != -EOPNOTSUPP)
        return (int)-result;
    if ((result = sys(fstat, fd, &st)) < 0)
        return (int)-result;
    if (sys(fcntl, fd, F_GETFL) & O_APPEND)
        return EBADF;
    struct file f;
    int recorded = ours(fd, &f);
    const long block = st.st_blksize < 4096 ? st.st_blksize : 4096;
    for (long at = offset + (length - 1) % block; at < offset + length; at += block) {
        char byte = 0;
        if (at < st.st_size) {
            result = sys(pread64, fd, &byte, 1, at);
            if (result < 0)
                return (int)-result;
            if (byte)
                continue;
        }
        struct iovec part = {&byte, 1};
        result = recorded ? write_copy(fd, &f, &part, 1, at, 0) : sys(pwrite64, fd, &byte, 1, at);
        if (result < 0)
            return (int)-result;
    }
    return 0;
}

int ftruncate64(int fd, long size) ALIAS("ftruncate");
int truncate64(const char *path, long size) ALIAS("truncate");
int fallocate64(int fd, int mode, long offset, long length) ALIAS("fallocate");
int posix_fallocate64(int fd, long offset, long length) ALIAS("posix_fallocate");

EXPORT void *mmap(void *at, usize length, int protection, int flags, int fd, long offset) {
    struct file f;
    long result = sys(mmap, at, length, protection, flags, fd, offset);
    if (active && fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && ours(fd, &f)) {
        char name[PATH_BYTES];
        struct stat st;
        struct section s;
        enter(&s);
        lock();
        if (sys(fstat, fd, &st) == 0 && name_of(fd, &st, name))
            log_names(&s, BLIND, 0, &st, 0, name, "shared writable mapping");
        unlock();
        leave(&s);
    }
    return (void *)answer(result);
}
void *mmap64(void *at, usize length, int protection, int flags, int fd, long offset) ALIAS("mmap");

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

EXPORT int fsync(int fd) { return flush(fd, 0); }
EXPORT int fdatasync(int fd) { return flush(fd, 1); }

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
    struct stat st;
    if (!active || sys(fstat, fd, &st) < 0)
        return (int)answer(sys(syncfs, fd));
    u64 token = log_sync(SYNCFS_BEGIN, st.st_dev, 0);
    long result = sys(syncfs, fd);
    if (result == 0)
        log_sync(SYNCFS_END, st.st_dev, token);
    return (int)answer(result);
}

EXPORT void sync(void) {
    u64 token = active ? log_sync(SYNCFS_BEGIN, 0, 0) : 0;
    sys(sync);
    if (active)
        log_sync(SYNCFS_END, 0, token);
}

/* ---- names ---- */

static int is_entry(const struct stat *st) { /* sockets and pipes are not files that a crash state could hold */
    return st->st_nlink && (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode));
}

static int has_unseen(const struct place *p, int dir, const char *path) {
    const struct stat *st = &p->st;
    return st->st_nlink && S_ISREG(st->st_mode) && is_stdio(st->st_dev, st->st_ino, dir, path, AT_SYMLINK_NOFOLLOW);
}

static void log_moved(struct section *s, struct place *a, struct place *b, int dir, const char *path, unsigned flags) {
    struct stat *st = &a->st;
    if (a->ours && b->ours)
        log_names(s, flags & RENAME_EXCHANGE ? EXCHANGE : RENAME, 0, st, 0, a->name, b->name);
    else if (a->ours && S_ISREG(st->st_mode) && !flags)
        log_names(s, UNLINK, 0, st, 0, a->name, 0);
    else if (b->ours && S_ISREG(st->st_mode) && !flags) {
        if (b->st.st_nlink)
            log_names(s, UNLINK, 0, &b->st, 0, b->name, 0);
        log_names(s, CREATE, 0, st, st->st_mode & 07777, b->name, 0);
        log_content(s, b->name, dir, path, 0);
    } else
        log_names(s, BLIND, 0, st, 0, a->ours ? a->name : b->name, "moved across the edge of what is recorded");
}

static long move(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    struct place a, b;
    struct section s;
    resolve(&a, from_dir, from);
    resolve(&b, to_dir, to);
    if (!a.ours && !b.ours)
        return answer(flags ? sys(renameat2, from_dir, from, to_dir, to, flags)
                            : sys(renameat, from_dir, from, to_dir, to));
    enter(&s);
    lock();
    look(&a, from_dir, from);
    look(&b, to_dir, to);
    if (a.ours && b.ours && has_unseen(&a, from_dir, from))
        log_content(&s, a.name, from_dir, from, 0);
    long result = flags ? sys(renameat2, from_dir, from, to_dir, to, flags) : sys(renameat, from_dir, from, to_dir, to);
    int same = b.st.st_nlink && a.st.st_ino == b.st.st_ino && a.st.st_dev == b.st.st_dev; /* then POSIX does nothing */
    if (result == 0 && !same && is_entry(&a.st))
        log_moved(&s, &a, &b, to_dir, to, flags);
    unlock();
    leave(&s);
    return answer(result);
}

EXPORT int rename(const char *from, const char *to) { return (int)move(AT_FDCWD, from, AT_FDCWD, to, 0); }
EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return (int)move(from_dir, from, to_dir, to, 0);
}
EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return (int)move(from_dir, from, to_dir, to, flags);
}

EXPORT int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    struct place a, b;
    struct section s;
    resolve(&a, from_dir, from);
    resolve(&b, to_dir, to);
    if (!b.ours)
        return (int)answer(sys(linkat, from_dir, from, to_dir, to, flags));
    enter(&s);
    lock();
    look(&a, from_dir, from);
    int simple = a.ours && !flags && a.st.st_nlink;
    if (simple && has_unseen(&a, from_dir, from))
        log_content(&s, a.name, from_dir, from, 0);
    long result = sys(linkat, from_dir, from, to_dir, to, flags);
    if (result == 0 && simple)
        log_names(&s, LINK, 0, &a.st, 0, a.name, b.name);
    else if (result == 0)
        log_names(&s, BLIND, 0, 0, 0, b.name, "linked across the edge of what is recorded");
    unlock();
    leave(&s);
    return (int)answer(result);
}

EXPORT int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

EXPORT int symlinkat(const char *content, int dir, const char *path) {
    struct place p;
    struct section s;
    resolve(&p, dir, path);
    if (!p.ours)
        return (int)answer(sys(symlinkat, content, dir, path));
    enter(&s);
    lock();
    long result = sys(symlinkat, content, dir, path);
    if (result == 0) {
        look(&p, dir, path);
        log_names(&s, SYMLINK, 0, &p.st, 0, p.name, content);
    }
    unlock();
    leave(&s);
    return (int)answer(result);
}

EXPORT int symlink(const char *content, const char *path) { return symlinkat(content, AT_FDCWD, path); }

EXPORT int mkdirat(int dir, const char *path, unsigned mode) {
    struct place p;
    struct section s;
    resolve(&p, dir, path);
    if (!p.ours)
        return (int)answer(sys(mkdirat, dir, path, mode));
    enter(&s);
    lock();
    long result = sys(mkdirat, dir, path, mode);
    if (result == 0) {
        look(&p, dir, path);
        log_names(&s, MKDIR, 0, &p.st, p.st.st_mode & 07777, p.name, 0);
    }
    unlock();
    leave(&s);
    return (int)answer(result);
}

EXPORT int mkdir(const char *path, unsigned mode) { return mkdirat(AT_FDCWD, path, mode); }

static long take_away(int dir, const char *path, int flags) {
    struct place p;
    struct section s;
    resolve(&p, dir, path);
    if (!p.ours)
        return sys(unlinkat, dir, path, flags);
    enter(&s);
    lock();
    look(&p, dir, path);
    long result = sys(unlinkat, dir, path, flags);
    if (result == 0 && is_entry(&p.st))
        log_names(&s, flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, &p.st, 0, p.name, 0);
    unlock();
    leave(&s);
    return result;
}

EXPORT int unlinkat(int dir, const char *path, int flags) { return (int)answer(take_away(dir, path, flags)); }
EXPORT int unlink(const char *path) { return (int)answer(take_away(AT_FDCWD, path, 0)); }
EXPORT int rmdir(const char *path) { return (int)answer(take_away(AT_FDCWD, path, AT_REMOVEDIR)); }

EXPORT int remove(const char *path) {
    long result = take_away(AT_FDCWD, path, 0);
    if (result == -EISDIR || result == -EPERM)
        result = take_away(AT_FDCWD, path, AT_REMOVEDIR);
    return (int)answer(result);
}
