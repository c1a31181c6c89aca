"""Log lines, to stderr. Each is bound to what it is about (migration, phase, host) by its caller."""

from __future__ import annotations

import logging
import sys

import structlog

logger: structlog.stdlib.BoundLogger = structlog.get_logger("qemu_esd")


def configure(verbosity: int) -> None:
    """0: warnings only, 1: what we do, 2: every detail."""
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbosity, 2)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Whatever is stderr when a line is written: it may be another file than now.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )
