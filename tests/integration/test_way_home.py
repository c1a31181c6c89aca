"""The way home: an image that was left there and is still what it was spares all that has not changed since."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api, guests
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.model.policy import Handler, ReadErrors
from qemu_esd.model.record import State
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import Guest
from tests.integration.support.inside import tell
from tests.integration.support.machine import SRV, STATE, Machine, ended

pytestmark = pytest.mark.lab

LOAD = "esd.mode=verify esd.rate=200 esd.area=1M"
# Raw, qcow2, and qcow2 over others; one ends within a cluster.
RAW = Drive("vda", 7)
DRIVES = (RAW, Drive("vdb", 9, "b.qcow2", size=24 * MIB + 5 * 512, fill="holes"), Drive("vdc", 11, "c.qcow2", chain=2))


async def away(fleet: Fleet, *drives: Drive, settle: bool = True) -> Guest:
    """A guest that was moved from A to B, and has written there beside what its load writes."""
    guest = await fleet.boot(*drives, load=LOAD)
    await guest.migrate(fleet.b, Handler.BACKGROUND if settle else Handler.REDIRECT)
    await guest.is_well()
    for drive in drives:
        assert await guest.write(drive, 8 * MIB, 64 << 10) == 0
    return guest


async def home(guest: Guest, fleet: Fleet, handler: Handler = Handler.ON_DEMAND) -> int:
    """Back to A, and settled. Returns how many bytes B has sent from the handover on."""
    await guest.migrate(fleet.a, handler, until_settled=False)
    before = fleet.b.sent_bytes(fleet.a)
    await api.settle_guest("vm1", "hostA", lambda *_: None)
    return fleet.b.sent_bytes(fleet.a) - before


def found(machine: Machine, folder: str, pattern: str) -> list[Path]:
    return sorted(machine.real(folder).glob(pattern))


def bases(guest: Guest, drive: Drive) -> list[Path]:
    """The image that was left at home, under the name by which the guest needs it now."""
    return found(guest.machine, SRV, f"{drive.name}.base-????????")


def disk(guest: Guest, drive: Drive, into: Path) -> Path:
    """What the guest's disk holds, read from its images as the overlay's header names them."""
    (base,), told = bases(guest, drive), content.facts(guest.member(drive))
    assert (told["backing-filename"], told["backing-filename-format"]) == (f"{SRV}/{base.name}", drive.format)
    return content.flatten(content.over(guest.member(drive), content.image(base, drive.format)), into)


async def is_whole(fleet: Fleet, guest: Guest) -> None:
    """All that the guest has written is there, and nobody else is needed."""
    told = await guest.look()
    assert (told.state, told.upstream, told.link) == (State.SETTLED, (), "none")
    assert [machine.path_handlers() for machine in fleet.machines] == [(), (), ()]
    assert [(disk.handler, disk.needs_source, disk.remote_bytes) for disk in told.disks] == [
        ("local", False, 0) for _ in guest.drives
    ]
    await guest.is_well()
    await guest.pause()
    await guest.recheck()


@pytest.mark.parametrize("settled", [True, False])
async def test_only_what_has_changed_goes_home(fleet: Fleet, tmp_path: Path, settled: bool) -> None:
    """Also where the other host had nothing but what was written there."""
    guest = await away(fleet, *DRIVES, settle=settled)

    sent = await home(guest, fleet)

    assert sent < sum(drive.size for drive in DRIVES) // 4
    await is_whole(fleet, guest)
    for drive in DRIVES:
        (there,) = found(fleet.b, f"{STATE}/disks", f"vm1.{guest.suid(drive)}.g1.qcow2.moved-????????")
        left = content.image(there, "qcow2")
        if not settled:
            left = content.over(there, content.image(bases(guest, drive)[0], drive.format))
        before = content.flatten(left, tmp_path / "before")
        after = disk(guest, drive, tmp_path / "after")
        # What differs are whole writes of the guest since it came home.
        content.later_writes(before, after)
        assert content.crc(after) == await guest.crc(drive)
    await fleet.finish(guest)
    # `release` has removed the name by which they were left, and not what the guest needs.
    assert [len(bases(guest, drive)) for drive in DRIVES] == [1, 1, 1]
    assert not found(fleet.a, SRV, "*.moved-*")


async def test_zeroes_and_discards_go_home(fleet: Fleet, tmp_path: Path) -> None:
    """What reads as zeroes on B is data in the image that was left at home."""
    guest = await fleet.boot(*DRIVES, load="esd.mode=idle")
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    for drive in DRIVES:
        for words in ("zero {} 4194304 1048576", "zero {} 6295040 4096", "discard {} 9437184 1048576"):
            line = await guest.ask(words.format(drive.id))
            assert line.number("errno") == 0, line
    await guest.sync()
    before = [await guest.ask(f"read {drive.id} 0 {drive.size}") for drive in DRIVES]

    await home(guest, fleet, Handler.BACKGROUND)

    after = [await guest.ask(f"read {drive.id} 0 {drive.size}") for drive in DRIVES]
    assert [line.values["crc"] for line in after] == [line.values["crc"] for line in before]
    for drive, line in zip(DRIVES, before, strict=True):
        assert content.crc(disk(guest, drive, tmp_path / "after")) == int(line.values["crc"], 16)
    await fleet.finish(guest)


def touched(path: Path) -> None:
    """Written to by somebody: at a place that has not changed on B, and of which the guest knows what is there."""
    with path.open("r+b") as file:
        file.seek(20 * MIB)
        file.write(b"not what was left here")


def swapped(path: Path) -> None:
    """Another file of the same size and age."""
    at = path.stat().st_mtime_ns
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    os.utime(other, ns=(at, at))
    other.replace(path)


@pytest.mark.parametrize("change", [touched, swapped, Path.unlink])
async def test_an_image_that_is_not_what_was_left_is_not_used(
    fleet: Fleet, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    guest = await away(fleet, RAW)
    (there,) = found(fleet.a, SRV, f"{RAW.name}.moved-????????")
    change(there)

    sent = await home(guest, fleet)

    assert sent > RAW.size // 2
    assert bases(guest, RAW) == []
    await is_whole(fleet, guest)
    flat = content.flatten(content.image(guest.member(RAW), "qcow2"), tmp_path / "flat")
    assert content.crc(flat) == await guest.crc(RAW)
    assert content.check_content(flat, RAW)
    await fleet.finish(guest)
    content.check_standalone(guest.member(RAW))


@pytest.mark.parametrize("killed", [False, True])
async def test_the_guest_was_off_on_the_other_host(fleet: Fleet, tmp_path: Path, killed: bool) -> None:
    """What it had changed is in its image when its QEMU ends in order; killed, nobody knows, and all is moved."""
    guest = await fleet.boot(RAW, load="esd.mode=idle")
    await guest.migrate(fleet.b, Handler.BACKGROUND)
    assert await guest.write(RAW, 3 * MIB, MIB) == 0
    await guest.sync()
    if killed:
        pid = guest.qemu().pid
        guest.kill()
        await ended(pid)
        guest.leave_terminal()
    else:
        await guest.power_off()
    async with open_hosts() as hosts:
        await guests.start(hosts, "vm1", "hostB")
    await guest.settle_in(booted=True)
    assert await guest.write(RAW, 5 * MIB, 4096) == 0
    await guest.sync()
    before = await guest.ask(f"read vda 0 {RAW.size}")

    sent = await home(guest, fleet)

    assert (sent > RAW.size // 2) == killed
    after = await guest.ask(f"read vda 0 {RAW.size}")
    assert after.values["crc"] == before.values["crc"]
    if not killed:
        assert content.crc(disk(guest, RAW, tmp_path / "after")) == int(before.values["crc"], 16)
    await fleet.finish(guest)


async def test_another_overlay_on_top_does_not_know_what_has_changed(fleet: Fleet) -> None:
    """QEMU would find the note of the one below it."""
    guest = await fleet.boot(RAW, load="esd.mode=idle")
    await guest.migrate(fleet.b, Handler.REDIRECT, read_errors=ReadErrors.REPORT)
    await api.change_policy("vm1", None, Handler.MISS, "hostB")
    assert await guest.write(RAW, 5 * MIB, MIB) == 0
    await guest.sync()
    await api.change_policy("vm1", None, Handler.REDIRECT, "hostB")
    before = await guest.ask(f"read vda 0 {RAW.size}")

    await home(guest, fleet)

    assert bases(guest, RAW) == []
    after = await guest.ask(f"read vda 0 {RAW.size}")
    assert after.values["crc"] == before.values["crc"]
    await fleet.finish(guest)


async def test_at_home_it_starts_again_and_goes_away_again(fleet: Fleet) -> None:
    """From an overlay over its old image; and when it has left for good, nothing of either is kept."""
    guest = await fleet.boot(RAW, load="esd.mode=idle")
    for place in (3, 5):
        await guest.migrate(fleet.b, Handler.BACKGROUND)
        assert await guest.write(RAW, place * MIB, 128 << 10) == 0
        await home(guest, fleet)
    before = await guest.ask(f"read vda 0 {RAW.size}")
    assert len(bases(guest, RAW)) == 1
    assert len(found(fleet.a, f"{STATE}/disks", "*.base-????????")) == 1
    await guest.power_off()
    async with open_hosts() as hosts:
        await guests.start(hosts, "vm1", "hostA")
    await guest.settle_in(booted=True)
    assert (await guest.ask(f"read vda 0 {RAW.size}")).values["crc"] == before.values["crc"]

    await guest.migrate(fleet.b, Handler.BACKGROUND)
    await api.release_guest("vm1", "hostB")

    assert [found(fleet.a, folder, "*") for folder in (SRV, f"{STATE}/disks")] == [[], []]
    assert (await guest.ask(f"read vda 0 {RAW.size}")).values["crc"] == before.values["crc"]
    await fleet.finish(guest)


async def test_what_has_changed_is_noted_until_it_is_released(fleet: Fleet) -> None:
    """A guest whose former hosts have forgotten it can go back to a snapshot of its own, which a note would forbid."""
    guest = await away(fleet, RAW)
    assert len(await noted(guest)) == 1
    await api.release_guest("vm1", "hostB")
    assert await noted(guest) == []
    await fleet.finish(guest)


async def noted(guest: Guest) -> list[str]:
    nodes = await tell(guest, "query-named-block-nodes")
    return [bitmap["name"] for node in nodes for bitmap in node.get("dirty-bitmaps", ())]


async def test_a_slow_link_is_kept_to(fleet: Fleet) -> None:
    """`--bandwidth` holds on the way home too."""
    guest = await away(fleet, RAW)
    await guest.migrate(fleet.a, Handler.BACKGROUND, bandwidth=4 * MIB)
    assert len(bases(guest, RAW)) == 1
    await is_whole(fleet, guest)
    await fleet.finish(guest)
