"""Which guests this controller has seen, and on which hosts, in order. A convenience: hosts know the truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qemu_esd.journal import codec
from qemu_esd.journal.store import room, write_file
from qemu_esd.log import logger
from qemu_esd.model.host import vm_key


@dataclass(frozen=True)
class Known:
    """A guest by name; `hosts` are those it ran on, the present one last."""

    name: str
    hosts: tuple[str, ...]


def _folder() -> Path:
    return room("guests")


def remember(name: str, host: str) -> None:
    """The guest runs on `host` now."""
    known = find(name)
    hosts = known.hosts if known else ()
    if hosts[-1:] != (host,):
        _write(Known(name, (*hosts, host)))


def _write(known: Known) -> None:
    write_file(_folder() / f"{vm_key(known.name)}.json", codec.dump(known))


def forget(name: str) -> None:
    """The guest is nobody's concern any more. Forgotten already is fine."""
    (_folder() / f"{vm_key(name)}.json").unlink(missing_ok=True)


def find(name: str) -> Known | None:
    """The guest, or None if it was never seen here. Raises RecordError for a damaged file."""
    path = _folder() / f"{vm_key(name)}.json"
    return _read(path) if path.exists() else None


def is_empty() -> bool:
    """Whether no guest is known here."""
    return next(_folder().glob("*.json"), None) is None


def everything() -> Iterable[Known]:
    """All guests, by name; one whose file is damaged is warned of, and left out."""
    found = (_readable(path) for path in sorted(_folder().glob("*.json")))
    return [known for known in found if known is not None]


def _readable(path: Path) -> Known | None:
    try:
        return _read(path)
    except codec.RecordError as error:
        logger.warning("a guest is left out: its file is damaged", file=str(path), why=error.what, hint=error.hint)
        return None


def _read(path: Path) -> Known:
    try:
        return codec.load(path.read_bytes(), Known)
    except codec.RecordError as error:
        hint = f"rm {path}, then name the guest's host once with --from or --host"
        raise codec.RecordError(error.what, hint=hint) from error
