"""What a lab host is: its own machine in all that we say it is, and reachable under its name."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_esd.errors import HostError, HostKeyError
from qemu_esd.hosts import lab
from qemu_esd.hosts.ssh import open_target
from tests.lab.tools import on

pytestmark = pytest.mark.lab

Hosts = tuple[lab.LabHost, ...]


async def test_hosts_reach_each_other_by_name_and_address(three_hosts: Hosts) -> None:
    for here in three_hosts:
        assert await on(here, "hostname") == f"{here.name}\n"
        for there in three_hosts:
            for word in (there.name, there.address):
                assert await on(here, "ssh", "-o", "BatchMode=yes", word, "hostname") == f"{there.name}\n"


async def test_a_peer_is_seen_with_its_main_address(three_hosts: Hosts) -> None:
    here, there = three_hosts[:2]
    assert (await on(here, "ssh", there.name, "echo $SSH_CONNECTION")).split()[::2] == [here.address, there.address]


async def test_the_controllers_address_of_a_host(three_hosts: Hosts) -> None:
    async with lab.connect(three_hosts[1]) as opened:
        assert await opened.peer_address() == three_hosts[1].address


async def test_namespaces_are_all_different(three_hosts: Hosts) -> None:
    for kind in ("net", "mnt", "uts", "pid", "ipc"):
        seen = {str(Path(f"/proc/self/ns/{kind}").readlink())}
        seen |= {(await on(host, "readlink", f"/proc/self/ns/{kind}")).strip() for host in three_hosts}
        assert len(seen) == 4, kind


async def test_identity_is_the_hosts_own(three_hosts: Hosts) -> None:
    machine_ids = {await on(host, "cat", "/etc/machine-id") for host in three_hosts}
    assert len(machine_ids | {Path("/etc/machine-id").read_text()}) == 4
    for host in three_hosts:
        assert await on(host, "cat", "/etc/hostname") == f"{host.name}\n"
        assert await on(host, "sh", "-c", "echo ~ $HOME") == "/var/lib/qemu-esd-home /var/lib/qemu-esd-home\n"


@pytest.mark.parametrize(
    "folder", ["/run", "/srv", "/tmp", "/var/tmp", "/var/log", "/var/lib/qemu-esd", "/dev/shm", "/etc", "~"]
)
async def test_what_a_host_writes_is_its_own(three_hosts: Hosts, folder: str) -> None:
    here, there, _ = three_hosts
    await on(here, "sh", "-c", f"echo mine > {folder}/lab-probe")
    assert await on(here, "sh", "-c", f"cat {folder}/lab-probe") == "mine\n"
    assert await on(there, "sh", "-c", f"test -e {folder}/lab-probe || echo none") == "none\n"
    assert not Path(folder).expanduser().joinpath("lab-probe").exists()
    await on(here, "sh", "-c", f"rm {folder}/lab-probe")


async def test_programs_of_the_machine_cannot_be_changed(three_hosts: Hosts) -> None:
    script = "touch /usr/lab-probe /boot/lab-probe 2>&1 || true"
    assert (await on(three_hosts[0], "sh", "-c", script)).count("Read-only file system") == 2


async def test_users_ssh_files_and_other_labs_are_out_of_sight(three_hosts: Hosts) -> None:
    host = three_hosts[0]
    mounts = (await on(host, "cat", "/proc/mounts")).splitlines()
    for home in {user.pw_dir for user in pwd.getpwall()}:
        if Path(home, ".ssh").is_dir():
            assert any(line.startswith(f"none {home}/.ssh tmpfs ro,") for line in mounts)
            assert await on(host, "ls", "-A", f"{home}/.ssh") == ""
    assert sorted((await on(host, "sh", "-c", "cd /var/lib; echo qemu-esd*")).split()) == [
        "qemu-esd",
        "qemu-esd-home",
    ]


async def test_the_labs_own_folders_are_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    # /var/cache is a folder that hosts see as the machine does.
    with tempfile.TemporaryDirectory(dir="/var/cache") as folder:
        monkeypatch.setenv("QEMU_ESD_LAB", f"{folder}/lab")
        monkeypatch.setenv("QEMU_ESD_LAB_DATA", f"{folder}/data")
        host = (await lab.up(1)).lab.hosts[0]
        assert (await on(host, "ls", "-A", folder)).split() == ["data", "lab"]
        assert await on(host, "ls", "-A", f"{folder}/data", f"{folder}/lab") == f"{folder}/data:\n\n{folder}/lab:\n"
        await on(host, "touch", "/srv/works")
        assert (host.srv / "works").exists()
        await lab.down()
        assert list(Path(folder).iterdir()) == []


async def test_processes_of_others_are_out_of_sight(three_hosts: Hosts) -> None:
    words = (await on(three_hosts[0], "sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null || true")).split("\0")
    assert "hostA" in words
    assert not {"hostB", "switch"} & set(words)
    assert Path("/proc/self/cmdline").read_text() not in "\0".join(words)


async def test_srv_is_on_the_machines_disk(three_hosts: Hosts) -> None:
    host = three_hosts[0]
    await on(host, "dd", "if=/dev/urandom", "of=/srv/image", "bs=4k", "count=4", "oflag=direct")
    image = host.srv / "image"
    assert image.stat().st_size == 16384
    assert await on(host, "stat", "-c%d %i", "/srv") == f"{host.srv.stat().st_dev} {host.srv.stat().st_ino}\n"
    image.unlink()


async def test_a_daemon_survives_the_ssh_session(three_hosts: Hosts) -> None:
    host = three_hosts[0]
    script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"
    pid = (await on(host, "sh", "-c", script)).strip()
    assert await on(host, "cat", f"/proc/{pid}/comm") == "sleep\n"
    assert (await on(host, "ps", "-o", "ppid=", "-p", pid)).strip() == "1"
    await on(host, "kill", pid)
    await _until(host, f"! kill -0 {pid}")


async def test_orphans_are_reaped(three_hosts: Hosts) -> None:
    host = three_hosts[0]
    await on(host, "sh", "-c", "for i in 1 2 3 4 5; do setsid true & done")
    await _until(host, "! ps -eo stat= | grep -q Z")


async def _until(host: lab.LabHost, condition: str) -> None:
    """Wait until a shell on the host says so (at most 10 s)."""
    await on(host, "timeout", "10", "sh", "-c", f"until {condition} 2>/dev/null; do sleep 0.05; done")


async def test_sshd_comes_back_and_the_rest_lives_on(three_hosts: Hosts) -> None:
    host = three_hosts[0]
    async with lab.connect(host) as opened:
        await opened.attempt(("pkill", "-KILL", "-o", "-x", "sshd"))
        assert (await opened.attempt(("hostname",))).text == "hostA\n"
    for _ in range(500):
        if lab.status().hosts[0].state is lab.HostState.UP:
            break
        await asyncio.sleep(0.02)
    assert await on(host, "hostname") == "hostA\n"
    assert lab.find("hostA") == host


async def test_an_unknown_host_key_is_refused(three_hosts: Hosts, tmp_path: Path) -> None:
    host = three_hosts[0]
    nobody_known = tmp_path / "known_hosts"
    nobody_known.touch()
    target = replace(host.ssh_target(), known_hosts=nobody_known)
    with pytest.raises(HostKeyError, match="not trusted"):
        async with open_target(host.name, target, lab.open_socket(host)):
            pass


async def test_the_key_of_another_host_is_refused(three_hosts: Hosts, tmp_path: Path) -> None:
    here, there, _ = three_hosts
    swapped = tmp_path / "known_hosts"
    key = (there.folder / "ssh_host_ed25519_key.pub").read_text()
    swapped.write_text(f"{here.address} {key}")
    with pytest.raises(HostKeyError):
        async with open_target(here.name, replace(here.ssh_target(), known_hosts=swapped), lab.open_socket(here)):
            pass


async def test_passwords_and_foreign_keys_are_refused(three_hosts: Hosts, tmp_path: Path) -> None:
    here, there, _ = three_hosts
    script = "ssh-keygen -q -t ed25519 -N '' -f /tmp/other && ssh -F none -o IdentitiesOnly=yes -i /tmp/other "
    options = "-o IdentityAgent=none -o BatchMode=yes hostB true 2>&1 || true; rm -f /tmp/other*"
    # The default key file must not help: HOME decides nothing for ssh, so it is moved out of the way.
    moved = f"mv ~/.ssh/id_ed25519 ~/key; {script}{options}; mv ~/key ~/.ssh/id_ed25519"
    assert "Permission denied (publickey)" in await on(here, "sh", "-c", moved)
    assert await on(here, "ssh", there.name, "hostname") == "hostB\n"


async def test_a_socket_to_a_host_leaves_us_where_we_are(three_hosts: Hosts) -> None:
    before = Path("/proc/thread-self/ns/net").readlink()
    with lab.open_socket(three_hosts[0]) as sock:
        assert sock.getpeername() == (three_hosts[0].address, 22)
        assert sock.getblocking() is False
    assert Path("/proc/thread-self/ns/net").readlink() == before


async def test_a_host_that_is_gone_is_a_clear_error(lab_root: Path) -> None:
    host = (await lab.up(1)).lab.hosts[0]
    await lab.down()
    with pytest.raises(HostError, match="does not run") as caught:
        lab.open_socket(host)
    assert caught.value.hint == "qemu-esd lab up"


async def test_sigterm_ends_a_host_with_everything_in_it(lab_root: Path) -> None:
    host = (await lab.up(1)).lab.hosts[0]
    await on(host, "sh", "-c", "setsid sleep 98765 </dev/null >/dev/null 2>&1 &")
    assert host.init is not None
    handle = os.pidfd_open(host.init.pid)
    os.kill(host.init.pid, signal.SIGTERM)
    await asyncio.wait_for(_readable(handle), 10)
    os.close(handle)
    running = set[bytes]()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # It may end while we look.
        with suppress(OSError):
            running.add(path.read_bytes())
    assert b"sleep\00098765\0" not in running


async def _readable(descriptor: int) -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, done.set)
    await done.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
