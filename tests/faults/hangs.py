"""What can fall silent without ending: a cable, a process. Silenced at once, it speaks again when it is told to."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from qemu_esd.hosts.lab.net import bridge_name, run_ip
from qemu_esd.hosts.lab.process import Process as LabProcess
from qemu_esd.hosts.lab.state import lab_root, load
from tests.integration.support.fleet import Fleet
from tests.integration.support.machine import Machine, kill


@dataclass(frozen=True)
class Silence:
    """Something silent; `end` lets it speak again, and may be called twice."""

    end: Callable[[], None]


def stop(pids: Iterable[int]) -> Silence:
    """Processes that do not run, and do not end: their peers see open connections."""
    stopped = tuple(pids)
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid in stopped:
            kill(pid, signal.SIGCONT)

    return Silence(go_on)


def _switch() -> LabProcess:
    lab = load(lab_root())
    assert lab is not None
    assert lab.switch is not None
    return lab.switch


def cut(device: str) -> Silence:
    """A device of the lab's switch swallows everything: neither end is told."""
    run_ip(_switch(), [f"link set dev {device} down"])
    return Silence(lambda: run_ip(_switch(), [f"link set dev {device} up"]))


def cut_between(one: Machine, other: Machine) -> Silence:
    return cut(bridge_name(one.lab, other.lab))


def cut_from_us(machine: Machine) -> Silence:
    """The way from the controller to a host."""
    return cut(f"c{machine.lab.number}")


def sshd_of(machine: Machine) -> Silence:
    """All that sshd does there, for connections that stand and for new ones."""
    return stop(process.pid for process in machine.everything() if "sshd" in process.argv[0])


SILENCES: dict[str, Callable[[Fleet], Silence]] = {
    "link between the hosts cut": lambda fleet: cut_between(fleet.a, fleet.b),
    "link to the source cut": lambda fleet: cut_from_us(fleet.a),
    "link to the target cut": lambda fleet: cut_from_us(fleet.b),
    "SIGSTOP source QEMU": lambda fleet: stop(process.pid for process in fleet.a.qemus("vm1")),
    "SIGSTOP target QEMU": lambda fleet: stop(process.pid for process in fleet.b.qemus("vm1")),
    "SIGSTOP path handler": lambda fleet: stop(process.pid for process in fleet.a.path_handlers()),
    "SIGSTOP target's sshd": lambda fleet: sshd_of(fleet.b),
}


def end_all(silences: Iterable[Silence]) -> None:
    for silence in silences:
        with suppress(ProcessLookupError):
            silence.end()
