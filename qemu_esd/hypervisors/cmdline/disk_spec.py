"""`--disk FILE[,word=value]...`: a disk of a bare guest. A comma in the path is doubled, as for QEMU."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from qemu_esd.errors import UsageError
from qemu_esd.hypervisors.cmdline.keyval import Arguments, parse, take_value
from qemu_esd.hypervisors.cmdline.nearest import nearest

OWN_IDS = "esd-"  # devices that we add to a guest begin so

_WORDS = ("file", "id", "bus", "serial", "wwn", "format", "cache", "block", "readonly", "discard", "node")
_CHOICES = {
    "bus": ("virtio", "scsi", "nvme", "ide"),
    "format": ("raw", "qcow2"),
    "cache": ("none", "writeback", "writethrough"),
    "block": ("512", "4096"),
    "readonly": ("on", "off"),
    "discard": ("unmap", "ignore"),
}
_SUFFIXES = {".raw": "raw", ".img": "raw", ".qcow2": "qcow2"}

_ID = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}")  # QEMU's rule for ids and node names, and its length of a node name
_SERIAL_LENGTH = {"virtio": 20, "nvme": 20, "ide": 20, "scsi": 36}  # characters the device model shows
_WWN = re.compile(r"0x[0-9a-fA-F]{1,16}")
_IDE_PORTS = 6  # of the AHCI controller in a q35


@dataclass(frozen=True)
class GuestDisk:
    """A disk: `id` of the device, `node` its block node, `path` on the guest's host.

    `logical_block_size` is 512 or 4096 bytes; `cache` is none (O_DIRECT), writeback or writethrough.
    """

    id: str
    path: str
    format: str
    bus: str = "virtio"
    node: str = ""
    serial: str | None = None
    wwn: str | None = None
    logical_block_size: int = 512
    cache: str = "none"
    read_only: bool = False
    discard: str = "unmap"

    @property
    def node_name(self) -> str:
        """`node`, or the id where none was chosen."""
        return self.node or self.id


def disks_from(texts: Iterable[str]) -> tuple[GuestDisk, ...]:
    """Disks of one guest, in order. Those without an id get vda, sda, nvme0, hda ... Raises UsageError."""
    given = [(text, *_parted(text)) for text in texts]
    taken = {words.get("id") for _, _, words in given}
    disks: list[GuestDisk] = []
    for text, path, words in given:
        free = (id for id in _default_ids(words.get("bus") or "virtio") if id not in taken)
        disks.append(_checked(text, path, words, words.get("id") or next(free)))
        taken.add(disks[-1].id)
    _check_together(disks)
    return tuple(disks)


def _parted(text: str) -> tuple[str, Arguments]:
    """The path, and the words behind it. The path may have = in it."""
    path, after = take_value(text, len("file=") if text.startswith("file=") else 0)
    words = parse(text[after:])
    for key, value in words.leaves():
        if key not in _WORDS[1:]:
            raise UsageError(f"--disk {text}: unknown word {key!r}", hint=nearest(key, _WORDS))
        if value not in _CHOICES.get(key, (value,)):
            raise UsageError(f"--disk {text}: {key} cannot be {value!r}", hint=nearest(value, _CHOICES[key]))
    return path, words


def _default_ids(bus: str) -> Iterator[str]:
    if bus == "nvme":
        return (f"nvme{number}" for number in count())
    prefix = {"virtio": "vd", "scsi": "sd", "ide": "hd"}[bus]
    letters = string.ascii_lowercase
    names = (*letters, *(first + second for first in letters for second in letters))
    return (prefix + name for name in names)


def _checked(text: str, path: str, words: Arguments, id: str) -> GuestDisk:
    disk = GuestDisk(
        id=id,
        path=path,
        format=words.get("format") or _format_of(path),
        bus=words.get("bus") or "virtio",
        node=words.get("node") or id,
        serial=words.get("serial"),
        wwn=words.get("wwn"),
        logical_block_size=int(words.get("block") or 512),
        cache=words.get("cache") or "none",
        read_only=words.is_on("readonly"),
        discard=words.get("discard") or "unmap",
    )
    for wrong in _faults(disk):
        raise UsageError(f"--disk {text}: {wrong}")
    return disk


def _format_of(path: str) -> str:
    """By the suffix; never by looking into the image, whose first bytes belong to the guest."""
    for suffix, format in _SUFFIXES.items():
        if path.lower().endswith(suffix):
            return format
    raise UsageError(f"--disk {path}: the name does not say the format", hint="add ,format=raw or ,format=qcow2 to it")


def _faults(disk: GuestDisk) -> Iterator[str]:
    if not disk.path or any(ord(char) < 32 or ord(char) == 127 for char in disk.path):
        yield "the path is empty, or has a line break or another control character in it"
    for what, name in (("id", disk.id), ("node", disk.node)):
        if not _ID.fullmatch(name):
            yield f"{what} {name!r}: use at most 31 of A-Z a-z 0-9 _ . - with a letter first"
    if disk.id.startswith(OWN_IDS):
        yield f"id {disk.id!r}: ids that begin with {OWN_IDS} are ours"
    longest = _SERIAL_LENGTH[disk.bus]
    if disk.serial is not None and not re.fullmatch(rf"[\x20-\x7e]{{1,{longest}}}", disk.serial):
        yield f"a serial number of a {disk.bus} disk has 1 to {longest} printable ASCII characters"
    if disk.wwn is not None and not (_WWN.fullmatch(disk.wwn) and disk.bus in ("scsi", "ide")):
        yield "a wwn is 0x and up to 16 hexadecimal digits, and only scsi and ide disks have one"
    if disk.bus == "ide" and (disk.read_only or disk.logical_block_size != 512):
        yield "an ide disk is writable and has blocks of 512 bytes"


def _check_together(disks: list[GuestDisk]) -> None:
    for what, names in (("id", [d.id for d in disks]), ("node", [d.node for d in disks])):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UsageError(f"two disks have the {what} {twice!r}")
    if sum(disk.bus == "ide" for disk in disks) > _IDE_PORTS:
        raise UsageError(f"there are more than {_IDE_PORTS} ide disks", hint="use bus=virtio or bus=scsi")
