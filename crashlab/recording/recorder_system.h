/* How does the recorder reach the kernel without a C library?
 *
 * It is loaded into programs of any glibc or musl, so it links against neither: system calls by hand, the kernel's own
 * headers, and two symbols without a version that every libc exports. They are weak: a libc without them still loads it.
 */
#ifndef RECORDER_SYSTEM_H
#define RECORDER_SYSTEM_H

#ifndef __clang__
#pragma GCC optimize("no-tree-loop-distribute-patterns") /* else loops become calls of memcpy, which libc would have */
#endif

#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/falloc.h>
#include <linux/fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <linux/stat.h>
#include <linux/uio.h>
#include <stdarg.h>

#ifndef O_DSYNC
#define O_DSYNC 00010000
#endif
#ifndef O_PATH
#define O_PATH 010000000
#endif
#define TMPFILE_BIT 020000000 /* O_TMPFILE is this and O_DIRECTORY, whose bit differs between machines */
#define PATH_BYTES 4096

typedef unsigned long u64; /* both machines are LP64 */
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned long usize;

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name) __attribute__((visibility("default"), alias(name)))

extern int *__errno_location(void) __attribute__((weak));
extern void *fdopen(int, const char *) __attribute__((weak));

static inline long system_call(long n, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
#else
#error "the recorder knows x86_64 and aarch64"
#endif
}

/* sys(number, up to six arguments) returns the result or a negative errno. */
#define sys(...) sys_padded(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define sys_padded(n, a, b, c, d, e, f, ...)                                                                           \
    system_call(__NR_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* Turn a kernel result into libc's: -1 and errno. */
static inline long answer(long result) {
    if (result < 0 && result > -4096) {
        if (__errno_location)
            *__errno_location() = (int)-result;
        return -1;
    }
    return result;
}

/* What there is to know about a file. Not its times: a kernel that is asked for them (stat) must note a new time in the
 * inode at the next write, and each fdatasync of the server would then write the inode too. */
struct about {
    u64 device, inode, size;
    u32 mode, names, block_size;
};

static int about(long dir, const char *path, int flags, struct about *a) {
    struct statx x;
    const u32 wanted = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_INO | STATX_SIZE;
    if (sys(statx, dir, path, flags, wanted, &x) < 0)
        return 0;
    a->device = (u64)x.stx_dev_major << 32 | x.stx_dev_minor;
    a->inode = x.stx_ino;
    a->size = x.stx_size;
    a->mode = x.stx_mode;
    a->names = x.stx_nlink;
    a->block_size = x.stx_blksize;
    return 1;
}

static int about_fd(long fd, struct about *a) { return about(fd, "", AT_EMPTY_PATH, a); }

static usize length_of(const char *text) {
    usize n = 0;
    while (text[n])
        n++;
    return n;
}

static void copy_bytes(void *restrict to, const void *restrict from, usize n) {
    u8 *restrict t = to;
    const u8 *restrict f = from;
    for (usize i = 0; i < n; i++)
        t[i] = f[i];
}

static int same_bytes(const char *a, const char *b, usize n) {
    for (usize i = 0; i < n; i++)
        if (a[i] != b[i])
            return 0;
    return 1;
}

/* How many bytes are left without the zeros at the end? */
static usize without_zeros(const u8 *data, usize n) {
    while (n >= 64) {
        u8 any = 0;
        for (usize i = n - 64; i < n; i++)
            any |= data[i];
        if (any)
            break;
        n -= 64;
    }
    while (n && !data[n - 1])
        n--;
    return n;
}

/* How many bytes are equal, from the front? */
static usize equal_bytes(const u8 *a, const u8 *b, usize n) {
    usize i = 0;
    for (; i + 64 <= n; i += 64) {
        u8 any = 0;
        for (usize j = 0; j < 64; j++)
            any |= a[i + j] ^ b[i + j];
        if (any)
            break;
    }
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

static usize equal_bytes_at_end(const u8 *a, const u8 *b, usize n) {
    usize i = n;
    for (; i >= 64; i -= 64) {
        u8 any = 0;
        for (usize j = i - 64; j < i; j++)
            any |= a[j] ^ b[j];
        if (any)
            break;
    }
    while (i && a[i - 1] == b[i - 1])
        i--;
    return n - i;
}

static char *append_text(char *to, const char *text) {
    while (*text)
        *to++ = *text++;
    *to = 0;
    return to;
}

static char *append_number(char *to, u64 number) {
    char digits[24];
    int n = 0;
    do
        digits[n++] = (char)('0' + number % 10);
    while (number /= 10);
    while (n)
        *to++ = digits[--n];
    *to = 0;
    return to;
}

#endif
