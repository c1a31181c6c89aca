"""One connection to real servers: refusals, many requests, a killed server, huge disks, other streams."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from qemu_esd import nbd
from qemu_esd.nbd import (
    ALLOCATION_DEPTH,
    BASE_ALLOCATION,
    Extent,
    NbdDisconnected,
    NbdRefusedError,
    Range,
    absent,
    combine,
    fill,
)
from tests.nbd.daemon import FILL, MAP, copy_on_read, daemon, export, file, node
from tests.nbd.fake import SECONDS
from tests.nbd.images import CLUSTER, KIB, LOCAL_DATA, MIB, SIZE, Images, create_qcow2, run

TIB = 1 << 40
SSHD = "/usr/sbin/sshd"
# An sshd of root wants /run/sshd; this gives it one that is gone when it ends.
OWN_RUN = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"', "sh")


class CountingWriter:
    """A real writer that knows how many requests went through it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.requests = 0

    def write(self, data: bytes, /) -> None:
        self.requests += data.startswith(b"\x25\x60\x95\x13")
        self._writer.write(data)

    def close(self) -> None:
        self._writer.close()

    async def wait_closed(self) -> None:
        await self._writer.wait_closed()


async def test_an_export_that_is_not_there_is_refused(tmp_path: Path, images: Images) -> None:
    async with daemon(tmp_path, copy_on_read(images)) as running:
        with pytest.raises(NbdRefusedError, match="no such export"):
            async with running.open("nobody"):
                pass


async def test_a_context_that_is_not_there_is_refused(tmp_path: Path, images: Images) -> None:
    async with daemon(tmp_path, copy_on_read(images)) as running:
        with pytest.raises(NbdRefusedError, match="does not offer qemu:allocation-depth"):
            async with running.open(FILL, BASE_ALLOCATION, ALLOCATION_DEPTH):
                pass


async def test_many_requests_at_once_get_their_own_answers(tmp_path: Path, images: Images) -> None:
    expected = images.expected.read_bytes()
    offsets = range(0, SIZE, 256 * KIB)
    async with daemon(tmp_path, copy_on_read(images)) as running, running.open(FILL) as client:
        found = await asyncio.gather(*(client.read_small(offset, 4096) for offset in offsets))
    assert found == [expected[offset : offset + 4096] for offset in offsets]


async def test_one_status_request_stays_within_its_range(tmp_path: Path, images: Images) -> None:
    offset, length, _ = LOCAL_DATA[0]
    async with daemon(tmp_path, copy_on_read(images)) as running:
        async with running.open(MAP, ALLOCATION_DEPTH) as client:
            found = await client.block_status(ALLOCATION_DEPTH, offset - CLUSTER, 2 * CLUSTER)
            assert found == [Extent(offset - CLUSTER, CLUSTER, 2), Extent(offset, length, 1)]
            with pytest.raises(ValueError, match="was not asked for"):
                await client.block_status(BASE_ALLOCATION, 0, CLUSTER)


async def test_a_killed_server_frees_every_waiter(tmp_path: Path, images: Images) -> None:
    async with daemon(tmp_path, copy_on_read(images)) as running:
        async with running.open(FILL) as client, running.open(MAP, ALLOCATION_DEPTH) as mapper:
            running.stop()  # every request from here on stays in flight
            calls = [client.cache(offset, MIB) for offset in range(0, SIZE, MIB)]
            waiters = [asyncio.ensure_future(call) for call in (*calls, client.flush(), mapper.map())]
            filling = asyncio.ensure_future(fill(client, [Range(0, SIZE)]))
            done, _ = await asyncio.wait([*waiters, filling], timeout=0.2)
            assert not done
            await running.kill()
            async with asyncio.timeout(SECONDS):
                outcomes = await asyncio.gather(*waiters, filling, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [NbdDisconnected] * len(outcomes)
            with pytest.raises(NbdDisconnected):
                await client.flush()


async def test_a_fill_that_was_cut_off_is_taken_up_from_the_map(tmp_path: Path, images: Images) -> None:
    def killed(_: int) -> None:
        os.kill(running.process.pid, signal.SIGKILL)

    async with daemon(tmp_path, copy_on_read(images)) as running, running.open(FILL) as client:
        with pytest.raises(NbdDisconnected):
            await fill(client, [Range(0, SIZE)], chunk=256 * KIB, on_progress=killed)
    async with daemon(tmp_path, copy_on_read(images)) as running:
        async with running.open(FILL) as client, running.open(MAP, ALLOCATION_DEPTH) as mapper:
            assert await fill(client, absent((await mapper.map())[ALLOCATION_DEPTH])) == []
            assert (await mapper.map())[ALLOCATION_DEPTH] == [Extent(0, SIZE, 1)]


async def test_a_sparse_tebibyte_is_mapped_with_few_requests(tmp_path: Path) -> None:
    image = tmp_path / "huge.qcow2"
    create_qcow2(image, TIB)
    written = [0, 300 << 30, TIB - CLUSTER]
    for offset in written:
        run("qemu-io", "-f", "qcow2", "-c", f"write -P 1 {offset} {CLUSTER}", str(image))
    options = [*node("huge", "qcow2", file=file(image)), *export("huge", "huge", depth=True)]
    async with daemon(tmp_path, options) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket)
        counting = CountingWriter(writer)
        async with nbd.open(reader, counting, "huge", [ALLOCATION_DEPTH, BASE_ALLOCATION]) as client:
            maps = await client.map()
            # 256 of the longest that the protocol carries, and what it takes to get there or a slow answer costs.
            assert counting.requests < 2000
    assert [part.offset for part in maps[ALLOCATION_DEPTH] if part.flags == 1] == written
    assert [part.offset for part in maps[BASE_ALLOCATION] if part.flags == 0] == written
    both = combine(maps[ALLOCATION_DEPTH], maps[BASE_ALLOCATION])
    assert [(part.depth, part.base) for part in both] == [(1, 0), (0, 3)] * 2 + [(1, 0)]
    assert sum(part.length for part in both) == TIB


async def test_a_map_of_many_fragments_takes_several_answers(tmp_path: Path) -> None:
    """QEMU ends an answer after 128 Ki extents; here every 512 bytes differ from their neighbours."""
    image, size = tmp_path / "fragments.qcow2", 70_000 * KIB
    create_qcow2(image, size, "-o", "cluster_size=512")
    zeroes = "".join(f"write -q -z {offset} 512\n" for offset in range(0, size, KIB))
    run("qemu-io", "-f", "qcow2", "-t", "unsafe", str(image), stdin=zeroes)
    options = [*node("disk", "qcow2", file=file(image)), *export("disk", "disk", depth=True)]
    async with daemon(tmp_path, options) as running, running.open("disk", ALLOCATION_DEPTH) as client:
        first = await client.block_status(ALLOCATION_DEPTH, 0, size)
        extents = (await client.map())[ALLOCATION_DEPTH]
    assert first[-1].end < size
    assert extents == [Extent(offset, 512, 1 - offset // 512 % 2) for offset in range(0, size, 512)]


async def test_the_servers_of_others_are_understood() -> None:
    """nbdkit, which answers on its standard input and output."""
    with served_by("nbdkit", "-s", "data", "@1048576 1*65536 @2097152 2", "size=4M") as ours:
        reader, writer = await asyncio.open_connection(sock=ours)
        async with nbd.open(reader, writer, "", [BASE_ALLOCATION]) as client:
            found = (await client.map())[BASE_ALLOCATION]
            assert await client.read_small(MIB, 4096) == b"\1" * 4096
    data = [part for part in found if part.flags == 0]
    assert any(part.offset <= MIB and part.end >= MIB + CLUSTER for part in data)
    assert any(part.offset <= 2 * MIB < part.end for part in data)
    assert sum(part.length for part in data) < MIB
    assert found[-1].end == client.size == 4 * MIB


async def test_over_ssh(tmp_path: Path, images: Images) -> None:
    """The same client over a forwarded unix socket of a real sshd, which serves this one connection."""
    async with daemon(tmp_path, copy_on_read(images)) as running, ssh(tmp_path) as connection:
        reader, writer = await connection.open_unix_connection(str(running.socket))
        async with nbd.open(reader, writer, MAP, [ALLOCATION_DEPTH]) as client:
            extents = (await client.map())[ALLOCATION_DEPTH]
            assert [(part.offset, part.length) for part in extents if part.flags == 1] == [
                (offset, length) for offset, length, _ in LOCAL_DATA
            ]
        reader, writer = await connection.open_unix_connection(str(running.socket))
        async with nbd.open(reader, writer, FILL) as client:
            assert await fill(client, [Range(0, SIZE)]) == []
            running.stop()
            waiter = asyncio.ensure_future(client.flush())
            await asyncio.wait([waiter], timeout=0.1)
            await running.kill()
            async with asyncio.timeout(SECONDS):
                with pytest.raises(NbdDisconnected):
                    await waiter


@contextlib.asynccontextmanager
async def ssh(directory: Path) -> AsyncIterator[asyncssh.SSHClientConnection]:
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name))
    config, key = directory / "sshd_config", str(directory / "user")
    keys = f"HostKey {directory}/host\nAuthorizedKeysFile {directory}/user.pub\n"
    config.write_text(f"{keys}StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\n")
    with served_by(*OWN_RUN, SSHD, "-i", "-f", str(config)) as ours:
        async with asyncssh.connect(
            "sshd", sock=ours, username=getpass.getuser(), client_keys=[key], known_hosts=None, config=None
        ) as connection:
            yield connection


@contextlib.contextmanager
def served_by(*command: str) -> Iterator[socket.socket]:
    """Our end of a socket pair; the other is the standard input and output of a server for one connection."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.wait(10)
