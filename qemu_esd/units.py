"""Sizes, rates and durations as people write and read them."""

from __future__ import annotations

import math
import re

from qemu_esd.errors import UsageError

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
# QEMU's numbers have 64 bits with a sign.
MOST = 1 << 63

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)(b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """Bytes of "64M", "64MiB", "1.5G", "512" (powers of 1024, as qemu-img reads them). Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size", hint="write it like 512M or 4G")
    number, letter, _, _ = match.groups()
    return _counted(text, float(number) * 1024 ** _POWERS[letter.lower()])


def _counted(text: str, count: float) -> int:
    if count >= MOST:
        raise UsageError(f"{text!r} is more than any program can count", hint="write it like 512M or 4G")
    return int(count)


def parse_rate(text: str) -> int:
    """Bytes per second of "100M", "100MB/s", "100MiB/s" (bytes) or "1gbit" (bits, powers of 1000)."""
    plain = text.strip().lower().removesuffix("/s")
    bits = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)bit", plain)
    if bits:
        return _counted(text, float(bits[1]) * 1000 ** _POWERS[bits[2]] / 8)
    return parse_size(plain)


def check_seconds(option: str, seconds: float, least: float) -> None:
    """Raises UsageError for less than that, and for a time that never comes (inf, nan)."""
    if not least <= seconds < math.inf:
        raise UsageError(f"{option} takes seconds, at least {least:g}")


def human_bytes(count: float) -> str:
    """`count` bytes as "512 B", "64.0 KiB", "1.5 GiB"."""
    if count < KIB:
        return f"{int(count)} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if round(count, 1) < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} PiB"


def human_seconds(seconds: float) -> str:
    """A duration as "85 ms", "3.2 s", "4 min 10 s", "2 h 5 min"."""
    # What rounds to the next unit is told in it: never "1000 ms".
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def short_bytes(count: float) -> str:
    """The same in at most five characters, for tables: "512", "64K", "1.5G"."""
    for unit in ("", "K", "M", "G", "T"):
        if round(count) < 1024:
            return f"{count:.1f}{unit}" if unit and count < 9.95 and round(count, 1) % 1 else f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.0f}P"


def short_seconds(seconds: float) -> str:
    """A duration in at most four characters, for tables: "12s", "4m", "2h", "3d"."""
    for unit, most in (("s", 60), ("m", 3600), ("h", 86400 * 2)):
        if round(seconds) < most:
            return f"{seconds / {'s': 1, 'm': 60, 'h': 3600}[unit]:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"
