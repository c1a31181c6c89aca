"""What the demo stands on: a lab and a controller of its own, commands run for real and shown, and the way down."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from qemu_esd.hosts.lab.state import lab_data, lab_root
from tests.demo.commands import hear_nothing, started


class BrokenPromiseError(Exception):
    """Something is not as it should be; the text says what."""


class Stage:
    """Narrates, runs commands, and checks. Colours only where a terminal shows them."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def chapter(self, text: str) -> None:
        self._console.print(Text(f"\n{text}", style="bold cyan"))

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    def promise(self, text: str, kept: bool, found: object = "") -> None:
        """Show that something is as promised. Raises BrokenPromiseError, which tells what was found instead."""
        if not kept:
            raise BrokenPromiseError(f"not true: {text}; found: {found}")
        self._console.print(Text("ok ", style="bold green") + Text(text))

    def show(self, *words: str) -> None:
        """Run a command of ours as a user would, and show it with its output."""
        self._console.print(Text(f"$ qemu-esd {shlex.join(words)}", style="bold"))
        with started(words) as child:
            pass
        self._check(words, child.returncode)

    def ask(self, *words: str) -> str:
        """Run a command of ours for what it prints."""
        with started(words, stdout=subprocess.PIPE, text=True) as child:
            told, _ = child.communicate()
        self._check(words, child.returncode)
        return str(told)

    def ask_json(self, *words: str) -> Any:
        return json.loads(self.ask(*words, "--json"))

    def _check(self, words: tuple[str, ...], status: int) -> None:
        if status != 0:
            raise BrokenPromiseError(f"qemu-esd {shlex.join(words)} ended with status {status}")


@contextmanager
def opened() -> Iterator[Stage]:
    """A stage without leftovers of an earlier demo; taken down whatever happens, at Ctrl-C and SIGTERM too."""
    with _only_one(), tempfile.TemporaryDirectory(prefix="qemu-esd-demo-") as state:
        # All commands of ours inherit it: guests and journals of the user are out of reach.
        os.environ["QEMU_ESD_STATE"] = state
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        stage = Stage()
        stage.ask("lab", "down")
        try:
            yield stage
        finally:
            hear_nothing()
            _take_down(stage)


def _take_down(stage: Stage) -> None:
    stage.chapter("Everything is taken down")
    stage.show("lab", "down")
    left = [str(path) for path in (lab_root(), lab_data(lab_root())) if path.exists()]
    stage.promise("nothing is left on this machine", not left, left)


@contextmanager
def _only_one() -> Iterator[None]:
    """Two demos would share a lab. The name is in no file system: it is free again when we are gone."""
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0{lab_root()}")
        except OSError as error:
            raise BrokenPromiseError("another demo is running on this machine; wait for it") from error
        yield


def run(story: Callable[[Stage], None]) -> int:
    """Tell the story; the exit status of the demo."""
    try:
        with opened() as stage:
            story(stage)
    except BrokenPromiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
