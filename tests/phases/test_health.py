"""What is found of hosts and of the ways between them: all good, and each thing that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qemu_esd.errors import HostError
from qemu_esd.hosts.facts import PROGRAMS, HostFacts
from qemu_esd.hosts.survey import Survey
from qemu_esd.hosts.wire import Closed, Wire
from qemu_esd.hypervisors.equipment import Equipment
from qemu_esd.hypervisors.versions import Program
from qemu_esd.journal.store import Story
from qemu_esd.model.finding import Finding, Level
from qemu_esd.model.record import Begun, State
from qemu_esd.phases import health
from qemu_esd.phases.health import HostView
from tests.support.samples import PATHS, plan

PORTS = range(49800, 49810)
SURVEY = Survey(0.1, 0.05, 0, 8 << 30, 0, "700", True, True, (), ())
WELL = HostView(
    "a",
    HostFacts(PATHS, frozenset(PROGRAMS)),
    SURVEY,
    frozenset(),
    accel="kvm",
    qemu=Program((10, 0, 0), frozenset({"pc-q35-9.2", "pc-q35-10.0", "pc-i440fx-10.0"}), True),
    equipment=Equipment((10, 0, 0), (), (), frozenset({"qemu64", "Westmere", "EPYC"})),
)


def survey(**changed: Any) -> Callable[[HostView], HostView]:
    return lambda view: replace(view, survey=replace(view.survey, **changed))


def equipment(**changed: Any) -> Callable[[HostView], HostView]:
    return lambda view: replace(view, equipment=replace(view.equipment, **changed))  # type: ignore[type-var]


def qemu(**changed: Any) -> Callable[[HostView], HostView]:
    return lambda view: replace(view, qemu=replace(view.qemu, **changed))  # type: ignore[type-var]


def host(**changed: Any) -> Callable[[HostView], HostView]:
    return lambda view: replace(view, **changed)


def not_good(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level is not Level.GOOD]


def test_all_is_well() -> None:
    found = list(health.of_host(WELL, PORTS))
    assert not_good(found) == []
    assert {finding.check for finding in found} == {
        *("ssh", "programs", "versions", "drivers", "tls", "kvm", "state", "space", "clock", "ports", "leftovers"),
    }
    assert health.worst(found) is Level.GOOD


@pytest.mark.parametrize(
    ("change", "check", "level", "what", "hint"),
    [
        (
            host(facts=HostFacts(PATHS, frozenset(PROGRAMS) - {"perl"}), qemu=None, equipment=None),
            *("programs", Level.PROBLEM, "no perl", "apt-get install"),
        ),
        (equipment(daemon=(9, 2, 0)), "versions", Level.NOTE, "storage daemon 9.2.0", "--only-upgrade"),
        (qemu(version=(10, 1, 0)), "versions", Level.NOTE, "QEMU 10.1.0", "--only-upgrade"),
        (equipment(daemon_lacks=("blkdebug",)), "drivers", Level.PROBLEM, "the storage daemon has no", "install"),
        (
            equipment(qemu_lacks=("nbd", "null-co")),
            "drivers",
            Level.PROBLEM,
            "QEMU has no driver nbd, null-co",
            "install",
        ),
        (qemu(tls=False), "tls", Level.PROBLEM, "no TLS", "--transport ssh"),
        (host(accel="tcg"), "kvm", Level.NOTE, "no guest comes up", "modprobe kvm"),
        (survey(writable=False), "state", Level.PROBLEM, "nothing can be written", "chown"),
        (survey(owner=1000), "state", Level.PROBLEM, "belongs to user 1000", "chown"),
        (survey(mode="755"), "state", Level.PROBLEM, "open to others (mode 755)", "chmod 700 /var/lib/qemu-esd"),
        (survey(free=512 << 20), "space", Level.NOTE, "512.0 MiB free", "--overlay-dir"),
        (survey(free=1 << 20), "space", Level.PROBLEM, "1.0 MiB free", "--overlay-dir"),
        (survey(clock_ahead=5.0), "clock", Level.NOTE, "5.0 s ahead of", "timedatectl"),
        (survey(clock_ahead=-5.0), "clock", Level.NOTE, "5.0 s behind", "timedatectl"),
        (host(ports_in_use=frozenset(PORTS)), "ports", Level.PROBLEM, "0 of the 10 ports", "ss -tlnp"),
        (host(ended=("path-0badcafe",)), "leftovers", Level.PROBLEM, "path-0badcafe", "qemu-esd host restore a"),
        (host(begun=(Begun("me@here", plan()),)), "leftovers", Level.PROBLEM, "0badcafe of vm", "resume 0badcafe"),
        (survey(torn=("/var/lib/x.new",)), "leftovers", Level.NOTE, "/var/lib/x.new", "rm /var/lib/x.new"),
    ],
)
def test_what_is_not(change: Callable[[HostView], HostView], check: str, level: Level, what: str, hint: str) -> None:
    (found,) = not_good(list(health.of_host(change(WELL), PORTS)))
    assert (found.host, found.check, found.level) == ("a", check, level)
    assert what in found.what
    assert hint in found.hint
    assert found.why


@pytest.mark.parametrize(
    "change",
    [survey(owner=None, mode=None), survey(clock_ahead=1.5, clock_error=0.6), host(ports_in_use=frozenset({49800}))],
)
def test_what_is_good_enough(change: Callable[[HostView], HostView]) -> None:
    assert not_good(list(health.of_host(change(WELL), PORTS))) == []


def test_what_two_hosts_have_in_common() -> None:
    older = qemu(machine_types=frozenset({"pc-q35-9.2", "pc-q35-8.0"}))(equipment(cpus=frozenset({"qemu64"}))(WELL))
    machine, cpu = health.of_pair(WELL, replace(older, name="b"))
    assert (machine.host, machine.what) == ("a - b", "both know machine types up to pc-q35-9.2")
    assert cpu.what.endswith("qemu64: -cpu qemu64")
    _, cpu = health.of_pair(WELL, WELL)
    assert cpu.what.endswith("EPYC: -cpu EPYC")
    # By number, not by letter.
    machine, _ = health.of_pair(WELL, WELL)
    assert machine.what.endswith("pc-q35-10.0")


def test_what_two_hosts_do_not_have_in_common() -> None:
    machine, cpu = health.of_pair(
        WELL, qemu(machine_types=frozenset({"pc-q35-5.0"}))(equipment(cpus=frozenset())(WELL))
    )
    assert (machine.level, cpu.level) == (Level.PROBLEM, Level.NOTE)
    _, cpu = health.of_pair(WELL, host(name="b", accel="tcg")(WELL))
    assert (cpu.level, cpu.what) == (Level.NOTE, "a runs guests with kvm, b with tcg")
    assert list(health.of_pair(WELL, host(qemu=None)(WELL))) == []


def test_the_way() -> None:
    open_way = health.of_way("a", "b", 49800, Wire(117 << 20, 0.0005))
    assert (open_way.level, open_way.what) == (Level.GOOD, "117.0 MiB/s, 0.50 ms there and back")
    closed = health.of_way("a", "b", 49800, Closed("Connection timed out"))
    assert (closed.host, closed.level) == ("a -> b", Level.PROBLEM)
    assert "port 49800 of a cannot be reached: Connection timed out" in closed.what
    assert "firewall of a" in closed.hint


def test_a_host_that_is_not_there() -> None:
    found = health.unreachable("h", HostError("cannot be reached", host="h", hint="do this"))
    assert (found.check, found.level, found.hint) == ("ssh", Level.PROBLEM, "do this")


def test_the_controller() -> None:
    (good,) = health.of_controller(Path("/s"), (), ())
    assert good.level is Level.GOOD
    broken = Story(plan(), State.SWITCHING, (), ())
    one, other = health.of_controller(Path("/s"), (broken,), (HostError("torn", hint="mend it"),))
    assert (one.level, one.hint) == (Level.PROBLEM, "qemu-esd resume 0badcafe; or qemu-esd rollback 0badcafe")
    assert "broken off while switching" in one.what
    assert (other.what, other.hint) == ("torn", "mend it")
    assert health.worst((good, one)) is Level.PROBLEM
