/* Finding the guest's disks, saying what the guest sees of them, and remembering what was written where. */
#define _GNU_SOURCE
#include "load.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WAIT_MS = 10000, POLL_MS = 50, TEXT = 256 };

struct disk disks[MAX_DISKS];
int ndisks;

/* Into the bytes that a value in a line may have; blanks around it go, odd bytes become %XX. */
static void escape(const char *text, size_t length, char *out, size_t size)
{
    size_t n = 0;

    while (length && (text[length - 1] == ' ' || text[length - 1] == '\n' || text[length - 1] == '\0'))
        length--;
    for (; length && *text == ' '; text++, length--)
        ;
    for (size_t i = 0; i < length && n + 4 < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (isalnum(c) || strchr("._:/-+", c))
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, 4, "%%%02X", c);
    }
    out[n] = '\0';
}

/* The file's content from byte `skip` on, escaped; false when there is no such file. */
static bool sysfs(const char *disk, const char *file, size_t skip, char *out)
{
    char path[TEXT], text[TEXT];

    snprintf(path, sizeof path, "/sys/block/%s/%s", disk, file);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    if (fd >= 0)
        close(fd);
    if (n < (ssize_t)skip)
        return false;
    escape(text + skip, (size_t)n - skip, out, TEXT);
    return *out != '\0';
}

/* virtio-blk asks the device afresh on every read of `serial`; nvme and scsi (vital product data page 0x80,
 * after a header of 4 bytes) tell what they learned when they found the disk. */
static void read_serial(const char *disk, char *out)
{
    if (!sysfs(disk, "serial", 0, out) && !sysfs(disk, "device/serial", 0, out) &&
        !sysfs(disk, "device/vpd_pg80", 4, out))
        strcpy(out, "-");
}

static void read_wwn(const char *disk, char *out)
{
    if (!sysfs(disk, "wwid", 0, out) && !sysfs(disk, "device/wwid", 0, out))
        strcpy(out, "-");
}

/* What stands between /devices/ and `end` in the target of a link in /sys. */
static bool device_of(const char *link, const char *end, char *out)
{
    static const char devices[] = "/devices/";
    char target[TEXT];
    ssize_t n = readlink(link, target, sizeof target - 1);

    target[n < 0 ? 0 : n] = '\0';
    const char *start = strstr(target, devices);
    const char *stop = strstr(target, end);
    if (!start || !stop)
        return false;
    start += strlen(devices);
    escape(start, (size_t)(stop - start), out, TEXT);
    return true;
}

/* Where the disk sits, as pci0000:00/0000:00:04.0/virtio1. An nvme disk is a virtual device, its controller is not. */
static void read_path(const char *disk, char *out)
{
    char link[TEXT];
    unsigned controller;

    snprintf(link, sizeof link, "/sys/block/%s", disk);
    if (device_of(link, "/block/", out))
        return;
    strcpy(out, "-");
    if (sscanf(disk, "nvme%u", &controller) == 1) {
        snprintf(link, sizeof link, "/sys/class/nvme/nvme%u", controller);
        device_of(link, "/nvme/", out);
    }
}

static void say_disk(const struct disk *d)
{
    char serial[TEXT], wwn[TEXT], path[TEXT];
    uint64_t size = 0;
    int logical = 0, readonly = 0;
    unsigned physical = 0;

    ioctl(d->fd, BLKGETSIZE64, &size);
    ioctl(d->fd, BLKSSZGET, &logical);
    ioctl(d->fd, BLKPBSZGET, &physical);
    ioctl(d->fd, BLKROGET, &readonly);
    read_serial(d->name, serial);
    read_wwn(d->name, wwn);
    read_path(d->name, path);
    say("disk name=%s size=%lu lbs=%d pbs=%u ro=%d serial=%s wwn=%s path=%s block=%zu area=%lu seed=%lu fill=%s", d->name,
        size, logical, physical, readonly, serial, wwn, path, d->block, d->places * d->block, d->pattern.seed,
        d->pattern.fill);
}

void disks_say(void)
{
    for (int i = 0; i < ndisks; i++)
        say_disk(&disks[i]);
}

struct disk *disk_named(const char *name)
{
    for (int i = 0; i < ndisks; i++)
        if (!strcmp(disks[i].name, name))
            return &disks[i];
    return NULL;
}

static void take_pattern(struct disk *d)
{
    d->pattern = (struct pattern){.fill = "none", .period = 1};
    for (int i = 0; i < options.npatterns; i++)
        if (!strcmp(options.patterns[i].disk, d->name))
            d->pattern = options.patterns[i];
}

static void lay_out_hot(struct disk *d)
{
    d->hot[0].length = d->nhot = (d->size + d->block - 1) / d->block;
    if (options.nhot)
        d->nhot = 0;
    for (int i = 0; i < options.nhot; i++) {
        const struct range *r = &options.hot[i];
        if (r->start % d->block || r->length % d->block || r->start > d->size || r->length > d->size - r->start)
            fatal("no-such-hot-part-on-", d->name);
        d->hot[i] = (struct range){r->start / d->block, r->length / d->block};
        d->nhot += d->hot[i].length;
    }
}

static void lay_out_area(struct disk *d)
{
    uint64_t whole = options.nhot ? d->nhot : d->size / d->block;

    d->places = options.area / d->block < whole ? options.area / d->block : whole;
    d->stride = options.spread && d->places ? whole / d->places : 1;
    d->states = calloc(d->places + 1, sizeof *d->states);
    d->order = calloc(d->places + 1, sizeof *d->order);
    if (!d->states || !d->order)
        fatal("no-memory-for-area-of-", d->name);
}

static bool open_disk(struct disk *d)
{
    char path[TEXT];
    int readonly = 0;

    snprintf(path, sizeof path, "/dev/%s", d->name);
    d->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (d->fd < 0)
        d->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (d->fd < 0 || ioctl(d->fd, BLKGETSIZE64, &d->size) || ioctl(d->fd, BLKSSZGET, &d->logical))
        return false;
    d->readonly = !ioctl(d->fd, BLKROGET, &readonly) && readonly;
    return d->size > 0;
}

static void add_disk(const char *name)
{
    struct disk *d = &disks[ndisks];

    if (ndisks == MAX_DISKS || disk_named(name))
        return;
    *d = (struct disk){.fd = -1};
    snprintf(d->name, NAME, "%.*s", NAME - 1, name);
    if (!open_disk(d))
        return;
    d->block = options.block > d->logical ? options.block : d->logical;
    take_pattern(d);
    lay_out_hot(d);
    lay_out_area(d);
    ndisks++;
}

static int is_disk(const struct dirent *entry)
{
    static const char *const prefixes[] = {"vd", "sd", "nvme", "hd"};

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (!strncmp(entry->d_name, prefixes[i], strlen(prefixes[i])))
            return 1;
    return 0;
}

static void look(void)
{
    struct dirent **entries;
    int n = scandir("/sys/block", &entries, is_disk, alphasort);

    for (int i = 0; i < n; i++)
        add_disk(entries[i]->d_name);
}

static const char *missing_disk(void)
{
    for (int i = 0; i < options.npatterns; i++)
        if (!disk_named(options.patterns[i].disk))
            return options.patterns[i].disk;
    return NULL;
}

/* The drivers' probes are over when init has loaded them, so one look is enough for a disk that was there at the
 * start; one named on the command line may also come later. */
void disks_find(void)
{
    look();
    for (int waited = 0; missing_disk() && waited < WAIT_MS; waited += POLL_MS) {
        usleep(POLL_MS * 1000);
        look();
    }
    if (missing_disk())
        fatal("no-disk-", missing_disk());
}

/* The block with this number among those that the load goes to. */
uint64_t hot_block(const struct disk *d, uint64_t number)
{
    const struct range *r = d->hot;

    for (; number >= r->length; r++)
        number -= r->length;
    return r->start + number;
}

/* The other way round; beyond all numbers for a block that is none of them. */
static uint64_t hot_number(const struct disk *d, uint64_t block)
{
    uint64_t before = 0;

    for (const struct range *r = d->hot; r < d->hot + MAX_HOT; before += r++->length)
        if (block - r->start < r->length)
            return before + block - r->start;
    return UINT64_MAX;
}

/* Which of the `stride` blocks of its run a place is: scattered, so that no alignment of the image is favoured. */
static uint64_t place_number(const struct disk *d, uint64_t place)
{
    return place * d->stride + (place * 0x9e3779b97f4a7c15ull >> 32) % d->stride;
}

uint64_t place_block(const struct disk *d, uint64_t place)
{
    return hot_block(d, place_number(d, place));
}

static state_t *place_state(const struct disk *d, uint64_t block)
{
    uint64_t number = hot_number(d, block), place = number / d->stride;

    return place < d->places && place_number(d, place) == number ? &d->states[place] : NULL;
}

static bool newer(state_t a, state_t b)
{
    return (a & ~FAILED) > (b & ~FAILED);
}

state_t sector_state(const struct disk *d, uint64_t sector)
{
    const state_t *place = place_state(d, sector * SECTOR / d->block);
    state_t state = place ? *place : 0;

    for (size_t i = 0; i < d->nextras; i++)
        if (sector - d->extras[i].sector < d->extras[i].count && newer(d->extras[i].state, state))
            state = d->extras[i].state;
    return state;
}

static void remember_extra(struct disk *d, uint64_t sector, uint64_t count, state_t state)
{
    d->extras = realloc(d->extras, (d->nextras + 1) * sizeof *d->extras);
    if (!d->extras)
        fatal("no-memory", "");
    d->extras[d->nextras++] = (struct extra){.sector = sector, .count = count, .state = state};
}

/* One whole place is kept in the area's table, anything else in the list. */
void sectors_written(struct disk *d, uint64_t sector, uint64_t count, state_t state)
{
    uint64_t block = sector * SECTOR / d->block;
    state_t *place = place_state(d, block);

    if (!place || block * d->block != sector * SECTOR || count * SECTOR != d->block) {
        remember_extra(d, sector, count, state);
        return;
    }
    if (!*place)
        d->order[d->written++] = (uint32_t)(place - d->states);
    *place = state;
}
