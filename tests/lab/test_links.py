"""Links between hosts: cut in silence, mended, limited; and nobody else notices."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import replace

import pytest

from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.hosts import lab
from tests.lab.tools import connected, inside, on

pytestmark = pytest.mark.lab

Hosts = tuple[lab.LabHost, ...]


async def _change(one: str, other: str, **changes: object) -> lab.Link:
    await lab.set_link(replace(await lab.link_between(one, other), **changes))  # type: ignore[arg-type]
    return await lab.link_between(one, other)


async def test_a_fresh_link_is_up_and_free(three_hosts: Hosts) -> None:
    assert await lab.link_between("hostA", "hostB") == lab.Link("hostA", "hostB", True, None, None)
    assert [(link.one, link.other) for link in lab.status().links] == [
        ("hostA", "hostB"),
        ("hostA", "hostC"),
        ("hostB", "hostC"),
    ]


async def test_a_cut_link_swallows_everything_in_silence_until_it_is_mended(three_hosts: Hosts) -> None:
    one, other = connected(three_hosts[0], three_hosts[1])
    with one, other:
        one.sendall(b"before")
        assert other.recv(100) == b"before"
        assert not (await _change("hostA", "hostB", up=False)).up
        one.sendall(b"to B")
        other.sendall(b"to A")
        for end in (one, other):
            end.settimeout(1)
            with pytest.raises(TimeoutError):
                end.recv(100)
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert (await _change("hostA", "hostB", up=True)).up
        for end, data in ((one, b"to A"), (other, b"to B")):
            end.settimeout(30)
            assert end.recv(100) == data


async def test_connecting_over_a_cut_link_gets_no_answer_at_all(three_hosts: Hosts) -> None:
    here, there = three_hosts[:2]
    await _change("hostA", "hostB", up=False)
    # Longer than it takes a host to find out that nobody answers its question for a hardware address; but
    # the entry is there for ever, so the question is not asked.
    assert "PERMANENT" in await on(here, "ip", "neighbour", "show", there.address)
    with pytest.raises(TimeoutError):
        inside(here, lambda: socket.create_connection((there.address, 22), timeout=4.5))
    await _change("hostA", "hostB", up=True)
    inside(here, lambda: socket.create_connection((there.address, 22), timeout=10)).close()


async def test_a_cut_link_is_cut_between_these_two_only(three_hosts: Hosts) -> None:
    a, b, c = three_hosts
    await _change("hostB", "hostA", up=False)
    for host, peer in ((a, c), (b, c), (c, a), (c, b)):
        assert await on(host, "ssh", peer.name, "hostname") == f"{peer.name}\n"
    assert lab.status().state is lab.LabState.UP
    assert [link.up for link in lab.status().links] == [False, True, True]
    await _change("hostA", "hostB", up=True)
    assert await on(a, "ssh", "hostB", "hostname") == "hostB\n"


async def test_hosts_have_no_other_way_to_each_other(three_hosts: Hosts) -> None:
    here, there = three_hosts[:2]
    # Over the controller's bridge, whose ports are isolated: no answer even to the question who has the address.
    await on(here, "ip", "route", "add", f"{there.address}/32", "dev", "eth0", "metric", "1", "table", "99")
    await on(here, "ip", "rule", "add", "to", there.address, "lookup", "99")
    with pytest.raises(OSError):
        inside(here, lambda: socket.create_connection((there.address, 22), timeout=2))
    await on(here, "ip", "rule", "del", "to", there.address, "lookup", "99")
    assert await on(here, "ssh", "hostB", "hostname") == "hostB\n"


@pytest.mark.parametrize("swap", [False, True])
async def test_a_rate_holds_in_either_direction(three_hosts: Hosts, swap: bool) -> None:
    rate, count = 1_000_000, 1_500_000
    link = await _change("hostA", "hostB", rate=rate)
    assert link == lab.Link("hostA", "hostB", True, rate, None)
    assert (await lab.link_between("hostA", "hostC")).rate is None
    sender, receiver = connected(*(three_hosts[1::-1] if swap else three_hosts[:2]))
    with sender, receiver:
        begin = time.monotonic()
        # The socket's buffers are far smaller than what is sent, or else they take it; so count at the other end.
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * count)
        sender.setblocking(False)
        sent = sender.send(bytes(count))
        receiver.settimeout(30)
        received = 0
        while received < sent:
            received += len(receiver.recv(1 << 16))
        # What may pass at once after a pause is the burst.
        assert time.monotonic() - begin >= (received - 200_000) / rate * 0.9
        assert received > 500_000
    assert (await _change("hostA", "hostB", rate=None)).rate is None


async def test_a_delay_is_a_delay_or_refused(three_hosts: Hosts) -> None:
    if not _kernel_has_netem():
        with pytest.raises(RefusedError, match="no sch_netem") as caught:
            await _change("hostA", "hostB", delay=0.01)
        assert "nbdkit --filter=delay" in str(caught.value.hint)
        assert (await lab.link_between("hostA", "hostB")).delay is None
        return
    assert (await _change("hostA", "hostB", delay=0.01)).delay == 0.01
    begin = time.monotonic()
    one, other = connected(*three_hosts[:2])
    assert time.monotonic() - begin >= 0.02
    one.close()
    other.close()
    assert (await _change("hostA", "hostB", delay=None)).delay is None


def _kernel_has_netem() -> bool:
    unshare, tc = shutil.which("unshare"), shutil.which("tc", path="/usr/sbin:/sbin")
    assert unshare and tc
    argv = [unshare, "--net", tc, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


async def test_rate_and_cut_are_independent(three_hosts: Hosts) -> None:
    await _change("hostA", "hostC", rate=5_000_000)
    assert await _change("hostA", "hostC", up=False) == lab.Link("hostA", "hostC", False, 5_000_000, None)
    assert await _change("hostA", "hostC", up=True) == lab.Link("hostA", "hostC", True, 5_000_000, None)
    assert await _change("hostA", "hostC", rate=None) == lab.Link("hostA", "hostC", True, None, None)


async def test_words_that_make_no_link(three_hosts: Hosts) -> None:
    with pytest.raises(UsageError, match="no host 'hostZ'") as caught:
        await lab.link_between("hostA", "hostZ")
    assert caught.value.hint == "it has hostA, hostB, hostC"
    with pytest.raises(UsageError, match="itself"):
        await lab.link_between("hostA", "hostA")
