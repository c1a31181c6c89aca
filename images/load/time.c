/* The clock, and a thread that ticks every millisecond: the longest gap between two ticks is how long the guest as a
 * whole, and not only its disks, stood still by its own clock. */
#define _GNU_SOURCE
#include "load.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { TICK_NS = 1000000 };

uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void raise_to(_Atomic uint64_t *most, uint64_t value)
{
    uint64_t old = atomic_load(most);

    while (old < value && !atomic_compare_exchange_weak(most, &old, value))
        ;
}

static void *ticker(void *unused)
{
    const struct sched_param first = {.sched_priority = 1};
    const struct timespec tick = {.tv_nsec = TICK_NS};

    sched_setscheduler(0, SCHED_FIFO, &first); /* or the worker's own computing would look like a gap */
    for (uint64_t before = now_us(), now;; before = now) {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, NULL);
        now = now_us();
        raise_to(&stats.wake_us, now - before);
        raise_to(&stats.interval_wake_us, now - before);
    }
    return unused;
}

bool ticker_start(void)
{
    pthread_t thread;

    return !pthread_create(&thread, NULL, ticker, NULL);
}
