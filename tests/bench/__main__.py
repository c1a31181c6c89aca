"""python -m tests.bench [NAME ...] [--quick] [--runs N] [--disk SIZE[:DATA]]... [--rate RATE] [--compare FILE]

Prints a Markdown table; writes table, JSON and pictures into bench-results/, with --keep into docs/figures/ too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from qemu_esd.errors import EsdError, RefusedError, UsageError
from qemu_esd.units import parse_rate
from tests.bench import (
    degradation,
    domains,
    downtime,
    handover,
    hop,
    hot,
    many,
    plot,
    settle,
    start_up,
    steps,
    switchover,
    table,
    way_home,
)
from tests.bench.bench import Bench, Settings
from tests.bench.outcome import Results, from_plain, to_plain
from tests.bench.reads import amplification, links, local, remote

ROOT = Path(__file__).resolve().parents[2]
RESULTS, FIGURES = ROOT / "bench-results", ROOT / "docs" / "figures"
MODULES = (
    switchover,
    steps,
    downtime,
    handover,
    settle,
    way_home,
    degradation,
    hot,
    remote,
    local,
    amplification,
    links,
    hop,
    many,
    domains,
    start_up,
)
BENCHES = {module.BENCH.name: module.BENCH for module in MODULES}


def main() -> int:
    words = _words()
    for name in sorted(set(words.name) - set(BENCHES)):
        raise UsageError(f"there is no benchmark {name!r}", hint=f"there is {', '.join(BENCHES)}")
    if os.geteuid() != 0:
        raise RefusedError("a benchmark needs a lab, and a lab needs root", hint="python3 tasks.py bench")
    earlier = from_plain(json.loads(words.compare.read_text())) if words.compare else None
    done = [_measure(BENCHES[name], _settings(words), earlier, words.keep) for name in words.name or BENCHES]
    return 0 if all(done) else 1


def _measure(bench: Bench, settings: Settings, earlier: Results | None, keep: bool) -> bool:
    """Run one, write it and show it. False: some of it has failed."""
    print(f"{bench.name}: {bench.what}", file=sys.stderr)
    results = asyncio.run(_run(bench, settings))
    folder = _write(bench, results)
    if keep:
        shutil.copytree(folder, FIGURES, dirs_exist_ok=True)
    print(table.markdown(bench, results))
    if earlier and earlier.bench == bench.name:
        print(table.comparison(bench, results, earlier))
    return not any(sample.figures is None and not sample.unfinished for sample in results.samples)


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure, side by side.")
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--runs", type=int, help="how often each migration is made (default 3; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="small disks, once: to see that it works")
    parser.add_argument("--disk", action="append", metavar="SIZE[:DATA]", help="this row instead, as in 1T:256M")
    parser.add_argument("--bound", type=float, default=120.0, help="seconds for one migration (default 120)")
    parser.add_argument("--rate", type=parse_rate, help="limit of the link, each way, as in 1gbit (default: none)")
    parser.add_argument("--compare", type=Path, help="JSON of an earlier run")
    parser.add_argument("--keep", action="store_true", help="also into docs/figures/")
    return parser.parse_args()


def _settings(words: argparse.Namespace) -> Settings:
    runs = words.runs or (1 if words.quick else 3)
    return Settings(runs, words.quick, words.bound, words.rate, tuple(words.disk or ()))


async def _run(bench: Bench, settings: Settings) -> Results:
    task = asyncio.current_task()
    assert task is not None
    # The lab must go also when we are told to end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await bench.run(settings)


def _write(bench: Bench, results: Results) -> Path:
    """A folder of this run: the JSON, the table, the pictures."""
    folder = RESULTS / f"{results.bench}-{results.when.replace(':', '').replace('+0000', 'Z')}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{results.bench}.json").write_text(json.dumps(to_plain(results), indent=1) + "\n")
    (folder / f"{results.bench}.md").write_text(table.markdown(bench, results))
    for measure in bench.measures:
        if measure.drawn:
            (folder / f"{results.bench}-{measure.name}.svg").write_bytes(plot.draw(bench, measure, results))
    if "trace" in results.facts:
        (folder / f"{results.bench}-trace.json").write_text(json.dumps(results.facts["trace"]) + "\n")
    if "series" in results.facts:
        title = f"{bench.measures[0].heading.capitalize()} {bench.measures[0].unit} over time"
        (folder / f"{results.bench}-curve.svg").write_bytes(plot.curve(results, title))
    print(f"written to {folder.relative_to(ROOT)}/", file=sys.stderr)
    return folder


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EsdError as error:
        print(f"error: {error}\n  try: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
