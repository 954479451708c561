/* Which calls change the names below the roots?
 */
#ifndef RECORDER_NAMES_H
#define RECORDER_NAMES_H

#include "recorder_jitter.h"

static int is_entry(const struct about *st) { /* sockets and pipes are not files that a crash state could hold */
    return st->names && (S_ISREG(st->mode) || S_ISDIR(st->mode) || S_ISLNK(st->mode));
}

static int has_unseen(const struct place *p, int dir, const char *path) {
    const struct about *st = &p->st;
    return st->names && S_ISREG(st->mode) && is_stdio(st->device, st->inode, dir, path, AT_SYMLINK_NOFOLLOW);
}

static void log_moved(struct section *s, struct place *a, struct place *b, int dir, const char *path, unsigned flags) {
    struct about *st = &a->st;
    if (a->ours && b->ours)
        log_names(s, flags & RENAME_EXCHANGE ? EXCHANGE : RENAME, 0, st, 0, a->name, b->name);
    else if (a->ours && S_ISREG(st->mode) && !flags)
        log_names(s, UNLINK, 0, st, 0, a->name, 0);
    else if (b->ours && S_ISREG(st->mode) && !flags) {
        if (b->st.names)
            log_names(s, UNLINK, 0, &b->st, 0, b->name, 0);
        log_names(s, CREATE, 0, st, st->mode & 07777, b->name, 0);
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
    int same = b.st.names && a.st.inode == b.st.inode && a.st.device == b.st.device; /* then POSIX does nothing */
    if (result == 0 && !same && is_entry(&a.st))
        log_moved(&s, &a, &b, to_dir, to, flags);
    unlock();
    leave(&s);
    return answer(result);
}

EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return (int)JITTERED(ON_RENAME, class_of_path(from_dir, from), move(from_dir, from, to_dir, to, flags));
}
EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return renameat2(from_dir, from, to_dir, to, 0);
}
EXPORT int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

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
    int simple = a.ours && !flags && a.st.names;
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
        log_names(&s, MKDIR, 0, &p.st, p.st.mode & 07777, p.name, 0);
    }
    unlock();
    leave(&s);
    return (int)answer(result);
}

EXPORT int mkdir(const char *path, unsigned mode) { return mkdirat(AT_FDCWD, path, mode); }

static long take_away_at_once(int dir, const char *path, int flags) {
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

static long take_away(int dir, const char *path, int flags) {
    if (flags & AT_REMOVEDIR)
        return take_away_at_once(dir, path, flags);
    return JITTERED(ON_UNLINK, class_of_path(dir, path), take_away_at_once(dir, path, flags));
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

#endif
