"""The XML of domains, as libvirt has written it, and as nobody should."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.errors import LibvirtError
from qemu_esd.hypervisors.libvirt.domain import Domain, Layer
from qemu_esd.hypervisors.libvirt.reader import read

STORIES = sorted((Path(__file__).parents[2] / "fixtures/domains").glob("*.xml"))
# What XML 1.0 can hold; libvirt takes no line ends in names either.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="\r\n\x85\u2028"), min_size=1)
# A document type that grows: ten times as much with each line.
BOMB = """<!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<domain><name>&b;</name></domain>"""


def facts_of(path: Path) -> dict[str, Any]:
    configuration = read(path.read_text(encoding="utf-8"))
    # Through JSON, so that it compares with what was written down.
    told: dict[str, Any] = json.loads(json.dumps(asdict(configuration)))
    return told


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert facts_of(path) == told["expected"]
    local = [disk.target for disk in read(path.read_text(encoding="utf-8")).disks if disk.is_local]
    assert local == told["local"]


@given(name=TEXT, path=TEXT)
def test_any_name_and_path_comes_through(name: str, path: str) -> None:
    root = Element("domain")
    SubElement(root, "name").text = name
    SubElement(root, "uuid").text = "u"
    SubElement(SubElement(root, "os"), "type")
    disk = SubElement(SubElement(root, "devices"), "disk", type="file")
    SubElement(disk, "source", file=path)
    SubElement(disk, "target", dev="vda")
    configuration = read(tostring(root, encoding="unicode"))
    assert (configuration.name, configuration.disks[0].chain) == (name, (Layer("file", path, None),))


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "no xml",
        "<domain>",
        "<network/>",
        "<domain/>",
        "<domain><name>a</name></domain>",
        "<domain><name>a</name><uuid>u</uuid><os><type/></os><devices><disk/></devices></domain>",
        BOMB,
    ],
)
def test_what_is_no_domain_is_refused(xml: str) -> None:
    with pytest.raises(LibvirtError, match="libvirt, asked for the description of a domain"):
        read(xml)


def test_all_obstacles_are_named() -> None:
    path = next(path for path in STORIES if "bound" in path.stem)
    domain = Domain(read(path.read_text(encoding="utf-8")), "running", True, snapshots=2, checkpoints=1)
    assert list(domain.obstacles()) == [
        "a device of the host (2 of them)",
        "a shared folder",
        "shared memory",
        "sda, which passes SCSI commands on to a device of the host",
        "2 snapshots",
        "1 checkpoint",
    ]
