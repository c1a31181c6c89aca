"""What only looks, what would end a QEMU, and what must not come into a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_esd.errors import RefusedError
from qemu_esd.qmp import care, jobs, schema
from tests.support.qemu import blockdevs, create, daemon_session, qemu_session


@pytest.mark.parametrize("command", ["query-block", "x-query-usb", "qom-get", "trace-event-get-state"])
def test_looks(command: str) -> None:
    assert care.only_looks(command)


async def test_no_other_command_of_a_real_qemu_counts_as_looking(folder: Path) -> None:
    async with qemu_session(folder) as session:
        commands = (await schema.load(session)).commands()
    looking = {name for name in commands if care.only_looks(name)}
    assert {name for name in looking if "query-" not in name} == {
        "qom-get",
        "qom-list",
        "qom-list-properties",
        "device-list-properties",
        "trace-event-get-state",
        "x-debug-block-dirty-bitmap-sha256",
    }
    assert not looking & {"quit", "stop", "human-monitor-command", "qom-set", "ringbuf-read", "screendump"}


async def test_a_concluded_stream_is_not_walked_over(folder: Path) -> None:
    """The question ends QEMU 7.2 then (decision 53); it is refused for as long as the job is kept."""
    base, top = create(folder / "base.raw", "raw"), create(folder / "top.qcow2", "qcow2")
    nodes = [
        {"driver": "raw", "node-name": "base", "file": {"driver": "file", "filename": str(base)}},
        {"driver": "qcow2", "node-name": "top", "file": {"driver": "file", "filename": str(top)}, "backing": "base"},
    ]
    async with daemon_session(folder, *blockdevs(nodes)) as session:
        await care.check_harmless(session, "query-named-block-nodes")
        await session.execute("block-stream", job_id="job", device="top", auto_dismiss=False)
        await jobs.wait_status(session, "job", frozenset({"concluded"}), 10)
        with pytest.raises(RefusedError, match="the block-stream job job is concluded") as refused:
            await care.check_harmless(session, "query-named-block-nodes")
        assert refused.value.hint == "first: job-dismiss id=job"
        await care.check_harmless(session, "query-block")
        await jobs.dismiss(session, "job")
        await care.check_harmless(session, "query-named-block-nodes")
        with pytest.raises(RefusedError, match="loads modules"):
            await care.check_harmless(session, "qom-list-types")


def test_secrets() -> None:
    message = {
        "execute": "object-add",
        "arguments": {"qom-type": "secret", "id": "s", "data": "hunter2"},
        "list": [{"password": "hunter2", "data": {"kept": 1}}],
    }
    assert care.without_secrets(message) == {
        "execute": "object-add",
        "arguments": {"qom-type": "secret", "id": "s", "data": "***"},
        "list": [{"password": "***", "data": {"kept": 1}}],
    }
    assert care.may_hold_secrets("object-add qom-type=secret data=hunter2")
    assert care.may_hold_secrets('set_password {"protocol": "vnc", "password": "x"}')
    assert not care.may_hold_secrets("query-block")
    assert not care.may_hold_secrets("blockdev-add driver=qcow2 data-file=x")
