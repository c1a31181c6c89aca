"""What a test writes on a disk before the guest starts: content that tells where it belongs.

A sector of 512 bytes is one little-endian 64 bit word, repeated: the seed in the top 16 bits, below it the
sector's number plus one. So every sector differs from every other and from zero, and data found in the wrong
place, or from another disk, names its origin. The guest knows the same rule (images/load/content.c), by the
words `seed` and `fill` of its kernel command line.

    python3 images/pattern.py disk.img 1G --seed 7 --fill holes
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal, get_args

SECTOR = 512
MIB = 1 << 20
MAX_SEED = 0x7FFF  # 15 bits: no sector ends in 55 aa, so none looks like a boot sector with partitions

Fill = Literal["none", "full", "holes", "sparse"]

# (period, data): of each `period` MiB the first `data` hold data, the rest is a hole.
FILLS: dict[Fill, tuple[int, int]] = {"none": (1, 0), "full": (1, 1), "holes": (4, 3), "sparse": (64, 1)}


def has_data(fill: Fill, mib: int) -> bool:
    """Whether the MiB number `mib` of a disk holds data; it reads as zeroes otherwise."""
    period, data = FILLS[fill]
    return mib % period < data


def _sectors(seed: int, first: int, count: int) -> bytes:
    word = (seed << 48) + 1
    repeat = SECTOR // 8
    return b"".join([(word + n).to_bytes(8, "little") * repeat for n in range(first, first + count)])


def _within_one_mib(seed: int, fill: Fill, offset: int, length: int) -> bytes:
    if not has_data(fill, offset // MIB):
        return bytes(length)
    first, skip = divmod(offset, SECTOR)
    count = -(-(skip + length) // SECTOR)
    return _sectors(seed, first, count)[skip : skip + length]


def expected(seed: int, fill: Fill, offset: int, length: int) -> bytes:
    """The `length` bytes from byte `offset` on of a disk filled with `seed` and `fill`, disk size aside."""
    _check(seed, fill)
    parts = []
    end = offset + length
    while offset < end:
        step = min(end, (offset // MIB + 1) * MIB) - offset
        parts.append(_within_one_mib(seed, fill, offset, step))
        offset += step
    return b"".join(parts)


def fill(path: Path | str, size: int, seed: int, fill: Fill = "full") -> None:
    """Makes `path` a raw image of `size` bytes with the pattern; what the pattern leaves out is sparse.

    About 1 GB/s of data on one core. Raises ValueError (seed, fill) and OSError.
    """
    _check(seed, fill)
    with Path(path).open("wb") as file:
        file.truncate(size)
        for offset in range(0, size, MIB):
            if has_data(fill, offset // MIB):
                file.seek(offset)
                file.write(_within_one_mib(seed, fill, offset, min(MIB, size - offset)))


def _check(seed: int, fill: str) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed} is not in 0..{MAX_SEED}")
    if fill not in FILLS:
        raise ValueError(f"fill {fill!r} is none of {', '.join(FILLS)}")


def _size(text: str) -> int:
    letters = "kMGT"
    power = letters.find(text[-1]) + 1
    return int(text[:-1] if power else text) << 10 * power


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill a raw image with the test pattern.")
    parser.add_argument("path", type=Path)
    parser.add_argument("size", type=_size, help="bytes, or with k, M, G, T")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fill", choices=get_args(Fill), default="full")
    args = parser.parse_args()
    fill(args.path, args.size, args.seed, args.fill)


if __name__ == "__main__":
    main()
