/* A wall clock that a test can set, for the processes that this library is preloaded into.

The file named by CHAOS_CLOCK holds by how many nanoseconds their CLOCK_REALTIME is ahead of the kernel's. It is mapped
into memory, so all of them see a change in the same instant. Timers of the wall clock fire by it as well; to fire them
when the clock is set, as the kernel does, is left to clock.py. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static volatile int64_t none, *ahead = &none;

__attribute__((constructor)) static void map_clock(void)
{
    const char *path = getenv("CHAOS_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        ahead = page;
}

static void shift(struct timespec *time, int64_t by)
{
    int64_t total = time->tv_sec * SECOND + time->tv_nsec + by;
    time->tv_sec = total / SECOND;
    time->tv_nsec = total % SECOND;
}

static int shows_wall_time(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (!result && shows_wall_time(clock))
        shift(time, *ahead);
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

/* The only clock by which linod sets such timers is the wall clock, and to an absolute time. */
int timerfd_settime(int fd, int flags, const struct itimerspec *wanted, struct itimerspec *before)
{
    static int (*real)(int, int, const struct itimerspec *, struct itimerspec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "timerfd_settime");
    struct itimerspec kernels = *wanted;
    if (flags & TFD_TIMER_CANCEL_ON_SET) {
        shift(&kernels.it_value, -*ahead);
        if (kernels.it_value.tv_sec < 0)
            kernels.it_value.tv_sec = 0, kernels.it_value.tv_nsec = 1;
    }
    return real(fd, flags, &kernels, before);
}
