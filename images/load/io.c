/* Reads with their verification, stamped writes, flushes; each request timed, counted and reported. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { FLUSH_EVERY = 64, TEXT = 160 };

static uint32_t sequence;

uint32_t last_sequence(void)
{
    return sequence;
}

static void io_begin(void)
{
    atomic_store(&stats.inflight_since_us, now_us());
}

static void io_end(void)
{
    uint64_t took = now_us() - atomic_exchange(&stats.inflight_since_us, 0);

    raise_to(&stats.stall_us, took);
    raise_to(&stats.interval_stall_us, took);
    atomic_fetch_add(&stats.ops, 1);
}

/* A transfer that is cut short within the disk is as bad as one that fails. */
static int status_of(ssize_t done, size_t length)
{
    if (done < 0)
        return errno;
    return (size_t)done == length ? 0 : EIO;
}

static bool never_written(const struct disk *d, uint64_t pos, size_t length)
{
    for (uint64_t sector = pos / SECTOR; sector < (pos + length) / SECTOR; sector++)
        if (!sector_state(d, sector))
            return true;
    return false;
}

/* The ways the block layer spells "the device could not read this", by bus. */
static bool is_medium_error(int error)
{
    return error == EIO || error == ENODATA || error == EREMOTEIO;
}

static void count_read_error(const struct disk *d, uint64_t pos, size_t length, int error)
{
    if (options.expect_miss && is_medium_error(error) && never_written(d, pos, length))
        atomic_fetch_add(&stats.absent, 1);
    else
        say_error(d, "read", pos, length, error);
}

static bool sector_is_right(const struct disk *d, uint64_t sector, const uint8_t *data)
{
    uint8_t want[SECTOR];
    state_t state = sector_state(d, sector);

    if (state & FAILED)
        return true;
    if (state)
        stamp_sector(sector, state, want);
    else
        pattern_sector(&d->pattern, sector, want);
    return !memcmp(want, data, SECTOR);
}

static void report_sector(const struct disk *d, uint64_t sector, const uint8_t *data)
{
    char want[TEXT], got[TEXT];

    describe_state(d, sector, sector_state(d, sector), want, sizeof want);
    describe_sector(data, got, sizeof got);
    say_bad(d, sector, want, got);
}

/* One bad sector is reported per block, so that `bad` counts blocks. */
static void verify_block(const struct disk *d, uint64_t pos, size_t length, const uint8_t *data)
{
    for (size_t at = 0; at < length; at += SECTOR)
        if (!sector_is_right(d, (pos + at) / SECTOR, data + at)) {
            report_sector(d, (pos + at) / SECTOR, data + at);
            return;
        }
    atomic_fetch_add(&stats.good, 1);
}

static size_t to_block_end(const struct disk *d, uint64_t pos, size_t length)
{
    size_t rest = d->block - pos % d->block;

    return rest < length ? rest : length;
}

/* One request; without an error, the data has been verified. */
static int request(struct disk *d, uint64_t pos, size_t length, uint8_t *buffer)
{
    io_begin();
    int error = status_of(pread(d->fd, buffer, length, (off_t)pos), length);
    io_end();
    atomic_fetch_add(&stats.reads, 1);
    for (size_t at = 0, part; at < length && !error; at += part) {
        part = to_block_end(d, pos + at, length - at);
        verify_block(d, pos + at, part, buffer + at);
    }
    return error;
}

int read_verified(struct disk *d, uint64_t pos, size_t length, uint8_t *buffer)
{
    int error = request(d, pos, length, buffer);

    if (error)
        count_read_error(d, pos, length, error);
    return error;
}

/* As one request, and only if that fails block by block: one block that cannot be read must not hide the others. */
void read_run(struct disk *d, uint64_t pos, size_t length, uint8_t *buffer)
{
    if (!request(d, pos, length, buffer))
        return;
    for (size_t at = 0, part; at < length; at += part) {
        part = to_block_end(d, pos + at, length - at);
        read_verified(d, pos + at, part, buffer);
    }
}

int flush(struct disk *d)
{
    io_begin();
    int error = fsync(d->fd) < 0 ? errno : 0;
    io_end();
    d->unsynced = 0;
    if (error)
        say_error(d, "flush", 0, 0, error);
    return error;
}

static void remember(struct disk *d, uint64_t pos, size_t length, state_t state)
{
    for (size_t at = 0, part; at < length; at += part) {
        part = to_block_end(d, pos + at, length - at);
        sectors_written(d, (pos + at) / SECTOR, part / SECTOR, state);
    }
}

/* All sectors of one write carry the same new sequence number. */
int write_stamped(struct disk *d, uint64_t pos, size_t length, uint8_t *buffer)
{
    sequence++;
    for (size_t at = 0; at < length; at += SECTOR)
        stamp_sector((pos + at) / SECTOR, sequence, buffer + at);
    io_begin();
    int error = status_of(pwrite(d->fd, buffer, length, (off_t)pos), length);
    io_end();
    atomic_fetch_add(&stats.writes, 1);
    remember(d, pos, length, sequence | (error ? FAILED : 0));
    if (error)
        say_error(d, "write", pos, length, error);
    else if (++d->unsynced == FLUSH_EVERY)
        flush(d);
    return error;
}
