"""`qemu-esd qmp`: ad hoc QMP, one command, its events, or a shell."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qemu_esd.cli import asking, complete, render
from qemu_esd.cli.running import is_interruption, run
from qemu_esd.errors import QemuError, UsageError

if TYPE_CHECKING:
    from qemu_esd.adhoc import Peer
    from qemu_esd.qmp.client import Listener

_COMMAND = re.compile(r"[A-Za-z0-9_.-]+")


def qmp(
    vm: Annotated[
        str,
        typer.Argument(
            metavar="VM[@HOST]",
            help="A guest; or the path handler of VM, or of a device, on HOST.",
            autocompletion=complete.peers,
            callback=complete.one_line,
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND [KEY=VALUE... | JSON]]",
            help="a.b=c is b in a, a.0=c the first of a list. A whole QMP message will do too. Without: a shell.",
        ),
    ] = None,
    events: Annotated[
        bool, typer.Option("--events", help="Tell events as they come; the words are their names (all, without).")
    ] = False,
    count: Annotated[int | None, typer.Option(metavar="N", help="With --events: end after so many.")] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="HOST",
            help="Where the guest runs, if that is not known.",
            autocompletion=complete.hosts,
            callback=complete.each_host,
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Change things also while a migration needs the guest as it is.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Record the session as lines of JSON.")
    ] = None,
) -> None:
    """Say a command to a guest's QEMU, hear its events, or open a shell. Answers are JSON on stdout."""
    if count is not None and not (events and count > 0):
        raise UsageError("--count N goes with --events, and is at least 1")
    if not events and not words and not asking.somebody_is_there():
        raise UsageError("the shell needs a terminal", hint="qemu-esd qmp VM COMMAND [KEY=VALUE...]")
    with _recorder(record) as listener:
        if events:
            _tail(vm, host, words or [], count, listener)
        elif words:
            show(run(_once(vm, host, words, write, listener)))
        else:
            run(_converse(vm, host, write, listener))


@contextmanager
def _recorder(file: Path | None) -> Iterator[Listener | None]:
    if file is None:
        yield None
        return
    from qemu_esd.adhoc import Recorder, open_record

    with open_record(file) as stream:
        yield Recorder(stream)


def show(value: object) -> None:
    """A reply on stdout: in one line for programs, in several for people."""
    if sys.stdout.isatty():
        render.show(render.printable(json.dumps(value, indent=2, ensure_ascii=False)))
    else:
        render.show_json(value)


async def _once(vm: str, host: str | None, words: list[str], write: bool, listener: Listener | None) -> Any:
    from qemu_esd.adhoc import open_peer

    async with open_peer(vm, host, listener) as peer:
        command, arguments = await understood(peer, words)
        write = write or await _is_meant(peer, command)
        return await execute(peer, command, arguments, write=write)


async def understood(peer: Peer, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Command and arguments. Raises UsageError with what the command takes."""
    from qemu_esd.qmp import arguments, schema

    if words[0].lstrip().startswith("{"):
        if len(words) > 1:
            raise UsageError("a whole message has its arguments in it", hint="leave the other words out")
        return arguments.parse_message(words[0])
    command, given = words[0], words[1:]
    if not _COMMAND.fullmatch(command):
        raise UsageError(f"{command!r} is no command of QMP", hint="write COMMAND KEY=VALUE..., or a whole message")
    if arguments.is_json(given):
        return command, arguments.json_object(given[0])
    return command, arguments.parse(await schema.load(peer.session), command, given) if given else {}


async def _is_meant(peer: Peer, command: str) -> bool:
    if not (peer.needs_leave(command) and asking.somebody_is_there()):
        return False
    return await asking.answered_yes(f"{peer.caution}; {command} may change something. Say it all the same? [y/N] ")


async def execute(peer: Peer, command: str, arguments: dict[str, Any], *, write: bool) -> Any:
    """The reply. What QEMU refuses comes with what the command takes."""
    try:
        return await peer.execute(command, arguments, write=write)
    except QemuError as error:
        raise QemuError(command, error.reason, host=error.host, hint=await _wanted(peer, command, arguments)) from error


async def _wanted(peer: Peer, command: str, arguments: dict[str, Any]) -> str:
    from qemu_esd.qmp import schema, signature

    try:
        return f"it takes: {signature.of(await schema.load(peer.session), command, arguments)}"
    except UsageError as error:
        return error.hint or error.what


def _tail(vm: str, host: str | None, names: list[str], count: int | None, listener: Listener | None) -> None:
    try:
        run(_events(vm, host, names, count, listener))
    except BaseException as end:
        # Ctrl-C is how one leaves it.
        if not is_interruption(end):
            raise


async def _events(vm: str, host: str | None, names: list[str], count: int | None, listener: Listener | None) -> None:
    from qemu_esd.adhoc import open_peer
    from qemu_esd.qmp import schema

    async with open_peer(vm, host, listener) as peer:
        if names:
            known = await schema.load(peer.session)
            names = [known.event(name) for name in names]
        with peer.session.listening(*names) as events:
            render.note(f"events of {render.printable(peer.session.label)} on {peer.session.host}; Ctrl-C ends")
            while count is None or count > 0:
                render.show_json(told(await events.get()))
                count = None if count is None else count - 1


def told(event: dict[str, Any]) -> dict[str, Any]:
    """An event with its time as people and programs read it (ISO 8601, UTC)."""
    from datetime import UTC, datetime

    stamp = event["timestamp"]
    when = datetime.fromtimestamp(stamp["seconds"], UTC).replace(microsecond=max(stamp["microseconds"], 0))
    return {"time": when.isoformat(timespec="microseconds"), "event": event["event"], "data": event.get("data", {})}


async def _converse(vm: str, host: str | None, write: bool, listener: Listener | None) -> None:
    from qemu_esd.adhoc import open_peer
    from qemu_esd.cli import qmp_shell

    async with open_peer(vm, host, listener) as peer:
        await qmp_shell.at_terminal(peer, write=write)


def words_of(line: str) -> list[str]:
    """A typed line as words: JSON stays one. Raises UsageError."""
    line = line.strip()
    if line.startswith("{"):
        return [line]
    command, _, rest = line.partition(" ")
    if rest.lstrip().startswith("{"):
        return [command, rest.strip()]
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"that cannot be taken apart: {error}", hint='put quotes around text: key="a b"') from error
