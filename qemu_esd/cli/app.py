"""The command line: one file per command, errors as one clear message, exit status as in the contract."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from qemu_esd import __version__, log, trace
from qemu_esd.cli import (
    complete_shells,
    device,
    doctor,
    evacuate,
    graph,
    guest,
    host,
    lab,
    metrics,
    migrate,
    policy,
    qmp,
    recover,
    release,
    render,
    report,
    residency,
    running,
    settle,
    share,
    status,
)
from qemu_esd.errors import EsdError, UsageError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True)
for command in (
    migrate.migrate,
    evacuate.evacuate,
    status.status,
    graph.graph,
    report.report,
    policy.policy,
    settle.settle,
    release.release,
    share.share,
    recover.resume,
    recover.rollback,
    qmp.qmp,
    doctor.doctor,
    metrics.metrics,
):
    app.command()(command)
app.command("map")(residency.map_disks)
app.add_typer(guest.app, name="vm")
app.add_typer(device.app, name="device")
app.add_typer(host.app, name="host")
app.add_typer(lab.app, name="lab")


class _Told:
    """How much the user wants to be told, and where the trace goes."""

    verbosity = 0
    trace: Path | None = None


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qemu-esd {__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Say what is done; twice: every detail.")
    ] = 0,
    trace_file: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Write where the time goes, for ui.perfetto.dev."),
    ] = None,
    log_format: Annotated[
        log.Format,
        typer.Option("--log-format", metavar="text|json", help="How log lines, and errors, are written to stderr."),
    ] = log.Format.TEXT,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version, and end.")
    ] = False,
) -> None:
    """A guest with local disks moves to another host at once; a policy decides what becomes of the data."""
    _Told.verbosity, _Told.trace = verbose, trace_file
    log.configure(verbose, log_format)
    if trace_file is not None:
        _start_trace(trace_file)


def _start_trace(file: Path) -> None:
    """The file is made now: a mistake in its name is to be told before anything is touched."""
    try:
        trace.write(file, ())
    except OSError as error:
        raise UsageError(f"no trace can be written: {error}", hint="--trace FILE names a file to be made") from error
    trace.trace.start()


def main() -> None:
    """Run one command and end with its exit status."""
    render.open_missing_streams()
    complete_shells.prepare()
    try:
        _run()
    except EsdError as error:
        _tell(error)
        sys.exit(error.exit_status)
    except Exception as bug:
        _tell_bug(bug)
        sys.exit(1)
    except BaseException as end:
        if not running.is_interruption(end):
            raise
        render.note("interrupted")
        sys.exit(1)


def _run() -> None:
    """The command, and its trace however it ends."""
    try:
        app()
    finally:
        if _Told.trace is not None and trace.trace.spans:
            _end_trace(_Told.trace)


def _end_trace(file: Path) -> None:
    try:
        trace.write(file, trace.trace.spans)
    except OSError as error:
        # What the command has done counts, and how it ended.
        render.note(render.warning(f"the trace could not be written: {error}"))


def _tell(error: EsdError) -> None:
    if log.logger.format is log.Format.JSON:
        facts = {"host": error.host, "hint": error.hint, "exit_status": error.exit_status}
        log.logger.error(error.what, kind=type(error).__name__, **facts)
        return
    text = render.error_text(error)
    if _Told.verbosity:
        text.append_text(render.causes(error))
    render.note(text)


def _tell_bug(bug: Exception) -> None:
    """Nothing that a user can mend: one line, and where the rest of it is."""
    where = "qemu-esd -v COMMAND... shows where"
    if _Told.verbosity:
        render.note(Text("".join(traceback.format_exception(bug))))
        where = "see above"
    words = str(bug).strip().partition("\n")[0]
    render.note(Text(render.printable(f"this is a bug of qemu-esd: {type(bug).__name__}: {words} ({where})")))
