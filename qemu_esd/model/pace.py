"""How fast a background move may be: as fast as it can, a limit that was said, or what the guest bears.

The last is decided here, once per window of time, from how long the guest's reads and writes took in it. They are held
against a calm window, in which the move goes at FLOOR: on the same host, under the same load, a few seconds ago. What
they took on the source, or before the guest was busy, would say nothing about that. The first window is calm, soon
another, for by then what the guest uses most is here, and in the long run one in CALM_EVERY.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

AUTO: Final = "auto"
# Bytes per second; None: no limit.
Bandwidth = int | Literal["auto"] | None
# Reads and writes by how long they took at most (ns).
Latencies = Mapping[float, int]

# Every speed that is set is one at which the move comes to its end with nobody to change it: 84 GiB a day at least.
FLOOR = 1 << 20
START = 16 << 20
STEP = 1 << 20
# So many times as long as in the calm may 99 of 100 take in one window; over many of them that becomes about twice.
FACTOR = 1.5
CALM_EVERY = 16


# What the job has asked for at once goes before a read of the guest: as little as keeps the link busy for one round
# trip at FASTEST (bytes/s), or at the limit, and at LEAST that. Where the limit adapts, it counts as ADAPTED.
FASTEST, ADAPTED = 256 << 20, 32 << 20
LEAST, LEAST_LIMITED, MOST = 2 << 20, 256 << 10, 64 << 20


def in_flight(bandwidth: Bandwidth, round_trip: float) -> int:
    """Bytes that the job may have asked for at once, where a word and its answer take `round_trip` seconds."""
    if bandwidth is None:
        return min(LEAST + int(FASTEST * round_trip), MOST)
    speed = ADAPTED if bandwidth == AUTO else min(bandwidth, FASTEST)
    return min(LEAST_LIMITED + int(speed * round_trip), MOST)


@dataclass(frozen=True)
class Pace:
    """`speed` (bytes/s) outside of calm windows; `doubling` until the guest has noticed something for the first time.

    `calm` is what its reads and writes took in calm windows, the last one most; `windows` are how many are left until
    the next of them, 0: this is one, and the one after it comes `every` so many.
    """

    speed: int = START
    doubling: bool = True
    calm: Latencies = field(default_factory=dict)
    windows: int = 0
    every: int = 4

    @property
    def limit(self) -> int:
        """Bytes per second at which the move goes now."""
        return FLOOR if self.windows == 0 else self.speed


def after(pace: Pace, seen: Latencies, rate: int) -> Pace:
    """The pace after a window in which the guest's I/O was as `seen`, and the move had `rate` bytes/s."""
    if pace.windows == 0:
        every = min(2 * pace.every, CALM_EVERY)
        return replace(pace, calm=_blended(pace.calm, seen), windows=pace.every - 1, every=every)
    if seen and not pace.calm:
        # It was idle then, and is not any more.
        return replace(pace, windows=0)
    return replace(_adapted(pace, _suffers(pace.calm, seen), rate), windows=pace.windows - 1)


def _blended(old: Latencies, new: Latencies) -> Latencies:
    """What is older counts a quarter as much each time: its slowest hundredth is what was not here yet."""
    return Counter({upper: count // 4 for upper, count in old.items() if count > 3}) + Counter(new)


def _suffers(calm: Latencies, seen: Latencies) -> bool:
    return p99(seen) > FACTOR * p99(calm)


def _adapted(pace: Pace, suffers: bool, rate: int) -> Pace:
    """A little slower where the guest suffers, else a little faster; about as fast as the move has shown it can be."""
    if suffers:
        # While it doubles, half is what was borne before. Else one bad window, which any host has, costs a quarter.
        slower = min(pace.speed, 2 * rate) * (2 if pace.doubling else 3) // 4
        return replace(pace, speed=max(slower, FLOOR), doubling=False)
    faster = pace.speed * 2 if pace.doubling else pace.speed + max(STEP, pace.speed // 8)
    return replace(pace, speed=max(pace.speed, min(faster, 2 * rate)))


def p99(seen: Latencies) -> float:
    """The time (ns) that 99 of 100 took at most; 0 where there was nothing."""
    wanted, found = 0.99 * sum(seen.values()), 0
    for upper, count in sorted(seen.items()):
        found += count
        if found >= wanted:
            return upper
    return 0.0
