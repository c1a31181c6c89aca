"""Bare guests: start one on a host, let it stop, read what its console said."""

from __future__ import annotations

import posixpath
import shlex
import uuid
from collections.abc import Iterable
from dataclasses import replace

from qemu_esd.errors import CommandFailedError, QemuGoneError, RefusedError, TimedOutError, UsageError
from qemu_esd.hosts import accel, facts, files, qemu_img, service
from qemu_esd.hosts.base import Host
from qemu_esd.hosts.connect import Hosts
from qemu_esd.hypervisors import bare, processes, records, versions
from qemu_esd.hypervisors.cmdline.build import bare_argv
from qemu_esd.hypervisors.cmdline.disk_spec import GuestDisk
from qemu_esd.hypervisors.cmdline.sockets import Console, QmpSocket
from qemu_esd.hypervisors.cmdline.spec import GuestSpec
from qemu_esd.journal import registry, shelf
from qemu_esd.model.host import HostPaths, guest_sockets
from qemu_esd.model.record import GuestRecord, State
from qemu_esd.model.suid import suid_of
from qemu_esd.model.vm import Kind, QemuProcess
from qemu_esd.phases import places, restart
from qemu_esd.qmp import machine
from qemu_esd.qmp.session import open_session

STOP_SECONDS = 60.0


async def run(hosts: Hosts, spec: GuestSpec, host_name: str) -> None:
    """Start a guest that survives our exit. Raises RefusedError before anything is touched, or what QEMU says."""
    spec = with_absolute_paths(spec, host_name)
    host = await hosts.get(host_name)
    here = await facts.look(host)
    await _check_free(host, here.paths, spec.name)
    for disk in spec.disks:
        await _check_image(host, disk)
    spec = _identified(spec)
    await _start(host, here.paths, spec, await accel.choose(host, here.paths))
    registry.remember(spec.name, host_name)


def with_absolute_paths(spec: GuestSpec, host_name: str) -> GuestSpec:
    """The spec with whole paths, which mean the same in any folder. Raises UsageError where only the user knows."""

    def absolute(path: str) -> str:
        if host_name != "local" and not path.startswith("/"):
            raise UsageError(f"{path!r} is not a whole path", hint=f"write it as it is on {host_name}, from / on")
        return posixpath.abspath(path)

    disks = tuple(replace(disk, path=absolute(disk.path)) for disk in spec.disks)
    kernel, initrd, firmware = (path and absolute(path) for path in (spec.kernel, spec.initrd, spec.firmware))
    return replace(spec, disks=disks, kernel=kernel, initrd=initrd, firmware=firmware)


async def _check_free(host: Host, paths: HostPaths, name: str) -> None:
    running = await processes.find(host, name)
    if running is not None:
        what = f"a guest called {name} runs there (pid {running.pid})"
        raise RefusedError(what, host=host.name, hint="choose another name")
    record = await records.guest(host, paths, name)
    if record is not None and record.moved_to is not None:
        vm = shlex.quote(name)
        hint = f"bring it back: qemu-esd migrate {vm} {host.name}; or forget it: qemu-esd vm forget {vm}"
        raise RefusedError(f"{name} has moved to {record.moved_to}", host=host.name, hint=hint)


def _check_given_up(name: str) -> None:
    """Half given up, it must not be started with the disks of either side."""
    story = shelf.newest_of(name)
    if story is not None and story.state is State.DISCARDING:
        what = f"{name} is being started on {story.plan.source.host} again"
        raise RefusedError(what, hint=f"qemu-esd resume {story.plan.id}")


async def _check_image(host: Host, disk: GuestDisk) -> None:
    """The image is there and of the format that was said."""
    if not await files.existing(host, disk.path):
        raise RefusedError(f"there is no image {disk.path}", host=host.name, hint=await _why_gone(host, disk.path))
    try:
        await qemu_img.virtual_size(host, disk.path, disk.format)
    except CommandFailedError as error:
        raise RefusedError(
            f"{disk.path} is not a {disk.format} image that can be opened",
            host=host.name,
            hint="name its format: --disk FILE,format=raw or format=qcow2",
        ) from error


async def _why_gone(host: Host, path: str) -> str:
    folder, name = posixpath.split(path)
    aside = [other for other in await files.listing(host, folder) if other.startswith(f"{name}.moved-")]
    return f"its guest has moved away and left {aside[0]}" if aside else "give the path as it is on that host"


def _identified(spec: GuestSpec) -> GuestSpec:
    """Every disk gets a serial that is its SUID, so that the guest sees the same identity on every host."""
    disks = tuple(replace(disk, serial=disk.serial or suid_of(spec.name, disk.id, wwn=disk.wwn)) for disk in spec.disks)
    return replace(spec, disks=disks, uuid=spec.uuid or str(uuid.uuid4()))


async def _start(host: Host, paths: HostPaths, spec: GuestSpec, accelerator: str) -> None:
    sockets, unit = guest_sockets(paths, spec.name), places.guest_unit_name(spec.name)
    monitors = (
        QmpSocket("esd-control", sockets.control),
        QmpSocket("esd-observe", sockets.observe),
        QmpSocket("esd-user", sockets.user),
    )
    argv = bare_argv(
        spec,
        binary=versions.BINARY,
        machine_type=spec.machine or await versions.newest_q35(host),
        accel=accelerator,
        monitors=monitors,
        console=Console("esd-console", sockets.console, paths.console_log(spec.name, 0)),
    )
    await files.make_folders(host, paths.vm_state(spec.name), paths.vm_run(spec.name))
    # Its disks are described by QEMU itself as long as nothing of them is elsewhere.
    await records.write_guest(host, paths, GuestRecord(spec.name, spec.uuid or "", 0, (), argv=argv))
    try:
        await restart.start_qemu(host, spec.name, service.Service(unit, paths.unit(unit), argv), sockets.control)
    except BaseException:
        await _clear(host, paths, spec.name)
        raise


async def _clear(host: Host, paths: HostPaths, name: str) -> None:
    """Nothing is left of a guest: neither process nor folders nor record. Its images are the user's."""
    unit = places.guest_unit_name(name)
    await service.stop(host, paths.unit(unit), unit)
    await files.remove_tree(host, paths.vm_run(name))
    await files.remove_tree(host, paths.vm_state(name))


async def start(hosts: Hosts, name: str, host_name: str) -> None:
    """Start a guest of ours whose QEMU has ended, from its disks, wherever their data is.

    Raises RefusedError: it runs, it has moved, an image of it is gone; or what QEMU says.
    """
    host = await hosts.get(host_name)
    paths = (await facts.look(host)).paths
    await _check_free(host, paths, name)
    _check_given_up(name)
    record = await records.guest(host, paths, name)
    if record is None:
        raise RefusedError(f"there is no guest {name}", host=host_name, hint="see: qemu-esd status")
    if record.kind is Kind.DOMAIN:
        raise RefusedError(f"{name} is a domain of libvirt", host=host_name, hint=f"virsh start {shlex.quote(name)}")
    await restart.start_again(host, paths, record)
    async with open_session(host, guest_sockets(paths, name).control, name) as qemu:
        await machine.cont(qemu)
    registry.remember(name, host_name)


async def stop(hosts: Hosts, name: str, host_name: str) -> None:
    """Ask the guest to shut down and wait until its QEMU has ended. Its images, record and console log stay."""
    host, paths, process = await _running(hosts, name, host_name)
    async with open_session(host, bare.monitor_of(host_name, process, paths), name) as qemu:
        with qemu.listening("SHUTDOWN") as events:
            await machine.power_down(qemu)
            try:
                await events.wait(lambda _: True, STOP_SECONDS, f"the shutdown of {name}")
            except QemuGoneError:
                pass
            except TimedOutError as error:
                raise TimedOutError(
                    f"the shutdown of {name}",
                    STOP_SECONDS,
                    host=host_name,
                    hint=f"if it ignores the power button: qemu-esd vm stop --force {shlex.quote(name)}",
                ) from error
        await qemu.closed()
    await _tidy(host, paths, name)


async def kill(hosts: Hosts, name: str, host_name: str) -> None:
    """End the guest's QEMU now, as if the power had gone; QEMU itself flushes its images."""
    host, paths, process = await _running(hosts, name, host_name)
    async with open_session(host, bare.monitor_of(host_name, process, paths), name) as qemu:
        await qemu.quit()
        await qemu.closed()
    await _tidy(host, paths, name)


async def cont(hosts: Hosts, name: str, host_name: str) -> None:
    """Let a paused guest run on. Raises RefusedError where it would be a second copy, or has yet to come."""
    host, paths, process = await _running(hosts, name, host_name)
    async with open_session(host, bare.monitor_of(host_name, process, paths), name) as qemu:
        state = await machine.run_state(qemu)
        if state not in (*_RESUMABLE, "running"):
            hint = _WHY_NOT_RUN.get(state, f"see: qemu-esd status {shlex.quote(name)}")
            raise RefusedError(f"{name} is {state}, and must not be told to run", host=host_name, hint=hint)
        await machine.cont(qemu)


# Run states of QEMU in which the guest only waits to be told to go on.
_RESUMABLE = ("paused", "io-error", "prelaunch", "debug", "watchdog")
_WHY_NOT_RUN = {
    "inmigrate": "it waits for a migration to bring it here",
    "postmigrate": "it runs on another host now",
    "finish-migrate": "it is just leaving for another host",
}


async def console_socket(hosts: Hosts, name: str, host_name: str) -> str:
    """A unix socket on this machine that is the serial console of a guest of ours, one client at a time."""
    host, paths, _ = await _running(hosts, name, host_name)
    socket = guest_sockets(paths, name).console
    if not await files.existing(host, socket):
        raise RefusedError(f"{name} has no console of ours", host=host_name, hint="vm run and migrate give it one")
    return await host.forward(socket)


async def _running(hosts: Hosts, name: str, host_name: str) -> tuple[Host, HostPaths, QemuProcess]:
    host = await hosts.get(host_name)
    paths = (await facts.look(host)).paths
    process = await processes.find(host, name)
    if process is None:
        raise RefusedError(f"{name} does not run", host=host_name, hint="see: qemu-esd vm list")
    return host, paths, process


async def _tidy(host: Host, paths: HostPaths, name: str) -> None:
    unit = places.guest_unit_name(name)
    await service.stop(host, paths.unit(unit), unit)
    await files.remove_tree(host, paths.vm_run(name))


async def forget(hosts: Hosts, name: str, host_names: Iterable[str]) -> None:
    """Remove records and console logs of a guest that runs nowhere. Its images stay."""
    known = tuple(dict.fromkeys(host_names))
    for host_name in known:
        if await processes.find(await hosts.get(host_name), name) is not None:
            raise RefusedError(f"{name} runs", host=host_name, hint=f"qemu-esd vm stop {shlex.quote(name)}")
    for host_name in known:
        host = await hosts.get(host_name)
        await _clear(host, (await facts.look(host)).paths, name)
    registry.forget(name)


async def console_log(hosts: Hosts, name: str, host_names: Iterable[str]) -> bytes:
    """The serial output recorded so far, on whichever hosts the guest ran, in the order of its switchovers."""
    parts = [await console_parts(hosts, name, host) for host in dict.fromkeys(host_names)]
    return joined(parts)


async def console_parts(hosts: Hosts, name: str, host_name: str) -> dict[str, bytes]:
    """The pieces of the serial output on one host; their names sort by the number of switchovers before them."""
    host = await hosts.get(host_name)
    folder = (await facts.look(host)).paths.vm_state(name)
    logs = [file for file in await files.listing(host, folder) if file.startswith("console.") and file.endswith(".log")]
    return {file: await files.read(host, f"{folder}/{file}") or b"" for file in logs}


def joined(parts: Iterable[dict[str, bytes]]) -> bytes:
    """Pieces of the serial output from several hosts, as one."""
    whole = {file: text for part in parts for file, text in part.items()}
    return b"".join(whole[file] for file in sorted(whole))
