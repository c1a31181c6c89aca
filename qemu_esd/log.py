"""Log lines, to stderr. Each is bound to what it is about (migration, phase, host) by its caller.

structlog is loaded for the first line that is said: most commands have none, and it takes as long to load as Python.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from qemu_esd.trace import STEP, trace

P = ParamSpec("P")
T = TypeVar("T")


# One dictionary for all tasks of one piece of work: what one of them finds out holds for the others.
_BOUND: ContextVar[dict[str, object] | None] = ContextVar("bound", default=None)


@contextmanager
def bound(**facts: object) -> Iterator[None]:
    """All lines that are said in here, and in tasks that are made in here, have these facts (migration, vm, host)."""
    token = _BOUND.set({**(_BOUND.get() or {}), **facts})
    try:
        yield
    finally:
        _BOUND.reset(token)


def rebind(**facts: object) -> None:
    """From now on these facts, in the innermost `bound` that we are in; elsewhere they are nobody's."""
    known = _BOUND.get()
    if known is not None:
        known.update(facts)


class Format(StrEnum):
    """How lines are written: for people, or one JSON object each."""

    TEXT = "text"
    JSON = "json"


class Logger:
    """Says lines from `level` on. The words beside an event are facts about it."""

    def __init__(self) -> None:
        self.level = logging.WARNING
        self.format = Format.TEXT
        self._lines: Any = None
        # Who else hears warnings, as text.
        self.heard: Callable[[str], None] | None = None

    def use(self, level: int, format: Format) -> None:
        """Say lines from `level` on, in this format."""
        self.level, self.format, self._lines = level, format, None

    def debug(self, event: str, **facts: object) -> None:
        self._say(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: object) -> None:
        self._say(logging.INFO, event, facts)

    def warning(self, event: str, **facts: object) -> None:
        if self.heard is not None:
            self.heard(", ".join([event, *(f"{word}: {fact}" for word, fact in facts.items())]))
        self._say(logging.WARNING, event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._say(logging.ERROR, event, facts)

    def _say(self, level: int, event: str, facts: dict[str, object]) -> None:
        if level < self.level:
            return
        self._lines = self._lines or _open(self.format)
        self._lines.log(level, event, **{**(_BOUND.get() or {}), **facts})


def _open(format: Format) -> Any:
    import structlog

    written: list[Any] = {
        Format.TEXT: lambda: [
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        Format.JSON: lambda: [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(default=str),
        ],
    }[format]()
    structlog.configure(
        processors=[structlog.processors.add_log_level, *written],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        # Whatever is stderr when a line is written: it may be another file than now.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )
    return structlog.get_logger("qemu_esd")


logger = Logger()


@contextmanager
def timed(event: str, **facts: object) -> Iterator[None]:
    """Says when it is over how long it took, and traces it: so one sees where the time of a command goes."""
    began = time.monotonic()
    try:
        yield
    finally:
        ended = time.monotonic()
        trace.add(event, began, ended, facts)
        logger.debug(event, **facts, ms=round((ended - began) * 1000, 1))


def step(work: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """A step of a migration: `timed`, under the name of its function."""
    name = work.__name__.strip("_").replace("_", " ")

    @wraps(work)
    async def told(*args: P.args, **kwargs: P.kwargs) -> T:
        with timed(STEP, step=name):
            return await work(*args, **kwargs)

    return told


def configure(verbosity: int, format: Format = Format.TEXT) -> None:
    """0: warnings only, 1: what we do, 2: every detail."""
    logger.use([logging.WARNING, logging.INFO, logging.DEBUG][min(verbosity, 2)], format)
