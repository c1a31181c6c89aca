"""Words become what a command takes, by the schema of a real QEMU; and that QEMU takes it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.cli.qmp_complete import completions
from qemu_esd.errors import UsageError
from qemu_esd.qmp import schema as module
from qemu_esd.qmp import signature
from qemu_esd.qmp.arguments import parse, parse_message
from qemu_esd.qmp.schema import Schema
from tests.support.qemu import qemu_session, short_folder


@pytest.fixture(scope="module")
def schema() -> Schema:
    async def ask() -> Schema:
        with short_folder() as folder:
            async with qemu_session(folder) as session:
                return await module.load(session)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("command", "words", "wanted"),
    [
        ("block-job-set-speed", ["device=j", "speed=0x10"], {"device": "j", "speed": 16}),
        # An id may look like a number.
        ("blockdev-del", ["node-name=12"], {"node-name": "12"}),
        ("query-named-block-nodes", ["flat=on"], {"flat": True}),
        ("query-named-block-nodes", ["flat=false"], {"flat": False}),
        ("query-named-block-nodes", [], {}),
        ("screendump", ["filename=a b=c"], {"filename": "a b=c"}),
        # A union: which keys there are depends on the driver; a member that is a node or its name.
        (
            "blockdev-add",
            ["driver=qcow2", "node-name=n", "file.driver=file", "file.filename=/a=b", "read-only=on", "backing=null"],
            {
                "driver": "qcow2",
                "node-name": "n",
                "file": {"driver": "file", "filename": "/a=b"},
                "read-only": True,
                "backing": None,
            },
        ),
        ("blockdev-add", ["driver=raw", "file=other"], {"driver": "raw", "file": "other"}),
        (
            "blockdev-add",
            ["driver=raw", 'file={"driver": "null-co"}'],
            {"driver": "raw", "file": {"driver": "null-co"}},
        ),
        # Lists: by number, with commas, as JSON.
        (
            "migrate-set-capabilities",
            ["capabilities.0.capability=events", "capabilities.0.state=on"],
            {"capabilities": [{"capability": "events", "state": True}]},
        ),
        (
            "block-latency-histogram-set",
            ["id=d", "boundaries=10,20", "boundaries-read=[30, 40]"],
            {"id": "d", "boundaries": [10, 20], "boundaries-read": [30, 40]},
        ),
        # Any type at all, and more keys than the schema has.
        ("qom-set", ["path=/a", "property=b", "value=5"], {"path": "/a", "property": "b", "value": 5}),
        ("qom-set", ["path=/a", "property=b", "value=five"], {"path": "/a", "property": "b", "value": "five"}),
        ("device_add", ["driver=virtio-rng-pci", "max-bytes=5"], {"driver": "virtio-rng-pci", "max-bytes": 5}),
    ],
)
def test_typed(schema: Schema, command: str, words: list[str], wanted: dict[str, Any]) -> None:
    assert parse(schema, command, words) == wanted


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("block-job-set-sped", [], "did you mean block-job-set-speed"),
        (
            "block-job-set-speed",
            ["device=j", "speed=fast"],
            "a whole number; it takes: block-job-set-speed device=TEXT",
        ),
        ("block-job-set-speed", ["device=j"], "speed must be given"),
        ("block-job-set-speed", [], "device and speed must be given"),
        ("block-job-set-speed", ["devise=j"], "did you mean device?"),
        ("block-job-set-speed", ["device=j", "device=k"], "device is given twice"),
        ("block-job-set-speed", ["device.a=j", "speed=1"], "device is no object"),
        ("block-job-set-speed", ["device=j", "device.a=k"], "device is a value already"),
        ("block-job-set-speed", ["device"], "does not say key=value"),
        ("blockdev-add", ["driver=raw", "file={driver"], "no JSON"),
        ("query-named-block-nodes", ["flat=maybe"], "it is on or off"),
        ("blockdev-add", ["driver=qcow3"], "did you mean qcow or qcow2?"),
        ("blockdev-add", ["driver=qcow2"], "file must be given"),
        ("blockdev-add", ["driver=file", "filename=/a", "file.driver=file"], "it takes no file"),
        ("blockdev-add", ["driver=qcow2", "file.driver=file", "file.filenam=/a"], "did you mean filename?"),
        ("migrate-set-capabilities", ["capabilities.1.capability=events"], "is a list"),
        ("query-version", ["a=b"], "it takes: query-version"),
    ],
)
def test_wrong(schema: Schema, command: str, words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(schema, command, words)
    assert said in f"{error.value}; {error.value.hint}"


@given(words=st.lists(st.text(alphabet='ab.=0{[,"n', max_size=12), max_size=4), at=st.integers(0, 5))
def test_whatever_is_typed_is_taken_or_refused(schema: Schema, words: list[str], at: int) -> None:
    commands = ("blockdev-add", "qom-set", "migrate-set-capabilities", "transaction", "device_add", "query-version")
    with contextlib.suppress(UsageError):
        parse(schema, commands[at], words)


def test_messages() -> None:
    assert parse_message('{"execute": "stop"}') == ("stop", {})
    assert parse_message('{"execute": "a", "arguments": {"b": 1}, "id": 5}') == ("a", {"b": 1})
    for text in ("{", "[]", '{"exec": "a"}', '{"execute": 5}', '{"execute": "a", "arguments": 5}'):
        with pytest.raises(UsageError):
            parse_message(text)


def test_every_command_and_event_can_be_described(schema: Schema) -> None:
    for command in schema.commands():
        assert signature.of(schema, command).startswith(command)
    assert signature.of(schema, "block-job-set-speed") == "block-job-set-speed device=TEXT speed=INT"
    assert "[speed=INT]" in signature.of(schema, "blockdev-mirror")
    assert "filename=TEXT" in signature.of(schema, "blockdev-add", {"driver": "file"})
    assert schema.event("STOP") == "STOP"
    with pytest.raises(UsageError, match="no event"):
        schema.event("STOPP")


@pytest.mark.parametrize(
    ("line", "some", "never"),
    [
        ("", ["help", "query-block"], []),
        ("query-bl", ["query-block", "query-blockstats"], ["stop"]),
        ("help sto", ["stop"], ["query-block"]),
        ("block-job-set-speed ", ["device=", "speed="], []),
        ("block-job-set-speed device=a ", ["speed="], ["device="]),
        ("blockdev-add driver=qc", ["driver=qcow2"], ["driver=raw"]),
        ("blockdev-add driver=qcow2 l", ["lazy-refcounts="], ["filename="]),
        ("blockdev-add driver=qcow2 lazy-refcounts=", ["lazy-refcounts=on"], []),
        ("blockdev-add driver=qcow2 file.", ["file.driver="], ["node-name="]),
        ("blockdev-add driver=qcow2 file.driver=file file.", ["file.filename="], ["file.driver="]),
        ("migrate-set-capabilities capabilities.0.c", ["capabilities.0.capability="], []),
        ("no-such-command a", [], []),
        ("query-version ", [], []),
    ],
)
def test_completion(schema: Schema, line: str, some: list[str], never: list[str]) -> None:
    offered = [word for word, _ in completions(schema, line)]
    assert set(some) <= set(offered)
    assert not set(never) & set(offered)
    assert some or not offered


async def test_a_real_qemu_takes_it(schema: Schema, folder: Path) -> None:
    image = folder / "a.raw"
    image.write_bytes(bytes(1 << 20))
    words = ["driver=raw", "node-name=n", "file.driver=file", f"file.filename={image}", "file.cache.direct=off"]
    async with qemu_session(folder) as session:
        await session.execute_dict("blockdev-add", parse(schema, "blockdev-add", words))
        await session.execute_dict("blockdev-del", parse(schema, "blockdev-del", ["node-name=n"]))
