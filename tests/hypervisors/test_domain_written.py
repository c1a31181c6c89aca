"""The XML of a domain as it is to be on another host: nothing of it is lost but where its disks' data is."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

from qemu_esd.hypervisors.libvirt.reader import read
from qemu_esd.hypervisors.libvirt.writer import NewDisk, moved, settled

FIXTURES = Path(__file__).parents[2] / "fixtures/domains"
STORIES = sorted(FIXTURES.glob("*.xml"))
# What of a disk is said anew.
NEW = ("driver", "source", "backingStore")


def new(target: str, *, keeps_reads: bool = True) -> NewDisk:
    return NewDisk(target, f"/i & i/{target}.qcow2", "/run/relay.sock", f"esd-{target}", keeps_reads, "stop")


def parts(root: Element, *left_out: str) -> list[str]:
    """All elements with their attributes, but those of disks that are called so."""
    found = []
    for element in root.iter():
        target = element.find("target") if element.tag == "disk" else None
        if target is not None and target.get("dev") in left_out:
            element.attrib.pop("type", None)
            for child in [child for child in element if child.tag in NEW]:
                element.remove(child)
    for element in root.iter():
        found.append(f"{element.tag} {sorted(element.attrib.items())} {(element.text or '').strip()}")
    return found


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_all_else_is_as_it_was(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    local = [disk.target for disk in read(text).disks if disk.is_local]
    told = moved(text, map(new, local))
    assert parts(fromstring(told), *local) == parts(fromstring(text), *local)
    for disk in read(told).disks:
        if disk.target in local:
            top, below = disk.chain
            assert (top.place, top.format) == (f"/i & i/{disk.target}.qcow2", "qcow2")
            assert (below.place, below.format) == (f"nbd:///run/relay.sock/esd-{disk.target}", "raw")


def test_a_driver_keeps_what_is_not_about_its_image() -> None:
    text = next(path for path in STORIES if "web" in path.stem).read_text(encoding="utf-8")
    before = fromstring(text).find("devices/disk/driver")
    assert before is not None
    for keeps_reads, word in ((True, "on"), (False, "off")):
        driver = fromstring(moved(text, [new("vda", keeps_reads=keeps_reads)])).find("devices/disk/driver")
        assert driver is not None
        assert driver.get("cache") == before.get("cache")
        assert (driver.get("type"), driver.get("discard"), driver.get("copy_on_read")) == ("qcow2", "ignore", word)
        assert (driver.get("error_policy"), driver.get("rerror_policy")) == ("stop", "stop")


def test_of_a_settled_disk_nothing_is_said_of_reads() -> None:
    text = next(path for path in STORIES if "web" in path.stem).read_text(encoding="utf-8")
    told = settled(moved(text, [new("vda")]), ["vda"])
    driver = fromstring(told).find("devices/disk/driver")
    assert driver is not None
    assert "copy_on_read" not in driver.attrib
