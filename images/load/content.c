/* What a sector must hold: the host's pattern, or a stamp of ours. Both are pure functions of the sector's number,
 * so data that turns up in the wrong place, or is old, or is torn, is recognised for what it is. */
#define _GNU_SOURCE
#include "load.h"

#include <stdio.h>
#include <string.h>

enum { WORDS = SECTOR / 8 };

/* "ESDstamp" in memory. As a pattern word it would be seed 0x706d at a sector beyond 2^46: no disk is that long. */
#define MAGIC 0x706d617473445345ull

/* The first words of a stamped sector; the rest is filled from them. */
enum { W_MAGIC, W_POSITION, W_SEQUENCE, W_GENERATION, W_CHECKSUM, W_FILL };

static const uint8_t zeroes[SECTOR];

/* A pattern sector is one 64 bit word, repeated: the seed in the top 16 bits, below it the sector's number plus one. */
void pattern_sector(const struct pattern *p, uint64_t sector, uint8_t *out)
{
    uint64_t word = p->seed << 48 | (sector + 1);

    if (sector * SECTOR / MIB % p->period >= p->data)
        word = 0;
    for (int i = 0; i < WORDS; i++)
        memcpy(out + 8 * i, &word, 8);
}

static uint64_t checksum(const uint64_t *words)
{
    uint64_t sum = 0xcbf29ce484222325ull;

    for (int i = 0; i < WORDS; i++) {
        sum = (sum ^ (i == W_CHECKSUM ? 0 : words[i])) * 0x100000001b3ull;
        sum = sum << 23 | sum >> 41;
    }
    return sum;
}

void stamp_sector(uint64_t sector, uint32_t sequence, uint8_t *out)
{
    uint64_t words[WORDS] = {
        [W_MAGIC] = MAGIC,
        [W_POSITION] = sector * SECTOR,
        [W_SEQUENCE] = sequence,
        [W_GENERATION] = options.generation,
    };
    uint64_t fill = options.generation ^ sector << 32 ^ sequence;

    for (int i = W_FILL; i < WORDS; i++)
        words[i] = fill = fill * 6364136223846793005ull + 1442695040888963407ull;
    words[W_CHECKSUM] = checksum(words);
    memcpy(out, words, SECTOR);
}

static void describe_stamp(const uint64_t *w, char *text, size_t size)
{
    snprintf(text, size, "seq:%lu,pos=%lu,gen=%lu,sum=%s", w[W_SEQUENCE], w[W_POSITION], w[W_GENERATION],
             w[W_CHECKSUM] == checksum(w) ? "ok" : "wrong");
}

void describe_sector(const uint8_t *data, char *text, size_t size)
{
    uint64_t words[WORDS];
    bool same = !memcmp(data, data + 8, SECTOR - 8);

    memcpy(words, data, SECTOR);
    if (!memcmp(data, zeroes, SECTOR))
        snprintf(text, size, "zero");
    else if (words[W_MAGIC] == MAGIC)
        describe_stamp(words, text, size);
    else if (same)
        snprintf(text, size, "pattern:seed=%lu,pos=%lu", words[0] >> 48, ((words[0] << 16 >> 16) - 1) * SECTOR);
    else
        snprintf(text, size, "junk:%016lx%016lx", words[0], words[1]);
}

void describe_state(const struct disk *d, uint64_t sector, state_t state, char *text, size_t size)
{
    uint8_t data[SECTOR];

    if (state) {
        snprintf(text, size, "seq:%u", state);
        return;
    }
    pattern_sector(&d->pattern, sector, data);
    describe_sector(data, text, size);
}

/* As zlib's crc32(), so that the host can compute the same. */
uint32_t crc32_add(uint32_t crc, const uint8_t *data, size_t length)
{
    static uint32_t table[256];

    for (uint32_t i = 0; !table[255] && i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
        table[i] = value;
    }
    crc = ~crc;
    while (length--)
        crc = crc >> 8 ^ table[(crc ^ *data++) & 0xff];
    return ~crc;
}
