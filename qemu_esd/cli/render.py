"""Words, colours and tables for people. What is computed comes in; what a terminal shows goes out."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from qemu_esd.errors import EsdError, UsageError
from qemu_esd.log import Format, logger


def show(thing: RenderableType) -> None:
    """On stdout."""
    with reader_may_leave(sys.stdout):
        print(drawn(thing, Console(highlight=False)), flush=True)


def drawn(thing: RenderableType, console: Console) -> str:
    """What the console would print, without the blanks that fill up its lines."""
    # A text is taken as it is: brackets in a name or a path are no markup.
    thing = Text(thing) if isinstance(thing, str) else thing
    with console.capture() as paper:
        console.print(thing, soft_wrap=isinstance(thing, Text), crop=False, end="")
    return "\n".join(line.rstrip(" ") for line in paper.get().split("\n")).rstrip("\n")


def show_json(value: object) -> None:
    """On stdout, one object in one line."""
    with reader_may_leave(sys.stdout):
        print(json.dumps(value), flush=True)


def show_bytes(data: bytes) -> None:
    """On stdout, as they are."""
    with reader_may_leave(sys.stdout):
        sys.stdout.buffer.write(data)


def check_file(file: Path, option: str) -> None:
    """Raises UsageError for a file that could not be written: to be told before anybody is asked anything."""
    folder = file.absolute().parent
    if file.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        raise UsageError(f"{file} cannot be written", hint=f"{option} FILE names a file to be made")


def write_file(file: Path, text: str) -> None:
    """A picture or a page, and where it is, on stderr."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EsdError(f"{file} could not be written: {error.strerror}") from error
    note(f"written to {printable(str(file))}")


def note(thing: RenderableType) -> None:
    """On stderr: what is said beside the result. Where log lines are JSON it is one of them."""
    if logger.format is Format.JSON:
        logger.warning(drawn(thing, Console(highlight=False, color_system=None)))
        return
    with reader_may_leave(sys.stderr):
        print(drawn(thing, Console(stderr=True, highlight=False)), file=sys.stderr, flush=True)


@contextmanager
def reader_may_leave(stream: IO[str]) -> Iterator[None]:
    """The end of a pipe (`| head`) or of a terminal is no failure of what we do: from then on nobody listens."""
    try:
        yield
        stream.flush()
    except (OSError, SystemExit) as error:
        # Console ends the program when its reader is gone.
        if isinstance(error, OSError) and error.errno not in _GONE and stream is sys.stdout:
            raise EsdError(f"what was to be told could not be written: {error.strerror}") from error
        deafen(stream)


def open_missing_streams() -> None:
    """Python has no stdout where its descriptor is closed; then what is said there goes nowhere."""
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


_GONE = (errno.EPIPE, errno.EIO)


def deafen(stream: IO[str]) -> None:
    """Let what is still written to a stream disappear."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def warning(text: str) -> Text:
    """Loud."""
    return Text.assemble((" WARNING ", "bold white on red"), " ", (text, "bold"))


def error_text(error: EsdError) -> Text:
    """What failed, where, and what to do."""
    return _told(Text.assemble(("error: ", "bold red")), error)


def warning_text(error: EsdError) -> Text:
    """The same of what did not keep the command from its end."""
    return _told(Text.assemble(("warning: ", "bold yellow")), error)


def _told(text: Text, error: EsdError) -> Text:
    text.append_text(Text(printable(str(error)), ""))
    if error.hint:
        text.append_text(hint_text(error.hint))
    return text


def hint_text(hint: str, indent: str = "  ") -> Text:
    return Text.assemble(f"\n{indent}", ("try: ", "bold"), printable(hint))


def causes(error: BaseException) -> Text:
    """The chain of errors behind one, each on a line."""
    text, cause = Text(), error.__cause__
    while cause is not None:
        text.append(f"\n  because of {type(cause).__name__}: {printable(str(cause))}", "dim")
        cause = cause.__cause__
    return text


def printable(text: str) -> str:
    """The text with everything that a terminal would obey written out; line breaks stay."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def whole_line(text: str, style: str = "") -> Text:
    """A line that is never broken, because there are paths and commands in it that one copies."""
    return _WholeLine(printable(text), style, no_wrap=True, overflow="ignore")


class _WholeLine(Text):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        if not console.is_alt_screen:
            return super().__rich_console__(console, options)
        # A screen ends on the right: what goes on beyond it nobody sees.
        folded = self.copy()
        folded.no_wrap, folded.overflow = False, "fold"
        return folded.__rich_console__(console, options)


def plain_table(*headings: str, right: tuple[str, ...] = ()) -> Table:
    """A table of words without lines; nothing is cut off where it is narrow. Headings in `right` are of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return table
