"""A device that looks shared in each state of its record."""

from __future__ import annotations

from qemu_esd.model.device import DeviceRecord, Seat
from qemu_esd.model.disk import Image
from qemu_esd.model.host import HostPaths
from qemu_esd.model.plan import Site
from qemu_esd.model.policy import Handler
from qemu_esd.phases import device_move, device_settle

PATHS = HostPaths("/var/lib/qemu-esd", "/run/qemu-esd")
SEATS = tuple(
    Seat(Site(f"host{letter}", PATHS, f"10.0.0.{number}"), 49800 + number, f"esd-{letter * 32}")
    for number, letter in enumerate("abc")
)
WHOLE = DeviceRecord("d1", 1 << 20, 1, SEATS, "hosta", (Image("/srv/a.raw", "raw"),), Handler.ON_DEMAND)
MOVING = device_move.said(WHOLE, "hostb", Handler.ON_DEMAND)
TAKEN = device_move.taken(MOVING)
SETTLED = device_settle.whole(TAKEN)
MOVING_ON = device_move.said(TAKEN, "hostc", Handler.ON_DEMAND)
MOVED_ON = device_move.taken(MOVING_ON)
STATES = {
    "whole": WHOLE,
    "moving": MOVING,
    "taken": TAKEN,
    "settled": SETTLED,
    "moving on": MOVING_ON,
    "moved on": MOVED_ON,
    "settled there": device_settle.whole(MOVED_ON),
}
