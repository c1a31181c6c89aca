/* The clock. */
#define _GNU_SOURCE
#include "load.h"

#include <time.h>

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
