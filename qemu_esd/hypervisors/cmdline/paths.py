"""The files and folders that a command line needs on its host."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from qemu_esd.hypervisors.cmdline.carried import NeededPath
from qemu_esd.hypervisors.cmdline.drives import SHORTHANDS
from qemu_esd.hypervisors.cmdline.nodes import split_protocol
from qemu_esd.hypervisors.cmdline.options import Option, option

# file: must be there. image: the same, but may also be a network address. folder: this folder must be there.
# made: QEMU makes it itself (a socket, a log), so its folder must be there. data: as file, but a bare name is
# looked up in QEMU's own data folders. files: several, with colons between them.
Kind = Literal["file", "image", "folder", "made", "data", "files"]

_WORDS: dict[str, Kind] = {
    **dict.fromkeys(SHORTHANDS, "image"),
    **dict.fromkeys(("kernel", "initrd", "dtb", "shim"), "file"),
    **dict.fromkeys(("L", "chroot"), "folder"),
    "bios": "data",
    "mem-path": "file",
}

# flag: last part of a key: kind
_KEYS: dict[str, dict[str, Kind]] = {
    "acpitable": {"file": "files", "data": "files"},
    "blockdev": {"filename": "image"},
    "boot": {"splash": "data"},
    "chardev": {"path": "made", "logfile": "made"},
    "device": {"romfile": "data", "file": "data"},
    "drive": {"file": "image", "filename": "image"},
    "fw_cfg": {"file": "file"},
    "net": {"script": "file", "downscript": "file", "helper": "file", "tftp": "folder", "smb": "folder"},
    "object": {"mem-path": "file", "filename": "file", "file": "file", "dir": "folder"},
    "option-rom": {"romfile": "data"},
    "plugin": {"file": "file"},
    "smbios": {"file": "file", "path": "file"},
    "spice": {"x509-dir": "folder"},
}
_KEYS["netdev"] = _KEYS["nic"] = _KEYS["net"]

# Short chardevs and -vnc: prefix of the value
_PREFIXES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("serial", "parallel", "debugcon", "gdb"), ("unix:", "file:", "pipe:")),
    "vnc": ("unix:",),
}

Change = Callable[[str, Kind], str]


def absolute(options: Iterable[Option], cwd: str) -> tuple[Option, ...]:
    """The options with every relative file name made absolute; `cwd` is where that QEMU runs."""
    return tuple(_changed(one, lambda name, kind: _joined(name, kind, cwd)) for one in options)


def needed(options: Iterable[Option]) -> tuple[NeededPath, ...]:
    """Every absolute path that must be on the host before QEMU starts, each once."""
    found = [path for one in options for path in _needed(one)]
    return tuple(dict.fromkeys(found))


def _needed(one: Option) -> Iterator[NeededPath]:
    seen: list[tuple[str, Kind]] = []

    def note(name: str, kind: Kind) -> str:
        seen.append((name, kind))
        return name

    _changed(one, note)
    for name, kind in seen:
        for path in name.split(":") if kind == "files" else (_plain(name),):
            if path.startswith("/") and kind == "made":
                yield NeededPath(posixpath.dirname(path), "folder", f"-{one.flag}")
            elif path.startswith("/"):
                yield NeededPath(path, "folder" if kind == "folder" else "file", f"-{one.flag}")


def _joined(name: str, kind: Kind, cwd: str) -> str:
    if kind == "files":
        return ":".join(_joined(part, "file", cwd) for part in name.split(":"))
    is_name = kind == "data" and "/" not in name
    if not name or name == "no" or is_name or (kind == "image" and split_protocol(name)[0]):
        return name
    return posixpath.join(cwd, name)


def _plain(name: str) -> str:
    protocol, path = split_protocol(name)
    return path if protocol in ("file", "host_device", "host_cdrom") else name


def _changed(one: Option, change: Change) -> Option:
    """The option with `change` applied to every file name in it."""
    if one.value is None:
        return one
    if one.flag in _WORDS:
        return Option(one.flag, change(one.value, _WORDS[one.flag]))
    if one.flag in _KEYS:
        return _changed_keys(one, _KEYS[one.flag], change)
    return _changed_prefix(one, one.value, change)


def _changed_keys(one: Option, kinds: dict[str, Kind], change: Change) -> Option:
    before = one.arguments
    if before.is_on("abstract"):  # a unix socket that is in no folder
        return one
    after = before.map_text(
        lambda key, text: change(text, kinds[last]) if (last := key.rpartition(".")[2]) in kinds else text
    )
    return one if after == before else option(one.flag, after)


def _changed_prefix(one: Option, value: str, change: Change) -> Option:
    mux = "mon:" if value.startswith("mon:") else ""
    for prefix in _PREFIXES.get(one.flag, ()):
        if value.startswith(mux + prefix):
            name, comma, rest = value.removeprefix(mux + prefix).partition(",")
            return Option(one.flag, f"{mux}{prefix}{change(name, 'made')}{comma}{rest}")
    return one
