"""Where the time of one command goes: spans, written as a trace that Perfetto (ui.perfetto.dev) and Chromium show.

Each span is a step of ours, a program on a host, or a QMP command. A trace has no keys and no data: what it says of a
program is what `-vv` says.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEP = "step"


@dataclass(frozen=True)
class Span:
    """`kind` is "step", "ssh" or "QMP"; `began` and `took` in seconds, the former since this process began."""

    kind: str
    began: float
    took: float
    facts: Mapping[str, object]

    @property
    def name(self) -> str:
        """What was done."""
        return str(next((self.facts[word] for word in ("step", "command", "program") if word in self.facts), self.kind))

    @property
    def host(self) -> str:
        """Where; our own process, if on no host."""
        return str(self.facts.get("host", "qemu-esd"))


class Trace:
    """Spans of this process, from `start` on; without it they cost nothing and are not kept."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._zero: float | None = None

    def start(self) -> None:
        self.spans, self._zero = [], _process_began()

    def stop(self) -> None:
        self._zero = None

    def add(self, kind: str, began: float, ended: float, facts: Mapping[str, object]) -> None:
        """A span between two times of the monotonic clock."""
        if self._zero is not None:
            self.spans.append(Span(kind, began - self._zero, ended - began, dict(facts)))


def _process_began() -> float:
    """By the monotonic clock, to the tick of the kernel: what Python does before us belongs to the command as well."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age


trace = Trace()


def write(path: Path, spans: Iterable[Span]) -> None:
    """The trace in the Trace Event Format. Raises OSError."""
    path.write_text(json.dumps({"traceEvents": list(events(spans)), "displayTimeUnit": "ms"}, indent=1) + "\n")


def events(spans: Iterable[Span]) -> Iterator[dict[str, Any]]:
    """One process per host, and in it as many threads as were busy at once."""
    hosts: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: (span.began, -span.took)):
        hosts.setdefault(span.host, []).append(span)
    for number, (host, its) in enumerate(hosts.items(), start=1):
        yield {"ph": "M", "name": "process_name", "pid": number, "tid": 0, "args": {"name": host}}
        for lane, span in lanes(its):
            yield {
                "ph": "X",
                "name": span.name,
                "cat": span.kind,
                "pid": number,
                "tid": lane,
                "ts": round(span.began * 1e6),
                "dur": round(span.took * 1e6),
                "args": {word: str(fact) for word, fact in span.facts.items()},
            }


def lanes(spans: Iterable[Span]) -> Iterator[tuple[int, Span]]:
    """Each with a lane in which nothing else is at that time; `spans` by their beginning."""
    ends: list[float] = []
    for span in spans:
        lane = next((lane for lane, end in enumerate(ends) if end <= span.began), len(ends))
        ends[lane : lane + 1] = [span.began + span.took]
        yield lane, span
