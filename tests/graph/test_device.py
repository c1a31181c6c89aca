"""The path handlers of a device that looks shared, in each state of its record: who may write, and who is let in."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_esd.graph import device as graphs
from qemu_esd.graph import device_argv
from qemu_esd.model.device import DeviceRecord
from qemu_esd.model.disk import images, link_of
from tests.support.devices import MOVED_ON, MOVING, MOVING_ON, SEATS, SETTLED, STATES, TAKEN, WHOLE


def exports(graph: graphs.Graph | None) -> dict[str, Any]:
    return {each["name"]: each for each in graph.all_exports} if graph else {}


def writers(record: DeviceRecord) -> list[str]:
    """The hosts whose path handler has an image open for writing."""
    found = []
    for seat in record.seats:
        for node in graphs.face(record, seat).all_nodes:
            if node["driver"] in ("raw", "qcow2") and isinstance(node["file"], dict) and not node.get("read-only"):
                found.append(seat.host)
    return found


@pytest.mark.parametrize("record", STATES.values(), ids=STATES)
def test_one_host_writes(record: DeviceRecord) -> None:
    assert writers(record) == [record.authority]


@pytest.mark.parametrize("record", STATES.values(), ids=STATES)
def test_each_host_answers_under_the_same_name(record: DeviceRecord) -> None:
    silent = [seat.host for seat in record.seats if "d1" not in exports(graphs.face(record, seat))]
    # But for the one that is about to lose the authority: no guest may come to it now.
    assert silent == ([record.authority] if record.move else [])


def test_while_it_moves_only_the_new_host_is_let_in() -> None:
    assert set(exports(graphs.gate(WHOLE, SEATS[0]))) == {SEATS[1].export, SEATS[2].export}
    shut = exports(graphs.gate(MOVING, SEATS[0]))
    assert MOVING.move is not None
    assert {name: each["writable"] for name, each in shut.items()} == {SEATS[1].export: True, MOVING.move.export: False}


def test_afterwards_nobody_writes_on_the_old_host() -> None:
    assert [each["writable"] for each in exports(graphs.gate(TAKEN, SEATS[0])).values()] == [False]
    assert set(exports(graphs.gate(TAKEN, SEATS[1]))) == {SEATS[0].export, SEATS[2].export}
    assert graphs.gate(SETTLED, SEATS[0]) is None
    link = link_of(TAKEN.chain)
    assert link is not None
    assert link.export in exports(graphs.gate(TAKEN, SEATS[0]))


def test_each_host_of_a_chain_reads_from_the_one_before_it() -> None:
    """A host in the middle has its overlay over the same link as before; what needs nobody else starts first."""
    a, b, c = SEATS
    middle = graphs.face(MOVED_ON, b)
    assert [node["node-name"] for node in middle.nodes] == ["esd-d1-nbd", "esd-d1-ovl"]
    assert [node["read-only"] for node in middle.nodes] == [True, True]
    assert middle.nodes[0] == graphs.face(TAKEN, b).nodes[0]
    assert set(exports(graphs.gate(MOVED_ON, a))) == {middle.nodes[0]["export"]}
    link = link_of(MOVED_ON.chain)
    assert link is not None
    assert set(exports(graphs.gate(MOVED_ON, b))) == {link.export}
    assert set(exports(graphs.gate(MOVED_ON, c))) == {a.export, b.export}
    assert set(exports(graphs.gate(MOVING_ON, a))) == {middle.nodes[0]["export"]}
    assert [(one.host, one.path) for one in STATES["settled there"].left] == [
        ("hostb", images(TAKEN.chain)[0].path),
        ("hosta", "/srv/a.raw"),
    ]


def test_a_link_to_a_former_authority_is_another_node() -> None:
    names = {graphs.forwarding(record) for record in STATES.values()}
    assert names == {"esd-d1-rw0", "esd-d1-rw1", "esd-d1-rw2"}
    assert graphs.forwarding(WHOLE) == graphs.forwarding(MOVING)


def test_what_a_kill_could_lose_is_written_through() -> None:
    local = {seat.host: exports(graphs.face(WHOLE, seat))["d1"]["writethrough"] for seat in SEATS}
    # A raw image has no metadata in memory. The others keep their guests when they get a qcow2.
    assert local == {"hosta": False, "hostb": True, "hostc": True}
    assert exports(graphs.face(TAKEN, SEATS[1]))["d1"]["writethrough"]
    assert exports(graphs.face(WHOLE, SEATS[0]))["d1.gate"]["writethrough"]


def test_what_needs_another_host_is_late() -> None:
    behind = graphs.face(TAKEN, SEATS[0])
    assert [node["node-name"] for node in behind.nodes] == ["esd-d1-ovl"]
    assert [node["node-name"] for node in behind.late_nodes] == ["esd-d1-rw1", "esd-d1-srv"]
    argv = device_argv.face_argv(TAKEN, SEATS[0])
    assert "esd-d1-rw1" not in " ".join(argv[argv.index("perl") :])


def test_owner_and_socket_are_words_of_their_own() -> None:
    argv = device_argv.face_argv(WHOLE, SEATS[0])
    first = argv.index("perl")
    assert argv[first + 3 : first + 6] == ("/run/qemu-esd/device/d1.sock", "", "qemu-storage-daemon")
