/* How do many processes write one log, in one order, when each may be killed at any instruction?
 *
 * The log's first page is mapped by all of them; it holds the tail, the offset of the next record. A record is written
 * at the tail under a lock and the tail moved after it: a writer killed half-way leaves bytes beyond the tail, which the
 * next writer overwrites. The lock is a priority-inheriting futex in that page: free, it costs no system call; when its
 * holder dies, the kernel hands it on, or says so (ESRCH) to the next one who asks.
 * Signals are blocked meanwhile: a handler of the server may itself write to a recorded file.
 * The format is documented in iolog.py.
 */
#ifndef RECORDER_LOG_H
#define RECORDER_LOG_H

#include "recorder_system.h"

#define VERSION 1
#define PAGE 4096UL
#define DATA_BYTES_MAX (16UL << 20) /* a longer write is answered with a short count, which callers must handle */
#define ROOTS_MAX 32

enum { CREATE = 1, MKDIR, SYMLINK, WRITE, TRUNCATE, ALLOCATE, RENAME, LINK, UNLINK, RMDIR, FSYNC_BEGIN, FSYNC_END,
       SYNCFS_BEGIN, SYNCFS_END, CONTENT, BLIND, COPY, EXCHANGE, START = 64, BIND };
enum { DURABLE = 1, DATASYNC = 2, NAMELESS = 4 };

struct header {
    char magic[8];
    u32 version;
    u32 failed; /* an errno: somebody could not record, so nobody may go on */
    u64 tail;
    char reason[64];
    u32 lock; /* thread id of the holder, with the kernel's flags */
};

struct record {
    u32 check; /* Adler-32 of the payload, then of the record from `size` on */
    u32 size;  /* bytes, with this head */
    u16 kind, flags;
    u32 pid;
    u64 device, inode, offset, length;
};

struct section {
    u64 signals;
    int pid;
};

static int active;
static int log_fd = -1;
static struct header *header;
static int root_count;
static char roots[ROOTS_MAX][PATH_BYTES];
static u8 *buffer; /* one page, whose end is a record's head, then the payload: page-aligned, for O_DIRECT */
static usize buffer_bytes;
static u32 thread; /* the one inside a section */
static int thread_lock; /* pid of the process whose thread is inside; a forked child finds its parent's */

#define HEAD ((struct record *)(buffer + PAGE - sizeof(struct record)))
#define PAYLOAD ((char *)buffer + PAGE)

/* Never run unrecorded: say so, mark the log as void, end the process. */
__attribute__((noreturn)) static void fail(const char *what, long error) {
    char line[256];
    char *end = append_text(append_text(line, "crashlab recorder: "), what);
    end = append_text(append_number(append_text(end, ": errno "), (u64)error), "\n");
    sys(write, 2, line, end - line);
    if (header) {
        usize n = length_of(what);
        copy_bytes(header->reason, what, n < 63 ? n : 63);
        __atomic_store_n(&header->failed, error ? (u32)error : 1, __ATOMIC_SEQ_CST);
    }
    for (;;)
        sys(exit_group, 134);
}

static u8 *map_memory(usize bytes) {
    long at = sys(mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at < 0 && at > -4096)
        fail("could not allocate memory", -at);
    return (u8 *)at;
}

static void enter(struct section *s) {
    u64 all = ~0UL;
    sys(rt_sigprocmask, 2 /* SIG_SETMASK */, &all, &s->signals, 8);
    s->pid = (int)sys(getpid);
    for (;;) {
        int owner = 0;
        if (__atomic_compare_exchange_n(&thread_lock, &owner, s->pid, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            break;
        if (owner != s->pid)
            __atomic_compare_exchange_n(&thread_lock, &owner, 0, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
        else
            sys(sched_yield);
    }
    thread = (u32)sys(gettid);
}

static void leave(struct section *s) {
    __atomic_store_n(&thread_lock, 0, __ATOMIC_RELEASE);
    sys(rt_sigprocmask, 2, &s->signals, 0, 8);
}

static int change_lock(u32 from, u32 to) {
    return __atomic_compare_exchange_n(&header->lock, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* While the kernel hands a dead holder's lock to one waiter, it finds the word and its own state at odds (EINVAL) for all
 * others; and the one that gets it may have to wait for a processor first. */
static int hand_over_lasts(long result, int *tries) {
    const long millisecond[2] = {0, 1000000};
    if (result != -EINVAL || ++*tries > 20000)
        return 0;
    sys(nanosleep, millisecond);
    return 1;
}

static void lock(void) {
    int tries = 0;
    for (u32 seen = 0; !change_lock(0, thread);) {
        seen = __atomic_load_n(&header->lock, __ATOMIC_SEQ_CST);
        long result = sys(futex, &header->lock, FUTEX_LOCK_PI);
        if (result == 0 || result == -EDEADLK) /* the latter: a dead holder's number is ours now */
            break;
        if (result == -ESRCH && change_lock(seen, thread | (seen & FUTEX_WAITERS)))
            break;
        if (result != -ESRCH && result != -EAGAIN && result != -EINTR && !hand_over_lasts(result, &tries))
            fail("could not lock the log", -result);
    }
    if (__atomic_load_n(&header->failed, __ATOMIC_RELAXED))
        fail("another process could not record", 0);
}

static void unlock(void) {
    if (!change_lock(thread, 0))
        sys(futex, &header->lock, FUTEX_UNLOCK_PI);
}

/* Make room for a payload; what it held is lost. Call inside a section. */
static void reserve(usize bytes) {
    if (bytes + PAGE <= buffer_bytes)
        return;
    if (buffer)
        sys(munmap, buffer, buffer_bytes);
    buffer_bytes = (bytes + 2 * PAGE + 0xffff) & ~0xffffUL;
    buffer = map_memory(buffer_bytes);
}

/* Adler-32: zlib has it for the reader, and a compiler turns these loops into vector code. */
static u32 checksum(u32 start, const u8 *data, usize n) {
    static const short weights[256] = {
#define W4(x) x, x - 1, x - 2, x - 3
#define W16(x) W4(x), W4(x - 4), W4(x - 8), W4(x - 12)
#define W64(x) W16(x), W16(x - 16), W16(x - 32), W16(x - 48)
        W64(256), W64(192), W64(128), W64(64)};
    u64 a = start & 0xffff, b = start >> 16;
    for (; n >= 256; n -= 256, data += 256) {
        int sum = 0, weighted = 0;
        for (int i = 0; i < 256; i++) {
            sum += data[i];
            weighted += (short)data[i] * weights[i];
        }
        b = (b + 256 * a + (u32)weighted) % 65521;
        a = (a + (u32)sum) % 65521;
    }
    for (; n; n--, data++) {
        a = (a + *data) % 65521;
        b = (b + a) % 65521;
    }
    return (u32)(b << 16 | a);
}

/* Complete the record whose payload is in the buffer. Outside of the lock, for it is the costly part. */
static void seal(struct section *s, int kind, int flags, usize payload) {
    struct record *r = HEAD;
    r->size = (u32)(sizeof *r + payload);
    r->kind = (u16)kind;
    r->flags = (u16)flags;
    r->pid = (u32)s->pid;
    u32 sum = checksum(1, (u8 *)PAYLOAD, payload);
    r->check = checksum(sum, (u8 *)&r->size, sizeof *r - sizeof r->check);
}

static void identify(u64 device, u64 inode, u64 offset, u64 length) {
    struct record *r = HEAD;
    r->device = device;
    r->inode = inode;
    r->offset = offset;
    r->length = length;
}

/* Append the sealed record; returns its offset in the log. Call under the lock. */
static u64 append(void) {
    u64 tail = __atomic_load_n(&header->tail, __ATOMIC_RELAXED);
    usize size = HEAD->size, done = 0;
    while (done < size) {
        long n = sys(pwrite64, log_fd, (u8 *)HEAD + done, size - done, tail + done);
        if (n <= 0 && n != -EINTR)
            fail("could not write the log", n ? -n : ENOSPC);
        if (n > 0)
            done += (usize)n;
    }
    __atomic_store_n(&header->tail, tail + size, __ATOMIC_RELEASE);
    return tail;
}

static u64 append_locked(void) {
    lock();
    u64 at = append();
    unlock();
    return at;
}

/* Put "path NUL second" in the payload; returns its length. */
static usize put_names(const char *path, const char *second) {
    usize n = length_of(path), m = second ? length_of(second) + 1 : 0;
    reserve(n + m);
    copy_bytes(PAYLOAD, path, n);
    if (m) {
        PAYLOAD[n] = 0;
        copy_bytes(PAYLOAD + n + 1, second, m - 1);
    }
    return n + m;
}

static void log_names(struct section *s, int kind, int flags, const struct about *st, u64 offset, const char *path,
                      const char *second) {
    usize n = put_names(path, second);
    identify(st ? st->device : 0, st ? st->inode : 0, offset, 0);
    seal(s, kind, flags, n);
    append();
}

#endif
