"""The XML of a domain whose disk is on a device that looks shared, and how a domain comes to it and from it again.

To libvirt such a disk is on a network (NBD), by a local socket that has the same name on every host: it migrates it
without a word about storage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from defusedxml.ElementTree import fromstring

from qemu_esd.errors import LibvirtError
from qemu_esd.hypervisors.libvirt.connection import Connection
from qemu_esd.hypervisors.libvirt.writer import nbd_source
from qemu_esd.model.disk import Image

# What of a disk is about the image that it leaves.
_LEFT = ("source", "backingStore", "mirror")
_ERRORS = ("error_policy", "rerror_policy")
# Memory is written to the host's disk, and read back.
SAVE_SECONDS = 3600.0

Change = Callable[[str], str]


def shared(xml: str, target: str, suid: str, socket: str) -> str:
    """The description `xml` with the disk `target` on the device. The guest sees the same disk: its place, serial and
    size stay. Errors pause it, because the path handler may be killed and started again."""

    def change(disk: Element) -> None:
        disk.set("type", "network")
        driver = _driver(disk, "raw")
        for name in _ERRORS:
            driver.set(name, "stop")
        disk.insert(1, nbd_source(suid, socket))

    return _changed(xml, target, change)


def given_back(xml: str, target: str, image: Image) -> str:
    """The description with the disk on an image of the host again."""

    def change(disk: Element) -> None:
        disk.set("type", "file")
        driver = _driver(disk, image.format)
        for name in _ERRORS:
            driver.attrib.pop(name, None)
        disk.insert(1, Element("source", file=image.path))

    return _changed(xml, target, change)


def new_disk(suid: str, socket: str, target: str) -> str:
    """A device as a further disk, for libvirt's attach."""
    disk = Element("disk", type="network", device="disk")
    SubElement(disk, "driver", name="qemu", type="raw", cache="none", error_policy="stop", rerror_policy="stop")
    disk.append(nbd_source(suid, socket))
    SubElement(disk, "target", dev=target, bus="virtio")
    SubElement(disk, "serial").text = suid
    return tostring(disk, encoding="unicode")


def device_of(xml: str, target: str) -> str | None:
    """The SUID of the device that a disk is on, by the name of its export; None for any other disk."""
    source = _disk(fromstring(xml, forbid_dtd=True), target).find("source")
    host = None if source is None else source.find("host")
    if source is None or host is None or "/qemu-esd/device/" not in host.get("socket", ""):
        return None
    return source.get("name")


def free_target(xml: str) -> str:
    """What libvirt is to call one more virtio disk."""
    used = {element.get("dev") for element in fromstring(xml, forbid_dtd=True).iterfind("devices/disk/target")}
    return next(name for letter in "abcdefghijklmnopqrstuvwxyz" if (name := f"vd{letter}") not in used)


def _changed(xml: str, target: str, change: Callable[[Element], None]) -> str:
    root: Element = fromstring(xml, forbid_dtd=True)
    disk = _disk(root, target)
    for child in list(disk):
        if child.tag in _LEFT:
            disk.remove(child)
    change(disk)
    return tostring(root, encoding="unicode")


def _disk(root: Element, target: str) -> Element:
    for disk in root.iterfind("devices/disk"):
        found = disk.find("target")
        if found is not None and found.get("dev") == target:
            return disk
    raise LibvirtError("the description of a domain", f"it has no disk {target}")


def _driver(disk: Element, format: str) -> Element:
    """The driver with what it was told of caches and the like."""
    driver = disk.find("driver")
    if driver is not None:
        disk.remove(driver)
    driver = Element("driver", {} if driver is None else driver.attrib)
    driver.set("name", "qemu")
    driver.set("type", format)
    disk.insert(0, driver)
    return driver


async def description(connection: Connection, name: str) -> str:
    """Its definition, with what is secret in it, so that nothing is lost when it is defined anew."""
    flags = connection.binding.VIR_DOMAIN_XML_INACTIVE | connection.binding.VIR_DOMAIN_XML_SECURE
    return await connection.call(f"the definition of {name}", lambda raw: str(raw.lookupByName(name).XMLDesc(flags)))


async def define(connection: Connection, name: str, xml: str) -> None:
    await connection.call(f"another definition of {name}", lambda raw: raw.defineXML(xml) and None)


async def save(connection: Connection, name: str) -> None:
    """The guest stops, its memory goes to the host's disk, and its QEMU ends. After a kill: `virsh start` reads it."""
    await connection.call(f"a managed save of {name}", lambda raw: raw.lookupByName(name).managedSave(), SAVE_SECONDS)


async def change_saved(connection: Connection, name: str, change: Change) -> None:
    """The saved guest is to come back with another description."""

    def act(raw: Any) -> None:
        domain = raw.lookupByName(name)
        xml = domain.managedSaveGetXMLDesc(connection.binding.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
        domain.managedSaveDefineXML(change(xml))

    await connection.call(f"another description of the saved {name}", act)


async def start(connection: Connection, name: str) -> None:
    """From what was saved, where that is there."""
    await connection.call(f"a start of {name}", lambda raw: raw.lookupByName(name).create(), SAVE_SECONDS)


async def attach(connection: Connection, name: str, xml: str, *, running: bool) -> None:
    """A further disk, now and for the next start."""
    flags = connection.binding.VIR_DOMAIN_AFFECT_CONFIG
    if running:
        flags |= connection.binding.VIR_DOMAIN_AFFECT_LIVE
    await connection.call(f"one more disk of {name}", lambda raw: raw.lookupByName(name).attachDeviceFlags(xml, flags))
