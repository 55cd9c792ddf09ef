/*
 * Another time of day for a program under qemu-user: to be preloaded into the emulator, which asks libc for its guest's
 * clock. CALAMARY_TEST_CLOCK is the second since 1970 that it shall be at the first look. Other clocks stay as they are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

typedef int clock_gettime_fn(clockid_t, struct timespec *);

int clock_gettime(clockid_t clock, struct timespec *now) {
    static time_t offset;
    static clock_gettime_fn *real;
    if (!real) real = (clock_gettime_fn *)dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) {
        const char *wanted = getenv("CALAMARY_TEST_CLOCK");
        if (!offset && wanted) offset = atoll(wanted) - now->tv_sec;
        now->tv_sec += offset;
    }
    return result;
}
