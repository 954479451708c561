/* Which file is this, and is it below a recorded root?
 *
 * A file is its device and inode; names are only for the namespace. Every use of a descriptor asks the kernel again
 * (statx), because libc closes and re-opens descriptors where no preloaded library sees it: a cached answer counts only
 * while device and inode are still the same. A path is spelled as the kernel does (/proc/self/fd), so that symbolic
 * links, as to tablespaces, and relative paths end below the right root.
 */
#ifndef RECORDER_FILES_H
#define RECORDER_FILES_H

#include "recorder_log.h"

#define DESCRIPTORS 2048
#define STDIO_FILES 64

struct file {
    u64 device, inode, size;
    int is_regular, flags;
};

enum { UNKNOWN, ELSEWHERE, OURS };
static struct {
    u64 device, inode;
    int state;
} known[DESCRIPTORS];

/* Files that this process opened through stdio, whose writes stay inside libc. The birth time tells a file from a later
 * one with the same inode number, where the file system keeps it; else that one is logged whole too, needlessly. */
static struct {
    u64 device, inode, born;
} stdio_files[STDIO_FILES];
static unsigned stdio_next;

static void forget(long fd) {
    if (fd >= 0 && fd < DESCRIPTORS)
        known[fd].state = UNKNOWN;
}

static void remember(long fd, u64 device, u64 inode, int state) {
    if (fd < 0 || fd >= DESCRIPTORS)
        return;
    known[fd].device = device;
    known[fd].inode = inode;
    known[fd].state = state;
}

static u64 birth(int dir, const char *path, int flags) {
    struct statx x;
    if (sys(statx, dir, path, flags, STATX_BTIME, &x) < 0 || !(x.stx_mask & STATX_BTIME))
        return 0;
    return (u64)x.stx_btime.tv_sec * 1000000000UL + x.stx_btime.tv_nsec;
}

static void remember_stdio(long fd, u64 device, u64 inode) {
    unsigned slot = __atomic_fetch_add(&stdio_next, 1, __ATOMIC_RELAXED) % STDIO_FILES;
    stdio_files[slot].device = device;
    stdio_files[slot].inode = inode;
    stdio_files[slot].born = birth((int)fd, "", AT_EMPTY_PATH);
}

static int is_stdio(u64 device, u64 inode, int dir, const char *path, int flags) {
    for (unsigned i = 0; i < STDIO_FILES; i++)
        if (stdio_files[i].inode && stdio_files[i].inode == inode && stdio_files[i].device == device)
            if (stdio_files[i].born == birth(dir, path, flags))
                return 1;
    return 0;
}

/* The path of a descriptor as the kernel spells it; 0 if there is none. */
static int path_of(long fd, int nameless, char *path) {
    static const char deleted[] = " (deleted)";
    char link[40];
    append_number(append_text(link, "/proc/self/fd/"), (u64)fd);
    long n = sys(readlinkat, AT_FDCWD, link, path, PATH_BYTES - 1);
    if (n <= 0 || path[0] != '/')
        return 0;
    path[n] = 0;
    usize m = sizeof deleted - 1;
    if (nameless && (usize)n > m && same_bytes(path + n - m, deleted, m))
        path[(usize)n - m] = 0;
    return 1;
}

/* "/data/base/5/1259" -> "0/base/5/1259", 0 being the root's number; returns 0 if it is below none. */
static int below_roots(const char *path, char *relative) {
    for (int i = 0; i < root_count; i++) {
        usize n = length_of(roots[i]);
        if (same_bytes(path, roots[i], n) && (path[n] == '/' || !path[n])) {
            append_text(append_number(relative, (u64)i), path + n);
            return 1;
        }
    }
    return 0;
}

static int name_of(long fd, const struct about *st, char *relative) {
    char path[PATH_BYTES];
    return path_of(fd, st->names == 0, path) && below_roots(path, relative);
}

/* Log which path a descriptor's file has now. The lock makes it agree with the names logged before. */
static void bind_locked(struct section *s, long fd, struct about *st) {
    char name[PATH_BYTES];
    about_fd(fd, st);
    if (name_of(fd, st, name))
        log_names(s, BIND, st->names ? 0 : NAMELESS, st, st->mode, name, 0);
}

static int learn(long fd, struct about *st) {
    char name[PATH_BYTES];
    if (!name_of(fd, st, name)) {
        remember(fd, st->device, st->inode, ELSEWHERE);
        return ELSEWHERE;
    }
    struct section s;
    enter(&s);
    lock();
    bind_locked(&s, fd, st);
    unlock();
    leave(&s);
    remember(fd, st->device, st->inode, OURS);
    return OURS;
}

/* Is this descriptor a file or directory below the roots? Sockets and pipes never are. */
static int ours(long fd, struct file *f) {
    struct about st;
    if (!active || fd < 0 || fd == log_fd || !about_fd(fd, &st))
        return 0;
    if (!S_ISREG(st.mode) && !S_ISDIR(st.mode))
        return 0;
    int state = UNKNOWN;
    if (fd < DESCRIPTORS && known[fd].device == st.device && known[fd].inode == st.inode)
        state = known[fd].state;
    if (state == UNKNOWN)
        state = learn(fd, &st);
    if (state != OURS)
        return 0;
    f->device = st.device;
    f->inode = st.inode;
    f->size = st.size;
    f->is_regular = S_ISREG(st.mode);
    long flags = sys(fcntl, fd, F_GETFL);
    f->flags = flags < 0 ? 0 : (int)flags;
    return 1;
}

/* Where a path operation takes place: the parent as the kernel spells it, with the last component as it is. */
struct place {
    int ours;
    char name[PATH_BYTES];
    struct about st; /* of the entry itself, links not followed; names is 0 if there is none */
};

static void look(struct place *p, int dir, const char *path) {
    if (!about(dir, path, AT_SYMLINK_NOFOLLOW, &p->st))
        p->st.names = 0;
}

static void find_place(struct place *p, int dir, const char *path) {
    char parent[PATH_BYTES], full[PATH_BYTES];
    p->ours = 0;
    usize n = path ? length_of(path) : 0;
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (!n || n >= PATH_BYTES - 2)
        return;
    usize cut = n;
    while (cut && path[cut - 1] != '/')
        cut--;
    copy_bytes(parent, path, cut);
    append_text(parent + cut, cut ? "" : ".");
    long fd = sys(openat, dir, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd == -EMFILE || fd == -ENFILE)
        fail("could not resolve a path", -fd);
    if (fd < 0)
        return;
    if (path_of(fd, 0, full) && length_of(full) + (n - cut) + 2 < PATH_BYTES) {
        usize m = length_of(full);
        if (m > 1)
            full[m++] = '/';
        copy_bytes(full + m, path + cut, n - cut);
        full[m + n - cut] = 0;
        p->ours = below_roots(full, p->name);
    }
    sys(close, fd);
}

/* The same for what is recorded. */
static void resolve(struct place *p, int dir, const char *path) {
    p->ours = 0;
    if (active)
        find_place(p, dir, path);
}

/* Log the whole content of a file as it is now: its writes could not be seen. Call under the lock. */
static void log_content(struct section *s, const char *name, int dir, const char *path, int follow) {
    struct about st;
    long fd = sys(openat, dir, path, O_RDONLY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    if (fd >= 0 && about_fd(fd, &st) && st.size <= DATA_BYTES_MAX) {
        usize size = (usize)st.size, done = 0;
        reserve(size);
        while (done < size) {
            long n = sys(pread64, fd, PAYLOAD + done, size - done, done);
            if (n <= 0)
                break;
            done += (usize)n;
        }
        identify(st.device, st.inode, 0, done);
        seal(s, CONTENT, 0, done);
        append();
    } else {
        log_names(s, BLIND, 0, 0, 0, name, "stdio file too large or not readable");
    }
    if (fd >= 0)
        sys(close, fd);
}

#endif
