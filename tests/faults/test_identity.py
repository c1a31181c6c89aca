"""What a path handler serves is what was left on its host: not another image, not a changed one, not an older one."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.model.policy import Handler
from tests.faults import report
from tests.integration.support.commands import say
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import tell
from tests.integration.support.machine import STATE, Machine, ended, kill
from tests.integration.test_refusals import listening

pytestmark = pytest.mark.lab

ALL = os.environ.get("ESD_FAULTS") == "all"
VDA, VDB = Drive("vda", 7, size=16 * MIB), Drive("vdb", 9, "b.qcow2", size=8 * MIB, chain=1)
READS = "esd.mode=verify esd.rate=200 esd.mix=10/0/90"
LOOKS = 90


def swapped(path: Path) -> None:
    """The same size, the same age, and something else in it."""
    shutil.copy2(path, f"{path}.other")
    at = path.stat().st_mtime_ns
    with Path(f"{path}.other").open("r+b") as file:
        file.write(b"not what it was")
    os.utime(f"{path}.other", ns=(at, at))
    Path(f"{path}.other").replace(path)


def shrunk(path: Path) -> None:
    os.truncate(path, path.stat().st_size - MIB)


def grown(path: Path) -> None:
    os.truncate(path, path.stat().st_size + MIB)


def removed(path: Path) -> None:
    path.unlink()


Fault = Callable[[Path], None]


async def restart(machine: Machine) -> None:
    """The path handler is killed, by us or by its guard that was faster, and its unit starts it again."""
    for handler in machine.path_handlers():
        kill(handler.pid)
        await ended(handler.pid)


async def says(machine: Machine, words: str) -> None:
    """A unit of the host has that in its log."""
    for _ in range(LOOKS):
        if words in machine.logs():
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"nobody said {words!r}: {machine.logs()}")


async def serves(machine: Machine) -> None:
    for _ in range(LOOKS):
        if machine.path_handlers():
            return
        await asyncio.sleep(0.2)
    raise AssertionError("there is no path handler")


async def is_paused(guest: Guest) -> None:
    async with asyncio.timeout(60):
        while (await tell(guest, "query-status"))["status"] != "io-error":
            await asyncio.sleep(0.5)


async def goes_on(guest: Guest) -> None:
    async with asyncio.timeout(90):
        while not (await tell(guest, "query-status"))["running"]:
            await asyncio.sleep(0.5)
    await guest.is_well()


async def aside(guest: Guest, drive: Drive, machine: Machine) -> Path:
    return machine.real(f"{drive.path}.moved-{(await guest.look()).id}")


@pytest.mark.parametrize("fault", [swapped, shrunk, grown, removed] if ALL else [swapped])
async def test_another_image_is_not_served(fleet: Fleet, fault: Fault) -> None:
    """The guest waits, `host restore` says why, and when the image is put back it is served by itself."""
    guest = await (fleet.boot(VDA, VDB, load=READS) if ALL else fleet.idle(VDA, VDB))
    await guest.migrate(fleet.b, Handler.REDIRECT)
    for drive in guest.drives if ALL else (VDB,):
        image = await aside(guest, drive, fleet.a)
        image.rename(f"{image}.kept")
        shutil.copy2(f"{image}.kept", image)
        fault(image)
        await restart(fleet.a)
        await says(fleet.a, f"{drive.path}.moved-{(await guest.look()).id} is not the image that was left here")
        told = await say("host", "restore", "hostA")
        assert (told.status, "is not the image that was left here" in told.out) == (1, True), told
        if ALL:
            await is_paused(guest)
        assert fleet.a.path_handlers() == ()
        Path(f"{image}.kept").replace(image)
        await serves(fleet.a)
        told = await say("host", "restore", "hostA")
        assert (told.status, "ran already" in told.out) == (0, True), told
        if ALL:
            await goes_on(guest)
            said = report.Line(f"image {fault.__name__}, path handler killed", "handed over", "-", "put back", "hostB")
            report.note(said)
    if ALL:
        await guest.pause()
        await guest.recheck()
        await settles()
        await fleet.finish(guest, settle=False)


async def settles() -> None:
    """Errors can follow for some seconds after a link is back; then the same command goes on."""
    async with asyncio.timeout(90):
        while (told := await say("settle", "vm1")).status != 0:
            assert told.status == 4, told
            await asyncio.sleep(2)


@pytest.mark.skipif(not ALL, reason="with ESD_FAULTS=all")
async def test_an_image_that_somebody_writes_to_is_not_served_any_more(fleet: Fleet) -> None:
    """Nothing is killed: the watch finds it, and the guest stops before it has read more of it."""
    guest = await fleet.boot(VDA, VDB, load=READS)
    await guest.migrate(fleet.b, Handler.REDIRECT)
    image = await aside(guest, VDA, fleet.a)
    was, content = image.stat().st_mtime_ns, image.read_bytes()[-512:]
    with image.open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(content)
    await says(fleet.a, "is not the image that was left here")
    await is_paused(guest)
    assert fleet.a.path_handlers() == ()
    os.utime(image, ns=(was, was))
    await goes_on(guest)
    report.note(report.Line("image written to", "handed over", "-", "put back", "hostB"))
    await guest.pause()
    await guest.recheck()
    await fleet.finish(guest)


async def test_an_older_generation_is_not_served(fleet: Fleet) -> None:
    """There and back again: what served the first of the two is put back by hand, with unit, record, key and image."""
    guest = await fleet.idle(VDA)
    first = (await guest.migrate(fleet.b, Handler.REDIRECT)).id
    folders = [fleet.a.path(f"{STATE}/{kind}") for kind in (f"unit/path-{first}", f"link/{first}")]
    kept = fleet.a.path("/srv/kept")
    for folder in folders:
        shutil.copytree(folder, kept / folder.name)
    # Still needed after the way home: by the host that it comes from, as long as that is not settled.
    await guest.migrate(fleet.a, Handler.REDIRECT)
    told = await say("host", "restore", "hostA")
    assert (told.status, f"path-{first}: ran already" in told.out) == (0, True), told
    assert (await say("settle", "vm1")).status == 0
    for folder in folders:
        shutil.copytree(kept / folder.name, folder, dirs_exist_ok=True)
    told = await say("host", "restore", "hostA")
    assert (told.status, "generation 1 of vm1, and generation 2 was here since" in told.out) == (1, True), told
    assert fleet.a.path_handlers() == ()
    report.note(report.Line("stale path handler put back by hand", "settled", "1", "host restore (1)", "hostA"))
    shutil.rmtree(folders[0])
    shutil.rmtree(kept)
    await fleet.finish(guest, settle=False)


@pytest.mark.skipif(not ALL, reason="with ESD_FAULTS=all")
async def test_what_a_path_handler_needs_is_not_there(fleet: Fleet) -> None:
    """Its key is gone, its port is somebody else's: it is tried again until that is mended."""
    guest = await fleet.boot(VDA, load=READS)
    moved = await guest.migrate(fleet.b, Handler.REDIRECT)
    (where,) = fleet.a.listening()
    key = fleet.a.real(f"{STATE}/link/{moved.id}/keys.psk")
    key.rename(f"{key}.kept")
    await restart(fleet.a)
    await says(fleet.a, "keys.psk")
    async with listening(fleet.a, int(where.rpartition(":")[2])):
        Path(f"{key}.kept").rename(key)
        await says(fleet.a, f"cannot listen on {where.replace(':', ' port ')}: Address already in use")
        assert fleet.a.path_handlers() == ()
    await serves(fleet.a)
    await goes_on(guest)
    report.note(report.Line("key gone, then port taken, path handler killed", "handed over", "-", "mended", "hostB"))
    await guest.pause()
    await guest.recheck()
    await settles()
    await fleet.finish(guest, settle=False)


async def test_a_key_with_open_rights_is_in_a_closed_folder(fleet: Fleet) -> None:
    """Whoever has opened it by mistake has shown it to nobody, so it is served as before."""
    guest = await fleet.idle(VDA)
    moved = await guest.migrate(fleet.b, Handler.REDIRECT)
    key = f"{STATE}/link/{moved.id}/keys.psk"
    for machine in (fleet.a, fleet.b):
        machine.run("chmod", "644", key)
        nobody = machine.run("setpriv", "--reuid=65534", "--clear-groups", "cat", key, check=False)
        assert (nobody.returncode, "Permission denied" in nobody.stderr) == (1, True), nobody
    await restart(fleet.a)
    await serves(fleet.a)
    await fleet.finish(guest)
