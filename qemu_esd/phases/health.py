"""From what was seen of a host, or of the way between two, to findings. Pure; the words of `doctor` are here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qemu_esd.errors import EsdError
from qemu_esd.hosts.facts import HostFacts
from qemu_esd.hosts.survey import Survey
from qemu_esd.hosts.wire import Closed, Wire
from qemu_esd.hypervisors.equipment import Equipment, newest_common_cpu
from qemu_esd.hypervisors.versions import Program, mended, text
from qemu_esd.journal.store import Story
from qemu_esd.model.device import DeviceRecord
from qemu_esd.model.finding import Finding, Level
from qemu_esd.model.plan import Problem
from qemu_esd.model.record import Begun
from qemu_esd.phases import checks, device_health
from qemu_esd.units import human_bytes, human_seconds

# Beyond that, log lines of two hosts cannot be put in order, and a guest sees time jump.
CLOCK_SECONDS = 1.0
# What is left for overlays below that is little for any guest.
LITTLE_SPACE = 1 << 30


# Findings about this machine as the controller.
HERE = "here"


@dataclass(frozen=True)
class HostView:
    """All that was seen of a host. `qemu` and `equipment` are None where programs are missing; `ended` are units that
    should run and do not."""

    name: str
    facts: HostFacts
    survey: Survey
    ports_in_use: frozenset[int]
    accel: str | None = None
    qemu: Program | None = None
    equipment: Equipment | None = None
    ended: tuple[str, ...] = ()
    begun: tuple[Begun, ...] = ()
    devices: tuple[DeviceRecord, ...] = ()


def unreachable(host: str, error: EsdError) -> Finding:
    """ssh, or its host key."""
    why = "without ssh nothing can be done on it"
    return Finding(host, "ssh", Level.PROBLEM, error.what, why, error.hint or f"ssh -- {shlex.quote(host)} true")


def of_controller(folder: Path, broken_off: Iterable[Story], damaged: Iterable[EsdError]) -> Iterator[Finding]:
    """This machine as the one that gives the commands: its journals."""
    found = False
    for story in broken_off:
        found = True
        id, what = story.plan.id, f"migration {story.plan.id} of {story.plan.vm} was broken off while {story.state}"
        why = f"what it made is still there, and {story.plan.vm} cannot move again"
        yield Finding(HERE, "leftovers", Level.PROBLEM, what, why, f"qemu-esd resume {id}; or qemu-esd rollback {id}")
    for error in damaged:
        found = True
        why = "what that migration made cannot be undone by itself"
        yield Finding(HERE, "leftovers", Level.PROBLEM, error.what, why, error.hint or "see docs/recovery.md")
    if not found:
        yield Finding(HERE, "journals", Level.GOOD, f"all migrations in {folder} have come to their end")


def of_host(view: HostView, ports: range) -> Iterator[Finding]:
    """Everything about one host, good or not."""
    yield Finding(view.name, "ssh", Level.GOOD, "this machine" if view.name == "local" else "reached, host key known")
    yield from _programs(view)
    if view.qemu and view.equipment:
        yield from _versions(view.name, view.qemu, view.equipment)
        yield from _drivers(view.name, view.equipment)
        yield _tls(view.name, view.qemu)
    yield from _accelerator(view)
    yield from _state_folder(view)
    yield _space(view)
    yield _clock(view)
    yield _ports(view, ports)
    yield from device_health.of_host(view.name, view.devices)
    yield from _leftovers(view)


def _programs(view: HostView) -> Iterator[Finding]:
    needed = (*checks.SOURCE_NEEDS, *(name for name in checks.TARGET_NEEDS if name not in checks.SOURCE_NEEDS))
    found = [
        _from(problem, "programs", _WHY_PROGRAMS) for problem in checks.programs(view.name, needed, view.facts.programs)
    ]
    yield from found or [Finding(view.name, "programs", Level.GOOD, "all that is needed is there")]


_WHY_PROGRAMS = "the path handler, guests and what watches over them are made of these"


def _from(problem: Problem, check: str, why: str) -> Finding:
    return Finding(problem.host, check, Level.PROBLEM, problem.what, why, problem.hint)


def _versions(host: str, qemu: Program, equipment: Equipment) -> Iterator[Finding]:
    what = f"QEMU {text(qemu.version)}, storage daemon {text(equipment.daemon)}"
    if qemu.version[:2] != equipment.daemon[:2]:
        why = "what one of them says of an image the other may not understand"
        yield Finding(
            host, "versions", Level.NOTE, what, why, "apt-get install --only-upgrade qemu-system-x86 qemu-utils"
        )
    elif not mended(qemu.version).iothreads:
        why = "below 9.0 guests with iothreads are refused, and TCG can lose memory writes in a migration"
        yield Finding(host, "versions", Level.NOTE, what, why, "upgrade QEMU, or give disks no iothread=")
    else:
        yield Finding(host, "versions", Level.GOOD, what)


def _drivers(host: str, equipment: Equipment) -> Iterator[Finding]:
    lacks = {"QEMU": equipment.qemu_lacks, "the storage daemon": equipment.daemon_lacks}
    for program, missing in lacks.items():
        if missing:
            why = "disks of a guest that moves are made of these drivers"
            what = f"{program} has no driver {', '.join(missing)}"
            yield Finding(host, "drivers", Level.PROBLEM, what, why, f"install a QEMU that has them: {checks.APT}")
    if not any(lacks.values()):
        yield Finding(host, "drivers", Level.GOOD, "qcow2, nbd, copy-on-read, blkdebug, null-co")


def _tls(host: str, qemu: Program) -> Finding:
    if qemu.tls:
        return Finding(host, "tls", Level.GOOD, "QEMU has TLS")
    why = "memory and disks would cross the network unencrypted"
    return Finding(
        host, "tls", Level.PROBLEM, "its QEMU has no TLS", why, "install Debian's QEMU, or use --transport ssh"
    )


def _accelerator(view: HostView) -> Iterator[Finding]:
    if view.accel == "kvm":
        yield Finding(view.name, "kvm", Level.GOOD, "a guest really runs with KVM")
    elif view.accel is not None:
        what = "there is a /dev/kvm, but no guest comes up with it" if view.survey.kvm_node else "there is no /dev/kvm"
        hint = "switch virtualization on in the firmware (or for this VM, where it is one); then: modprobe kvm"
        yield Finding(view.name, "kvm", Level.NOTE, what, "guests are emulated (TCG), many times slower", hint)


def _state_folder(view: HostView) -> Iterator[Finding]:
    survey, folder = view.survey, view.facts.paths.state
    why = "records, keys and overlays are kept there, for nobody else to read"
    if not survey.writable:
        yield Finding(view.name, "state", Level.PROBLEM, f"nothing can be written below {folder}", why, _own(folder))
    elif survey.owner not in (None, survey.uid):
        what = f"{folder} belongs to user {survey.owner}"
        yield Finding(view.name, "state", Level.PROBLEM, what, why, _own(folder))
    elif survey.mode is not None and survey.mode[-2:] != "00":
        what = f"{folder} is open to others (mode {survey.mode})"
        yield Finding(view.name, "state", Level.PROBLEM, what, why, f"chmod 700 {shlex.quote(folder)}")
    else:
        yield Finding(
            view.name, "state", Level.GOOD, f"{folder} is ours alone" if survey.mode else f"{folder} can be made"
        )


def _own(folder: str) -> str:
    return f"chown -R $USER {shlex.quote(folder)}"


def _space(view: HostView) -> Finding:
    folder, free = f"{view.facts.paths.state}/disks", view.survey.free
    what = f"{human_bytes(free)} free for overlays in {folder}"
    if free >= LITTLE_SPACE:
        return Finding(view.name, "space", Level.GOOD, what)
    level = Level.NOTE if free >= checks.FLOOR else Level.PROBLEM
    why = "a guest whose disk grows into a full file system is paused"
    return Finding(view.name, "space", level, what, why, "make room, or name another folder with --overlay-dir")


def _clock(view: HostView) -> Finding:
    ahead, error = view.survey.clock_ahead, view.survey.clock_error
    if abs(ahead) - error <= CLOCK_SECONDS:
        return Finding(view.name, "clock", Level.GOOD, f"within {human_seconds(abs(ahead) + error)} of this machine's")
    what = f"its clock is {human_seconds(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine's"
    why = "the guest's clock may jump, and logs of two hosts cannot be put in order"
    return Finding(
        view.name, "clock", Level.NOTE, what, why, "timedatectl set-ntp true (with systemd-timesyncd or chrony)"
    )


def _ports(view: HostView, ports: range) -> Finding:
    free = len(ports) - len(view.ports_in_use & set(ports))
    what = f"{free} of the {len(ports)} ports {ports.start}-{ports.stop - 1} are free"
    if free > 0:
        return Finding(view.name, "ports", Level.GOOD, what)
    why = "a migration takes one on each host"
    return Finding(view.name, "ports", Level.PROBLEM, what, why, "see who listens: ss -tlnp; or --ports FIRST-LAST")


def _leftovers(view: HostView) -> Iterator[Finding]:
    found = False
    for unit in view.ended:
        found = True
        what, hint = f"the unit {unit} should run and does not", f"qemu-esd host restore {shlex.quote(view.name)}"
        yield Finding(view.name, "leftovers", Level.PROBLEM, what, "a guest elsewhere may wait for its data", hint)
    for begun in view.begun:
        found = True
        id, vm = begun.plan.id, begun.plan.vm
        what = (
            f"migration {id} of {vm} to {begun.plan.target.host} has not come to its end (begun by {begun.controller})"
        )
        hint = f"if nobody is at work on it: qemu-esd resume {id}; or qemu-esd rollback {id}"
        yield Finding(view.name, "leftovers", Level.PROBLEM, what, f"until then {vm} cannot move again", hint)
    for path in view.survey.torn:
        found = True
        why = "its writing was broken off; the old content counts"
        yield Finding(
            view.name, "leftovers", Level.NOTE, f"there is a part of a file, {path}", why, f"rm {shlex.quote(path)}"
        )
    if not found:
        yield Finding(view.name, "leftovers", Level.GOOD, "nothing was left by a crash")


def of_pair(a: HostView, b: HostView) -> Iterator[Finding]:
    """What two hosts have in common. Hosts without QEMU are told of already."""
    yield from device_health.of_pair(a.name, a.devices, b.name, b.devices)
    if not (a.qemu and b.qemu and a.equipment and b.equipment):
        return
    where = f"{a.name} - {b.name}"
    kinds = {kind for kind in a.qemu.machine_types & b.qemu.machine_types if kind.startswith("pc-q35-")}
    if kinds:
        newest = max(kinds, key=_age)
        yield Finding(where, "machine", Level.GOOD, f"both know machine types up to {newest}")
    else:
        why = "a guest can move only where its machine type is known"
        yield Finding(where, "machine", Level.PROBLEM, "no machine type in common", why, "upgrade the older QEMU")
    yield _cpu(where, a, b)


def _age(kind: str) -> tuple[int, ...]:
    return tuple(int(part) for part in kind.removeprefix("pc-q35-").split(".") if part.isdecimal())


def _cpu(where: str, a: HostView, b: HostView) -> Finding:
    assert a.equipment and b.equipment
    if a.accel != b.accel:
        what, why = f"{a.name} runs guests with {a.accel}, {b.name} with {b.accel}", "a guest would find another CPU"
        return Finding(where, "cpu", Level.NOTE, what, why, "see kvm above; move between hosts that are alike")
    model = newest_common_cpu(a.equipment.cpus, b.equipment.cpus)
    if model is None:
        why = "a guest's CPU must have on both what the guest has found on one"
        return Finding(
            where, "cpu", Level.NOTE, "no named CPU model runs on both", why, "see: qemu-system-x86_64 -cpu help"
        )
    return Finding(where, "cpu", Level.GOOD, f"the newest CPU model that both run is {model}: -cpu {model}")


def of_way(sender: str, receiver: str, port: int, wire: Wire | Closed) -> Finding:
    """The way that data takes from one host to another."""
    where = f"{sender} -> {receiver}"
    if isinstance(wire, Closed):
        why = "memory and disks go from host to host, by TCP"
        hint = f"open the ports in the firewall of {sender} for {receiver}, or use --transport ssh"
        return Finding(
            where, "link", Level.PROBLEM, f"port {port} of {sender} cannot be reached: {wire.why}", why, hint
        )
    return Finding(
        where, "link", Level.GOOD, f"{human_bytes(wire.rate)}/s, {wire.round_trip * 1000:.2f} ms there and back"
    )


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among them."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.GOOD)
