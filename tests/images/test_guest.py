"""The guest and its load, booted for real: it sees what it should, and says so when it should not."""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.build import build
from images.console import STATUS, LoadLine
from images.pattern import MIB, SECTOR, Fill, expected, fill
from qemu_esd.nbd import Range
from tests.images.booting import WAIT, Guest, booted, raw_disk

SIZE = 64 * MIB


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two raw disks with a pattern; the second ends with half a block of 4096 bytes."""
    directory = tmp_path_factory.mktemp("disks")
    fill(directory / "one", SIZE, 7, "full")
    fill(directory / "two", SIZE + 2048, 9, "holes")
    return {"one": directory / "one", "two": directory / "two"}


@pytest.fixture(scope="module")
def guest(images: dict[str, Path]) -> Iterator[Guest]:
    """A guest under the verify load. Each disk's first 32 MiB are its area: the rest keeps the pattern."""
    devices = raw_disk(images["one"], "one", "virtio-blk-pci") + raw_disk(images["two"], "two", "virtio-blk-pci")
    patterns = "esd.disk=vda:seed=7,fill=full esd.disk=vdb:seed=9,fill=holes"
    with booted(devices, f"{patterns} esd.area=32M esd.spread=0") as guest:
        yield guest


def last(guest: Guest, word: str) -> LoadLine:
    """What it has said last with this word: a status may come in between."""
    return next(line for line in reversed(guest.lines) if line.word == word)


def until(guest: Guest, *keys: str) -> LoadLine:
    """The first status in which all of these have happened: a second is not enough where the disk is busy."""
    while True:
        status = guest.wait(STATUS)
        if all(status.number(key) for key in keys):
            return status


def test_the_load_works_and_finds_no_fault(guest: Guest) -> None:
    before = until(guest, "r", "w")
    status = guest.wait(STATUS)
    while status.number("ops") == before.number("ops"):
        status = guest.wait(STATUS)
    assert [status.number(key) for key in ("err", "bad", "absent")] == [0, 0, 0]
    assert {"stall", "istall", "t", "n"} <= status.values.keys()


def test_disks_are_described(guest: Guest, images: dict[str, Path]) -> None:
    disks = guest.disks()
    assert [disk.number("size") for disk in disks.values()] == [SIZE, SIZE + 2048]
    assert [disk.values["serial"] for disk in disks.values()] == ["one-serial", "two-serial"]
    assert disks["vda"].values["path"] != disks["vdb"].values["path"]
    assert disks["vda"].values["path"].startswith("pci0000:00/")
    assert disks["vda"].number("lbs") == 512
    assert (disks["vdb"].number("seed"), disks["vdb"].values["fill"]) == (9, "holes")


def test_everything_rechecks_with_the_load_at_rest(guest: Guest) -> None:
    guest.ask("pause", "paused")
    synced = guest.ask("sync", "synced")
    some = guest.ask("recheck 10")
    everything = guest.ask("recheck all")
    guest.ask("resume", "resumed")
    assert (synced.number("seq") > 0, synced.number("err")) == (True, 0)
    assert some.number("ok") > 20
    assert everything.number("ok") == SIZE // 4096 * 2 + 1
    assert [line.number(key) for line in (some, everything) for key in ("bad", "err", "absent")] == [0] * 6


def test_a_paused_load_does_nothing(guest: Guest) -> None:
    guest.ask("pause", "paused")
    guest.wait(STATUS)
    one, two = guest.wait(STATUS), guest.wait(STATUS)
    guest.ask("resume", "resumed")
    assert one.number("ops") == two.number("ops")


@pytest.mark.parametrize(("disk", "seed", "name"), [("vda", 7, "full"), ("vdb", 9, "holes")])
def test_the_guest_reads_what_the_host_wrote(guest: Guest, disk: str, seed: int, name: Fill) -> None:
    offset, length = 46 * MIB + 512, 2 * MIB + 1024
    read = guest.ask(f"read {disk} {offset} {length}")
    assert int(read.values["crc"], 16) == zlib.crc32(expected(seed, name, offset, length))
    assert (read.number("errno"), read.number("bad")) == (0, 0)


def test_a_write_of_one_sector_is_found_on_the_host(guest: Guest, images: dict[str, Path]) -> None:
    offset = 50 * MIB + 3 * SECTOR
    write = guest.ask(f"write vda {offset} 512")
    read = guest.ask(f"read vda {offset - 512} 4096")
    guest.ask("sync", "synced")
    assert (write.number("errno"), read.number("errno"), read.number("bad")) == (0, 0, 0)
    with images["one"].open("rb") as file:
        file.seek(offset - 512)
        around = file.read(3 * SECTOR)
    assert around[:SECTOR] + around[-SECTOR:] == expected(7, "full", offset - 512, 512) + expected(
        7, "full", offset + 512, 512
    )
    assert around[SECTOR : SECTOR + 16] == b"ESDstamp" + offset.to_bytes(8, "little")
    assert int.from_bytes(around[SECTOR + 16 : SECTOR + 24], "little") == write.number("seq")


def test_a_write_that_was_lost_is_noticed(guest: Guest, images: dict[str, Path]) -> None:
    """The host puts the old content back under a block that the guest has written."""
    offset = 56 * MIB
    bad = guest.wait(STATUS).number("bad")
    guest.ask(f"write vda {offset} 4096")
    guest.ask("sync", "synced")
    put(images["one"], offset, expected(7, "full", offset, 4096))
    read = guest.ask(f"read vda {offset} 4096")
    report = last(guest, "bad")
    guest.ask(f"write vda {offset} 4096")
    again = guest.ask(f"read vda {offset} 4096")
    assert (read.number("bad"), again.number("bad")) == (1, 0)
    assert (report.word, report.values["disk"], report.number("pos")) == ("bad", "vda", offset)
    assert report.values["got"] == f"pattern:seed=7,pos={offset}"
    assert report.values["want"].startswith("seq:")
    assert guest.wait(STATUS).number("bad") == bad + 1


@pytest.mark.parametrize(
    "command",
    ["", "nonsense", "read vda", "read vdz 0 512", "write vda x 512", "recheck some", "read vda 0 -1"],
)
def test_what_is_no_command_is_said_to_be_unknown(guest: Guest, command: str) -> None:
    guest.ask(command or "?", "unknown")


@pytest.mark.parametrize(
    ("command", "errno"),
    [
        ("read vda 1 512", 22),
        ("read vda 0 0", 22),
        (f"write vda {SIZE} 512", 22),
        (f"read vdb {SIZE} 4096", 22),
        ("write vda 0 2M", 22),
        (f"read vdb {SIZE} 2048", 0),
    ],
)
def test_transfers_that_do_not_fit_are_refused(guest: Guest, command: str, errno: int) -> None:
    assert guest.ask(command).number("errno") == errno


def put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_scan_names_every_fault_and_poweroff_ends_qemu(tmp_path: Path) -> None:
    """One byte is wrong on the first disk, a sector stands in the wrong place on the second."""
    one, two = tmp_path / "one", tmp_path / "two"
    fill(one, SIZE, 1, "full")
    fill(two, SIZE, 2, "holes")
    put(one, 5 * MIB + 700, b"\xff")
    put(two, 3 * MIB + 4096, expected(2, "holes", 2 * MIB, SECTOR))
    devices = raw_disk(one, "one", "virtio-blk-pci") + raw_disk(two, "two", "virtio-blk-pci")
    patterns = "esd.disk=vda:seed=1,fill=full esd.disk=vdb:seed=2,fill=holes"
    with booted(devices, f"esd.mode=scan esd.once=1 {patterns}") as guest:
        done = guest.wait("SCAN DONE")
        guest.ask("poweroff")
        assert guest.qemu.wait(WAIT) == 0
    faults = {line.values["disk"]: line for line in guest.lines if line.word == "bad"}
    assert (done.number("bad"), done.number("err"), done.number("bytes")) == (2, 0, 2 * SIZE)
    assert faults["vda"].number("pos") == 5 * MIB + 512
    assert faults["vda"].values["got"].startswith("junk:")
    assert faults["vdb"].values["want"] == "zero"
    assert faults["vdb"].values["got"] == f"pattern:seed=2,pos={2 * MIB}"


def test_every_bus_with_small_blocks_and_dirty_memory(tmp_path: Path) -> None:
    """nvme and ide with blocks of 512 bytes; a scsi disk with a logical block of 4096 gets blocks of 4096."""
    for seed, name in enumerate(("nvme", "scsi", "ide"), start=1):
        fill(tmp_path / name, 8 * MIB + 4096, seed, "full")
    devices = (
        *("-machine", "pc"),
        *raw_disk(tmp_path / "nvme", "nvme", "nvme"),
        *("-device", "virtio-scsi-pci"),
        *raw_disk(tmp_path / "scsi", "scsi", "scsi-hd", ",logical_block_size=4096,physical_block_size=4096"),
        *raw_disk(tmp_path / "ide", "ide", "ide-hd"),
    )
    patterns = "esd.disk=nvme0n1:seed=1,fill=full esd.disk=sda:seed=2,fill=full esd.disk=sdb:seed=3,fill=full"
    with booted(devices, f"esd.mode=verify,dirty esd.dirty=16 esd.block=512 {patterns}") as guest:
        status = until(guest, "ops", "r", "w", "dirtied")
        recheck = guest.ask("recheck")
        disks = guest.disks()
    assert {name: (disk.number("lbs"), disk.number("block")) for name, disk in disks.items()} == {
        "nvme0n1": (512, 512),
        "sda": (4096, 4096),
        "sdb": (512, 512),
    }
    assert [disk.values["serial"] for disk in disks.values()] == ["nvme-serial", "scsi-serial", "ide-serial"]
    assert all(disk.values["path"].startswith("pci0000:00/") for disk in disks.values())
    assert [status.number(key) for key in ("err", "bad", "absent")] == [0, 0, 0]
    assert recheck.number("ok") > 3 * 256
    assert [recheck.number(key) for key in ("err", "bad", "absent")] == [0, 0, 0]


def test_the_load_goes_where_the_disk_is_said_to_be_hot(tmp_path: Path) -> None:
    """All around those parts can not be read, and nobody notices."""
    hot = (Range(8 * MIB, MIB), Range(40 * MIB, 2 * MIB))
    devices = miss_disk(tmp_path / "overlay")
    words = ",".join(f"{part.length}@{part.offset}" for part in hot)
    with booted(devices, f"esd.mode=idle esd.area=1M esd.hot={words}") as guest:
        for part in hot:
            for offset in range(part.offset, part.end, MIB):
                assert guest.ask(f"write vda {offset} 1M").number("errno") == 0
        some = guest.ask("recheck 500")
        disks = guest.disks()
    assert disks["vda"].number("area") == MIB
    assert (some.number("ok") > 500, some.number("err"), some.number("bad")) == (True, 0, 0)


def test_a_hot_part_that_is_not_on_the_disk_ends_the_guest(tmp_path: Path) -> None:
    guest = Guest(build(), miss_disk(tmp_path / "overlay"), f"esd.hot=2M@{SIZE - MIB}")
    try:
        fatal = guest.wait("fatal")
    finally:
        guest.end()
    assert fatal.values["why"] == "no-such-hot-part-on-vda"


def miss_disk(path: Path) -> tuple[str, ...]:
    """An empty overlay over a node whose reads fail."""
    options = "extended_l2=on,cluster_size=128k"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), str(SIZE)], check=True)
    nothing = {"driver": "null-co", "size": SIZE, "read-zeroes": True}
    fails = [{"event": "none", "iotype": "read", "errno": 5}]
    backing = {"driver": "blkdebug", "image": nothing, "inject-error": fails}
    overlay = {
        "driver": "qcow2",
        "node-name": "overlay",
        "file": {"driver": "file", "filename": str(path)},
        "backing": backing,
    }
    return (
        "-blockdev",
        json.dumps(overlay),
        "-device",
        "virtio-blk-pci,drive=overlay,rerror=report,werror=report",
    )


def test_an_expected_miss_is_no_error(tmp_path: Path) -> None:
    with booted(miss_disk(tmp_path / "overlay"), "esd.expect=miss esd.area=8M") as guest:
        status = until(guest, "absent", "w")
        guest.ask("pause", "paused")
        before = guest.ask("read vda 0 1M")
        guest.ask("write vda 0 1M")
        after = guest.ask("read vda 0 1M")
        everything = guest.ask("recheck all")
    assert [status.number(key) for key in ("err", "bad")] == [0, 0]
    assert (before.number("errno"), after.number("errno"), after.number("bad")) == (5, 0, 0)
    assert (everything.number("err"), everything.number("bad")) == (0, 0)
    assert everything.number("ok") >= MIB // 4096
    assert everything.number("ok") + everything.number("absent") == SIZE // 4096


def test_a_miss_that_is_not_expected_is_an_error(tmp_path: Path) -> None:
    with booted(miss_disk(tmp_path / "overlay"), "esd.mode=idle") as guest:
        read = guest.ask("read vda 4096 4096")
        report = last(guest, "err")
        status = guest.wait(STATUS)
    assert read.number("errno") == 5
    assert (report.word, report.values["op"], report.number("pos")) == ("err", "read", 4096)
    assert (status.number("err"), status.number("absent")) == (1, 0)


def test_an_option_that_is_not_understood_ends_the_guest() -> None:
    guest = Guest(build(), (), "esd.mode=idle esd.mix=50/50/50")
    try:
        fatal = guest.wait("fatal")
        assert guest.qemu.wait(WAIT) == 0
    finally:
        guest.end()
    assert fatal.values["why"] == "option-esd.mix"
