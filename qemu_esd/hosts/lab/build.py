"""`lab up`: build what is missing of a lab, and nothing else.

All or nothing: switch and hosts are started as candidates (see process.py), plugged in and tried; then one
write of lab.json names them, and then they are committed. Killed before that write: they end by themselves.
Killed after it: lab.json names processes that are gone, as after a crash, and the next `up` starts them again
on the same disks, as machines after a power cut. A reboot of the real machine ends a lab: `up` begins anew.
"""

from __future__ import annotations

import asyncio
import pwd
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hosts.lab import files, libvirt, net
from qemu_esd.hosts.lab.connect import libvirt_answers, ssh_answers, wait_for
from qemu_esd.hosts.lab.needs import libvirt_daemon, path_of, require_programs, require_root
from qemu_esd.hosts.lab.process import Candidate, Process, kill, start_candidate
from qemu_esd.hosts.lab.state import (
    MAX_HOSTS,
    Lab,
    LabHost,
    boot_id,
    host_name,
    lab_data,
    lab_root,
    load,
    locked,
    save,
)
from qemu_esd.hosts.lab.teardown import claim_data, remove_host, remove_lab, sweep


@dataclass(frozen=True)
class Built:
    """What `up` did. `started`: the hosts that did not run before; `cleaned`: leftovers were removed first."""

    lab: Lab
    started: tuple[LabHost, ...]
    cleaned: bool


async def up(hosts: int = 2, *, libvirt: bool = False) -> Built:
    """See to it that hosts 1 to `hosts` run, besides any others that the lab has already.

    With `libvirt` each has a libvirtd, or a virtqemud where the machine has only that; a lab that was made with it
    keeps it, also for further hosts.
    Raises UsageError for a silly number, RefusedError without the rights or a program that it takes, or where hosts are
    there without libvirt; TimedOutError for a host that runs and does not answer.
    """
    return await asyncio.to_thread(_up, hosts, libvirt)


def _up(count: int, with_libvirt: bool) -> Built:
    if not 1 <= count <= MAX_HOSTS:
        raise UsageError(f"a lab has 1 to {MAX_HOSTS} hosts, not {count}")
    require_root()
    root = lab_root()
    require_programs(libvirt=with_libvirt or _has_libvirt(root))
    with locked(root) as lock:
        before, cleaned = _open_lab(root, with_libvirt)
        lab = _complete(before, count, lock)
    ran = {host.number for host in before.hosts if host in lab.hosts}
    return Built(lab, tuple(host for host in lab.hosts if host.number not in ran), cleaned)


def _has_libvirt(root: Path) -> bool:
    lab = load(root)
    return lab is not None and lab.libvirt


def _open_lab(root: Path, with_libvirt: bool) -> tuple[Lab, bool]:
    """The lab that is there; else an empty one, after removing what a crash or another boot left."""
    lab = load(root)
    if lab is not None and lab.boot == boot_id():
        return _as_asked(lab, with_libvirt), False
    cleaned = sweep(root, lab.data if lab else lab_data(root))
    # Written before the first thing that it describes is made, so that a kill leaves nothing unaccounted for.
    lab = Lab(root, lab_data(root), boot_id(), with_libvirt)
    save(lab)
    return lab, cleaned


def _as_asked(lab: Lab, with_libvirt: bool) -> Lab:
    """Hosts that are there stay what they are. Raises RefusedError if they would have to become others."""
    if not lab.hosts:
        # Of an `up` that was killed.
        return replace(lab, libvirt=with_libvirt)
    if with_libvirt and not lab.libvirt:
        raise RefusedError("the hosts of this lab have no libvirt", hint="qemu-esd lab down, then up --libvirt")
    return lab


def _complete(lab: Lab, count: int, lock: int) -> Lab:
    """The lab with all its hosts running. If that fails, a lab that had no host is removed."""
    with ExitStack() as undo:
        if not lab.hosts:
            undo.callback(remove_lab, lab.root, lab.data)
        claim_data(lab.root, lab.data)
        lab = _with_new_hosts(lab, count)
        if lab.switch is None or not lab.switch.alive or not all(host.running for host in lab.hosts):
            lab = _start_missing(lab, lock)
        else:
            _wait_for_all(lab)
        undo.pop_all()
    return lab


def _with_new_hosts(lab: Lab, count: int) -> Lab:
    known = {host.number for host in lab.hosts}
    for number in range(1, count + 1):
        if number not in known:
            host = LabHost(number, uuid.uuid4().hex, lab.root, lab.data / host_name(number))
            # lab.json does not know it: if it has folders, then from an `up` that was killed.
            remove_host(host)
            lab = lab.with_host(host)
    return lab


def _start_missing(lab: Lab, lock: int) -> Lab:
    missing = [host for host in lab.hosts if not host.running]
    _wait_for_the_end(lab, missing)
    _write_files(lab, missing)
    with ExitStack() as stack:
        candidates = {host.name: stack.enter_context(closing(_start_host(lab, host, lock))) for host in missing}
        fresh = {host.number for host in missing}
        if lab.switch is None or not lab.switch.alive:
            candidates["switch"] = stack.enter_context(closing(_start_switch(lab, lock)))
            fresh = {host.number for host in lab.hosts}
        lab = _with_processes(lab, candidates)
        for candidate in candidates.values():
            candidate.wait_ready()
        _connect_all(lab, fresh, "switch" in candidates)
        for host in lab.hosts:
            files.tell_of_others(host, lab.hosts)
        _wait_for_all(lab)
        save(lab)
        for candidate in candidates.values():
            candidate.commit()
    return lab


def _wait_for_the_end(lab: Lab, missing: Sequence[LabHost]) -> None:
    """What is ending must be gone before its successor starts: a guest's QEMU may still write to the disks."""
    old = [host.init for host in missing]
    if lab.switch is not None and not lab.switch.alive:
        old.append(lab.switch)
    for process in filter(None, old):
        kill(process)


def _start_switch(lab: Lab, lock: int) -> Candidate:
    return start_candidate("switch", lab.root, "switch", {}, lab.root / "switch.log", lock)


def _start_host(lab: Lab, host: LabHost, lock: int) -> Candidate:
    facts = {
        "hostname": host.name,
        "data": str(host.data),
        "disks": files.disk_folders(lab),
        "etc": files.etc_files(host, lab),
        "hidden": _hidden(lab),
        "programs": [[path_of("sshd"), "-D", "-e"], *([[path_of(libvirt_daemon())]] if lab.libvirt else [])],
    }
    return start_candidate("host", lab.root, host.name, facts, host.folder / "log", lock)


def _hidden(lab: Lab) -> list[str]:
    """The lab's own folders (each host's disks are its own), and the ssh files of the machine's users."""
    homes = {user.pw_dir for user in pwd.getpwall()}
    return [str(lab.root), str(lab.data), *sorted(f"{home}/.ssh" for home in homes)]


def _write_files(lab: Lab, missing: Sequence[LabHost]) -> None:
    for host in missing:
        files.make_folders(host, lab)
        if lab.libvirt:
            libvirt.write_settings(host)
    files.write_keys(lab.root, lab.hosts)
    files.write_known_hosts(lab.root, lab.hosts)
    for host in missing:
        files.write_home(host)


def _with_processes(lab: Lab, candidates: dict[str, Candidate]) -> Lab:
    for name, candidate in candidates.items():
        process = candidate.identity()
        if name == "switch":
            lab = replace(lab, switch=process)
        else:
            host = next(host for host in lab.hosts if host.name == name)
            lab = lab.with_host(replace(host, init=process))
    return lab


def _connect_all(lab: Lab, fresh: set[int], new_switch: bool) -> None:
    switch = _switch(lab)
    if new_switch:
        net.build_switch(switch)
    net.plug(switch, lab.hosts, fresh)


def _wait_for_all(lab: Lab) -> None:
    switch = _switch(lab)
    for host in lab.hosts:
        wait_for("sshd", host, partial(ssh_answers, switch, host))
        if lab.libvirt:
            wait_for("libvirt", host, partial(libvirt_answers, host))


def _switch(lab: Lab) -> Process:
    assert lab.switch is not None
    return lab.switch
