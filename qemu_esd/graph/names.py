"""Names of everything that we make in a QEMU or a storage daemon, derived from SUID and migration id.

Because they are derived, "does it exist?" has an answer after a crash. Node names end at 31 characters in QEMU.
"""

from __future__ import annotations

import hashlib
import re

PREFIX = "esd-"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,19}")


def node(suid: str, role: str) -> str:
    """The node of a device in one role ("ovl", "cor", "nbd" …), at most 31 characters."""
    slug = suid if _PLAIN.fullmatch(suid) else hashlib.sha256(suid.encode()).hexdigest()[:16]
    return f"{PREFIX}{slug}-{role}"


def overlay(suid: str, level: int = 0) -> str:
    """A qcow2 that holds what is local. `level` counts from the bottom: a change of handler may put one on top."""
    return node(suid, f"ovl{level or ''}")


def file(suid: str, level: int = 0) -> str:
    """The overlay's file: named, because a reopen of the overlay has to name it."""
    return node(suid, f"file{level or ''}")


def copy_on_read(suid: str) -> str:
    """The filter above the overlay that keeps what is read."""
    return node(suid, "cor")


def own(suid: str) -> str:
    """A view of the overlay that knows nothing of what is below it, while a background move lasts."""
    return node(suid, "own")


def remote(suid: str) -> str:
    """The NBD client that reads what is not local."""
    return node(suid, "nbd")


def remote_writable(suid: str) -> str:
    """The NBD client of a disk without local space, once it may write."""
    return node(suid, "rw")


def absent(suid: str) -> str:
    """The node that fails reads (handler miss)."""
    return node(suid, "miss")


def served(suid: str) -> str:
    """In a path handler: the node that is exported, whatever lies below it."""
    return node(suid, "srv")


def image(suid: str) -> str:
    """In a path handler: the image taken over from the source QEMU."""
    return node(suid, "img")


def held(suid: str) -> str:
    """In a path handler: what is right below `image`, the format node of the image."""
    return node(suid, "hold")


def bad(suid: str) -> str:
    """In a path handler, with one more digit: the node that lets no read come to sectors that cannot be read."""
    return node(suid, "bad")


def proxy(suid: str) -> str:
    """In a path handler: the NBD client of the source QEMU."""
    return node(suid, "up")


def sink(suid: str) -> str:
    """Where the background move's mirror throws away what it has read through the copy-on-read filter."""
    return node(suid, "sink")


def zeroes(suid: str) -> str:
    """In a relay: what answers at the end, when only holes are left."""
    return node(suid, "zero")


def base(suid: str) -> str:
    """The image that was left on this host, below the overlay of a guest that is home; digits count further down."""
    return node(suid, "base")


def changed(suid: str) -> str:
    """What tells which clusters were written on the host before: a node here, exports here and in the path handler."""
    return node(suid, "chg")


def changes(migration: str) -> str:
    """The dirty bitmap of what was written since that migration."""
    return f"{PREFIX}{migration}"


def header_job(suid: str) -> str:
    """The job that writes the name of the backing into the overlay's header."""
    return node(suid, "name")


def move_job(suid: str) -> str:
    """The mirror of the background move."""
    return node(suid, "move")


def export_id(suid: str, role: str) -> str:
    """Exports have ids in a name space of their own."""
    return node(suid, role)


def is_ours(name: str) -> bool:
    """Whether a node, export or job in a QEMU has a name that we give."""
    return name.startswith(PREFIX)


def credentials(migration: str) -> str:
    """The TLS object for a migration's link."""
    return f"{PREFIX}tls-{migration}"


def incoming_credentials(migration: str) -> str:
    """The TLS object for the RAM stream, in the target QEMU (the link's one is a client, this one a server)."""
    return f"{credentials(migration)}-ram"
