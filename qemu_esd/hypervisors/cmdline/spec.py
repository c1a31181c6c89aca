"""A bare guest as the user describes it, on the command line or in TOML. Pure: no file is looked at."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qemu_esd.errors import UsageError
from qemu_esd.hypervisors.cmdline.disk_spec import GuestDisk, disks_from
from qemu_esd.hypervisors.cmdline.keyval import Arguments, keyval, parse
from qemu_esd.hypervisors.cmdline.nearest import nearest
from qemu_esd.units import MIB, parse_size

DEFAULT_MEMORY = 512 << 20
DEFAULT_NIC_MODEL = "virtio-net-pci"

_NAME_LENGTH = 64
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_MACHINE = re.compile(r"q35|pc-q35-[0-9.]+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Nic:
    """A network card: the arguments of -netdev without id, the device model, the MAC address (None: derived)."""

    netdev: str
    model: str = DEFAULT_NIC_MODEL
    mac: str | None = None


@dataclass(frozen=True)
class GuestSpec:
    """A bare guest. `memory` in bytes; None leaves `cpu` to QEMU, and `uuid`, `machine`, `host` to the caller."""

    name: str
    disks: tuple[GuestDisk, ...] = ()
    host: str | None = None
    uuid: str | None = None
    memory: int = DEFAULT_MEMORY
    smp: int = 1
    cpu: str | None = None
    machine: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    append: str | None = None
    firmware: str | None = None
    nics: tuple[Nic, ...] = ()
    extra: tuple[str, ...] = ()


def check_name(name: str) -> str:
    """The name, if a VM may be called so. Raises UsageError."""
    first = name.strip()[:1]
    if len(name) > _NAME_LENGTH or not name.isprintable() or "/" in name or first in ("", "-", "."):
        raise UsageError(
            f"{name!r} cannot be the name of a VM",
            hint=f"use 1 to {_NAME_LENGTH} printable characters, no /, and no - or . at the start",
        )
    return name


def parse_nic(text: str) -> Nic | None:
    """A card from `user[,mac=..]`, or `TYPE,...` as for -netdev with `model=` and `mac=`; None from `none`."""
    if text == "none":
        return None
    given = parse(text, "type")
    if given.has("id") or not given.get("type"):
        raise UsageError(f"--nic {text}: begin with the type, as in user or tap,ifname=tap0, and give no id")
    mac = given.get("mac")
    if mac is not None and not _MAC.fullmatch(mac):
        raise UsageError(f"--nic {text}: {mac!r} is not a MAC address", hint="write it like 52:54:00:12:34:56")
    netdev = Arguments(given.without("model", "mac").pairs, "type").text()
    return Nic(netdev, given.get("model") or DEFAULT_NIC_MODEL, mac)


def parse_nics(texts: Iterable[str]) -> tuple[Nic, ...]:
    return tuple(nic for text in texts for nic in [parse_nic(text)] if nic)


def check_spec(spec: GuestSpec) -> GuestSpec:
    """The spec, if its words go together. Raises UsageError."""
    check_name(spec.name)
    if spec.kernel is None and (spec.initrd is not None or spec.append is not None):
        raise UsageError("an initrd or kernel arguments need a kernel", hint="add --kernel FILE")
    if spec.machine is not None and not _MACHINE.fullmatch(spec.machine):
        raise UsageError(f"machine {spec.machine!r} is not a q35", hint="write q35, or pc-q35-7.2 and the like")
    if spec.uuid is not None and not _UUID.fullmatch(spec.uuid):
        raise UsageError(f"{spec.uuid!r} is not a UUID")
    if spec.smp < 1:
        raise UsageError("a guest needs at least one CPU")
    if spec.memory < MIB:
        # QEMU's own -m counts in MiB.
        raise UsageError(f"{spec.memory} bytes of memory are too few for a guest", hint="write it with its unit: 512M")
    for word in (spec.cpu, spec.kernel, spec.initrd, spec.firmware, *spec.extra):
        if word is not None and ("\0" in word or "\n" in word):
            raise UsageError(f"{word!r} has a line break or a NUL in it")
    return spec


def spec_from_toml(text: str) -> GuestSpec:
    """A guest from TOML with the words of the command line. Raises UsageError, which names the wrong key.

    `disk` is a list of strings as for --disk, or of tables with the same words; `nic` and `extra` are lists
    of strings; `memory` is a size ("4G") or a number of bytes.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as bad:
        raise UsageError(f"not a TOML file: {bad}") from bad
    for key in table:
        if key not in _READERS:
            raise UsageError(f"unknown key {key!r}", hint=nearest(key, _READERS))
    if "name" not in table:
        raise UsageError("the key 'name' is missing")
    values = {_READERS[key][0]: _READERS[key][1](key, value) for key, value in table.items()}
    return check_spec(GuestSpec(**values))


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{key} must be a text in quotes")
    return value


def _number(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{key} must be a number")
    return value


def _size(key: str, value: object) -> int:
    return parse_size(value) if isinstance(value, str) else _number(key, value)


def _list(key: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{key} must be a list, as in {key} = [...]")
    return value


def _words(key: str, value: object) -> tuple[str, ...]:
    return tuple(_text(key, item) for item in _list(key, value))


def _disks(key: str, value: object) -> tuple[GuestDisk, ...]:
    return disks_from(_disk_text(item) for item in _list(key, value))


def _disk_text(item: object) -> str:
    """A disk written as a table, in the form of --disk."""
    if not isinstance(item, Mapping):
        return _text("disk", item)
    words = {str(key): _scalar(str(key), value) for key, value in item.items()}
    if "file" not in words:
        raise UsageError("a disk has no 'file'")
    return keyval({"file": words.pop("file"), **words})


def _scalar(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int):
        return str(value)
    raise UsageError(f"disk: {key} must be a text, a number, true or false")


# key of the file: field of GuestSpec, and how its value is read
_READERS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    **{
        key: (key, _text)
        for key in ("name", "host", "uuid", "cpu", "machine", "kernel", "initrd", "append", "firmware")
    },
    "memory": ("memory", _size),
    "smp": ("smp", _number),
    "disk": ("disks", _disks),
    "nic": ("nics", lambda key, value: parse_nics(_words(key, value))),
    "extra": ("extra", _words),
}
