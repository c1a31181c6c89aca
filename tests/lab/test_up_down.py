"""up, down, status: what is there, what is added, what is removed, what is left alone."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hosts import lab
from qemu_esd.hosts.lab.process import kill
from qemu_esd.hosts.lab.state import lab_data
from tests.lab.tools import on, processes, traces

pytestmark = pytest.mark.lab


async def test_up_makes_what_status_shows_and_find_finds(lab_root: Path) -> None:
    assert lab.status().state is lab.LabState.NONE
    built = await lab.up(2)
    now = lab.status()
    assert now.state is lab.LabState.UP
    assert [(host.name, host.address) for host in now.hosts] == [("hostA", "10.213.0.11"), ("hostB", "10.213.0.12")]
    assert [host.name for host in built.started] == ["hostA", "hostB"]
    assert lab.find("hostA") == built.lab.hosts[0]
    assert lab.find("hostC") is None
    assert lab.find("example.org") is None


async def test_down_leaves_nothing(lab_root: Path) -> None:
    before = traces(lab_root)
    await lab.up(2)
    assert len(processes(lab_root)) == 3
    removed = await lab.down()
    assert removed.stopped == ("hostA", "hostB")
    assert traces(lab_root) == before == set()
    assert lab.status().state is lab.LabState.NONE
    assert await lab.down() == lab.Removed((), False)


async def test_a_running_lab_shows_nothing_in_the_machines_namespaces(lab_root: Path) -> None:
    links = set(Path("/sys/class/net").iterdir())
    await lab.up(2)
    assert set(Path("/sys/class/net").iterdir()) == links
    assert traces(lab_root) == {str(lab_root), str(lab_data(lab_root))} | processes(lab_root)


async def test_up_again_changes_nothing(lab_root: Path) -> None:
    first = await lab.up(2)
    second = await lab.up(2)
    assert second.started == ()
    assert second.lab == first.lab


async def test_up_adds_hosts_and_never_takes_one_away(lab_root: Path) -> None:
    two = await lab.up(2)
    three = await lab.up(3)
    assert [host.name for host in three.started] == ["hostC"]
    assert three.lab.hosts[:2] == two.lab.hosts
    for host in three.lab.hosts:
        assert await on(host, "ssh", "hostC", "hostname") == "hostC\n"
        assert await on(three.lab.hosts[2], "ssh", host.name, "hostname") == f"{host.name}\n"
    assert len((await lab.up(2)).lab.hosts) == 3


async def test_a_connection_lives_on_while_hosts_come_and_go(lab_root: Path) -> None:
    built = (await lab.up(2)).lab
    async with lab.connect(built.hosts[0]) as opened:
        for hosts in (3, 4, 5):
            # The hardware address that the hosts know the controller by.
            before = await opened.attempt(("ip", "neighbour", "show", "10.213.0.1"))
            built = (await lab.up(hosts)).lab
            process = built.hosts[-1].init
            assert process is not None
            kill(process)
            after = await asyncio.wait_for(opened.attempt(("ip", "neighbour", "show", "10.213.0.1")), 8)
            assert before.text.split()[:5] == after.text.split()[:5]


async def test_everything_is_for_root_only(lab_root: Path) -> None:
    await lab.up(1)
    for folder in (lab_root, lab_data(lab_root)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("lab.json", "id_ed25519", "known_hosts", "hostA/ssh_host_ed25519_key"):
        assert stat.S_IMODE((lab_root / name).stat().st_mode) == 0o600


async def test_two_labs_know_nothing_of_each_other(
    lab_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = (await lab.up(2)).lab.hosts[0]
    with monkeypatch.context() as patch:
        patch.setenv("QEMU_ESD_LAB", str(tmp_path / "other"))
        there = (await lab.up(2)).lab.hosts[0]
        await on(there, "touch", "/srv/there")
        assert await on(here, "ls", "/srv") == ""
        assert await on(here, "cat", "/etc/machine-id") != await on(there, "cat", "/etc/machine-id")
        await lab.down()
    assert traces(tmp_path / "other") == set()
    assert lab.status().state is lab.LabState.UP
    assert await on(here, "ssh", "hostB", "hostname") == "hostB\n"


async def test_after_a_reboot_the_lab_is_stale_and_up_begins_anew(lab_root: Path) -> None:
    before = (await lab.up(2)).lab
    (before.hosts[0].srv / "old").touch()
    _end_as_a_reboot_does(before)
    now = lab.status()
    assert now.state is lab.LabState.STALE
    assert {host.state for host in now.hosts} == {lab.HostState.DEAD}
    built = await lab.up(2)
    assert built.cleaned
    assert await on(built.lab.hosts[0], "ls", "/srv") == ""
    assert built.lab.hosts[0].machine_id != before.hosts[0].machine_id


async def test_a_process_of_another_boot_is_not_ours(lab_root: Path) -> None:
    await lab.up(1)
    path = lab_root / "lab.json"
    good = path.read_text()
    path.write_text(json.dumps({**json.loads(good), "boot": "another"}))
    assert lab.status().state is lab.LabState.STALE
    path.write_text(good)
    assert lab.status().state is lab.LabState.UP


async def test_data_that_outlived_its_lab_is_recognised_and_removed(lab_root: Path) -> None:
    data = (await lab.up(1)).lab.data
    keep = data.with_name(data.name + ".kept")
    # What a reboot leaves when /run is in memory.
    data.rename(keep)
    await lab.down()
    keep.rename(data)
    assert lab.status().state is lab.LabState.STALE
    assert await lab.down() == lab.Removed((), True)
    assert traces(lab_root) == set()


def _end_as_a_reboot_does(built: lab.Lab) -> None:
    for process in [built.switch, *(host.init for host in built.hosts)]:
        assert process is not None
        kill(process)
    path = built.root / "lab.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))


async def test_a_process_with_a_number_used_again_is_not_ours(lab_root: Path) -> None:
    built = (await lab.up(1)).lab
    _end_as_a_reboot_does(built)
    path = built.root / "lab.json"
    raw = json.loads(path.read_text())
    raw["boot"] = built.boot
    raw["hosts"][0]["init"]["pid"] = os.getpid()
    path.write_text(json.dumps(raw))
    assert lab.status().state is lab.LabState.STALE
    # Had it taken us for the host, we would not be here to say so.
    assert (await lab.down()).stopped == ()


@pytest.mark.parametrize("variable", ["QEMU_ESD_LAB", "QEMU_ESD_LAB_DATA"])
async def test_a_folder_of_somebody_else_is_refused_and_untouched(
    lab_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with monkeypatch.context() as patch:
        patch.setenv(variable, str(foreign))
        with pytest.raises(RefusedError, match="not empty"):
            await lab.up(1)
        assert (foreign / "thesis.txt").read_text() == "years of work"
        if variable == "QEMU_ESD_LAB":
            with pytest.raises(RefusedError, match="not a lab's"):
                await lab.down()
        else:
            assert await lab.down() == lab.Removed((), False)
        assert (foreign / "thesis.txt").read_text() == "years of work"
    assert processes(lab_root) == set()


async def test_one_data_folder_for_two_labs_is_refused(
    lab_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (await lab.up(1)).lab.data
    with monkeypatch.context() as patch:
        patch.setenv("QEMU_ESD_LAB", str(tmp_path / "other"))
        patch.setenv("QEMU_ESD_LAB_DATA", str(data))
        with pytest.raises(RefusedError, match="belongs to"):
            await lab.up(1)
        await lab.down()
    assert lab.status().state is lab.LabState.UP
    assert not (tmp_path / "other").exists()


async def test_a_damaged_lab_json_is_one_clear_error(lab_root: Path) -> None:
    built = (await lab.up(1)).lab
    good = (lab_root / "lab.json").read_text()
    (lab_root / "lab.json").write_text(good[:40])
    for action in (lab.up(1), lab.down()):
        with pytest.raises(RefusedError, match="damaged"):
            await action
    (lab_root / "lab.json").write_text(good)
    assert built.hosts[0].running


@pytest.mark.parametrize("count", [0, -1, 27])
async def test_silly_numbers(lab_root: Path, count: int) -> None:
    with pytest.raises(UsageError, match="1 to 26"):
        await lab.up(count)
    assert traces(lab_root) == set()
