"""A domain of libvirt as plain facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One image of a disk, or what stands for one. `kind` is libvirt's word: file, block, network, volume …

    `place` is a path, "protocol://host/name", or "pool/volume"; "" for an empty drive. `format`: None where libvirt
    does not say. `index` is by what libvirt names its nodes, while the guest runs.
    """

    kind: str
    place: str
    format: str | None
    index: int | None = None

    @property
    def nodes(self) -> tuple[str, str]:
        """What libvirt calls its nodes: the format's (newer ones make none for a raw image), and the file's."""
        return f"libvirt-{self.index}-format", f"libvirt-{self.index}-storage"


_LEAVE = {
    "apparmor": "; its QEMU needs on each host a rule that libvirt does not write, `{folder}/{sockets} rw,` in"
    " /etc/apparmor.d/local/abstractions/libvirt-qemu",
    "selinux": "; libvirt labels images, but no socket in {folder} on any host",
}


@dataclass(frozen=True)
class DomainDisk:
    """A disk, CD-ROM or floppy. `target` is what libvirt's tools call it (vda), `device` disk, cdrom, floppy or lun.

    `chain` is the top image first, each with the backing of the one before; as long as the guest runs libvirt knows it
    to the end.
    """

    target: str
    bus: str
    device: str
    chain: tuple[Layer, ...]
    cache: str | None = None
    serial: str | None = None
    wwn: str | None = None
    read_only: bool = False
    shareable: bool = False
    alias: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it holds data of this host alone, which would have to follow the guest."""
        return self._is_written and self.chain[0].kind == "file"

    @property
    def is_in_doubt(self) -> bool:
        """Whether it may hold data of this host alone, in a way that we cannot move."""
        return self._is_written and self.chain[0].kind not in ("file", "network")

    @property
    def _is_written(self) -> bool:
        return self.device == "disk" and not self.read_only and not self.shareable


@dataclass(frozen=True)
class Configuration:
    """What the XML of a domain says. `obstacles`: what of it can be on one host only, in words.

    `owner` is the user of its QEMU ("uid:gid", None: libvirt does not say), `own_owner` whether the domain itself names
    him. `files` are files of the host that it starts with: kernel, firmware, media. `confined_by`: apparmor, selinux.
    """

    name: str
    uuid: str
    machine_type: str
    disks: tuple[DomainDisk, ...]
    obstacles: tuple[str, ...]
    owner: str | None = None
    own_owner: bool = False
    files: tuple[str, ...] = ()
    confined_by: tuple[str, ...] = ()

    def doubts(self, act: str, folder: str, sockets: str) -> Iterator[str]:
        """What to say of a confined domain before an `act` for which its QEMU needs `sockets` (a pattern) in `folder`.

        libvirt lets it use the files in its XML, and no socket of ours.
        """
        for model in self.confined_by:
            leave = _LEAVE.get(model, "").format(folder=folder, sockets=sockets)
            yield f"it is confined by {model}, under which {act} was not tried{leave}"


@dataclass(frozen=True)
class Domain:
    """A domain as its libvirt tells of it. `state` is libvirt's word: running, paused, shut off …"""

    configuration: Configuration
    state: str
    persistent: bool
    snapshots: int
    checkpoints: int

    def obstacles(self) -> Iterator[str]:
        """All that keeps it on its host, in words."""
        yield from self.configuration.obstacles
        for count, what in ((self.snapshots, "snapshot"), (self.checkpoints, "checkpoint")):
            if count:
                yield f"{count} {what}{'' if count == 1 else 's'}"
