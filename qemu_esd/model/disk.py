"""A guest's disk: what the guest sees, and the chain of images (and links) that its data comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TlsTcp:
    """NBD over TLS with a pre-shared key. `key_dir` is the folder of keys.psk on the client's host."""

    address: str
    port: int
    key_dir: str


@dataclass(frozen=True)
class PlainTcp:
    """NBD without encryption: only by --plaintext."""

    address: str
    port: int


@dataclass(frozen=True)
class UnixPath:
    """A unix socket on the client's host (one end of the ssh tunnel, or a local server)."""

    path: str


Endpoint = TlsTcp | PlainTcp | UnixPath


@dataclass(frozen=True)
class Link:
    """How one host reads a device from the path handler of another. The export's name is random, for one image only."""

    endpoint: Endpoint
    export: str


@dataclass(frozen=True)
class Image:
    """An image file. `format` is raw or qcow2; `direct` is O_DIRECT (cache=none), for whoever opens it next too."""

    path: str
    format: str
    direct: bool = False


Layer = Image | Link
# Where a disk's data comes from: the top layer first, each the backing of the one before.
Chain = tuple[Layer, ...]


def link_of(chain: Chain) -> Link | None:
    """The link at the bottom of a chain, if its data is partly on another host."""
    return next((layer for layer in chain if isinstance(layer, Link)), None)


def images(chain: Chain) -> tuple[Image, ...]:
    """The layers of a chain that are on this host, top first."""
    return tuple(layer for layer in chain if isinstance(layer, Image))


def top_image(chain: Chain) -> Image | None:
    """The image that writes go to, if there is one on this host."""
    return chain[0] if isinstance(chain[0], Image) else None


@dataclass(frozen=True)
class Disk:
    """A writable disk of a running guest.

    `id` is what the user calls it; `qdev` QEMU's path of the device; `drive` the drive id or node name that the
    command line uses; `node` the node under the device now; `overlay` the topmost node that holds data (below a
    copy-on-read filter); `size` and `data` in bytes, the latter what a copy has to move at most; `driver` the device
    model; `corrupt` is QEMU's word about the image, `read_errors` what the device does when
    a read fails (rerror: stop, report, auto …; fixed when the device is made); `backing` is the node right below
    `overlay`, where it was not us who gave it its name.
    """

    id: str
    suid: str
    qdev: str
    driver: str
    drive: str
    node: str
    overlay: str
    size: int
    logical_block: int
    serial: str | None
    chain: Chain
    data: int
    corrupt: bool = False
    read_errors: str = "auto"
    backing: str = ""
