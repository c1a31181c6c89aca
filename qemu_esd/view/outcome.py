"""A migration as its journal tells it."""

from __future__ import annotations

from collections.abc import Iterable

from qemu_esd.journal import store
from qemu_esd.model.record import Measured
from qemu_esd.view.facts import DiskMap, DiskView, MigrationView


def of_migration(story: store.Story, disks: Iterable[DiskMap]) -> MigrationView:
    """A migration whose guest runs on the target."""
    return _outcome(story, tuple(each.view for each in disks))


def of_story(story: store.Story) -> MigrationView:
    """A migration as its journal alone tells it: what is where is known only if nothing was moved."""
    return _outcome(story, tuple(_planned_disks(story)))


def _outcome(story: store.Story, disks: tuple[DiskView, ...]) -> MigrationView:
    figures = figures_of(story)
    return MigrationView(
        id=story.plan.id,
        vm=story.plan.vm,
        source=story.plan.source.host,
        target=story.plan.target.host,
        committed=story.state.committed,
        state=story.state,
        downtime_ms=figures.get("downtime"),
        resumed_after_ms=figures.get("resumed-after"),
        total_ms=figures.get("total"),
        disks=disks,
    )


def _planned_disks(story: store.Story) -> list[DiskView]:
    moved = story.state.committed
    return [
        DiskView(
            plan.disk.id,
            plan.disk.suid,
            plan.handler,
            "local",
            plan.disk.size,
            None if moved else plan.disk.size,
            None if moved else 0,
            moved and plan.handler.needs_source,
        )
        for plan in story.plan.disks
    ]


def figures_of(story: store.Story | None) -> dict[str, float]:
    """What a migration measured, in ms by name."""
    entries = story.entries if story else ()
    return {entry.name: round(entry.ms, 1) for entry in entries if isinstance(entry, Measured)}
