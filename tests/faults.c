/* A shim for LD_PRELOAD: one system call that changes files below a folder kills the process, or fails.
 *
 * cc -shared -fPIC -O1 -o faults.so tests/faults.c -ldl
 *
 * arm(folder, at, error) begins to count the calls; the one with the number `at` fails with `error`, or with SIGKILL
 * comes before it where `error` is 0. seen() returns how many calls there were.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char root[PATH_MAX];
static atomic_int count, target = -1, error_number;

void arm(const char *folder, int at, int error) {
    strncpy(root, folder, sizeof root - 1);
    error_number = error;
    count = 0;
    target = at;
}

int seen(void) { return count; }

/* Whether this call, on a path below the folder, is to fail. A disk that is full stays so: so do the calls after it. */
static int fails(const char *path) {
    if (target < 0 || path == NULL || strncmp(path, root, strlen(root)) != 0) return 0;
    int number = atomic_fetch_add(&count, 1);
    if (number < target || (number > target && error_number != ENOSPC)) return 0;
    if (error_number == 0) kill(getpid(), SIGKILL);
    errno = error_number;
    return 1;
}

static int fails_on(int handle) {
    if (target < 0) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return fails(path);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);

ssize_t write(int handle, const void *bytes, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t)
    return fails_on(handle) ? -1 : real(handle, bytes, n);
}
ssize_t pwrite(int handle, const void *bytes, size_t n, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t)
    return fails_on(handle) ? -1 : real(handle, bytes, n, at);
}
ssize_t pwrite64(int handle, const void *bytes, size_t n, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t)
    return fails_on(handle) ? -1 : real(handle, bytes, n, at);
}
int fsync(int handle) {
    REAL(int, "fsync", int)
    return fails_on(handle) ? -1 : real(handle);
}
int fdatasync(int handle) {
    REAL(int, "fdatasync", int)
    return fails_on(handle) ? -1 : real(handle);
}
/* A full disk still lets names be removed. */
int unlink(const char *path) {
    REAL(int, "unlink", const char *)
    return error_number != ENOSPC && fails(path) ? -1 : real(path);
}
int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *)
    return fails(to) ? -1 : real(from, to);
}
static int opens(const char *name, const char *path, int flags, mode_t mode) {
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    return (flags & O_CREAT) && access(path, F_OK) != 0 && fails(path) ? -1 : real(path, flags, mode);
}
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return opens(#name, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
