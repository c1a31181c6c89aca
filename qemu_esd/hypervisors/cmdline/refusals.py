"""What cannot be carried to another host, found by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qemu_esd.hypervisors.cmdline.options import Option

_HOST_DEVICE = "it is a device of this host"
_HOST_FOLDER = "it shares a folder of this host"
_HOST_PROCESS = "a process on this host stands behind it"
_HOST_FILE = "its memory is a file on this host"
_HIDDEN = "it hides devices that this command line does not show"
# QEMU 7.2 and 10.1: `.unmigratable = 1` or migrate_add_blocker() in the source of the device or format.
_NEVER = "QEMU cannot migrate it"
_TEMPORARY = "what the guest writes is in temporary files"
_FD = "it is a file descriptor that somebody opened for this process"

# flag: reason
_FLAGS = {
    "add-fd": _FD,
    "fsdev": _HOST_FOLDER,
    "virtfs": _HOST_FOLDER,
    "loadvm": "the guest was started from a snapshot inside an image, which stays here",
    "preconfig": _HIDDEN,
    "readconfig": _HIDDEN,
    "set": _HIDDEN,
    "snapshot": _TEMPORARY,
    "xen-attach": "it belongs to Xen",
    "xen-domid": "it belongs to Xen",
}

# flag: ((pattern of the driver, type or backend, reason), ...)
_KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "device": (
        (r"vfio-.*|.*-passthrough|.*-passthru|usb-host|.*-host(-.*)?|scsi-generic|scsi-block", _HOST_DEVICE),
        (r"virtio-9p-.*|usb-mtp", _HOST_FOLDER),
        (r"vhost-user-(fs|blk|scsi|gpu|input|vsock|device).*|vhost-scsi.*|vhost-vdpa-.*", _HOST_PROCESS),
        (r"ivshmem.*", "its memory is shared with other guests of this host"),
        (
            r"nvme|ufs|usb-(uas|net|serial|braille|wacom-tablet)|rocker|amd-iommu|virtio-crypto.*|.*-gl(-pci)?",
            _NEVER,
        ),
        (r"vhost-user-(gpio|i2c|rng|scmi).*", _NEVER),
    ),
    "netdev": ((r"vhost-vdpa|af-xdp", _HOST_DEVICE),),
    "object": (
        (r"input-linux", _HOST_DEVICE),
        (r"sev-.*|tdx-.*", "the guest's memory is encrypted for this host"),
    ),
    "tpmdev": ((r"passthrough", _HOST_DEVICE),),
    "chardev": ((r"serial|tty|parallel|parport", _HOST_DEVICE), (r"qemu-vdagent", _NEVER)),
}
_KINDS["nic"] = _KINDS["net"] = _KINDS["netdev"]

_UNMIGRATABLE_FORMATS = {"parallels", "qcow", "vdi", "vhdx", "vmdk", "vpc"}

_FD_KEY = re.compile(r"(.*\.)?(fd|fds|vhostfd|vhostfds|sock_fd)")
_FD_VALUE = re.compile(r"/dev/fdset/.*|fd:.*")
_FD_FLAGS = {"blockdev", "chardev", "device", "drive", "netdev", "nic", "net", "object"}
_MEMORY_DISKS = re.compile(r"nvdimm|virtio-pmem-.*")


def blockers(options: tuple[Option, ...]) -> tuple[str, ...]:
    """Disks of the source that keep it from being migrated at all, moved or not."""
    disks = [one for one in options if one.flag in ("drive", "blockdev")]
    frozen = [f"{one}: {_NEVER}" for one in disks if {*_formats(one)} & _UNMIGRATABLE_FORMATS]
    return (*frozen, *(f"{one}: {_TEMPORARY}" for one in disks if one.arguments.is_on("snapshot")))


def refusals(options: tuple[Option, ...]) -> tuple[str, ...]:
    """One text for each option that cannot be carried, starting with the option itself."""
    found = [f"{one}: {reason}" for one in options for reason in _reasons(one)]
    return (*found, *_memory_disks(options))


def _reasons(one: Option) -> Iterator[str]:
    value = one.value or ""
    if one.flag in _FLAGS:
        yield _FLAGS[one.flag]
    if one.flag == "hda" and value.startswith("@"):
        yield _HIDDEN
    if one.flag == "usbdevice" and value.startswith("host:"):
        yield _HOST_DEVICE
    if one.flag in ("serial", "parallel") and value.startswith("/dev/"):
        yield _HOST_DEVICE
    if one.flag in _KINDS:
        yield from _of_kind(one)
    if one.flag in _FD_FLAGS and _has_descriptor(one):
        yield _FD


def _of_kind(one: Option) -> Iterator[str]:
    kind = next((str(value) for key, value in one.arguments.pairs if key == one.arguments.implied), "")
    yield from (reason for pattern, reason in _KINDS[one.flag] if re.fullmatch(pattern, kind))


def _formats(one: Option) -> Iterator[str]:
    return (text for key, text in one.arguments.leaves() if key.rpartition(".")[2] in ("format", "driver"))


def _has_descriptor(one: Option) -> bool:
    return any(_FD_KEY.fullmatch(key) or _FD_VALUE.fullmatch(text) for key, text in one.arguments.leaves())


def _memory_disks(options: tuple[Option, ...]) -> Iterator[str]:
    """Disks in memory whose content is a file: it would have to move too."""
    files = {
        one.arguments.get("id")
        for one in options
        if one.flag == "object" and one.arguments.get("qom-type") == "memory-backend-file"
    }
    for one in options:
        is_disk = one.flag == "device" and _MEMORY_DISKS.fullmatch(one.arguments.get("driver") or "")
        if is_disk and one.arguments.get("memdev") in files:
            yield f"{one}: {_HOST_FILE}"
