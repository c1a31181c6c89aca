"""Parts of what `status` shows of a guest: hosts that have to do with it, its journal here, its memory on the move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qemu_esd.journal import store, trail
from qemu_esd.model.disk import Endpoint, PlainTcp, TlsTcp, UnixPath, link_of
from qemu_esd.model.record import GuestRecord
from qemu_esd.model.trail import Remark
from qemu_esd.qmp import migrate
from qemu_esd.qmp.session import Session

LAST_ERRORS = 3
_UNDER_WAY = ("setup", "active", "pre-switchover", "device")


@dataclass(frozen=True)
class HostView:
    """A host that has to do with a guest. `role`: it "runs" the guest, "serves" data of it, or "keeps" a former image.

    `migration` is the one that took the guest away from there. `transport` ("tls", "tcp", "ssh") and `address` (with a
    port; a socket for ssh) are those by which the guest's host reads from it, where that is told there.
    """

    host: str
    role: str
    migration: str | None = None
    transport: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class JournalView:
    """The journal of the guest's last migration on this controller. `errors` are the last that were said of it."""

    id: str
    state: str
    at_work: bool
    errors: tuple[str, ...]


@dataclass(frozen=True)
class MemoryView:
    """A guest's memory while it moves: bytes, how fast the guest writes to it (bytes/s), and for how long the guest
    would stand still now; None for what QEMU does not know yet."""

    done: int
    total: int
    dirty_rate: int | None
    downtime_ms: int | None


def hosts_of(record: GuestRecord, host: str) -> tuple[HostView, ...]:
    """Where the guest runs first, then whom it reads from, the nearest first, then who only keeps what it has left."""
    return tuple(_hosts(record, host))


def _hosts(record: GuestRecord, host: str) -> Iterator[HostView]:
    yield HostView(host, "runs")
    link = next((link for disk in record.disks if (link := link_of(disk.chain))), None)
    nearest = _way(link.endpoint) if link else (None, None)
    for number, one in enumerate(record.upstream):
        yield HostView(one.host, "serves", one.migration, *(nearest if number == 0 else (None, None)))
    for one in record.left_behind:
        yield HostView(one.host, "keeps", one.migration)


def _way(endpoint: Endpoint) -> tuple[str, str]:
    match endpoint:
        case TlsTcp(address, port):
            return "tls", f"{address}:{port}"
        case PlainTcp(address, port):
            return "tcp", f"{address}:{port}"
        case UnixPath(path):
            return "ssh", path


def journal_of(story: store.Story) -> JournalView:
    marks = [each.mark for each in trail.read(story.plan.id)]
    errors = [mark.text for mark in marks if isinstance(mark, Remark) and mark.level == "error"]
    return JournalView(story.plan.id, story.state, store.at_work(story.plan.id), tuple(errors[-LAST_ERRORS:]))


async def memory_of(qemu: Session) -> MemoryView | None:
    """None where no memory moves."""
    now = await migrate.progress(qemu)
    if now.status not in _UNDER_WAY:
        return None
    return MemoryView(now.transferred, now.transferred + now.remaining, now.dirty_rate, now.expected_ms)
