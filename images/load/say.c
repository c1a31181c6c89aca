/* The lines on the serial console. Every line is `esd-load [WORD] key=value ... sum=HEX`, one line per write(2), values
 * without blanks (odd bytes as %XX). Times are milliseconds of CLOCK_MONOTONIC, positions and lengths bytes. sum, not
 * shown below, is the CRC-32 of what stands between `esd-load ` and ` sum=`: a serial line may repeat a character.
 *
 * At the start, one line per disk, then `ready`:
 *   esd-load disk name=vda size=.. lbs=.. pbs=.. ro=0 serial=.. wwn=.. path=.. block=.. area=.. seed=.. fill=..
 *   esd-load ready mode=verify disks=2 gen=..
 * Once a second (esd.every), the only line without a WORD:
 *   esd-load n=12 t=12 mode=verify ops=.. r=.. w=.. err=.. bad=.. absent=.. stall=.. istall=.. dirtied=..
 *     n       how many of these lines there were before (t rounds down, and two of them may have the same)
 *     err     I/O errors, without the expected ones   absent  expected ones (esd.expect=miss)
 *     bad     blocks (or dirtied pages) that did not hold what they must
 *     stall   longest single I/O since the start, the one in flight included; istall: in this interval
 *     dirtied MiB of memory dirtied so far
 *   The guest's clock stands still while QEMU has stopped the guest, so stall does not show that time; the host
 *   does see it: by as much does the next of these lines come late.
 * The first 20 of each kind:
 *   esd-load bad disk=vda pos=.. want=seq:12|pattern:seed=7,pos=..|zero got=seq:..,pos=..,gen=..,sum=ok|pattern:..|zero|junk:..
 *   esd-load bad disk=memory pos=.. want=round:4 got=round:3
 *   esd-load err disk=vda op=read|write|flush pos=.. len=.. errno=5
 * After a pass of mode scan: esd-load SCAN DONE pass=1 bytes=.. bad=.. err=.. absent=..
 * Answers to commands: see commands.c. Before the program ends itself: esd-load fatal why=..
 */
#define _GNU_SOURCE
#include "load.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/klog.h>
#include <termios.h>
#include <unistd.h>

enum { DETAILS = 20, LINE = 1024, CONSOLE_LEVEL = 8 };

struct stats stats;

static pthread_mutex_t console = PTHREAD_MUTEX_INITIALIZER;

/* Commands come as lines without an echo; the kernel prints only panics, never into the middle of a line of ours. */
void console_setup(void)
{
    struct termios tty;

    klogctl(CONSOLE_LEVEL, NULL, 1);
    if (tcgetattr(STDIN_FILENO, &tty) < 0)
        return;
    tty.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL | ISIG);
    tty.c_lflag |= ICANON;
    tty.c_iflag |= ICRNL;
    tty.c_oflag &= ~(tcflag_t)OPOST;
    tcsetattr(STDIN_FILENO, TCSANOW, &tty);
}

static void put(const char *line, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(STDOUT_FILENO, line + done, size - done);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
}

void say(const char *format, ...)
{
    char line[LINE] = "esd-load ";
    const size_t head = 9, tail = sizeof " sum=01234567\n", room = sizeof line - head - tail;
    va_list args;

    va_start(args, format);
    int length = vsnprintf(line + head, room, format, args);
    va_end(args);
    size_t size = head + ((size_t)length < room ? (size_t)length : room - 1);
    uint32_t sum = crc32_add(0, (const uint8_t *)line + head, size - head);
    size += (size_t)snprintf(line + size, tail, " sum=%08x\n", sum);

    pthread_mutex_lock(&console);
    put(line, size);
    pthread_mutex_unlock(&console);
}

/* Nothing is said after this line: requests that the end of the guest cuts off are no errors of the disk. */
void say_last(const char *word)
{
    say("%s", word);
    pthread_mutex_lock(&console);
    tcdrain(STDOUT_FILENO);
}

/* init sees the program end, says so and powers the guest off. */
void fatal(const char *why, const char *what)
{
    say("fatal why=%s%s", why, what);
    exit(1);
}

static uint64_t with_inflight(uint64_t longest)
{
    uint64_t since = atomic_load(&stats.inflight_since_us);
    uint64_t age = since ? now_us() - since : 0;

    return (age > longest ? age : longest) / 1000;
}

void say_status(void)
{
    static uint64_t start_us, said;

    if (!start_us)
        start_us = now_us();
    say("n=%lu t=%lu mode=%s ops=%lu r=%lu w=%lu err=%lu bad=%lu absent=%lu stall=%lu istall=%lu dirtied=%lu",
        said++, (now_us() - start_us) / 1000000, options.mode, stats.ops, stats.reads, stats.writes, stats.errors, stats.bad,
        stats.absent, with_inflight(stats.stall_us), with_inflight(atomic_exchange(&stats.interval_stall_us, 0)),
        stats.dirtied_mib);
}

void say_bad(const struct disk *d, uint64_t sector, const char *want, const char *got)
{
    if (atomic_fetch_add(&stats.bad, 1) < DETAILS)
        say("bad disk=%s pos=%lu want=%s got=%s", d->name, sector * SECTOR, want, got);
}

void say_bad_page(uint64_t pos, uint64_t want, uint64_t got)
{
    if (atomic_fetch_add(&stats.bad, 1) < DETAILS)
        say("bad disk=memory pos=%lu want=round:%lu got=round:%lu", pos, want, got);
}

void say_error(const struct disk *d, const char *operation, uint64_t pos, size_t length, int error)
{
    if (atomic_fetch_add(&stats.errors, 1) < DETAILS)
        say("err disk=%s op=%s pos=%lu len=%zu errno=%d", d->name, operation, pos, length, error);
}
