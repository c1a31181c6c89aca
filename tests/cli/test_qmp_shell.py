"""The QMP shell with a real storage daemon, typed into as at a terminal; a session that is recorded and replayed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from qemu_esd.adhoc import Peer, Recorder, open_record
from qemu_esd.cli import qmp, qmp_shell
from qemu_esd.errors import QemuError
from qemu_esd.hosts.local import LocalHost
from qemu_esd.qmp import schema
from qemu_esd.qmp.client import Listener
from qemu_esd.qmp.session import open_session
from tests.support.qemu import short_folder, storage_daemon
from tests.support.replay import replayed

FIXTURE = Path(__file__).parent.parent.parent / "fixtures/qmp/01-storage-daemon.jsonl"


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as short:
        yield short


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


@asynccontextmanager
async def daemon(folder: Path, caution: str | None = None, listener: Listener | None = None) -> AsyncIterator[Peer]:
    monitor = ("--chardev", f"socket,id=qmp,path={folder}/qmp,server=on,wait=off", "--monitor", "chardev=qmp")
    async with storage_daemon(*monitor):
        async with open_session(LocalHost(), f"{folder}/qmp", "the daemon", listener) as session:
            yield Peer(session, caution)


async def typed(peer: Peer, keys: PipeInput, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What the shell says on stdout and on stderr."""
    keys.send_text(text + "exit\r")
    await qmp_shell.converse(peer, write=False)
    return capsys.readouterr()


async def test_a_conversation(folder: Path, keys: PipeInput, capsys: pytest.CaptureFixture[str]) -> None:
    async with daemon(folder) as peer:
        lines = [
            "blockdev-add driver=null-co node-name=n size=4096",
            # A message over three lines.
            '{"execute": "blockdev-add",\r"arguments": {"driver": "null-co",\r"node-name": "m"}}',
            "query-named-block-nodes flat=on",
            "blockdev-add driver=null-co node-name=n",
            "blockdev-del node-nam=n",
            "help blockdev-del",
            "object-add qom-type=secret id=s data=hunter2",
            "",
        ]
        out, err = await typed(peer, keys, "".join(f"{line}\r" for line in lines), capsys)
    replies = [json.loads(line) for line in out.splitlines() if line.startswith(("{", "["))]
    assert replies[:2] == [{}, {}]
    assert {node["node-name"] for node in replies[2]} == {"n", "m"}
    assert "blockdev-del node-name=TEXT" in out
    assert "Duplicate" in err
    assert "[latency-ns=INT]" in err
    assert "did you mean node-name?" in err
    kept = qmp_shell.history_file()
    assert "blockdev-del node-nam=n" in kept.read_text()
    assert "hunter2" not in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_completion_goes_by_what_is_before_the_cursor(folder: Path) -> None:
    async with daemon(folder) as peer:
        completer = qmp_shell.BySchema(await schema.load(peer.session))
    found = completer.get_completions(Document("blockdev-add driver=nul"), CompleteEvent())
    assert [(one.text, one.start_position) for one in found] == [
        ("driver=null-aio", -len("driver=nul")),
        ("driver=null-co", -len("driver=nul")),
    ]


async def test_it_asks_before_it_changes_what_a_migration_needs(
    folder: Path, keys: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    async with daemon(folder, "vm1 is being migrated") as peer:
        add = "blockdev-add driver=null-co node-name=n\r"
        out, err = await typed(peer, keys, f"{add}n\rquery-block\r{add}y\r", capsys)
    assert "vm1 is being migrated: what may change something is asked about" in err
    assert "add --write" in err
    # query-block, and the second blockdev-add.
    assert [json.loads(line) for line in out.splitlines()] == [[], {}]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("query-block", True),
        ("", True),
        ('{"execute": "a"', False),
        ('{"execute": "{"}', True),
        ('stop {"a": [', False),
        ('stop {"a": "\\"}"', False),
        ("a b.c=d", True),
    ],
)
def test_json_goes_on_until_it_is_closed(text: str, whole: bool) -> None:
    assert qmp_shell.is_whole(text) is whole


def test_words() -> None:
    assert qmp.words_of('a b="c d" e=\'{"f": 1}\'') == ["a", "b=c d", 'e={"f": 1}']
    assert qmp.words_of('a {"b": "c d"}') == ["a", '{"b": "c d"}']
    assert qmp.words_of(' {"execute": "a"} ') == ['{"execute": "a"}']
    assert qmp.words_of("  ") == []


async def ask(peer: Peer) -> list[object]:
    words = (["query-jobs"], ["blockdev-add", '{"driver": "null-co", "node-name": "n"}'], ["query-block-exports"])
    answers = [await peer.execute(*await qmp.understood(peer, each), write=False) for each in words]
    with pytest.raises(QemuError, match="nosuch"):
        await peer.execute("blockdev-del", {"node-name": "nosuch"}, write=False)
    return answers


async def test_what_is_recorded_can_be_replayed(folder: Path) -> None:
    with open_record(folder / "record") as file:
        async with daemon(folder, listener=Recorder(file)) as peer:
            told = await ask(peer)
            await peer.session.execute("object-add", qom_type="secret", id="s", data="hunter2")
    assert "hunter2" not in (folder / "record").read_text()
    assert (folder / "record").stat().st_mode & 0o777 == 0o600
    for record in (folder / "record", FIXTURE):
        async with replayed(record, folder / "again"):
            async with open_session(LocalHost(), str(folder / "again"), "the record") as session:
                assert await ask(Peer(session, None)) == told
