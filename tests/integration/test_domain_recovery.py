"""A domain moves, and the controller is killed, or a libvirtd ends, in each phase: the guest goes on, in one place."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from images.build import GuestImage
from images.pattern import MIB
from qemu_esd.journal import shelf
from tests.integration.support import content
from tests.integration.support.commands import end, say, say_and_die, start
from tests.integration.support.domain import Domain, booted, cut_off, nothing_left
from tests.integration.support.drives import Drive
from tests.integration.support.machine import Machine, kill
from tests.integration.test_two_controllers import another
from tests.support.domains import DAEMON, keeps_reconnect, pauses

pytestmark = pytest.mark.lab

KILLED = -signal.SIGKILL
DRIVE = Drive("vda", 7, "a.qcow2", size=16 * MIB, chain=1)


def words(domain: Domain, target: Machine) -> tuple[str, ...]:
    here = domain.machine.name
    return ("migrate", "web1", target.name, "--from", here, "--transport", "ssh", "--policy", "on-demand")


def domains(machine: Machine) -> str:
    return machine.run("virsh", "--quiet", "list", "--all", "--name").stdout.strip()


async def leaves(machine: Machine) -> None:
    """Returns when its libvirt has undone what nobody leads any more."""
    for _ in range(600):
        if machine.run("virsh", "--quiet", "list", "--all", "--name").stdout.strip() == "" and not machine.qemus(
            "web1"
        ):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{machine.name} keeps it")


async def begun(domain: Domain) -> None:
    """Returns when libvirt is at its move; most often its target is prepared for that still."""
    for _ in range(600):
        if "Outgoing migration" in domain.virsh("domjobinfo", "web1", check=False):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it does not begin to move")


async def moving(domain: Domain) -> None:
    """Returns when memory moves, as its QEMU says."""
    ask = ("qemu-monitor-command", "web1", '{"execute": "query-migrate"}')
    for _ in range(600):
        if '"status":"active"' in domain.virsh(*ask, check=False):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("its memory does not move")


async def is_back(web1: Domain, b: Machine, *by: str) -> None:
    """It runs where it ran, and nothing is left of the migration."""
    told = await say("rollback", "web1", *by)
    assert told.status == 0, told
    assert web1.state() == "running"
    await web1.is_well()
    await leaves(b)
    nothing_left(web1.machine, b)


async def test_killed_before_the_fence(libvirt_hosts: Any, guest_image: GuestImage, tmp_path: Path) -> None:
    """While it is prepared, while memory moves, and when the target has all of it: back, each time; once by a
    controller that has never heard of it."""
    async with booted(libvirt_hosts, guest_image, DRIVE) as (web1, b):
        before = web1.virsh("dumpxml", "web1")
        said = await say_and_die("at:phases.domain_move.move", *words(web1, b))
        assert said.status == KILLED, said
        assert shelf.newest_of("web1").state == "preparing"  # type: ignore[union-attr]
        await web1.is_well()
        await is_back(web1, b)

        web1.virsh("migrate-setspeed", "web1", "8")
        process = await start(*words(web1, b))
        await moving(web1)
        process.kill()
        await end(process)
        with another(tmp_path):
            await is_back(web1, b, "--host", "hostA")
        assert web1.virsh("dumpxml", "web1") == before

        web1.virsh("migrate-setspeed", "web1", "1000")
        said = await say_and_die("at:phases.handover.take_images", *words(web1, b))
        assert said.status == KILLED, said
        assert (web1.state(), b.run("virsh", "domstate", "web1").stdout.split()) in (
            ("paused", ["paused"]),
            ("", ["paused"]),
        )
        if web1.state():
            await is_back(web1, b)
        else:
            told = await say("resume", "web1")
            assert told.status == 0, told
            web1.arrived(b)
        await web1.is_well()
        await web1.pause()
        await web1.recheck()


async def test_killed_after_the_fence(libvirt_hosts: Any, guest_image: GuestImage, tmp_path: Path) -> None:
    """On, each time, there, back and there again; once killed while it goes on, once by a controller that has never
    heard of it; and a settling is killed too."""
    async with booted(libvirt_hosts, guest_image, DRIVE) as (web1, b):
        source, target = web1.machine, b
        for moment in ("before:committed", "before:running", "before:handed-over"):
            said = await say_and_die(moment, *words(web1, target))
            assert said.status == KILLED, said
            if moment == "before:committed":
                # An accident: what is left of it on the source must not run.
                source.run("virsh", "resume", "web1", check=False)
                assert (await say_and_die("at:phases.handover.end_source", "resume", "web1")).status == KILLED
            if moment == "before:running":
                with another(tmp_path):
                    told = await say("resume", "web1", "--host", source.name)
            else:
                told = await say("resume", "web1")
            assert told.status == 0, told
            web1.arrived(target)
            await web1.is_well()
            assert domains(source) == ""
            if moment == "before:committed":
                await relay_dies(web1)
                settling = await say_and_die("at:phases.relay.answer_with_zeroes", "settle", "web1")
                assert settling.status == KILLED, settling
                await web1.is_well()
            settled = await say("settle", "web1")
            assert settled.status == 0, settled
            assert "nbd" not in web1.virsh("dumpxml", "web1") + web1.virsh("dumpxml", "--inactive", "web1")
            assert (await say("release", "web1")).status == 0
            nothing_left(source, target)
            source, target = target, source
        await web1.pause()
        await web1.recheck()


async def relay_dies(web1: Domain) -> None:
    """libvirt 9.0's client of it has no patience: the domain is paused, and told to go on."""
    for relay in web1.machine.find("qemu-storage-daemon", "relay.sock"):
        kill(relay.pid)
    assert not (await pauses(web1) and keeps_reconnect(web1))


async def restarted(machine: Machine) -> None:
    """Its libvirtd is killed, and there again."""
    machine.run("pkill", "--signal", "KILL", "--exact", DAEMON)
    for _ in range(600):
        if machine.run("virsh", "--quiet", "list", check=False).returncode == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no libvirtd on {machine.name}")


async def test_a_libvirtd_ends_in_each_phase(libvirt_hosts: Any, guest_image: GuestImage) -> None:
    async with booted(libvirt_hosts, guest_image, DRIVE) as (web1, b):
        a = web1.machine
        # The target's when it is about to start the QEMU: see below.
        for machine, moment in ((a, begun), (a, moving), (b, moving)):
            web1.virsh("migrate-setspeed", "web1", "8")
            process = await start(*words(web1, b))
            await moment(web1)
            await restarted(machine)
            said = await end(process)
            assert said.status == 1, said
            if "rollback" in said.err:
                await is_back(web1, b)
            await web1.is_well()
            await leaves(b)
            nothing_left(a, b)
        web1.virsh("migrate-setspeed", "web1", "1000")
        said = await say_and_die("before:running", *words(web1, b))
        assert said.status == KILLED, said
        await restarted(b)
        await restarted(a)
        told = await say("resume", "web1")
        assert told.status == 0, told
        web1.arrived(b)
        await web1.is_well()
        await restarted(b)
        settling = await start("settle", "web1")
        await restarted(b)
        said = await end(settling)
        if said.status != 0:
            said = await say("settle", "web1")
        assert said.status == 0, said
        await web1.is_well()
        assert "nbd" not in web1.virsh("dumpxml", "web1")
        await web1.pause()
        await web1.recheck()


@pytest.mark.skipif(os.environ.get("ESD_FAULTS") != "all", reason="libvirt waits for half a minute; ESD_FAULTS=all")
async def test_a_libvirt_that_is_at_something_else_is_told_of(libvirt_hosts: Any, guest_image: GuestImage) -> None:
    """Its QEMU does not answer the libvirtd that was started again, which lets nobody at the domain meanwhile."""
    async with booted(libvirt_hosts, guest_image, DRIVE) as (web1, b):
        assert (await say(*words(web1, b))).status == 0
        web1.arrived(b)
        (qemu,) = b.qemus("web1")
        kill(qemu.pid, signal.SIGSTOP)
        await restarted(b)
        said = await say("settle", "web1")
        kill(qemu.pid, signal.SIGCONT)
        assert said.status == 1, said
        assert "hostB: libvirt, asked for " in said.err
        assert "cannot acquire state change lock" in said.err
        assert "start libvirtd (or virtqemud) again there" in said.err
        said = await say("settle", "web1")
        assert said.status == 0, said
        await web1.is_well()
        await web1.pause()
        await web1.recheck()


# Killed when it has noted that it starts a QEMU, and has not yet started it.
ABOUT_TO_START = f"""
kill_it=$(pgrep --exact "{DAEMON}")
until [ -e /run/libvirt/qemu/web1.xml ]; do :; done
kill -KILL "$kill_it"
"""


@pytest.mark.skipif(os.environ.get("ESD_FAULTS") != "all", reason="libvirt waits for half a minute; ESD_FAULTS=all")
async def test_a_libvirtd_that_ends_when_it_is_about_to_start_it(libvirt_hosts: Any, guest_image: GuestImage) -> None:
    """It lets go of that domain no more, started again or not: told with what mends it, and then all can be undone."""
    async with booted(libvirt_hosts, guest_image, DRIVE) as (web1, b):
        killing = asyncio.create_task(asyncio.to_thread(b.run, "sh", "-c", ABOUT_TO_START))
        said = await say(*words(web1, b))
        await killing
        assert said.status == 1, said
        assert "hostB: its libvirt was killed while it was about to start web1" in said.err
        assert "on it: rm /run/libvirt/qemu/web1.xml, then start its libvirtd (or virtqemud) again" in said.err
        await web1.is_well()
        b.run("rm", "/run/libvirt/qemu/web1.xml")
        await restarted(b)
        await is_back(web1, b)
        await web1.pause()
        await web1.recheck()


async def test_the_target_dies(libvirt_hosts: Any, guest_image: GuestImage, tmp_path: Path) -> None:
    """Its host is rebooted: restored, and started again from its disks. All of it is lost: back to the switchover."""
    async with booted(libvirt_hosts, guest_image, DRIVE) as (web1, b):
        a = web1.machine
        assert (await say(*words(web1, b))).status == 0
        web1.leave_terminal()
        b.run("virsh", "destroy", "web1")
        cut_off(b)
        hint = "shut off\n  to start it again: qemu-esd host restore hostB, then: virsh start web1"
        assert hint in (await say("status", "web1")).out
        restored = await say("host", "restore", "hostB")
        assert restored.status == 0, restored
        assert [line.rpartition(": ")[2] for line in restored.out.splitlines()] == ["started"] * 3, restored
        told = await say("resume", "web1")
        assert told.status == 0, told
        web1.arrived(b)
        await web1.starts_anew()
        web1.leave_terminal()
        b.run("virsh", "destroy", "web1")
        told = await say("rollback", "--discard-target", "--yes", "web1")
        assert told.status == 0, told
        assert (web1.state(), domains(b)) == ("", "")
        web1.machine = a
        web1.listen()
        await web1.starts_anew()
        assert web1.state() == "running"
        web1.virsh("destroy", "web1")
        content.check_content(content.flatten(content.image(a.real(DRIVE.path), "qcow2"), tmp_path / "flat"), DRIVE)
