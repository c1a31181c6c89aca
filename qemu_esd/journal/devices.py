"""Which devices this controller has seen, and on which hosts. A convenience: hosts know the truth."""

from __future__ import annotations

import json
from pathlib import Path

from qemu_esd.journal.store import room, write_file


def _folder() -> Path:
    return room("devices")


def remember(suid: str, hosts: tuple[str, ...]) -> None:
    write_file(_folder() / f"{suid}.json", json.dumps(hosts))


def forget(suid: str) -> None:
    """Forgotten already is fine."""
    (_folder() / f"{suid}.json").unlink(missing_ok=True)


def hosts_of(suid: str) -> tuple[str, ...]:
    """None for one that was never seen here; none that can be read for a damaged file, which is one too."""
    path = _folder() / f"{suid}.json"
    try:
        return tuple(str(name) for name in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ()


def everything() -> dict[str, tuple[str, ...]]:
    """All devices, with their hosts."""
    return {path.stem: hosts_of(path.stem) for path in sorted(_folder().glob("*.json"))}
