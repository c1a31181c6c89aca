"""Programs on a host: their words arrive as they were given, and how they ended is told, by ssh as without it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_esd.errors import CommandFailedError, HostError
from qemu_esd.hosts.base import Host, open_unix, run, shell
from qemu_esd.hosts.local import LocalHost

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = (
    *("", " ", "two words", "-n", "--", "-rf /", "'", '"', "`id`", "$(id)", "$HOME", "${x:-y}", "\\", "\\n", "a\nb"),
    *("*", "~", "!", "#", ";", "&", "|", ">x", "<", "%s", "\t", "\r", "é", "\x7f", "json:{}", "a,b", "\n", "x\n"),
    b"caf\xe9".decode(errors="surrogateescape"),
)
SHOW = 'for word; do printf "%s\\0" "$word"; done'
words = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=4)


async def shown(host: Host, *args: str) -> list[str]:
    """The words as a script on the host sees them."""
    done = await shell(host, SHOW, *args)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


async def test_hostile_words_arrive_as_they_are(host: Host) -> None:
    assert await shown(host, *HOSTILE) == list(HOSTILE)


@given(args=words)
@settings(max_examples=20)
async def test_any_words_arrive_as_they_are(host: Host, args: list[str]) -> None:
    assert await shown(host, *args) == args


async def test_every_character_arrives_as_it_is(host: Host) -> None:
    """Those that a shell could take for its own among them, alone and in the middle of a word."""
    every = [chr(code) for code in range(1, 128)]
    every += [f"a{character}b" for character in every]
    assert await shown(host, *every) == every


async def test_a_hostile_program_name_is_no_script(host: Host, tmp_path: Path) -> None:
    done = await host.attempt((f"; touch {tmp_path}/made",))
    assert done.status == 127
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
async def test_bytes_go_in_and_come_out_unchanged(host: Host, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"\0" * (size % 256)
    done = await run(host, ("cat",), stdin=data)
    assert done.stdout == data


async def test_how_a_program_ended_is_told(host: Host) -> None:
    done = await host.attempt(("sh", "-c", "echo out; echo err >&2; exit 7"))
    assert (done.status, done.stdout, done.text, done.stderr) == (7, b"out\n", "out\n", "err\n")


async def test_a_program_that_is_killed_ends_with_the_signals_number(host: Host) -> None:
    assert (await host.attempt(("sh", "-c", "kill -9 $$"))).status == -signal.SIGKILL


async def test_a_program_that_does_not_read_is_fed_nevertheless(host: Host) -> None:
    assert (await host.attempt(("true",), stdin=b"x" * (1 << 20))).status == 0


async def test_a_missing_program_is_told_like_a_shell_does(host: Host) -> None:
    done = await host.attempt(("qemu-esd-no-such-program",))
    assert done.status == 127
    assert "not found" in done.stderr


async def test_run_raises_with_the_last_words_and_the_host(host: Host) -> None:
    with pytest.raises(CommandFailedError) as raised:
        await run(host, ("sh", "-c", "echo first >&2; echo last >&2; exit 3"))
    assert str(raised.value) == f"{host.name}: sh failed: last"
    assert (raised.value.status, raised.value.stderr) == (3, "first\nlast\n")


async def test_run_raises_with_the_status_where_there_are_no_words(host: Host) -> None:
    with pytest.raises(CommandFailedError, match="exit status 1"):
        await run(host, ("false",))


async def test_a_socket_there_is_a_byte_stream_here(host: Host, folder: Path) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(5)).upper())
        writer.close()

    path = folder / "it's a socket"
    async with await asyncio.start_unix_server(upper, path):
        for _ in range(2):
            reader, writer = await open_unix(host, str(path))
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"HELLO"
            writer.close()


# ---- this machine


async def test_a_file_that_cannot_be_run_is_an_error_of_the_host(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_text("not executable")
    with pytest.raises(HostError, match="local: cannot start"):
        await LocalHost().attempt((str(path),))


async def test_a_cancelled_program_is_killed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    work = asyncio.ensure_future(LocalHost().attempt(("sh", "-c", f"exec sleep 600 3>{pipe}")))
    with await asyncio.to_thread(pipe.open, "rb") as held:
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        closed = select.poll()
        closed.register(held, select.POLLHUP)
        # Its end of the pipe closes when it is dead.
        assert closed.poll(20_000)


async def test_here_no_address_and_no_forward_is_needed() -> None:
    assert await LocalHost().peer_address() is None
    assert await LocalHost().forward("/run/x.sock") == "/run/x.sock"
