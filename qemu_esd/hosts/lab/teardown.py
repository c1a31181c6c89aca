"""`lab down`, and everything that removes: processes first, then the data, lab.json as the last file.

Killed at any line, it can be run again: what is left is still described by lab.json, or is only folders.
The kernel takes namespaces, mounts and devices with the last process in them.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qemu_esd.errors import EsdError, RefusedError
from qemu_esd.hosts.lab.needs import require_root
from qemu_esd.hosts.lab.process import kill
from qemu_esd.hosts.lab.state import LabHost, lab_data, lab_root, load, locked, write_file

# In the data folder: which lab it belongs to.
_MARK = "lab-root"


@dataclass(frozen=True)
class Removed:
    """What `down` ended. `stopped`: names of the hosts that ran; `leftovers`: there were folders."""

    stopped: tuple[str, ...]
    leftovers: bool


async def down() -> Removed:
    """End every process of the lab and remove its folders, with all data of its hosts. Nothing there is fine."""
    return await asyncio.to_thread(_down)


def _down() -> Removed:
    require_root()
    root = lab_root()
    if not root.exists() and not lab_data(root).exists():
        return Removed((), False)
    with locked(root):
        lab = load(root)
        stopped = tuple(host.name for host in lab.hosts if host.running) if lab else ()
        for process in [*(host.init for host in lab.hosts), lab.switch] if lab else []:
            if process is not None:
                kill(process)
        return Removed(stopped, remove_lab(root, lab.data if lab else lab_data(root)))


def remove_lab(root: Path, data: Path) -> bool:
    """Remove the folders of a lab without processes. True if there was anything in them."""
    found = sweep(root, data)
    (root / "lab.json").unlink(missing_ok=True)
    root.rmdir()
    return found


def sweep(root: Path, data: Path) -> bool:
    """Remove all that a lab without processes has, but for lab.json. True if there was anything."""
    had_data = _is_ours(root, data)
    if had_data:
        # The mark goes last: a half removed folder is still known as ours.
        _empty(data, keep=_MARK)
        (data / _MARK).unlink(missing_ok=True)
        data.rmdir()
    return _empty(root, keep="lab.json") or had_data


def remove_host(host: LabHost) -> None:
    """Remove the folders of a host that does not run."""
    _remove_tree(host.data)
    _remove_tree(host.folder)


def claim_data(root: Path, data: Path) -> None:
    """Make the data folder of the lab at `root`. Raises RefusedError if it is somebody else's."""
    if data.exists() and not _is_ours(root, data):
        raise RefusedError(
            f"{data} is not empty and belongs to {_owner(data) or 'no lab'}",
            hint="name another folder in QEMU_ESD_LAB_DATA",
        )
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(data / _MARK, str(root))


def _is_ours(root: Path, data: Path) -> bool:
    """Whether `data` is the lab's, or so new that it holds nothing yet."""
    if not data.is_dir():
        return False
    return _owner(data) == str(root) or {entry.name for entry in data.iterdir()} <= {f"{_MARK}.new"}


def _owner(data: Path) -> str | None:
    """The root of the lab that `data` belongs to; None if it says nothing."""
    with suppress(FileNotFoundError):
        return (data / _MARK).read_text()
    return None


def _empty(folder: Path, keep: str) -> bool:
    """Remove everything in `folder` but `keep`. True if there was anything."""
    entries = [entry for entry in folder.iterdir() if entry.name != keep]
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            _remove_tree(entry)
        else:
            entry.unlink()
    return bool(entries)


def _remove_tree(path: Path) -> None:
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    except OSError as error:
        raise EsdError(f"cannot remove {error.filename}: {error.strerror}", hint="qemu-esd lab down") from error
