"""An interactive QMP shell: completion and errors by the peer's own schema, a history, events as they come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session, run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from qemu_esd.adhoc import Peer
from qemu_esd.cli import qmp, render
from qemu_esd.cli.qmp_complete import completions
from qemu_esd.errors import EsdError, HostError, QemuGoneError, UsageError
from qemu_esd.journal import store
from qemu_esd.qmp import care, schema, signature
from qemu_esd.qmp.schema import Schema
from qemu_esd.qmp.session import Events

# What brackets are in does not count.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


async def at_terminal(peer: Peer, *, write: bool) -> None:
    """`converse` at our terminal; answers go to stdout also where that is none."""
    with create_app_session(output=create_output(always_prefer_tty=True)):
        await converse(peer, write=write)


async def converse(peer: Peer, *, write: bool) -> None:
    """Until `exit`, Ctrl-D, or the end of the peer. Raises QemuGoneError or HostError."""
    known = await schema.load(peer.session)
    prompt = _prompt(peer, known)
    if peer.caution and not write:
        render.note(render.warning(f"{peer.caution}: what may change something is asked about"))
    with peer.session.listening() as events:
        telling = asyncio.ensure_future(_tell_events(events))
        try:
            while await _one_line(prompt, peer, known, write):
                pass
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)


def _prompt(peer: Peer, known: Schema) -> PromptSession[str]:
    where = f"{peer.session.label}@{peer.session.host}"
    return PromptSession(
        f"{render.printable(where)}> ",
        history=_History(str(history_file())),
        completer=BySchema(known),
        complete_while_typing=False,
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation="... ",
    )


def history_file() -> Path:
    """Beside the journals, for its owner only."""
    file = store.home() / "qmp-history"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    return file


class _History(FileHistory):
    """Lines that may hold a password or a key are not kept."""

    def store_string(self, string: str) -> None:
        if not care.may_hold_secrets(string):
            super().store_string(string)


def is_whole(text: str) -> bool:
    """Whether Enter ends what is typed: JSON that is not closed yet goes on in the next line."""
    outside = _STRING.sub("", text)
    return outside.count("{") + outside.count("[") <= outside.count("}") + outside.count("]")


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_whole(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.newline()

    return keys


class BySchema(Completer):
    """Completes the last word before the cursor."""

    def __init__(self, known: Schema) -> None:
        self._known = known

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        last = line.rsplit(maxsplit=1)[-1] if line and not line[-1].isspace() else ""
        for word, meaning in completions(self._known, line):
            yield Completion(word, start_position=-len(last), display_meta=meaning)


async def _one_line(prompt: PromptSession[str], peer: Peer, known: Schema, write: bool) -> bool:
    """Read a line and obey it; False at the end."""
    try:
        line = (await prompt.prompt_async()).strip()
    except KeyboardInterrupt:
        return True
    except EOFError:
        return False
    if line == "exit":
        return False
    try:
        await _obey(line, prompt, peer, known, write)
    except (HostError, QemuGoneError):
        raise
    except EsdError as error:
        render.note(render.error_text(error))
    return True


async def _obey(line: str, prompt: PromptSession[str], peer: Peer, known: Schema, write: bool) -> None:
    words = qmp.words_of(line)
    if not words:
        return
    if words[0] == "help":
        render.show(render.printable(help_text(known, words[1:])))
        return
    command, arguments = await qmp.understood(peer, words)
    if peer.needs_leave(command) and not write:
        write = await _is_meant(prompt, peer, command)
    qmp.show(await qmp.execute(peer, command, arguments, write=write))


async def _is_meant(prompt: PromptSession[str], peer: Peer, command: str) -> bool:
    asked: PromptSession[str] = PromptSession(input=prompt.input, output=prompt.output)
    with suppress(EOFError, KeyboardInterrupt):
        question = f"{peer.caution}; {command} may change something. Say it all the same? [y/N] "
        return (await asked.prompt_async(question)).strip().lower() in ("y", "yes")
    return False


def help_text(known: Schema, words: list[str]) -> str:
    """What a command takes, or all commands."""
    if len(words) > 1:
        raise UsageError("one command at a time", hint="help COMMAND")
    if words:
        return signature.of(known, words[0])
    return "\n".join([*known.commands(), "help COMMAND tells what it takes; exit, or Ctrl-D, leaves"])


async def _tell_events(events: Events) -> None:
    """The end of the peer is told by the next command."""
    with suppress(EsdError):
        while True:
            line = qmp.told(await events.get())
            # Above what is being typed.
            await run_in_terminal(partial(render.show_json, line))
