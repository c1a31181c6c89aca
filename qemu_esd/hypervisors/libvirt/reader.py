"""The XML of a domain, read. It comes from a host, so it may be anything: a document type is refused, by which a few
bytes could become gigabytes, and what is missing is a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from qemu_esd.errors import LibvirtError
from qemu_esd.hypervisors.libvirt.domain import Configuration, DomainDisk, Layer

# Where the place of a layer is written in its <source>, by its kind.
_PLACES = {"file": "file", "block": "dev", "dir": "dir", "vhostuser": "path"}
# Devices that are of one host, and what they are called.
_OBSTACLES = {
    "devices/hostdev": "a device of the host",
    "devices/interface[@type='hostdev']": "a network device of the host",
    "devices/filesystem": "a shared folder",
    "devices/shmem": "shared memory",
    "os/nvram": "a writable store of UEFI variables",
    "devices/disk/source/encryption": "an encrypted image",
    "devices/disk/source/slices": "a slice of an image",
    "devices/disk/transient": "a disk that forgets what is written",
    "devices/disk/mirror": "a copy of a disk under way",
}
# Files that it starts with, which stay where they are.
_FILES = ("os/kernel", "os/initrd", "os/dtb", "os/loader")


def read(xml: str) -> Configuration:
    """Raises LibvirtError for what is no domain."""
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise LibvirtError("the description of a domain", f"it is no XML that can be read: {error}") from error
    if root.tag != "domain":
        raise LibvirtError("the description of a domain", f"it begins with <{root.tag}>")
    return Configuration(
        name=_text(root, "name"),
        uuid=_text(root, "uuid"),
        machine_type=_find(root, "os/type").get("machine", ""),
        disks=tuple(_disk(disk) for disk in root.iterfind("devices/disk")),
        obstacles=tuple(_obstacles(root)),
        owner=_owner(root),
        own_owner=root.find("seclabel[@model='dac'][@type='static']") is not None,
        files=tuple(_files(root)),
        confined_by=tuple(
            label.get("model", "")
            for label in root.iterfind("seclabel")
            if label.get("model", "dac") != "dac" and label.get("type") != "none"
        ),
    )


def _owner(root: Element) -> str | None:
    """As numbers, where libvirt writes them so; a leading + says that they are."""
    label = root.findtext("seclabel[@model='dac']/label")
    return label.replace("+", "") if label else None


def _files(root: Element) -> Iterator[str]:
    for path in _FILES:
        if text := root.findtext(path):
            yield text
    for disk in root.iterfind("devices/disk[@type='file']"):
        source = disk.find("source")
        stays = disk.get("device", "disk") != "disk" or disk.find("readonly") is not None
        if stays and source is not None and source.get("file"):
            yield source.get("file", "")


def _find(element: Element, path: str) -> Element:
    found = element.find(path)
    if found is None:
        raise LibvirtError("the description of a domain", f"it has no {path} in <{element.tag}>")
    return found


def _text(element: Element, path: str) -> str:
    return _find(element, path).text or ""


def _disk(disk: Element) -> DomainDisk:
    target, driver = _find(disk, "target"), disk.find("driver")
    device = disk.get("device", "disk")
    return DomainDisk(
        target=target.get("dev", ""),
        bus=target.get("bus", ""),
        device=device,
        chain=tuple(_chain(disk, None if driver is None else driver.get("type"))),
        cache=None if driver is None else driver.get("cache"),
        serial=disk.findtext("serial"),
        wwn=disk.findtext("wwn"),
        # libvirt writes it for a CD-ROM, but not everybody who describes one.
        read_only=disk.find("readonly") is not None or device == "cdrom",
        shareable=disk.find("shareable") is not None,
        alias=None if (alias := disk.find("alias")) is None else alias.get("name"),
    )


def _chain(disk: Element, format: str | None) -> Iterator[Layer]:
    """The layers, top first. An empty <backingStore/> says that there is nothing below."""
    yield _layer(disk, format)
    store = disk.find("backingStore")
    while store is not None and store.get("type"):
        below = store.find("format")
        yield _layer(store, None if below is None else below.get("type"))
        store = store.find("backingStore")


def _layer(holder: Element, format: str | None) -> Layer:
    kind, source = holder.get("type", "file"), holder.find("source")
    # Of the top image it is written at its source, of those below at themselves.
    index = holder.get("index") or (None if source is None else source.get("index"))
    return Layer(kind, "" if source is None else _place(kind, source), format, int(index) if index else None)


def _place(kind: str, source: Element) -> str:
    if kind == "network":
        host = source.find("host")
        return f"{source.get('protocol', '')}://{_host(host)}/{source.get('name', '')}"
    if kind == "volume":
        return f"{source.get('pool', '')}/{source.get('volume', '')}"
    return source.get(_PLACES.get(kind, "file"), "")


def _host(host: Element | None) -> str:
    if host is None:
        return ""
    return host.get("socket") or ":".join(part for part in (host.get("name"), host.get("port")) if part)


def _obstacles(root: Element) -> Iterator[str]:
    for path, what in _OBSTACLES.items():
        count = len(root.findall(path))
        if count:
            yield what if count == 1 else f"{what} ({count} of them)"
    for disk in root.iterfind("devices/disk"):
        if disk.get("device") == "lun":
            yield f"{_find(disk, 'target').get('dev')}, which passes SCSI commands on to a device of the host"
