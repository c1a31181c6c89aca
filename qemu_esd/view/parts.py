"""Parts of what `status` shows of a guest: hosts that have to do with it, its journal here, its memory on the move."""

from __future__ import annotations

from collections.abc import Iterator

from qemu_esd.journal import store, trail
from qemu_esd.model.disk import Endpoint, PlainTcp, TlsTcp, UnixPath, link_of
from qemu_esd.model.record import GuestRecord
from qemu_esd.model.trail import Remark
from qemu_esd.qmp import migrate
from qemu_esd.qmp.session import Session
from qemu_esd.view.facts import HostView, JournalView, MemoryView

LAST_ERRORS = 3
_UNDER_WAY = ("setup", "active", "pre-switchover", "device")


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
