/* Commands from the serial console, one per line. Each is answered by one last line that starts with the word shown;
 * the worker runs them between two operations, so an answer also says that no operation of before is in flight.
 *
 *   pause, resume             -> paused, resumed
 *   sync                      -> synced seq=<last sequence number written> err=<disks whose flush failed>
 *   recheck [N | all]         -> recheck ok=.. bad=.. err=.. absent=..  (blocks: all that were written in this run and
 *                                N others of each disk, default 256; or all there are)
 *   disks                     -> the disk lines of the start, then: disks count=2
 *   read DISK OFFSET LEN      -> read disk=.. pos=.. len=.. errno=0 bad=<blocks> crc=<as zlib.crc32, 8 hex digits>
 *   write DISK OFFSET LEN     -> write disk=.. pos=.. len=.. errno=0 seq=..
 *                                (OFFSET and LEN: multiples of the logical block; errno=22 where not; LEN up to 1 MiB for
 *                                a write, so that it is one request)
 *   zero, discard DISK OFFSET LEN
 *                             -> zero disk=.. pos=.. len=.. errno=0; the same for discard
 *   poweroff, reboot, panic   -> poweroff, reboot, panic; at once, whatever the worker is waiting for
 *   anything else             -> unknown
 */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <unistd.h>

enum { OTHERS = 256, WORDS = 4 };

static void do_sync(void)
{
    int failed = 0;

    for (int i = 0; i < ndisks; i++)
        failed += flush(&disks[i]) != 0;
    say("synced seq=%u err=%d", last_sequence(), failed);
}

static bool is_aligned(const struct disk *d, uint64_t pos, uint64_t length)
{
    return length && pos % d->logical == 0 && length % d->logical == 0 && pos < d->size && length <= d->size - pos;
}

static void do_read(struct disk *d, uint64_t pos, uint64_t length)
{
    int error = is_aligned(d, pos, length) ? 0 : EINVAL;
    uint64_t bad = stats.bad;
    uint32_t crc = 0;

    for (uint64_t at = 0; at < length && !error; at += MAX_IO) {
        size_t part = length - at < MAX_IO ? length - at : MAX_IO;
        error = read_verified(d, pos + at, part, io_buffer());
        crc = crc32_add(crc, io_buffer(), part);
    }
    say("read disk=%s pos=%lu len=%lu errno=%d bad=%lu crc=%08x", d->name, pos, length, error, stats.bad - bad,
        error ? 0 : crc);
}

static void do_write(struct disk *d, uint64_t pos, uint64_t length)
{
    int error = is_aligned(d, pos, length) && length <= MAX_IO ? 0 : EINVAL;

    if (!error)
        error = write_stamped(d, pos, length, io_buffer());
    say("write disk=%s pos=%lu len=%lu errno=%d seq=%u", d->name, pos, length, error, last_sequence());
}

/* `zero` and `discard`: what the disk had there is not looked for any more by the one who asks; recheck still does. */
static void do_clear(const char *word, struct disk *d, uint64_t pos, uint64_t length)
{
    uint64_t range[2] = {pos, length};
    int error = is_aligned(d, pos, length) ? 0 : EINVAL;

    if (!error && ioctl(d->fd, *word == 'z' ? BLKZEROOUT : BLKDISCARD, range) != 0)
        error = errno;
    say("%s disk=%s pos=%lu len=%lu errno=%d", word, d->name, pos, length, error);
}

/* `read`, `write`, `zero` and `discard` with their three words; false when they are not understood. */
static bool run_transfer(char *const *words)
{
    struct disk *d = words[1] ? disk_named(words[1]) : NULL;
    uint64_t pos, length;

    if (!d || !words[2] || !words[3] || !parse_size(words[2], &pos) || !parse_size(words[3], &length))
        return false;
    if (!strcmp(words[0], "read"))
        do_read(d, pos, length);
    else if (!strcmp(words[0], "write"))
        do_write(d, pos, length);
    else
        do_clear(words[0], d, pos, length);
    return true;
}

static bool run_recheck(const char *amount)
{
    uint64_t others = OTHERS;
    bool everything = amount && !strcmp(amount, "all");

    if (amount && !everything && !parse_size(amount, &others))
        return false;
    recheck(others, everything);
    return true;
}

static bool is_transfer(const char *word)
{
    return !strcmp(word, "read") || !strcmp(word, "write") || !strcmp(word, "zero") || !strcmp(word, "discard");
}

static bool run_words(char *const *words)
{
    if (!strcmp(words[0], "pause") || !strcmp(words[0], "resume")) {
        worker_pause(*words[0] == 'p');
        say("%sd", words[0]);
    } else if (!strcmp(words[0], "sync")) {
        do_sync();
    } else if (!strcmp(words[0], "recheck")) {
        return run_recheck(words[1]);
    } else if (!strcmp(words[0], "disks")) {
        disks_say();
        say("disks count=%d", ndisks);
    } else if (is_transfer(words[0])) {
        return run_transfer(words);
    } else {
        return false;
    }
    return true;
}

void command_run(char *line)
{
    char *words[WORDS + 1] = {NULL}, *rest = line;

    for (int n = 0; n < WORDS && rest;) {
        words[n] = strsep(&rest, " \t");
        if (*words[n])
            n++;
        else
            words[n] = NULL;
    }
    if (words[0] && !run_words(words))
        say("unknown");
}

static void end_guest(const char *word, int how)
{
    say_last(word);
    reboot(how);
}

/* What the kernel does then is said by panic= on its command line: with -1 it starts anew. */
static void end_in_panic(const char *word)
{
    int trigger = open("/proc/sysrq-trigger", O_WRONLY);

    if (trigger < 0) {
        say("unknown");
        return;
    }
    say_last(word);
    (void)!write(trigger, "c", 1);
}

static void take_line(char *line)
{
    line[strcspn(line, "\r")] = '\0';
    if (!strcmp(line, "poweroff"))
        end_guest(line, LINUX_REBOOT_CMD_POWER_OFF);
    else if (!strcmp(line, "reboot"))
        end_guest(line, LINUX_REBOOT_CMD_RESTART);
    else if (!strcmp(line, "panic"))
        end_in_panic(line);
    else if (!worker_submit(line))
        say("unknown");
}

/* Takes what the console has; a line may come in pieces, one that is too long is cut. */
bool console_read(void)
{
    static char line[COMMAND];
    static size_t length;
    char text[COMMAND];
    ssize_t n = read(STDIN_FILENO, text, sizeof text);

    for (ssize_t i = 0; i < n; i++) {
        if (text[i] != '\n') {
            line[length] = text[i];
            length += length < sizeof line - 1;
            continue;
        }
        line[length] = '\0';
        length = 0;
        take_line(line);
    }
    return n != 0;
}
