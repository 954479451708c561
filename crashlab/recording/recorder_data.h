/* Which calls change the bytes or the size of a file?
 */
#ifndef RECORDER_DATA_H
#define RECORDER_DATA_H

#include "recorder_jitter.h"

/* What a write will not change: the bytes at its ends that the file has already. WAL pages are written again and again
 * with a little more in them, so this is most of a log. Not for durable writes: those also flush what they repeat. */
struct same {
    usize head, tail;
};

static struct same find_same(int fd, const struct file *f, u64 offset, usize n) {
    struct same same = {0, 0};
    if (f->flags & (O_DIRECT | O_DSYNC | O_APPEND) || (f->flags & O_ACCMODE) == O_WRONLY || offset >= f->size)
        return same;
    const u8 *new = (u8 *)PAYLOAD, *old = new + n;
    long got = sys(pread64, fd, old, n, offset);
    if (got <= 0)
        return same;
    same.head = equal_bytes(new, old, (usize)got);
    if ((usize)got == n && same.head < n)
        same.tail = equal_bytes_at_end(new + same.head, old + same.head, n - same.head);
    return same;
}

/* Seal the record of `n` bytes written at `offset`; returns 0 if they changed nothing. */
static int seal_write(struct section *s, const struct file *f, u64 offset, usize n, int durable, struct same same) {
    u8 *data = (u8 *)PAYLOAD;
    if (same.head >= n)
        return 0;
    n -= same.head + same.tail;
    if (same.head)
        for (usize i = 0; i < n; i++)
            data[i] = data[i + same.head];
    identify(f->device, f->inode, offset + same.head, n);
    seal(s, WRITE, durable ? DURABLE : 0, without_zeros(data, n));
    return 1;
}

/* Copy what is to be written into the buffer, where nobody changes it; returns how much it is. */
static usize gather(const struct iovec *parts, long count) {
    usize total = 0, filled = 0;
    for (long i = 0; i < count; i++)
        total += parts[i].iov_len;
    if (total > DATA_BYTES_MAX)
        total = DATA_BYTES_MAX;
    reserve(2 * total); /* and what is there already */
    for (long i = 0; i < count && filled < total; i++) {
        usize n = parts[i].iov_len < total - filled ? parts[i].iov_len : total - filled;
        copy_bytes(PAYLOAD + filled, parts[i].iov_base, n);
        filled += n;
    }
    return total;
}

/* Write at the descriptor's own position, or at the end of the file: only under the lock is it known where that is. */
static long write_moving(struct section *s, int fd, const struct file *f, usize total, long offset, int rwf, int durable) {
    struct iovec copy = {PAYLOAD, total};
    int at_end = (f->flags & O_APPEND) != 0 || (rwf & RWF_APPEND) != 0;
    lock();
    long n = rwf           ? sys(pwritev2, fd, &copy, 1, offset, offset == -1 ? -1L : 0, rwf)
             : offset == -1 ? sys(write, fd, PAYLOAD, total)
                            : sys(pwrite64, fd, PAYLOAD, total, offset);
    if (n > 0) {
        struct about st;
        struct same nothing = {0, 0};
        if (at_end)
            offset = about_fd(fd, &st) ? (long)st.size - n : 0;
        else if (offset == -1)
            offset = sys(lseek, fd, 0, SEEK_CUR) - n;
        seal_write(s, f, (u64)offset, (usize)n, durable, nothing);
        append();
    }
    unlock();
    return n;
}

/* Write a private copy, at the descriptor's own position if `offset` is -1. */
static long write_copy(int fd, const struct file *f, const struct iovec *parts, long count, long offset, int rwf) {
    struct section s;
    int durable = (f->flags & O_DSYNC) != 0 || (rwf & (RWF_DSYNC | RWF_SYNC)) != 0;
    enter(&s);
    usize total = gather(parts, count);
    long n;
    if (offset == -1 || (f->flags & O_APPEND) || rwf)
        n = write_moving(&s, fd, f, total, offset, rwf, durable);
    else {
        struct same same = find_same(fd, f, (u64)offset, total);
        n = sys(pwrite64, fd, PAYLOAD, total, offset);
        if (n > 0 && (usize)n < total)
            same.head = same.tail = 0;
        if (n > 0 && seal_write(&s, f, (u64)offset, (usize)n, durable, same))
            append_locked();
    }
    leave(&s);
    return n;
}

static long write_here(int fd, const void *data, usize n) {
    struct file f;
    struct iovec part = {(void *)data, n};
    if (!n || !ours(fd, &f) || !f.is_regular)
        return answer(sys(write, fd, data, n));
    return answer(write_copy(fd, &f, &part, 1, -1, 0));
}

static long write_at(int fd, const void *data, usize n, long offset) {
    struct file f;
    struct iovec part = {(void *)data, n};
    if (!n || offset < 0 || !ours(fd, &f) || !f.is_regular)
        return answer(sys(pwrite64, fd, data, n, offset));
    return answer(write_copy(fd, &f, &part, 1, offset, 0));
}

static int gathers(int fd, struct file *f, int count) {
    return count > 0 && count <= 1024 && ours(fd, f) && f->is_regular;
}

static long gather_here(int fd, const struct iovec *parts, int count) {
    struct file f;
    if (!gathers(fd, &f, count))
        return answer(sys(writev, fd, parts, count));
    return answer(write_copy(fd, &f, parts, count, -1, 0));
}

static long gather_at(int fd, const struct iovec *parts, int count, long offset) {
    struct file f;
    if (offset < 0 || !gathers(fd, &f, count))
        return answer(sys(pwritev, fd, parts, count, offset, 0));
    return answer(write_copy(fd, &f, parts, count, offset, 0));
}

static long gather_with(int fd, const struct iovec *parts, int count, long offset, int rwf) {
    struct file f;
    if (offset < -1 || !gathers(fd, &f, count))
        return answer(sys(pwritev2, fd, parts, count, offset, offset == -1 ? -1L : 0, rwf));
    return answer(write_copy(fd, &f, parts, count, offset, rwf));
}

#define WRITES(call) JITTERED(ON_WRITE, class_of_fd(fd), call)

EXPORT long write(int fd, const void *data, usize n) { return WRITES(write_here(fd, data, n)); }
EXPORT long pwrite(int fd, const void *data, usize n, long offset) { return WRITES(write_at(fd, data, n, offset)); }
EXPORT long writev(int fd, const struct iovec *parts, int count) { return WRITES(gather_here(fd, parts, count)); }
EXPORT long pwritev(int fd, const struct iovec *parts, int count, long offset) {
    return WRITES(gather_at(fd, parts, count, offset));
}
EXPORT long pwritev2(int fd, const struct iovec *parts, int count, long offset, int rwf) {
    return WRITES(gather_with(fd, parts, count, offset, rwf));
}

long pwrite64(int fd, const void *data, usize n, long offset) ALIAS("pwrite");
long pwritev64(int fd, const struct iovec *parts, int count, long offset) ALIAS("pwritev");
long pwritev64v2(int fd, const struct iovec *parts, int count, long offset, int rwf) ALIAS("pwritev2");

/* Copies inside the kernel: logged with their bytes, read back from the source under the lock. */

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
    struct about st;
    if (!ours(fd, &f) || !f.is_regular)
        return answer(sys(ioctl, fd, request, argument));
    struct file_clone_range whole = {.src_fd = (long)argument};
    struct file_clone_range *r = request == FICLONE ? &whole : argument;
    struct section s;
    enter(&s);
    lock();
    long result = sys(ioctl, fd, request, argument);
    if (result == 0 && about_fd(r->src_fd, &st)) {
        u64 n = r->src_length ? r->src_length : st.size - r->src_offset;
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

static void log_size(struct section *s, u64 device, u64 inode, int kind, u64 offset, u64 length) {
    identify(device, inode, offset, length);
    seal(s, kind, 0, 0);
    append();
}

static int shorten(int fd, long size) {
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

static int shorten_path(const char *path, long size) {
    struct file f;
    struct about st;
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
    if (result == 0 && about_fd(fd, &st))
        log_size(&s, st.device, st.inode, TRUNCATE, (u64)size, 0);
    unlock();
    leave(&s);
    sys(close, fd);
    return (int)answer(result);
}

EXPORT int ftruncate(int fd, long size) {
    return (int)JITTERED(ON_TRUNCATE, class_of_fd(fd), shorten(fd, size));
}

EXPORT int truncate(const char *path, long size) {
    return (int)JITTERED(ON_TRUNCATE, class_of_path(AT_FDCWD, path), shorten_path(path, size));
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
        struct about st;
        if (about_fd(fd, &st) && name_of(fd, &st, name))
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
    struct about st;
    long result = allocate(fd, 0, offset, length);
    if (result != -EOPNOTSUPP)
        return (int)-result;
    if (!about_fd(fd, &st))
        return EBADF;
    if (sys(fcntl, fd, F_GETFL) & O_APPEND)
        return EBADF;
    struct file f;
    int recorded = ours(fd, &f);
    const long block = st.block_size < 4096 ? (long)st.block_size : 4096;
    for (long at = offset + (length - 1) % block; at < offset + length; at += block) {
        char byte = 0;
        if ((u64)at < st.size) {
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
        struct about st;
        struct section s;
        enter(&s);
        lock();
        if (about_fd(fd, &st) && name_of(fd, &st, name))
            log_names(&s, BLIND, 0, &st, 0, name, "shared writable mapping");
        unlock();
        leave(&s);
    }
    return (void *)answer(result);
}
void *mmap64(void *at, usize length, int protection, int flags, int fd, long offset) ALIAS("mmap");

#endif
