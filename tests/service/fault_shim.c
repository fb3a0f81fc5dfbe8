/* Makes calls fail in a running service, for test_faults.py, which compiles it and has LD_PRELOAD load it.
 *
 * What fails is in a file that all processes share: the calls of one function, in one process or in all, after so many
 * that still succeed, for so many times, with one errno. It can also move the clock of the day, or let time pass, and
 * have a process stop itself behind setresuid(2) or as it comes to execve(2), as whoever has its ids by then can stop it,
 * or as it asks for a group, as a directory service that does not answer holds it.
 * Must never do anything while the file says nothing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The same fields, in the same order, as PLAN in test_faults.py. */
static struct plan {
    char function[24];
    int error, pid, skip, times, hits, later_sec;
    long long clock_shift_sec;
} *plan;

__attribute__((constructor)) static void load(void)
{
    const char *path = getenv("FAULT_PLAN");
    int descriptor = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (descriptor < 0)
        return;
    void *mapped = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (mapped != MAP_FAILED)
        plan = mapped;
    close(descriptor);
}

static int fails(const char *function)
{
    if (!plan || strcmp(plan->function, function) || (plan->pid && plan->pid != getpid()))
        return 0;
    if (__atomic_fetch_sub(&plan->skip, 1, __ATOMIC_SEQ_CST) > 0)
        return 0;
    if (__atomic_fetch_sub(&plan->times, 1, __ATOMIC_SEQ_CST) <= 0)
        return 0;
    __atomic_fetch_add(&plan->hits, 1, __ATOMIC_SEQ_CST);
    errno = plan->error;
    return 1;
}

/* Gives `path` back, after a stop where the file says "stop". */
static const char *held(const char *path)
{
    if (fails("stop"))
        raise(SIGSTOP);
    return path;
}

/* WRAP(type, name, failure, parameters, arguments): the function `name`, which returns `failure` where it fails. */
#define WRAP_AS(type, name, called, failure, parameters, arguments)             \
    type called parameters                                                      \
    {                                                                           \
        static type(*next) parameters;                                          \
        if (!next)                                                              \
            next = (type(*) parameters)dlsym(RTLD_NEXT, #called);               \
        return fails(#name) ? (failure) : next arguments;                       \
    }
#define WRAP(type, name, failure, parameters, arguments) WRAP_AS(type, name, name, failure, parameters, arguments)

WRAP(pid_t, fork, -1, (void), ())
WRAP(int, pipe2, -1, (int ends[2], int flags), (ends, flags))
WRAP(int, memfd_create, -1, (const char *name, unsigned int flags), (name, flags))
WRAP(int, socketpair, -1, (int domain, int type, int protocol, int ends[2]), (domain, type, protocol, ends))
WRAP(int, accept4, -1, (int fd, struct sockaddr *address, socklen_t *size, int flags), (fd, address, size, flags))
WRAP(int, epoll_create1, -1, (int flags), (flags))
WRAP(int, epoll_ctl, -1, (int epoll, int op, int fd, struct epoll_event *event), (epoll, op, fd, event))
WRAP(ssize_t, sendmsg, -1, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, recvmsg, -1, (int fd, struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, recv, -1, (int fd, void *buffer, size_t size, int flags), (fd, buffer, size, flags))
WRAP(DIR *, opendir, NULL, (const char *path), (path))
WRAP(int, execve, -1, (const char *path, char *const argv[], char *const environment[]),
     (held(path), argv, environment))
WRAP(int, getpwuid_r, (*found = NULL, errno),
     (uid_t uid, struct passwd *entry, char *buffer, size_t size, struct passwd **found),
     (uid, entry, buffer, size, found))
WRAP(int, posix_spawn, errno,
     (pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
      char *const argv[], char *const environment[]),
     (pid, path, actions, attributes, argv, environment))

int getgrnam_r(const char *name, struct group *entry, char *buffer, size_t size, struct group **found)
{
    static int (*next)(const char *, struct group *, char *, size_t, struct group **);
    if (!next)
        next = (int (*)(const char *, struct group *, char *, size_t, struct group **))dlsym(RTLD_NEXT, "getgrnam_r");
    if (fails("stop at a group"))
        raise(SIGSTOP);
    return next(name, entry, buffer, size, found);
}

int setresuid(uid_t real, uid_t effective, uid_t saved)
{
    static int (*next)(uid_t, uid_t, uid_t);
    if (!next)
        next = (int (*)(uid_t, uid_t, uid_t))dlsym(RTLD_NEXT, "setresuid");
    int result = next(real, effective, saved);
    if (fails("stop behind the drop"))
        raise(SIGSTOP);
    return result;
}

#define WRAP_OPEN(called, parameters, arguments)                                \
    int called parameters                                                       \
    {                                                                           \
        static int(*next) parameters;                                           \
        mode_t mode = 0;                                                        \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                  \
            va_list rest;                                                       \
            va_start(rest, flags);                                              \
            mode = va_arg(rest, mode_t);                                        \
            va_end(rest);                                                       \
        }                                                                       \
        if (!next)                                                              \
            next = (int(*) parameters)dlsym(RTLD_NEXT, #called);                \
        return fails("open") ? -1 : next arguments;                             \
    }

WRAP_OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(openat, (int directory, const char *path, int flags, ...), (directory, path, flags, mode))
WRAP_OPEN(openat64, (int directory, const char *path, int flags, ...), (directory, path, flags, mode))

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(clock, now);
    if (plan && clock == CLOCK_REALTIME)
        now->tv_sec += plan->clock_shift_sec;
    if (plan && clock == CLOCK_MONOTONIC)
        now->tv_sec += plan->later_sec;
    return result;
}
