"""Which guests this controller has seen, and on which hosts, in order. A convenience: hosts know the truth."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from qemu_esd.journal.store import home
from qemu_esd.model.host import vm_key


@dataclass(frozen=True)
class Known:
    """A guest by name; `hosts` are those it ran on, the present one last."""

    name: str
    hosts: tuple[str, ...]


def _folder() -> Path:
    folder = home() / "guests"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def remember(name: str, host: str) -> None:
    """The guest runs on `host` now."""
    known = find(name)
    hosts = known.hosts if known else ()
    if hosts[-1:] != (host,):
        _write(Known(name, (*hosts, host)))


def _write(known: Known) -> None:
    path = _folder() / f"{vm_key(known.name)}.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(known)), encoding="utf-8")
    fresh.replace(path)


def forget(name: str) -> None:
    (_folder() / f"{vm_key(name)}.json").unlink(missing_ok=True)


def find(name: str) -> Known | None:
    path = _folder() / f"{vm_key(name)}.json"
    return _read(path) if path.exists() else None


def everything() -> Iterable[Known]:
    return [_read(path) for path in sorted(_folder().glob("*.json"))]


def _read(path: Path) -> Known:
    row = json.loads(path.read_text(encoding="utf-8"))
    return Known(row["name"], tuple(row["hosts"]))
