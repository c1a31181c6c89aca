"""A control client for NBD: negotiate, ask for maps, have the server cache ranges.

The only home of the NBD wire protocol. It never moves disk data through this process.

    async with nbd.open(reader, writer, "disk", [ALLOCATION_DEPTH]) as client:
        maps = await client.map(ALLOCATION_DEPTH)
        failed = await fill(client, absent(maps[ALLOCATION_DEPTH]))
"""

from qemu_esd.nbd.client import Client, open
from qemu_esd.nbd.errors import (
    NbdClientError,
    NbdConnectionError,
    NbdDisconnected,
    NbdError,
    NbdMapTooLargeError,
    NbdProtocolError,
    NbdRefusedError,
    NbdUnsupportedError,
)
from qemu_esd.nbd.extents import (
    ALLOCATION_DEPTH,
    BASE_ALLOCATION,
    STATE_HOLE,
    Extent,
    Range,
    Residence,
    Residency,
    Status,
    Where,
    absent,
    combine,
    common,
    merge,
    residency,
)
from qemu_esd.nbd.fill import FillError, fill
from qemu_esd.nbd.walk import Maps

__all__ = [
    "ALLOCATION_DEPTH",
    "BASE_ALLOCATION",
    "STATE_HOLE",
    "Client",
    "Extent",
    "FillError",
    "Maps",
    "NbdClientError",
    "NbdConnectionError",
    "NbdDisconnected",
    "NbdError",
    "NbdMapTooLargeError",
    "NbdProtocolError",
    "NbdRefusedError",
    "NbdUnsupportedError",
    "Range",
    "Residence",
    "Residency",
    "Status",
    "Where",
    "absent",
    "combine",
    "common",
    "fill",
    "merge",
    "open",
    "residency",
]
