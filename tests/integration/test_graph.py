"""The block graph of a guest in each state of its life, while others hold the monitors that change it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.model.block_graph import BlockGraph, ProgramKind, UserKind
from qemu_esd.model.host import guest_sockets
from qemu_esd.model.policy import Handler
from qemu_esd.phases import places
from qemu_esd.qmp import blockdev, jobs
from qemu_esd.qmp.session import Session, open_session
from tests.integration.support.commands import say, start
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.guest import PATHS

pytestmark = pytest.mark.lab

SIZE = 16 * MIB


def drivers(graph: BlockGraph, number: int = 0) -> list[str]:
    """Of the nodes below the guest's disk, or below an export of a path handler, from the top."""
    program = graph.programs[number]
    kind = UserKind.DEVICE if program.kind is ProgramKind.GUEST else UserKind.EXPORT
    (name,) = next(user.on for user in program.users if user.kind is kind and user.on)
    found = list[str]()
    names = [name]
    for name in names:
        node = program.node(name)
        assert node is not None
        found.append(node.driver)
        names += [edge.child for edge in program.children(name)]
    return found


def programs(graph: BlockGraph) -> list[tuple[str, str]]:
    return [(program.host, program.kind) for program in graph.programs]


async def graph_when_prepared(*words: str) -> BlockGraph:
    process = await start(*words)
    assert process.stderr is not None
    while not (line := await process.stderr.readline()).startswith(b"prepared"):
        assert line
    graph = await api.graph_guest("vm1")
    assert await process.wait() == 0
    return graph


async def a_job_is_seen(qemu: Session, before: BlockGraph) -> None:
    await blockdev.add(qemu, {"driver": "null-co", "node-name": "sink", "size": SIZE})
    await jobs.start_mirror(qemu, "job1", before.programs[0].users[0].on[0], "sink", 1, MIB)
    graph = await api.graph_guest("vm1")
    await jobs.cancel(qemu, "job1")
    await jobs.wait_status(qemu, "job1", frozenset({"concluded"}), 60)
    await jobs.dismiss(qemu, "job1")
    await blockdev.delete(qemu, "sink")
    (job,) = [user for user in graph.programs[0].users if user.kind is UserKind.JOB]
    assert (job.name, job.total, "sink" in job.on) == ("job1", SIZE, True)


async def a_path_handler_that_is_not_there(fleet: Fleet, migration: str) -> None:
    folder = PATHS.link_run(migration)
    fleet.a.run("mv", folder, f"{folder}.away")
    graph = await api.graph_guest("vm1")
    fleet.a.run("mv", f"{folder}.away", folder)
    assert graph.programs[0].problem is None
    assert f"the path handler of migration {migration} does not run" in str(graph.programs[1].problem)


async def test_in_each_state(fleet: Fleet) -> None:
    vda = Drive("vda", 7, size=SIZE)
    guest = await fleet.idle(vda)
    before = await api.graph_guest("vm1")
    assert (programs(before), drivers(before)) == ([("hostA", "guest")], ["raw", "file"])
    assert before.programs[0].users[0].name == "vda"

    prepared = await graph_when_prepared("migrate", "vm1", "hostB", "--policy", "on-demand")
    guest.arrived(fleet.b)
    # It may be over by now; but the path handler and the guest that it serves are there in any case.
    assert {("hostA", "path handler")} < set(programs(prepared))

    async with open_hosts() as hosts, AsyncExitStack() as stack:
        a, b = await hosts.get("hostA"), await hosts.get("hostB")
        sockets = guest_sockets(PATHS, "vm1")
        record = (await api.look_at_guests("vm1"))[0]
        assert record.id is not None
        held = [(b, sockets.control), (b, sockets.user), (a, places.handler_socket(PATHS, record.id))]
        sessions = [await stack.enter_async_context(open_session(host, path, "held")) for host, path in held]
        moved = await api.graph_guest("vm1")
        assert programs(moved) == [("hostB", "guest"), ("hostA", "path handler")]
        assert drivers(moved) == ["copy-on-read", "qcow2", "file", "nbd"]
        assert drivers(moved, 1) == ["raw", "quorum", "raw", "blkdebug", "file"]
        assert [(one.program, one.of) for one in moved.readings] == [(0, 1)]
        await a_job_is_seen(sessions[0], moved)
        # Nobody has lost anything.
        assert await jobs.running(sessions[1]) == await jobs.running(sessions[2]) == {}
    await a_path_handler_that_is_not_there(fleet, record.id)
    told = await say("graph", "vm1", "--json")
    assert (told.status, [each["host"] for each in told.json["programs"]]) == (0, ["hostB", "hostA"])
    # The name of an export is a secret of the link.
    nodes = [node for program in told.json["programs"] for node in program["nodes"]]
    assert {node["file"] for node in nodes if node["driver"] == "nbd"} == {None}

    await api.settle_guest("vm1", "hostB", lambda *_: None)
    settled = await api.graph_guest("vm1")
    assert (programs(settled), drivers(settled)) == ([("hostB", "guest")], ["qcow2", "file"])

    await guest.migrate(fleet.a, Handler.BACKGROUND)
    home = await api.graph_guest("vm1")
    assert programs(home) == [("hostA", "guest")]
    assert drivers(home) == ["qcow2", "file", "raw", "file"]
    await fleet.finish(guest)
