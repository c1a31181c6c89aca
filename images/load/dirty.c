/* Mode dirty: writes to every page of a piece of memory, round after round, at a given rate. Each page holds the number
 * of the round that wrote it last, so the next round sees whether the memory survived a migration. */
#define _GNU_SOURCE
#include "load.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, PAGES_PER_MIB = MIB / PAGE };

static void dirty_mib(uint8_t *memory, uint64_t mib, uint64_t round)
{
    for (uint64_t page = mib * PAGES_PER_MIB; page < (mib + 1) * PAGES_PER_MIB; page++) {
        volatile uint64_t *word = (volatile uint64_t *)(memory + page * PAGE);
        if (*word != round - 1)
            say_bad_page(page * PAGE, round - 1, *word);
        *word = round;
    }
    atomic_fetch_add(&stats.dirtied_mib, 1);
}

/* Sleeps so that `done` MiB take as long as they should; a pause of the guest is not caught up with. */
static void keep_rate(uint64_t *due)
{
    uint64_t now = now_us();

    if (!options.dirty_rate)
        return;
    *due = (now > *due + 1000000 ? now : *due) + 1000000 / options.dirty_rate;
    if (*due > now) {
        const struct timespec wait = {.tv_sec = (time_t)((*due - now) / 1000000),
                                      .tv_nsec = (long)((*due - now) % 1000000 * 1000)};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &wait, NULL);
    }
}

static void *dirtier(void *memory)
{
    uint64_t due = 0;

    for (uint64_t round = 1;; round++)
        for (uint64_t mib = 0; mib < options.dirty_mib; mib++) {
            dirty_mib(memory, mib, round);
            keep_rate(&due);
        }
    return NULL;
}

bool dirtier_start(void)
{
    pthread_t thread;
    void *memory = mmap(NULL, options.dirty_mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory != MAP_FAILED && options.dirty_mib && !pthread_create(&thread, NULL, dirtier, memory);
}
