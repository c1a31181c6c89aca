"""A story is a command line that somebody really wrote, and what must become of it on another host."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qemu_esd.hypervisors.cmdline.carried import DiskSwap, Place, Target
from qemu_esd.hypervisors.cmdline.carry import carry
from qemu_esd.hypervisors.cmdline.facts import CommandLine
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.hypervisors.cmdline.sockets import Console, QmpSocket

CONSOLE = Console("esd-console", "/run/qemu-esd/g/console.sock", "/run/qemu-esd/g/console.log")
CONTROL = QmpSocket("esd-control", "/run/qemu-esd/g/control.sock")


def run(story: dict[str, Any]) -> dict[str, Any]:
    """What becomes of a story, in the form of its `expected`."""
    line = read(story["argv"], story.get("cwd"))
    carried = carry(line, [swap_of(swap) for swap in story["swaps"]], target_of(story))
    return {
        "facts": facts_of(line),
        "argv": list(carried.argv),
        "problems": list(carried.problems),
        "remarks": list(carried.remarks),
        "files": [[path.kind, path.path, path.option] for path in carried.files],
    }


def swap_of(swap: dict[str, Any]) -> DiskSwap:
    place = Place(**swap["place"]) if "place" in swap else None
    return DiskSwap(**{**swap, "nodes": tuple(swap["nodes"]), "place": place})


def target_of(story: dict[str, Any]) -> Target:
    given = dict(story.get("target", {}))
    shared, extra = frozenset(given.pop("shared", ())), tuple(given.pop("extra", ()))
    return Target(story["machine"], (CONTROL,), CONSOLE, shared=shared, extra=extra, **given)


def facts_of(line: CommandLine) -> dict[str, Any]:
    plain = ("binary", "name", "uuid", "machine_type", "accel", "memory", "cpus", "cpu")
    return {
        **{key: getattr(line, key) for key in plain},
        "monitors": [list(asdict(monitor).values()) for monitor in line.monitors],
        "blocks": [
            {
                "names": sorted(use.names),
                "device": use.device.driver if use.device else None,
                "at": [use.drive.interface, use.drive.bus, use.drive.unit] if use.drive else None,
                "path": use.path,
                "read_only": use.read_only,
                "write_cache": use.drive.write_cache if use.drive else None,
            }
            for use in line.blocks
        ],
    }
