/* The options, from the kernel command line. A word that starts with esd. and is not one of these is fatal:
 *
 *   esd.mode=verify      verify: write, read back, read anywhere; scan: read in order; idle; dirty: memory only.
 *                        verify,dirty and scan,dirty do both
 *   esd.disk=vda:seed=7,fill=full
 *                        what the host put on this disk (images/pattern.py); without it: zeroes.
 *                        A disk named here is waited for. May be given once per disk
 *   esd.expect=miss      reads of what was not written in this run may fail
 *   esd.block=4096       bytes per block, at least the disk's logical block
 *   esd.area=256M        bytes of each disk that are written to
 *   esd.spread=1         the area lies all over the disk; 0: it is the disk's first part
 *   esd.hot=64M@960M     the area, and the reads anywhere, lie in this part of each disk only (LENGTH@OFFSET). May be
 *                        several, with commas between them, in order
 *   esd.rate=0           operations per second, all disks together; 0: as many as possible
 *   esd.mix=40/30/30     per cent of writes / reads of what was written / reads anywhere on the disk
 *   esd.once=0           1: mode scan stops after one pass
 *   esd.dirty=64         MiB of memory that mode dirty writes to, esd.dirtyrate=0 MiB/s (0: no limit)
 *   esd.every=1000       milliseconds from one report on the console to the next
 *   esd.seed=            generation stamped into every block, and seed of the random places; default: the clock
 *
 * Sizes take k, M, G, T.
 */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options options = {
    .block = 4096,
    .area = 256ull * MIB,
    .spread = true,
    .every = 1000,
    .writes = 40,
    .rereads = 30,
    .dirty_mib = 64,
};

static const struct pattern fills[] = {
    {.fill = "none", .period = 1, .data = 0},
    {.fill = "full", .period = 1, .data = 1},
    {.fill = "holes", .period = 4, .data = 3},
    {.fill = "sparse", .period = 64, .data = 1},
};

bool parse_size(const char *text, uint64_t *value)
{
    static const char letters[] = "kMGT";
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    *value = strtoull(text, &end, 10);
    const char *letter = *end ? strchr(letters, *end) : NULL;
    if (letter) {
        *value <<= 10 * (letter - letters + 1);
        end++;
    }
    return *end == '\0';
}

static bool parse_mode(const char *text)
{
    char copy[NAME], *rest = copy;

    if (snprintf(options.mode, NAME, "%s", text) >= NAME)
        return false;
    memcpy(copy, options.mode, NAME);
    for (char *word; (word = strsep(&rest, ","));) {
        if (!strcmp(word, "verify"))
            options.verify = true;
        else if (!strcmp(word, "scan"))
            options.scan = true;
        else if (!strcmp(word, "dirty"))
            options.dirty = true;
        else if (strcmp(word, "idle"))
            return false;
    }
    return !(options.verify && options.scan);
}

static bool parse_fill(const char *name, struct pattern *p)
{
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++)
        if (!strcmp(name, fills[i].fill)) {
            memcpy(p->fill, fills[i].fill, NAME);
            p->period = fills[i].period;
            p->data = fills[i].data;
            return true;
        }
    return false;
}

/* Fifteen bits: no pattern sector ends in 55 aa, so none looks like a boot sector with partitions. */
static bool parse_seed(const char *text, struct pattern *p)
{
    return parse_size(text, &p->seed) && p->seed < 0x8000;
}

static bool parse_disk(char *text)
{
    if (options.npatterns == MAX_DISKS)
        return false;
    struct pattern *p = &options.patterns[options.npatterns++];
    const char *name = strsep(&text, ":");

    parse_fill("none", p);
    if (snprintf(p->disk, NAME, "%s", name) >= NAME)
        return false;
    for (char *word; (word = strsep(&text, ","));)
        if (!strncmp(word, "seed=", 5) ? !parse_seed(word + 5, p) : strncmp(word, "fill=", 5) || !parse_fill(word + 5, p))
            return false;
    return true;
}

static bool parse_mix(const char *text)
{
    unsigned writes, rereads, others;
    char end;

    if (sscanf(text, "%u/%u/%u%c", &writes, &rereads, &others, &end) != 3 || writes + rereads + others != 100)
        return false;
    options.writes = writes;
    options.rereads = rereads;
    return true;
}

static bool parse_flag(const char *text, bool *flag)
{
    *flag = !strcmp(text, "1");
    return *flag || !strcmp(text, "0");
}

static bool parse_every(const char *text)
{
    return parse_size(text, &options.every) && options.every;
}

static bool parse_block(const char *text)
{
    return parse_size(text, &options.block) && options.block >= SECTOR && options.block <= MAX_IO &&
           !(options.block & (options.block - 1));
}

static bool parse_expect(const char *text)
{
    options.expect_miss = !strcmp(text, "miss");
    return options.expect_miss || !strcmp(text, "all");
}

static bool parse_range(char *text, struct range *range)
{
    const char *length = strsep(&text, "@");

    return text && parse_size(length, &range->length) && parse_size(text, &range->start) && range->length;
}

static bool parse_hot(char *text)
{
    for (char *word; (word = strsep(&text, ","));)
        if (options.nhot == MAX_HOT || !parse_range(word, &options.hot[options.nhot++]))
            return false;
    return true;
}

static bool parse_option(const char *name, char *value)
{
    if (!strcmp(name, "mode"))
        return parse_mode(value);
    if (!strcmp(name, "disk"))
        return parse_disk(value);
    if (!strcmp(name, "expect"))
        return parse_expect(value);
    if (!strcmp(name, "block"))
        return parse_block(value);
    if (!strcmp(name, "area"))
        return parse_size(value, &options.area);
    if (!strcmp(name, "spread"))
        return parse_flag(value, &options.spread);
    if (!strcmp(name, "hot"))
        return parse_hot(value);
    if (!strcmp(name, "rate"))
        return parse_size(value, &options.rate);
    if (!strcmp(name, "mix"))
        return parse_mix(value);
    if (!strcmp(name, "once"))
        return parse_flag(value, &options.once);
    if (!strcmp(name, "dirty"))
        return parse_size(value, &options.dirty_mib);
    if (!strcmp(name, "dirtyrate"))
        return parse_size(value, &options.dirty_rate);
    if (!strcmp(name, "every"))
        return parse_every(value);
    if (!strcmp(name, "seed"))
        return parse_size(value, &options.generation);
    return false;
}

static uint64_t clock_generation(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

const char *options_read(const char *path)
{
    static char line[8192];
    FILE *file = fopen(path, "r");
    char *rest = line;

    if (!file || !fgets(line, sizeof line, file))
        return path;
    fclose(file);
    options.generation = clock_generation();
    for (char *word; (word = strsep(&rest, " \n"));) {
        if (strncmp(word, "esd.", 4))
            continue;
        char *value = strchr(word, '=');
        if (value)
            *value++ = '\0';
        if (!value || !parse_option(word + 4, value))
            return word;
    }
    if (!*options.mode)
        parse_mode("verify");
    return NULL;
}
