"""What stands in the way of a migration. Pure: from what was seen on both hosts to a list of problems, all at once."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from qemu_esd.graph import names
from qemu_esd.hypervisors.cmdline.reader import read
from qemu_esd.hypervisors.versions import Program, Version, mended, text
from qemu_esd.model.disk import Image
from qemu_esd.model.plan import Problem, Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from qemu_esd.model.vm import LET_RUN, Kind
from qemu_esd.phases.look import SourceView, TargetView
from qemu_esd.qmp.migrate import BUSY

APT = "apt-get install qemu-system-x86 qemu-utils qemu-system-common iproute2 perl-base"
SOURCE_NEEDS = ("qemu-storage-daemon", "setsid", "ip", "ss", "perl")
TARGET_NEEDS = ("qemu-system-x86_64", "qemu-img", "setsid", "ip", "ss", "timeout", "perl")
# CPU models that are another CPU elsewhere; under TCG only with another QEMU.
PASSED_THROUGH = ("host", "max")
# TCG's dirty bitmap has one bit for 4 KiB: of this size, and its multiples, it is a number of whole words.
TCG_BITMAP_BYTES = 256 << 10
# Room for metadata and for the first writes, whatever the handler.
FLOOR = 64 << 20


def find_problems(request: Request, source: SourceView, target: TargetView, free: int) -> tuple[Problem, ...]:
    """Every problem found. `free` is the free space for overlays on the target, in bytes."""
    host = source.guest.host
    return (
        *programs(host, SOURCE_NEEDS, source.facts.programs),
        *programs(request.target, TARGET_NEEDS, target.facts.programs),
        *_guest_state(source),
        *_disks(source),
        *_same_name(request, target),
        *_machine_type(request, source, target.qemu),
        *_iothreads(request, source, target.qemu),
        *_transport(request, source, target),
        *_space(request, source, free),
        *_places_for_writes(request),
    )


def remarks(source: SourceView, qemu: Program | None) -> Iterator[str]:
    """What does not stand in the way, and should be known beforehand. `qemu` is the target's."""
    guest, line = source.guest, read(source.guest.process.argv)
    tcg = "tcg" in (line.accel or "tcg")
    model = (line.cpu or "").split(",")[0]
    if model in PASSED_THROUGH and not (tcg and qemu is not None and qemu.version == guest.version):
        yield (
            f"-cpu {model} is whatever the host and its QEMU have: what the guest uses of it and the target lacks can "
            f"crash the guest; a named model avoids it"
        )
    if tcg and not mended(guest.version).tcg_memory and guest.memory % TCG_BITMAP_BYTES == 0:
        yield (
            f"QEMU {text(guest.version)} under TCG can lose memory writes in a live migration (mended in "
            f"9.0; KVM is not affected); a memory size that is no multiple of 256 KiB avoids it"
        )


def programs(host: str, needed: Iterable[str], present: frozenset[str]) -> Iterator[Problem]:
    """What of it a host lacks."""
    missing = [name for name in needed if name not in present]
    if missing:
        yield Problem(host, f"there is no {' and no '.join(missing)}", f"on it: {APT}")


def _guest_state(source: SourceView) -> Iterator[Problem]:
    guest = source.guest
    if source.begun:
        # Explains whatever state its QEMU is in.
        yield from _broken_off(source)
    elif source.migration in BUSY:
        yield Problem(guest.host, f"{guest.name} is being migrated already", "wait for it, or see: qemu-esd status")
    elif source.run_state != "running":
        hint = f"let it run first: {LET_RUN[guest.kind]} {shlex.quote(guest.name)}"
        yield Problem(guest.host, f"{guest.name} does not run, it is {source.run_state}", hint)
    own = {names.move_job(disk.suid) for disk in guest.disks}
    for job in source.jobs:
        if job not in own:
            yield Problem(guest.host, f"the block job {job} works on {guest.name}", "wait for it, or cancel it")
    if any(not names.is_ours(id) for id in source.exports):
        yield Problem(guest.host, f"the NBD server of {guest.name} is in use", "end what uses it: nbd-server-stop")


def _broken_off(source: SourceView) -> Iterator[Problem]:
    for begun in source.begun:
        id, target = begun.plan.id, begun.plan.target.host
        what = (
            f"migration {id} of {begun.plan.vm} to {target} has not come to its end; {begun.controller} has its journal"
        )
        yield Problem(source.guest.host, what, f"there: qemu-esd resume {id}")


def _disks(source: SourceView) -> Iterator[Problem]:
    host = source.guest.host
    for path in source.missing_images:
        yield Problem(host, f"the image {path} is gone", "was it renamed? put it back while the guest still runs")
    for disk in source.guest.disks:
        if disk.corrupt:
            yield Problem(
                host, f"the image of {disk.id} is marked corrupt", "mend it with qemu-img check -r, guest off"
            )
        if disk.driver == "nvme":
            yield Problem(host, f"{disk.id} is an NVMe disk, which QEMU cannot migrate", "use bus=virtio or bus=scsi")
    suids = [disk.suid for disk in source.guest.disks]
    for suid in sorted({suid for suid in suids if suids.count(suid) > 1}):
        yield Problem(host, f"two disks have the same serial {suid}", "give each disk a serial of its own")
    if not source.guest.disks:
        yield Problem(host, f"{source.guest.name} has no local disk", "it can be migrated without us")


def _same_name(request: Request, target: TargetView) -> Iterator[Problem]:
    if target.process is not None:
        what = f"a guest called {request.vm} runs there already (pid {target.process.pid})"
        yield Problem(request.target, what, "stop it, or migrate to another host")


def _machine_type(request: Request, source: SourceView, qemu: Program | None) -> Iterator[Problem]:
    if qemu is not None and source.guest.machine_type not in qemu.machine_types:
        what = f"its QEMU does not know the machine type {source.guest.machine_type}"
        yield Problem(request.target, what, "upgrade QEMU there: it is older than the source's")


def _iothreads(request: Request, source: SourceView, qemu: Program | None) -> Iterator[Problem]:
    """A QEMU that aborts takes the guest with it, on the source when a migration is undone."""
    if not source.iothreads:
        return
    guest = source.guest
    if not mended(guest.version).iothreads:
        yield Problem(guest.host, _aborts(guest.version), f"start {guest.name} without iothread=, or with a newer QEMU")
    elif qemu is not None and not mended(qemu.version).iothreads:
        yield Problem(request.target, _aborts(qemu.version), "upgrade QEMU there")


def _aborts(version: Version) -> str:
    return f"QEMU {text(version)} can abort when a disk with an iothread is moved (mended in 9.0)"


def _transport(request: Request, source: SourceView, target: TargetView) -> Iterator[Problem]:
    if request.transport is Transport.TLS:
        for host, able in (
            (source.guest.host, source.tls),
            (request.target, target.qemu is not None and target.qemu.tls),
        ):
            if not able and target.qemu is not None:
                yield Problem(host, "its QEMU has no TLS", "install Debian's QEMU, or use --transport ssh")
    if request.transport is Transport.SSH and "ssh" not in target.facts.programs:
        yield Problem(request.target, "there is no ssh", "on it: apt-get install openssh-client")


def _space(request: Request, source: SourceView, free: int) -> Iterator[Problem]:
    if not request.local_space:
        return
    need = sum(growth(request.handler_of(disk), disk.data) for disk in source.guest.disks)
    if free < need:
        what = f"{need >> 20} MiB of space are needed and {free >> 20} MiB are free"
        yield Problem(request.target, what, _MORE_SPACE[source.guest.kind])


_MORE_SPACE = {
    Kind.BARE: "make room, name another folder with --overlay-dir, or --no-local-space",
    Kind.DOMAIN: "make room, or name another folder with --overlay-dir",
}


def growth(handler: Handler, data: int) -> int:
    """What a member on the target can grow to by moving data, in bytes. Later writes of the guest come on top."""
    return FLOOR + (data if handler.keeps_reads else 0)


def _places_for_writes(request: Request) -> Iterator[Problem]:
    if not request.local_space and request.handler is not Handler.REDIRECT:
        what = f"--no-local-space leaves no room for what {request.handler} keeps"
        yield Problem(request.target, what, "use it with --policy redirect")


def inside(folder: str) -> str:
    """A name that is there only if `folder` is one."""
    return f"{folder}/."


def missing_folder(request: Request, present: frozenset[str]) -> Iterator[Problem]:
    """The user's own folder for overlays has to be there: a slip of the pen must not fill another file system."""
    folder = request.overlay_folder
    if request.local_space and folder is not None and inside(folder) not in present:
        yield Problem(request.target, f"there is no folder {folder}", f"on it: mkdir -p {shlex.quote(folder)}")


def existing_overlays(members: Iterable[Image | None], present: frozenset[str], host: str) -> tuple[Problem, ...]:
    """An overlay file of that name is somebody else's."""
    return tuple(
        Problem(host, f"the file {member.path} is there already", "move it away, or name another --overlay-dir")
        for member in members
        if member is not None and member.path in present
    )
