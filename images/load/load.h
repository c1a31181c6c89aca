/* The load that runs inside the guest: writes stamped blocks, verifies every read, reports on the console.
 *
 * Files: main.c (threads, start and end), options.c (kernel command line), content.c (what a sector must hold),
 * disk.c (finding and describing disks), io.c (one verified read or write), work.c (the loads), dirty.c (memory),
 * time.c (clock), commands.c (what the console may ask), say.c (the lines on the console). What the options
 * mean is told in options.c, the format of the lines in say.c, the commands in commands.c.
 *
 * Threads: main reports and reads the console, one worker does all disk I/O (so it alone owns what was
 * written where), one dirties memory. They share only `stats`, which is atomic.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SECTOR = 512, MIB = 1 << 20, MAX_DISKS = 32, MAX_IO = MIB, MAX_HOT = 16, NAME = 32, COMMAND = 256 };

/* What the host put on a disk beforehand; images/pattern.py is the other half. Data where
 * (byte / MiB) % period < data, zeroes elsewhere. */
struct pattern {
    char disk[NAME];
    char fill[NAME];
    uint64_t seed, period, data;
};

/* `length` from `start` on: bytes in the options, blocks in a disk. */
struct range {
    uint64_t start, length;
};

struct options {
    bool verify, scan, dirty;
    bool expect_miss, once, spread;
    uint64_t block, area;
    uint64_t rate;
    uint64_t every; /* milliseconds */
    uint64_t writes, rereads; /* per cent of the operations; the rest reads anywhere */
    uint64_t dirty_mib, dirty_rate;
    uint64_t generation;
    int npatterns, nhot;
    struct range hot[MAX_HOT];
    struct pattern patterns[MAX_DISKS];
    char mode[NAME];
};

/* A sector's state: 0 = never written in this run, else the sequence number of its last write,
 * with FAILED set when that write reported an error and the sector may hold the old or the new. */
typedef uint32_t state_t;
#define FAILED 0x80000000u

/* A write from the console to sectors outside the working area, or to a part of one of its blocks. */
struct extra {
    uint64_t sector, count;
    state_t state;
};

/* The load goes to the blocks of `hot`, numbered through, `nhot` of them: to all of the disk where no others are named.
 * The working area is `places` of these blocks, one in each run of `stride` blocks. */
struct disk {
    char name[NAME];
    int fd;
    bool readonly;
    uint64_t size;
    unsigned logical, physical;
    size_t block;
    struct range hot[MAX_HOT];
    uint64_t nhot; /* the last may be short where that is the whole disk */
    struct pattern pattern;
    uint64_t places, stride;
    state_t *states;       /* per place */
    uint32_t *order;       /* the places written so far, in order of their first write */
    uint32_t written;      /* entries in `order` */
    struct extra *extras;
    size_t nextras;
    unsigned unsynced;     /* writes since the last flush */
    uint64_t scan_at;
};

struct stats {
    _Atomic uint64_t ops, reads, writes, errors, absent;
    _Atomic uint64_t good, bad; /* blocks that were read and verified */
    _Atomic uint64_t stall_us, interval_stall_us, inflight_since_us;
    _Atomic uint64_t dirtied_mib;
};

extern struct options options;
extern struct disk disks[MAX_DISKS];
extern int ndisks;
extern struct stats stats;

/* options.c */
const char *options_read(const char *path); /* NULL, or the word that is not understood */
bool parse_size(const char *text, uint64_t *value);

/* content.c */
void pattern_sector(const struct pattern *p, uint64_t sector, uint8_t *out);
void stamp_sector(uint64_t sector, uint32_t sequence, uint8_t *out);
void describe_sector(const uint8_t *data, char *text, size_t size);
void describe_state(const struct disk *d, uint64_t sector, state_t state, char *text, size_t size);
uint32_t crc32_add(uint32_t crc, const uint8_t *data, size_t length);

/* disk.c */
void disks_find(void);
void disks_say(void);
struct disk *disk_named(const char *name);
uint64_t hot_block(const struct disk *d, uint64_t number);
uint64_t place_block(const struct disk *d, uint64_t place);
state_t sector_state(const struct disk *d, uint64_t sector);
void sectors_written(struct disk *d, uint64_t sector, uint64_t count, state_t state);

/* io.c: they return 0 or an errno */
int read_verified(struct disk *d, uint64_t pos, size_t length, uint8_t *buffer);
void read_run(struct disk *d, uint64_t pos, size_t length, uint8_t *buffer);
int write_stamped(struct disk *d, uint64_t pos, size_t length, uint8_t *buffer);
int flush(struct disk *d);
uint32_t last_sequence(void);

/* work.c */
bool worker_start(void);
bool worker_submit(const char *line);
void worker_pause(bool paused);
void recheck(uint64_t others, bool everything);
uint8_t *io_buffer(void);
uint64_t random_below(uint64_t limit);

/* commands.c */
bool console_read(void);      /* by main; false: the console has ended */
void command_run(char *line); /* by the worker */

/* time.c */
uint64_t now_us(void);
void raise_to(_Atomic uint64_t *most, uint64_t value);

/* dirty.c */
bool dirtier_start(void);

/* say.c */
void console_setup(void);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fatal(const char *why, const char *what) __attribute__((noreturn));
void say_last(const char *word);
void say_status(void);
void say_bad(const struct disk *d, uint64_t sector, const char *want, const char *got);
void say_bad_page(uint64_t pos, uint64_t want, uint64_t got);
void say_error(const struct disk *d, const char *operation, uint64_t pos, size_t length, int error);

#endif
