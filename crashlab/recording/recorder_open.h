/* Which calls give a descriptor its file, or take it away?
 *
 * Creating and emptying a file are logged. fcntl(F_DUPFD) needs no watch: each use asks the kernel what it has.
 */
#ifndef RECORDER_OPEN_H
#define RECORDER_OPEN_H

#include "recorder_jitter.h"

static void log_opened(struct section *s, long fd, int created, int truncated) {
    struct about st;
    char name[PATH_BYTES];
    if (!about_fd(fd, &st) || !S_ISREG(st.mode) || !name_of(fd, &st, name))
        return;
    log_names(s, created ? CREATE : BIND, 0, &st, st.mode & (created ? 07777 : ~0U), name, 0);
    if (truncated && !created) {
        identify(st.device, st.inode, 0, 0);
        seal(s, TRUNCATE, 0, 0);
        append();
    }
    remember(fd, st.device, st.inode, OURS);
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
        struct about before; /* absent here: a dangling link, through which the file is created */
        int absent = !about(dir, path, 0, &before);
        if (absent || S_ISREG(before.mode))
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

static long open_at_once(int dir, const char *path, int flags, unsigned mode) {
    struct about st;
    long fd;
    if (!active || !(flags & (O_CREAT | O_TRUNC)) || (flags & TMPFILE_BIT))
        fd = sys(openat, dir, path, flags, mode);
    else if (about(dir, path, 0, &st) && !S_ISREG(st.mode))
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

static long open_any(int dir, const char *path, int flags, unsigned mode) {
    struct about st;
    int creates = flags & O_CREAT && is_held_at(ON_CREATE) && !about(dir, path, 0, &st);
    return JITTERED(ON_CREATE, creates ? class_of_path(dir, path) : 0, open_at_once(dir, path, flags, mode));
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

/* The log's own descriptor must survive; a number that is used again must not be mistaken for what it was. */

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

#endif
