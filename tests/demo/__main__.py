"""The main job for real: a running guest with local disks moves, and its disks follow as they are read.

python3 tasks.py demo
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from images.build import KERNEL_WORDS
from images.console import LoadLine
from qemu_esd.units import MIB, human_bytes
from tests.demo import load
from tests.demo.load import VM
from tests.demo.stage import BrokenPromiseError, Stage, run

SYSTEM, DATA = "/srv/system.img", "/srv/data.qcow2"


def story(stage: Stage) -> None:
    start_guest(stage)
    migrate(stage)
    read_something(stage)
    settle(stage)
    # It has no program that hears the power button.
    stage.show("vm", "stop", "--force", VM)


def start_guest(stage: Stage) -> None:
    stage.chapter("Two hosts on this machine, each with its own network, files and sshd")
    stage.show("lab", "up")
    source, target = (Path(host["srv"]) for host in stage.ask_json("lab", "status")["hosts"])
    load.make_disks(source)
    load.put_kernel(source, target)

    stage.chapter(f"{VM} runs on hostA: a raw disk, a qcow2 disk with a backing file, a load that writes and verifies")
    # 256 MiB and 8 KiB: with a multiple of 256 KiB QEMU 7.2 under TCG can lose memory writes while it migrates.
    boot = ("--memory", "262152k", "--kernel", "/srv/kernel", "--initrd", "/srv/initrd")
    disks = ("--disk", SYSTEM, "--disk", DATA)
    append = f"{KERNEL_WORDS} {load.LOAD}"
    stage.show("vm", "run", VM, "--host", "hostA", *disks, *boot, "--append", append)
    load.wait_for(stage, "the start of the load", lambda said: next((at for at in said if at.word == "ready"), None))
    no_error(stage, load.worked(stage, 300))


def migrate(stage: Stage) -> None:
    stage.chapter("It moves to hostB, and its data stays behind until somebody reads it")
    stage.show("migrate", VM, "hostB", "--policy", "on-demand")
    guest = now(stage)
    stage.promise(f"{VM} runs on hostB", guest["host"] == "hostB", guest)
    stage.promise("its disks still need hostA", all(disk["needs_source"] for disk in guest["disks"]), guest)
    stage.promise("no QEMU is left on hostA", not qemus(stage, "hostA"), qemus(stage, "hostA"))
    no_error(stage, load.worked(stage, 200))


def read_something(stage: Stage) -> None:
    stage.chapter("What is where: right after the move, and after the guest has read 96 MiB of each disk")
    stage.show("map", VM)
    before = local_bytes(stage)
    for disk in ("vda", "vdb"):
        answer = load.tell("hostB", f"read {disk} 128M 96M")
        read = (answer.number("errno"), answer.number("bad")) == (0, 0)
        stage.promise(f"{disk}: 96 MiB read and verified", read, dict(answer.values))
    stage.show("map", VM)
    after = local_bytes(stage)
    for disk, local in after.items():
        grown = local - before[disk]
        stage.promise(f"{disk}: {human_bytes(grown)} more are on hostB", grown >= MIB, (before, after))


def settle(stage: Stage) -> None:
    stage.chapter("The rest is brought over, proven to be there, and the link to hostA is cut")
    stage.show("settle", VM)
    guest = now(stage)
    stage.promise("no disk needs hostA", not any(disk["needs_source"] for disk in guest["disks"]), guest)
    stage.promise("nothing is remote", not any(disk["remote_bytes"] for disk in guest["disks"]), guest)
    stage.chapter("hostA forgets the guest")
    stage.show("release", VM)
    stage.show("status", VM)
    checked = load.tell("hostB", "recheck 2000")
    found = f"{checked.number('ok')} blocks read back, {checked.number('bad')} wrong, {checked.number('err')} failed"
    stage.promise(found, (checked.number("bad"), checked.number("err")) == (0, 0))
    no_error(stage, load.worked(stage, 200))


def no_error(stage: Stage, report: LoadLine) -> None:
    told = f"{report.number('ops')} operations, longest {report.number('stall')} ms"
    clean = [report.number(key) for key in ("err", "bad", "absent")] == [0, 0, 0]
    stage.promise(f"the load saw no error: {told}, 0 failed, 0 wrong", clean, dict(report.values))


def now(stage: Stage) -> dict[str, Any]:
    guest: dict[str, Any] = stage.ask_json("status", VM)["vms"][0]
    return guest


def local_bytes(stage: Stage) -> dict[str, int]:
    """By disk, how much of its data is where the guest is."""
    guest = now(stage)
    known = {disk["disk"]: disk["local_bytes"] for disk in guest["disks"]}
    if None in known.values():
        raise BrokenPromiseError(f"where the data is cannot be told: {guest}")
    return known


def qemus(stage: Stage, host: str) -> list[str]:
    told = stage.ask("lab", "exec", host, "--", "ps", "-e", "-o", "comm=")
    return [name for name in told.split() if name.startswith("qemu-system")]


if __name__ == "__main__":
    sys.exit(run(story))
