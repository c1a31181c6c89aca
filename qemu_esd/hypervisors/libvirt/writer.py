"""The XML of a domain as it is to be on the target: its own, but for where the data of its disks is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from defusedxml.ElementTree import fromstring

from qemu_esd.graph.nodes import RECONNECT_SECONDS

# What of a disk is about the image that it leaves.
_LEFT = ("source", "backingStore", "mirror")
# What its driver may say of the next image too.
_KEPT = (
    "cache",
    "io",
    "ioeventfd",
    "event_idx",
    "queues",
    "iothread",
    "queue_size",
    "detect_zeroes",
    "packed",
    "iommu",
)


@dataclass(frozen=True)
class NewDisk:
    """A disk on the target, by what libvirt calls it (vda): `path` is the overlay there, above the device that the
    relay serves as `export` on `socket`. `keeps_reads`: what is read is kept. `read_errors`: stop, report …
    """

    target: str
    path: str
    socket: str
    export: str
    keeps_reads: bool
    read_errors: str


def moved(xml: str, disks: Iterable[NewDisk]) -> str:
    """The description `xml` with these disks where they will be; all else is as it was."""
    root: Element = fromstring(xml, forbid_dtd=True)
    by_target = {disk.target: disk for disk in disks}
    for element in root.iterfind("devices/disk"):
        target = element.find("target")
        if target is not None and (disk := by_target.get(target.get("dev", ""))):
            _move(element, disk)
    return tostring(root, encoding="unicode")


def _move(element: Element, disk: NewDisk) -> None:
    for child in list(element):
        if child.tag in _LEFT:
            element.remove(child)
    element.set("type", "file")
    element.insert(0, _driver(element, disk))
    element.insert(1, Element("source", file=disk.path))
    element.insert(2, _backing(disk))


def _driver(element: Element, disk: NewDisk) -> Element:
    """Discards are ignored while data is missing, as everywhere: see graph/handlers/overlays.py."""
    driver = Element("driver", name="qemu", type="qcow2")
    old = element.find("driver")
    if old is not None:
        element.remove(old)
        driver.attrib.update({key: value for key, value in old.attrib.items() if key in _KEPT})
    driver.set("error_policy", "stop")
    driver.set("rerror_policy", disk.read_errors)
    driver.set("discard", "ignore")
    driver.set("copy_on_read", "on" if disk.keeps_reads else "off")
    return driver


def _backing(disk: NewDisk) -> Element:
    store = Element("backingStore", type="network")
    SubElement(store, "format", type="raw")
    store.append(nbd_source(disk.export, disk.socket))
    SubElement(store, "backingStore")
    return store


def nbd_source(export: str, socket: str) -> Element:
    """An export of a daemon of ours on the same host. It may be killed and started again: a libvirt below 9.2 drops the
    word about that, and its QEMU has an error at the first read after it."""
    source = Element("source", protocol="nbd", name=export, tls="no")
    SubElement(source, "host", transport="unix", socket=socket)
    SubElement(source, "reconnect", delay=str(RECONNECT_SECONDS))
    return source


def settled(xml: str, targets: Iterable[str]) -> str:
    """The description `xml` with nothing said any more of what is read from elsewhere by the disks `targets`."""
    root: Element = fromstring(xml, forbid_dtd=True)
    names = frozenset(targets)
    for element in root.iterfind("devices/disk"):
        target, driver = element.find("target"), element.find("driver")
        if driver is not None and target is not None and target.get("dev") in names:
            driver.attrib.pop("copy_on_read", None)
    return tostring(root, encoding="unicode")
