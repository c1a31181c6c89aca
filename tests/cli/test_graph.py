"""A block graph in each of its forms, from one that has all there is: two programs, a job, a node with two above it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console

from qemu_esd.cli import graph_svg, graph_text, render, render_graph
from qemu_esd.model.block_graph import (
    BlockGraph,
    BlockNode,
    Edge,
    Program,
    ProgramKind,
    Reading,
    User,
    UserKind,
    readings,
)
from tests.cli.conftest import Say

MIB = 1 << 20
GUEST = Program(
    "hostB",
    ProgramKind.GUEST,
    "vm1",
    "running",
    "1a2b3c4d",
    nodes=(
        BlockNode("esd-x-cor", "copy-on-read", None, False),
        BlockNode("esd-x-ovl", "qcow2", None, False),
        BlockNode("esd-x-file", "file", "/d/x.qcow2", False),
        BlockNode("esd-x-nbd", "nbd", None, True),
        BlockNode("esd-x-sink", "null-co", None, False),
        BlockNode("spare", "null-co", None, False),
    ),
    edges=(
        Edge("esd-x-cor", "file", "esd-x-ovl"),
        Edge("esd-x-ovl", "file", "esd-x-file"),
        Edge("esd-x-ovl", "backing", "esd-x-nbd"),
    ),
    users=(
        User(UserKind.EXPORT, "esd-x-map", ("esd-x-ovl",)),
        User(UserKind.DEVICE, "vda", ("esd-x-cor",)),
        User(UserKind.JOB, "esd-x-move", ("esd-x-cor", "esd-x-sink"), "mirror, running", MIB, 4 * MIB),
    ),
)
HANDLER = Program(
    "hostA",
    ProgramKind.PATH_HANDLER,
    "1a2b3c4d",
    nodes=(BlockNode("esd-x-srv", "raw", None, True),),
    users=(User(UserKind.EXPORT, "esd-x-srv", ("esd-x-srv",)),),
)
# A domain of libvirt, whose nodes have names of libvirt's; the export of the relay has ours.
DOMAIN = Program(
    "hostB",
    ProgramKind.GUEST,
    "web1",
    "running",
    "1a2b3c4d",
    nodes=(
        BlockNode("libvirt-1-format", "qcow2", None, False),
        BlockNode("libvirt-1-storage", "file", "/d/web1.x.g1.qcow2", False),
        BlockNode("libvirt-2-format", "raw", None, True),
        BlockNode("libvirt-2-storage", "nbd", None, True),
    ),
    edges=(
        Edge("libvirt-1-format", "file", "libvirt-1-storage"),
        Edge("libvirt-1-format", "backing", "libvirt-2-format"),
        Edge("libvirt-2-format", "file", "libvirt-2-storage"),
    ),
    users=(User(UserKind.DEVICE, "virtio-disk0", ("libvirt-1-format",)),),
)
RELAY = Program(
    "hostB",
    ProgramKind.RELAY,
    "1a2b3c4d",
    reads_by="1a2b3c4d",
    nodes=(BlockNode("esd-x-srv", "raw", None, True), BlockNode("esd-x-nbd", "nbd", None, True)),
    edges=(Edge("esd-x-srv", "file", "esd-x-nbd"),),
    users=(User(UserKind.EXPORT, "esd-x-srv", ("esd-x-srv",)),),
)
RELAYED = {("hostB", "/d/web1.x.g1.qcow2"): "esd-x-srv"}
GRAPH = BlockGraph("vm1", (GUEST, HANDLER), readings((GUEST, HANDLER)))


def tree(graph: BlockGraph) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None, highlight=False)
    return render.drawn(render_graph.picture(graph), console)


def test_who_reads_from_whom() -> None:
    assert GRAPH.readings == (Reading(0, "esd-x-nbd", 1, "esd-x-srv"),)
    assert readings((GUEST, replace(HANDLER, name="another"))) == ()
    # As long as the source's QEMU has the images, the path handler asks it.
    source = replace(GUEST, host="hostA", nodes=(), users=(User(UserKind.EXPORT, "esd-x-src", ("vda",)),))
    proxy = replace(HANDLER, nodes=(BlockNode("esd-x-up", "nbd", None, True),))
    assert readings((GUEST, proxy, source))[1] == Reading(1, "esd-x-up", 2, "esd-x-src")


def test_a_domain_reads_from_its_relay_and_that_from_the_path_handler() -> None:
    programs = (DOMAIN, RELAY, HANDLER)
    by_relay = Reading(0, "libvirt-2-storage", 1, "esd-x-srv")
    onwards = Reading(1, "esd-x-nbd", 2, "esd-x-srv")
    assert readings(programs, RELAYED) == (by_relay, onwards)
    # A path handler that has the same overlay open, when the domain has moved on, reads by a client of ours.
    moved_on = replace(
        DOMAIN,
        kind=ProgramKind.PATH_HANDLER,
        nodes=(*DOMAIN.nodes[:3], RELAY.nodes[1]),
        edges=(*DOMAIN.edges[:2], Edge("libvirt-2-format", "file", "esd-x-nbd")),
    )
    assert readings((moved_on, RELAY, HANDLER), RELAYED)[0] == Reading(0, "esd-x-nbd", 2, "esd-x-srv")
    # Its clients have no name of ours, and may be of a disk that has nothing to do with us.
    assert readings(programs) == readings(programs, {("hostA", "/d/web1.x.g1.qcow2"): "esd-x-srv"}) == (onwards,)
    graph = BlockGraph("web1", programs, readings(programs, RELAYED))
    drawn = tree(graph)
    assert "file: libvirt-2-storage  nbd  ──▶ relay, export esd-x-srv" in drawn
    assert "\nrelay of migration 1a2b3c4d on hostB\n" in drawn
    assert "file: esd-x-nbd  nbd  ──▶ hostA, export esd-x-srv" in drawn
    for form in (graph_text.dot(graph), graph_text.mermaid(graph), graph_svg.svg(graph)):
        assert "relay of migration 1a2b3c4d on hostB" in form
    assert graph_svg.svg(graph).count('class="cross"') == 2


def test_a_tree() -> None:
    assert tree(GRAPH) == (
        "vm1 on hostB, running\n"
        "├── device vda\n"
        "│   └── esd-x-cor  copy-on-read\n"
        "│       └── file: esd-x-ovl  qcow2\n"
        "│           ├── file: esd-x-file  file  /d/x.qcow2\n"
        "│           └── backing: esd-x-nbd  nbd  ──▶ hostA, export esd-x-srv (read-only)\n"
        "├── export esd-x-map\n"
        "│   └── esd-x-ovl (see above)\n"
        "├── job esd-x-move (mirror, running) 1.0 MiB of 4.0 MiB\n"
        "│   ├── esd-x-cor (see above)\n"
        "│   └── esd-x-sink  null-co\n"
        "└── spare  null-co\n"
        "path handler of migration 1a2b3c4d on hostA\n"
        "└── export esd-x-srv\n"
        "    └── esd-x-srv  raw (read-only)"
    )


def test_a_program_that_could_not_be_asked_says_why() -> None:
    silent = replace(HANDLER, nodes=(), users=(), problem="hostA: no answer")
    graph = BlockGraph("vm1", (GUEST, silent), ())
    assert "└── hostA: no answer" in tree(graph)
    assert "hostA: no answer" in graph_text.dot(graph)
    assert "hostA: no answer" in graph_text.mermaid(graph)
    assert "hostA: no answer" in graph_svg.svg(graph)


def test_words_of_graphviz() -> None:
    lines = [line.strip() for line in graph_text.dot(GRAPH).splitlines()]
    assert 'p0n2 [label="esd-x-file\\nfile\\nx.qcow2"];' in lines
    assert 'p0n1 -> p0n3 [label="backing"];' in lines
    assert "p0n3 -> p1u0 [style=dashed, constraint=false];" in lines
    assert lines[-1] == "}"


def test_words_of_mermaid() -> None:
    lines = [line.strip() for line in graph_text.mermaid(GRAPH).splitlines()]
    assert lines[0] == "flowchart TB"
    assert 'p0n2["esd-x-file<br>file<br>x.qcow2"]' in lines
    assert 'p0n1 -->|"backing"| p0n3' in lines
    assert "p0n3 -.-> p1u0" in lines


def test_a_picture_has_every_box_and_no_two_in_one_place() -> None:
    picture = ElementTree.fromstring(graph_svg.svg(GRAPH))
    frames = [
        (rect.get("x"), rect.get("y"))
        for rect in picture.iter("{http://www.w3.org/2000/svg}rect")
        if "box" in str(rect.get("class"))
    ]
    assert len(frames) == len(set(frames)) == sum(len(each.nodes) + len(each.users) for each in (GUEST, HANDLER))
    said = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "path handler of migration 1a2b3c4d on hostA" in said


def test_a_picture_has_every_arrow_going_down() -> None:
    for number, program in enumerate(GRAPH.programs):
        placed = graph_svg.spots(program, number)
        assert all(placed[one].row < placed[other].row for one, other, _ in graph_text.arrows(number, program))


def test_what_is_on_the_same_nodes_stands_side_by_side() -> None:
    below = {"vda": ["a"], "vdb": ["b"], "map": ["a"], "job": ["b", "sink"], "a": ["file"]}
    assert graph_svg.side_by_side(["vda", "vdb", "map", "job"], below) == ["vda", "map", "vdb", "job"]


def test_what_is_long_stays_in_its_panel() -> None:
    why = f"hostA cannot be reached: {'Connection timed out ' * 8}"
    silent = replace(HANDLER, host="a-host.with.a.long.name.example", nodes=(), users=(), problem=why)
    alone = ElementTree.fromstring(graph_svg.svg(BlockGraph("vm1", (silent,), ())))
    panel = next(rect for rect in alone.iter("{http://www.w3.org/2000/svg}rect") if rect.get("class") == "panel")
    said = [str(text.text) for text in alone.iter("{http://www.w3.org/2000/svg}text")]
    assert max(map(len, said)) * 8 < float(str(panel.get("width")))
    assert " ".join(said[1:]) == why.strip()


def test_names_that_others_have_chosen_are_only_names() -> None:
    evil = 'a"]; evil <script>alert(1)</script> \x1b[2J'
    nodes = (BlockNode(evil, "raw", f"/srv/{evil}", False),)
    program = replace(GUEST, nodes=nodes, edges=(), users=(User(UserKind.DEVICE, evil, (evil,)),))
    graph = BlockGraph(evil, (program,), ())
    picture = ElementTree.fromstring(graph_svg.svg(graph))
    assert not list(picture.iter("{http://www.w3.org/2000/svg}script"))
    for text in (tree(graph), graph_text.dot(graph), graph_text.mermaid(graph)):
        assert "\x1b" not in text
    assert "<script>" not in graph_text.mermaid(graph)
    assert '\\"]; evil' in graph_text.dot(graph)


def test_one_form_at_a_time_and_a_file_that_can_be_written(say: Say, tmp_path: Path) -> None:
    both = say("graph", "vm1", "--dot", "--json")
    assert (both.status, both.out) == (2, "")
    assert "choose one of" in both.err
    nowhere = say("graph", "vm1", "--svg", str(tmp_path / "no" / "graph.svg"))
    assert (nowhere.status, nowhere.out) == (2, "")
    assert "cannot be written" in nowhere.err
