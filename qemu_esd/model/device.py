"""A device that looks shared: one disk that each of its hosts offers under the same local name, whoever has its data.

One host has the **authority**: its path handler has the image open, and writes to it. On all others the path handler
forwards to that one. So nobody is ever answered by anything but the newest data.
"""

from __future__ import annotations

from dataclasses import dataclass

from qemu_esd.model.disk import Chain, Image, images, link_of
from qemu_esd.model.host import HostPaths
from qemu_esd.model.plan import Site
from qemu_esd.model.policy import Handler

# Its units on a host, by the first word of their names; the rest is the SUID.
FACE, GATE, WATCH, REAR = "face", "gate", "watcher", "rearwatch"
UNITS = (FACE, GATE, WATCH, REAR)


@dataclass(frozen=True)
class Seat:
    """One host of a device. `port` is where its gate listens for other hosts; `export` the random name under which a
    gate elsewhere lets this host write, so that one host can be shut out without its help."""

    site: Site
    port: int
    export: str

    @property
    def host(self) -> str:
        return self.site.host

    @property
    def paths(self) -> HostPaths:
        return self.site.paths


@dataclass(frozen=True)
class Move:
    """The authority is about to go to the host `target`, where `member` is (or will be) an empty overlay.

    `export` is the random name by which that one will read, and never write, what it does not have.
    """

    id: str
    target: str
    member: Image
    handler: Handler
    export: str


@dataclass(frozen=True)
class Behind:
    """A host that had the authority before, and still has data that the one after it reads."""

    move: str
    host: str
    chain: Chain
    export: str


@dataclass(frozen=True)
class Left:
    """An image that nobody needs any more: renamed from `path` to `aside` on `host`, until `device release`."""

    host: str
    path: str
    aside: str


@dataclass(frozen=True)
class DeviceRecord:
    """The same on each of its hosts; where they differ the highest `generation` counts, which grows with each change.

    `size` in bytes. `chain` is the authority's; it ends in a link while `behind` has data that is not here. `handler`:
    how absent data is read; `behind` is the host that the authority reads from, and each of `beyond` the one that the
    host before it reads from; `policy`: what a move without other words does. `borrowed`: the first image was there
    before the device. `owner` (uid:gid) may connect to the local socket, besides root. `term` counts the changes of
    authority. Generation 0: it is being made.
    """

    suid: str
    size: int
    generation: int
    seats: tuple[Seat, ...]
    authority: str
    chain: Chain
    policy: Handler
    handler: Handler | None = None
    behind: Behind | None = None
    move: Move | None = None
    left: tuple[Left, ...] = ()
    borrowed: bool = False
    owner: str = ""
    term: int = 0
    beyond: tuple[Behind, ...] = ()

    def seat(self, host: str) -> Seat:
        """Raises KeyError for a host that is none of its."""
        for seat in self.seats:
            if seat.host == host:
                return seat
        raise KeyError(host)

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(seat.host for seat in self.seats)

    @property
    def kept(self) -> tuple[Behind, ...]:
        """The hosts whose data is still read, the nearest to the authority first."""
        return (self.behind, *self.beyond) if self.behind else ()

    @property
    def holders(self) -> tuple[str, ...]:
        """The hosts that have its data: the authority, and then each from which the one before it reads."""
        return (self.authority, *(kept.host for kept in self.kept))

    @property
    def others(self) -> tuple[str, ...]:
        """The hosts that have none of it, and only forward."""
        return tuple(host for host in self.hosts if host not in self.holders)

    def kept_on(self, host: str) -> Behind | None:
        return next((kept for kept in self.kept if kept.host == host), None)

    @property
    def is_being_made(self) -> bool:
        """Or that was broken off."""
        return self.generation == 0

    def is_of(self, other: DeviceRecord) -> bool:
        """Whether both are of one device, and not of two that were given the same SUID: export names are random."""
        return self.seats == other.seats

    @property
    def top(self) -> Image:
        """The image that is written to."""
        return images(self.chain)[0]

    @property
    def is_whole(self) -> bool:
        """Whether all of its data is where the authority is."""
        return link_of(self.chain) is None


def socket(paths: HostPaths, suid: str) -> str:
    """The local name of a device, the same on every host."""
    return f"{paths.run}/device/{suid}.sock"


def state_folder(paths: HostPaths, suid: str) -> str:
    """The folder of its record and its key."""
    return f"{paths.state}/device/{suid}"


def record_path(paths: HostPaths, suid: str) -> str:
    return f"{state_folder(paths, suid)}/device.json"


def run_folder(paths: HostPaths, suid: str) -> str:
    """The folder of the monitors of its path handler."""
    return f"{paths.run}/device/{suid}"


def monitor(paths: HostPaths, suid: str, part: str) -> str:
    """The monitor of "face", "gate", or "late" (the face's second one)."""
    return f"{run_folder(paths, suid)}/{part}.sock"


def unit(part: str, suid: str) -> str:
    """The unit of one of UNITS."""
    return f"{part}-{suid}"


def is_ours(paths: HostPaths, image: Image) -> bool:
    """Whether we have made an image, and not whoever shares it."""
    return image.format == "qcow2" and image.path.startswith(f"{paths.state}/disks/")


def member_path(paths: HostPaths, suid: str, generation: int, format: str) -> str:
    """An image of ours of a device."""
    return f"{paths.state}/disks/{suid}.d{generation}.{format}"
