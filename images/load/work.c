/* The worker: verify load, scan, recheck, and between two operations whatever the console asks. */
#define _GNU_SOURCE
#include "load.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SCAN_IO = 256 << 10 };

static int commands[2] = {-1, -1};
static bool paused;

void worker_pause(bool pause)
{
    paused = pause;
}

/* Called by main. False when the worker is so far behind that the pipe is full. */
bool worker_submit(const char *line)
{
    char message[COMMAND] = "";

    snprintf(message, sizeof message, "%s", line);
    return write(commands[1], message, sizeof message) == sizeof message;
}

uint8_t *io_buffer(void)
{
    static uint8_t *buffer;

    if (!buffer && posix_memalign((void **)&buffer, 4096, MAX_IO))
        fatal("no-memory", "");
    return buffer;
}

uint64_t random_below(uint64_t limit)
{
    static uint64_t state;

    if (!state)
        state = options.generation * 2 + 1;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % limit;
}

static int read_block(struct disk *d, uint64_t block)
{
    uint64_t pos = block * d->block;
    uint64_t rest = d->size - pos;

    return read_verified(d, pos, rest < d->block ? rest : d->block, io_buffer());
}

static void verify_step(struct disk *d)
{
    uint64_t roll = random_below(100);

    if (roll < options.writes && !d->readonly && d->places)
        write_stamped(d, place_block(d, random_below(d->places)) * d->block, d->block, io_buffer());
    else if (roll < options.writes + options.rereads && d->written)
        read_block(d, place_block(d, d->order[random_below(d->written)]));
    else
        read_block(d, hot_block(d, random_below(d->nhot)));
}

/* Reads what stands at `at`, and returns where to go on. */
static uint64_t scan_step(struct disk *d, uint64_t at)
{
    uint64_t run = d->block > SCAN_IO ? d->block : SCAN_IO;
    uint64_t length = d->size - at < run ? d->size - at : run;

    read_run(d, at, length, io_buffer());
    return at + length;
}

static struct disk *next_to_scan(struct disk *after)
{
    int start = after ? (int)(after - disks) + 1 : 0;

    for (int i = 0; i < ndisks; i++) {
        struct disk *d = &disks[(start + i) % ndisks];
        if (d->scan_at < d->size)
            return d;
    }
    return NULL;
}

static void end_pass(void)
{
    static unsigned pass;
    uint64_t bytes = 0;

    for (int i = 0; i < ndisks; i++) {
        bytes += disks[i].size;
        disks[i].scan_at = 0;
    }
    say("SCAN DONE pass=%u bytes=%lu bad=%lu err=%lu absent=%lu", ++pass, bytes, stats.bad, stats.errors, stats.absent);
    if (options.once)
        options.scan = false;
}

static void one_operation(void)
{
    static struct disk *last;
    struct disk *d = options.scan ? next_to_scan(last) : &disks[last ? (last - disks + 1) % ndisks : 0];

    if (!d) {
        end_pass();
        return;
    }
    if (options.scan)
        d->scan_at = scan_step(d, d->scan_at);
    else
        verify_step(d);
    last = d;
}

static void recheck_all(struct disk *d)
{
    for (uint64_t at = 0; at < d->size;)
        at = scan_step(d, at);
}

static void recheck_some(struct disk *d, uint64_t others)
{
    for (uint32_t i = 0; i < d->written; i++)
        read_block(d, place_block(d, d->order[i]));
    for (size_t i = 0; i < d->nextras; i++)
        read_block(d, d->extras[i].sector * SECTOR / d->block);
    for (uint64_t i = 0; i < others; i++)
        read_block(d, hot_block(d, random_below(d->nhot)));
}

/* Reads what was written in this run, and `others` random blocks of each disk; or all there is. */
void recheck(uint64_t others, bool everything)
{
    uint64_t good = stats.good, bad = stats.bad, errors = stats.errors, absent = stats.absent;

    for (int i = 0; i < ndisks; i++)
        if (everything)
            recheck_all(&disks[i]);
        else
            recheck_some(&disks[i], others);
    say("recheck ok=%lu bad=%lu err=%lu absent=%lu", stats.good - good, stats.bad - bad, stats.errors - errors,
        stats.absent - absent);
}

/* Microseconds until the next operation is due at options.rate; a pause is not caught up with. */
static int64_t until_due(void)
{
    static uint64_t due;
    uint64_t now = now_us();

    if (!options.rate)
        return 0;
    if (due > now)
        return (int64_t)(due - now);
    due = (now - due > 1000000 ? now : due) + 1000000 / options.rate;
    return 0;
}

/* Waits for a command: not at all, until the next operation is due, or for good. True: `line` holds one. */
static bool next_command(char *line, int64_t wait_us)
{
    struct pollfd console = {.fd = commands[0], .events = POLLIN};
    struct timespec wait = {.tv_sec = wait_us / 1000000, .tv_nsec = wait_us % 1000000 * 1000};

    return ppoll(&console, 1, wait_us < 0 ? NULL : &wait, NULL) > 0 && read(commands[0], line, COMMAND) == COMMAND;
}

static bool at_work(void)
{
    return ndisks && !paused && (options.verify || options.scan);
}

static void *worker(void *unused)
{
    char line[COMMAND];

    for (;;) {
        int64_t wait = at_work() ? until_due() : -1;
        if (next_command(line, wait)) {
            command_run(line);
        } else if (wait == 0) {
            one_operation();
        }
    }
    return unused;
}

bool worker_start(void)
{
    pthread_t thread;

    return !pipe2(commands, O_CLOEXEC) && !fcntl(commands[1], F_SETFL, O_NONBLOCK) &&
           !pthread_create(&thread, NULL, worker, NULL);
}
