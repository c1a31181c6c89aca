"""Each problem appears for the view that has it, on the right host, and for no other view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from qemu_esd.graph import names
from qemu_esd.hosts.facts import PROGRAMS, HostFacts
from qemu_esd.hypervisors.versions import Program
from qemu_esd.model.disk import Image
from qemu_esd.model.plan import Problem, Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import Begun
from qemu_esd.model.request import Request
from qemu_esd.model.vm import QemuProcess
from qemu_esd.phases import checks
from qemu_esd.phases.look import SourceView, TargetView
from qemu_esd.qmp import migrate
from tests.support.samples import MIB, PATHS, disk, guest, plan

SOURCE, TARGET = "a", "b"
FACTS = HostFacts(PATHS, frozenset(PROGRAMS))


@dataclass(frozen=True)
class World:
    """What is asked, what was seen on both hosts, and the free space."""

    request: Request
    source: SourceView
    target: TargetView
    free: int

    def problems(self) -> tuple[Problem, ...]:
        return checks.find_problems(self.request, self.source, self.target, self.free)


# Nothing stands in the way.
WELL = World(
    Request("vm", TARGET, Handler.BACKGROUND),
    SourceView(
        guest=guest(disk("root"), disk("data")),
        record=None,
        facts=FACTS,
        address="192.0.2.1",
        run_state="running",
        migration="none",
        jobs=(),
        exports=frozenset(),
        tls=True,
        iothreads=False,
        places={},
        ports_in_use=frozenset(),
        missing_images=(),
    ),
    TargetView(
        facts=FACTS,
        address="192.0.2.2",
        process=None,
        qemu=Program((7, 2, 0), frozenset({"pc-q35-7.2", "pc-i440fx-7.2"}), tls=True),
        ports_in_use=frozenset(),
    ),
    1 << 40,
)

Change = Callable[[World], World]


def asked(**changes: Any) -> Change:
    return lambda world: replace(world, request=replace(world.request, **changes))


def on_source(**changes: Any) -> Change:
    return lambda world: replace(world, source=replace(world.source, **changes))


def on_target(**changes: Any) -> Change:
    return lambda world: replace(world, target=replace(world.target, **changes))


def of_program(**changes: Any) -> Change:
    """The target's QEMU is otherwise."""
    assert WELL.target.qemu is not None
    return on_target(qemu=replace(WELL.target.qemu, **changes))


def of_guest(**changes: Any) -> Change:
    return lambda world: on_source(guest=replace(world.source.guest, **changes))(world)


def of_disk(**changes: Any) -> Change:
    """The first of the two disks is otherwise."""
    return lambda world: of_guest(disks=(replace(world.source.guest.disks[0], **changes), disk("data")))(world)


def without(*programs: str) -> HostFacts:
    return replace(FACTS, programs=FACTS.programs - set(programs))


def both(*changes: Change) -> Change:
    def change(world: World) -> World:
        for each in changes:
            world = each(world)
        return world

    return change


# A view, the host that is named, and what is said: one problem each.
PROBLEMS: dict[str, tuple[Change, str, str]] = {
    "no storage daemon": (on_source(facts=without("qemu-storage-daemon")), SOURCE, "there is no qemu-storage-daemon"),
    "no qemu-img": (on_target(facts=without("qemu-img")), TARGET, "there is no qemu-img"),
    "no QEMU": (
        on_target(facts=without("qemu-system-x86_64"), qemu=None),
        TARGET,
        "there is no qemu-system-x86_64",
    ),
    "two programs": (on_source(facts=without("ss", "ip")), SOURCE, "there is no ip and no ss"),
    "migrating": (on_source(migration="active"), SOURCE, "vm is being migrated already"),
    "held at a switchover": (
        on_source(migration="pre-switchover", run_state="finish-migrate"),
        SOURCE,
        "vm is being migrated already",
    ),
    "broken off": (
        on_source(begun=(Begun("me@c:/state", plan()),), migration="pre-switchover", run_state="finish-migrate"),
        SOURCE,
        "migration 0badcafe of vm to b has not come to its end; me@c:/state has its journal",
    ),
    "paused": (on_source(run_state="paused"), SOURCE, "vm does not run, it is paused"),
    "failed": (on_source(run_state="io-error"), SOURCE, "vm does not run, it is io-error"),
    "a job": (on_source(jobs=("backup",)), SOURCE, "the block job backup works on vm"),
    "a job of a disk that is not here": (
        on_source(jobs=(names.move_job("other"),)),
        SOURCE,
        f"the block job {names.move_job('other')} works on vm",
    ),
    "exports of others": (on_source(exports=frozenset({"x"})), SOURCE, "the NBD server of vm is in use"),
    "a lost image": (on_source(missing_images=("/images/root",)), SOURCE, "the image /images/root is gone"),
    "a corrupt image": (of_disk(corrupt=True), SOURCE, "the image of root is marked corrupt"),
    "an NVMe disk": (of_disk(driver="nvme"), SOURCE, "root is an NVMe disk"),
    "the same serial": (of_disk(suid="data"), SOURCE, "two disks have the same serial data"),
    "no disk": (of_guest(disks=()), SOURCE, "vm has no local disk"),
    "the same name": (
        on_target(process=QemuProcess(77, "vm", ("qemu-system-x86_64",), "/")),
        TARGET,
        "a guest called vm runs there already (pid 77)",
    ),
    "an unknown machine": (
        of_guest(machine_type="pc-q35-9.0"),
        TARGET,
        "its QEMU does not know the machine type pc-q35-9.0",
    ),
    "threads of disks on an old QEMU": (
        both(on_source(iothreads=True), of_program(version=(10, 0, 2))),
        SOURCE,
        "QEMU 7.2.0 can abort when a disk with an iothread is moved",
    ),
    "threads of disks on their way to an old QEMU": (
        both(on_source(iothreads=True), of_guest(version=(9, 0, 0))),
        TARGET,
        "QEMU 7.2.0 can abort when a disk with an iothread is moved",
    ),
    "no TLS there": (of_program(tls=False), TARGET, "its QEMU has no TLS"),
    "no TLS here": (on_source(tls=False), SOURCE, "its QEMU has no TLS"),
    "no ssh": (both(asked(transport=Transport.SSH), on_target(facts=without("ssh"))), TARGET, "there is no ssh"),
    "no space": (
        lambda world: replace(world, free=2 * checks.FLOOR + 16 * MIB - 1),
        TARGET,
        "144 MiB of space are needed and 143 MiB are free",
    ),
    "no place for what is kept": (
        asked(local_space=False, handler=Handler.ON_DEMAND),
        TARGET,
        "--no-local-space leaves no room for what on-demand keeps",
    ),
}

# Views that look like one of those and are none.
FINE: dict[str, Change] = {
    "nothing": lambda world: world,
    "programs that only the other end needs": both(
        on_source(facts=without("qemu-img", "qemu-system-x86_64", "ssh", "timeout")),
        on_target(facts=without("qemu-storage-daemon")),
    ),
    "threads of disks on newer QEMUs": both(
        on_source(iothreads=True), of_guest(version=(9, 0, 0)), of_program(version=(9, 0, 0))
    ),
    "a former migration": on_source(migration="completed"),
    "a failed migration": on_source(migration="failed"),
    "a move of ours": on_source(jobs=(names.move_job("root"), names.move_job("data"))),
    "exports of ours": on_source(exports=frozenset({names.export_id("root", "map")})),
    "no TLS where none is asked for": both(
        asked(transport=Transport.PLAINTEXT), on_source(tls=False), of_program(tls=False)
    ),
    "ssh": asked(transport=Transport.SSH),
    "no ssh where none is asked for": on_target(facts=without("ssh")),
    "just enough space": lambda world: replace(world, free=2 * checks.FLOOR + 16 * MIB),
    "no space where nothing is kept": both(
        asked(handler=Handler.MISS), lambda world: replace(world, free=2 * checks.FLOOR)
    ),
    "no space where one disk is not kept": both(
        asked(disk_handlers={"data": Handler.REDIRECT}), lambda world: replace(world, free=2 * checks.FLOOR + 8 * MIB)
    ),
    "no space and none wanted": both(
        asked(local_space=False, handler=Handler.REDIRECT), lambda world: replace(world, free=0)
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_problem_is_found_where_it_is_and_alone(case: str) -> None:
    change, host, what = PROBLEMS[case]
    (found,) = change(WELL).problems()
    assert found.host == host
    assert what in found.what
    assert found.hint


@pytest.mark.parametrize("case", FINE)
def test_what_is_no_problem_is_not_told_as_one(case: str) -> None:
    assert FINE[case](WELL).problems() == ()


def test_all_problems_are_told_at_once() -> None:
    world = WELL
    for case in (
        "no qemu-img",
        "paused",
        "a job",
        "a corrupt image",
        "the same name",
        "an unknown machine",
        "no space",
    ):
        world = PROBLEMS[case][0](world)
    assert len(world.problems()) == 7


@pytest.mark.parametrize("state", sorted(migrate.BUSY))
def test_a_migration_under_way_is_one_problem_and_not_two(state: str) -> None:
    (found,) = on_source(migration=state, run_state="paused")(WELL).problems()
    assert "being migrated already" in found.what


@pytest.mark.parametrize(
    ("handler", "grows"),
    [(Handler.MISS, 0), (Handler.REDIRECT, 0), (Handler.ON_DEMAND, 8), (Handler.BACKGROUND, 8)],
)
def test_a_member_grows_by_what_its_handler_keeps(handler: Handler, grows: int) -> None:
    assert checks.growth(handler, 8 * MIB) == checks.FLOOR + grows * MIB


def test_a_file_that_is_there_already_is_not_taken() -> None:
    members = [Image("/d/one", "qcow2"), None, Image("/d/two", "qcow2")]
    (found,) = checks.existing_overlays(members, frozenset({"/d/two", "/d/three"}), TARGET)
    assert (found.host, found.what) == (TARGET, "the file /d/two is there already")
    assert checks.existing_overlays(members, frozenset(), TARGET) == ()


# ---- remarks


def remarks(version: tuple[int, int, int], memory: int, *words: str) -> list[str]:
    """What is said of a guest with this QEMU, so much memory, and these options."""
    one = guest(disk())
    process = replace(one.process, argv=(*one.process.argv, *words))
    view = replace(WELL.source, guest=replace(one, process=process, version=version, memory=memory))
    return list(checks.remarks(view, WELL.target.qemu))


@pytest.mark.parametrize("words", [(), ("-accel", "tcg"), ("-machine", "q35,accel=tcg"), ("-accel", "kvm:tcg")])
def test_lost_memory_writes_are_told_where_tcg_may_lose_them(words: tuple[str, ...]) -> None:
    (told,) = remarks((7, 2, 22), 256 * MIB, *words)
    assert told.startswith("QEMU 7.2.22 under TCG can lose memory writes")


@pytest.mark.parametrize(
    ("version", "memory", "words"),
    [
        ((9, 0, 0), 256 * MIB, ()),
        ((7, 2, 22), 256 * MIB + 4096, ()),
        ((7, 2, 22), 256 * MIB, ("-accel", "kvm")),
        ((7, 2, 22), 256 * MIB, ("-enable-kvm",)),
    ],
)
def test_and_nowhere_else(version: tuple[int, int, int], memory: int, words: tuple[str, ...]) -> None:
    assert remarks(version, memory, *words) == []


CPUS = 128 * MIB + 4096


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ((9, 0, 0), ("-cpu", "max")),
        ((7, 2, 0), ("-accel", "kvm", "-cpu", "host,migratable=on")),
        ((7, 2, 0), ("-accel", "kvm", "-cpu", "max")),
    ],
)
def test_a_cpu_that_is_another_one_there_is_told(version: tuple[int, int, int], words: tuple[str, ...]) -> None:
    (told,) = remarks(version, CPUS, *words)
    assert told.startswith(f"-cpu {words[-1].split(',')[0]} is whatever the host and its QEMU have")


@pytest.mark.parametrize("words", [("-cpu", "max"), ("-cpu", "qemu64"), ("-accel", "kvm", "-cpu", "EPYC"), ()])
def test_a_cpu_that_is_the_same_there_is_not(words: tuple[str, ...]) -> None:
    assert remarks((7, 2, 0), CPUS, *words) == []
