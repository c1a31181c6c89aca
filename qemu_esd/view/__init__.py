"""What is shown of guests and migrations: the facts, and where they come from. Nothing is changed."""

from qemu_esd.view.disks import disk_maps, disk_views
from qemu_esd.view.facts import (
    DiskMap,
    DiskView,
    GuestView,
    HostView,
    JobView,
    JournalView,
    MemoryView,
    MigrationView,
    of_absent,
)
from qemu_esd.view.guest import of_station
from qemu_esd.view.outcome import figures_of, of_migration, of_story
from qemu_esd.view.parts import journal_of

__all__ = [
    "DiskMap",
    "DiskView",
    "GuestView",
    "HostView",
    "JobView",
    "JournalView",
    "MemoryView",
    "MigrationView",
    "disk_maps",
    "disk_views",
    "figures_of",
    "journal_of",
    "of_absent",
    "of_migration",
    "of_station",
    "of_story",
]
