"""Links as migrations have them: an endpoint as its server and as its client see it, keys included."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qemu_esd.graph import tls
from qemu_esd.model.disk import Endpoint, PlainTcp, TlsTcp, UnixPath
from tests.support.net import free_port

TRANSPORTS = ("tls", "plaintext", "ssh")


@dataclass(frozen=True)
class Ends:
    """One endpoint: where the path handler listens, and how the other host reaches it."""

    listen: Endpoint
    reach: Endpoint


def ends(folder: Path, transport: str, migration: str = "0badcafe") -> Ends:
    """As a plan makes them, both hosts being this machine."""
    if transport == "ssh":
        return Ends(UnixPath(f"{folder}/link.sock"), UnixPath(f"{folder}/link.sock"))
    port = free_port()
    if transport == "plaintext":
        return Ends(PlainTcp("127.0.0.1", port), PlainTcp("127.0.0.1", port))
    here, there = key_folder(folder / "here" / migration), key_folder(folder / "there" / migration)
    return Ends(TlsTcp("127.0.0.1", port, str(here)), TlsTcp("127.0.0.1", port, str(there)))


def key_folder(path: Path, key: str = "ab" * 32) -> Path:
    """The link's folder on one host, named after the migration."""
    path.mkdir(parents=True, exist_ok=True)
    (path / tls.KEY_FILE).write_bytes(tls.key_line(key))
    (path / tls.GROUP_FILE).write_bytes(tls.FFDHE2048)
    return path
