"""The map as a picture has the cells, the scale and the legend of the terminal's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from qemu_esd.cli import map_svg, render_map
from qemu_esd.nbd import Residence, Residency, Where
from qemu_esd.view import DiskMap, DiskView
from tests.cli.conftest import Say

MIB, GIB = 1 << 20, 1 << 30
SIZE = 1024 * GIB
DISK = DiskView("vda", "suid1", "on-demand", "local", SIZE, 2 * GIB, SIZE - 3 * GIB, True)
MAP = DiskMap(
    DISK,
    Residency(
        (
            Residence(0, GIB, Where.LOCAL),
            Residence(GIB, GIB // 2, Where.LOCAL),
            Residence(3 * GIB // 2, SIZE - 5 * GIB // 2, Where.REMOTE),
            Residence(SIZE - GIB, GIB, Where.HOLE),
        ),
        3 * GIB // 2,
        SIZE - 5 * GIB // 2,
        GIB,
    ),
)


def widths(picture: ElementTree.Element) -> dict[str, float]:
    """By class, how many cells are drawn."""
    found: dict[str, float] = {}
    for rect in picture.iter("{http://www.w3.org/2000/svg}rect"):
        if rect.get("height") == str(map_svg.SIDE - 1):
            kind = str(rect.get("class"))
            found[kind] = found.get(kind, 0) + float(str(rect.get("width"))) / map_svg.SIDE
    return found


def test_every_cell_is_drawn_as_what_it_is() -> None:
    picture = ElementTree.fromstring(map_svg.svg("vm1", "hostB", [MAP]))
    assert MAP.residency is not None
    cells = render_map.grid(MAP.residency, SIZE, map_svg.COLUMNS).cells
    assert widths(picture) == {map_svg.CLASSES[kind]: cells.count(kind) for kind in set(cells)}
    assert widths(picture) == {"local": 1, "mixed": 1, "remote": 1021, "hole": 1}
    said = ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert said[0] == "vda on hostB: on-demand, 1.0 TiB"
    assert {"0 B", "256.0 GiB", "local 1.5 GiB", "partly local", "hole 1.0 GiB", "one cell is 1.0 GiB"} < set(said)


def test_a_disk_without_a_map_is_told_in_words_and_two_do_not_overlap() -> None:
    settled = DiskMap(replace(DISK, disk="<b>vdb</b>", local_bytes=SIZE, remote_bytes=0), None)
    picture = ElementTree.fromstring(map_svg.svg("vm1", "hostB", [MAP, settled]))
    assert not list(picture.iter("b"))
    texts = {
        "".join(text.itertext()): float(str(text.get("y"))) for text in picture.iter() if text.tag.endswith("text")
    }
    assert texts["1.0 TiB here, 0 B on the source"] > texts["<b>vdb</b> on hostB: on-demand, 1.0 TiB"]
    assert texts["<b>vdb</b> on hostB: on-demand, 1.0 TiB"] > texts["one cell is 1.0 GiB"]


def test_a_file_that_cannot_be_written_is_told_before_anybody_is_asked(say: Say, tmp_path: Path) -> None:
    told = say("map", "vm1", "--svg", str(tmp_path))
    assert (told.status, told.out) == (2, "")
    assert "cannot be written" in told.err
