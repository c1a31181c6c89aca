"""The main job for real: a running guest with local disks moves, and its disks follow as they are read.

python3 tasks.py demo
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from images.console import LoadLine
from qemu_esd.journal import store
from qemu_esd.model.record import Measured
from qemu_esd.units import human_bytes
from tests.demo import load
from tests.demo.load import VM
from tests.demo.stage import Stage, run

SYSTEM, DATA = "/srv/system.img", "/srv/data.qcow2"


def story(stage: Stage) -> None:
    start_guest(stage)
    migrate(stage)
    read_something(stage)
    settle(stage)
    stage.show("vm", "stop", VM)


def start_guest(stage: Stage) -> None:
    stage.chapter("Two hosts on this machine, each with its own network, files and sshd")
    stage.show("lab", "up")
    source, target = (Path(host["srv"]) for host in stage.ask_json("lab", "status")["hosts"])
    load.make_disks(source)
    load.put_kernel(source, target)

    stage.chapter(
        f"{VM} runs on hostA: a raw disk, a qcow2 disk with a backing file, a load that writes and verifies"
    )
    boot = ("--memory", "256M", "--kernel", "/srv/vmlinuz", "--initrd", "/srv/initrd")
    disks = ("--disk", SYSTEM, "--disk", DATA)
    append = f"console=ttyS0 quiet panic=-1 {load.LOAD}"
    stage.show("vm", "run", VM, "--host", "hostA", *disks, *boot, "--append", append)
    load.wait_for(
        stage, "the start of the load", lambda said: next((at for at in said if at.word == "ready"), None)
    )
    no_error(stage, load.worked(stage, 500))


def migrate(stage: Stage) -> None:
    stage.chapter("It moves to hostB, and its data stays behind until somebody reads it")
    stage.show("migrate", VM, "hostB", "--policy", "on-demand")
    timeline(stage)
    guest = now(stage)
    stage.promise(f"{VM} runs on hostB", guest["host"] == "hostB", guest)
    stage.promise("its disks still need hostA", all(disk["needs_source"] for disk in guest["disks"]), guest)
    stage.promise("no QEMU is left on hostA", not qemus(stage, "hostA"), qemus(stage, "hostA"))
    no_error(stage, load.worked(stage, 200))


def timeline(stage: Stage) -> None:
    """What the migration's own journal has measured."""
    journal = store.read(store.all_ids()[-1])
    ms = {entry.name: entry.ms for entry in journal.entries if isinstance(entry, Measured)}
    stage.say("timeline, ms from the command on")
    for name, key in TIMELINE.items():
        stage.say(f"  {ms[key]:8.0f}  {name}")
    stage.say(f"downtime: {ms['downtime']:.0f} ms without a running guest")


TIMELINE = {
    "prepared: hostB has overlays and an incoming QEMU": "prepared",
    "precopy: the guest's memory is there": "precopy",
    "switchover: the guest runs on hostB": "resumed-after",
    "handed over: the source QEMU has ended": "handed-over",
}


def read_something(stage: Stage) -> None:
    stage.chapter("What is where: right after the move, and after the guest has read 96 MiB of each disk")
    before = residency(stage)
    stage.show("map", VM)
    for disk in ("vda", "vdb"):
        answer = load.tell(stage, f"read {disk} 128M 96M")
        stage.promise(
            f"{disk}: 96 MiB read and verified", (answer.number("errno"), answer.number("bad")) == (0, 0), answer
        )
    stage.show("map", VM)
    after = residency(stage)
    for disk, (local, remote) in after.items():
        grown, shrunk = local - before[disk][0], before[disk][1] - remote
        stage.promise(f"{disk}: {human_bytes(grown)} more are local", grown > 0 and shrunk > 0, (before, after))


def settle(stage: Stage) -> None:
    stage.chapter("The rest is brought over, proven to be there, and the link to hostA is cut")
    stage.show("settle", VM)
    guest = now(stage)
    stage.promise("no disk needs hostA", not any(disk["needs_source"] for disk in guest["disks"]), guest)
    stage.promise("nothing is remote", not any(disk["remote_bytes"] for disk in guest["disks"]), guest)
    stage.chapter("hostA forgets the guest")
    stage.show("release", VM)
    stage.show("status", VM)
    checked = load.tell(stage, "recheck 2000")
    found = (
        f"{checked.number('ok')} blocks read back, {checked.number('bad')} wrong, {checked.number('err')} failed"
    )
    stage.promise(found, (checked.number("bad"), checked.number("err")) == (0, 0))
    no_error(stage, load.worked(stage, 200))


def no_error(stage: Stage, report: LoadLine) -> None:
    told = f"{report.number('ops')} operations, longest {report.number('stall')} ms"
    clean = [report.number(key) for key in ("err", "bad", "absent")] == [0, 0, 0]
    stage.promise(f"the load saw no error: {told}, 0 failed, 0 wrong", clean, dict(report.values))


def now(stage: Stage) -> dict[str, Any]:
    guest: dict[str, Any] = stage.ask_json("status", VM)["vms"][0]
    return guest


def residency(stage: Stage) -> dict[str, tuple[int, int]]:
    """Per disk: bytes that are local, bytes that are remote."""
    return {disk["disk"]: (disk["local_bytes"], disk["remote_bytes"]) for disk in now(stage)["disks"]}


def qemus(stage: Stage, host: str) -> list[str]:
    told = stage.ask("lab", "exec", host, "--", "ps", "-e", "-o", "comm=")
    return [name for name in told.split() if name.startswith("qemu-system")]


if __name__ == "__main__":
    sys.exit(run(story))
