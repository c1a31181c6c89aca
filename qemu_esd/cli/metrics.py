"""`qemu-esd metrics`: what a monitoring system is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli import render
from qemu_esd.cli.running import is_interruption, run
from qemu_esd.errors import EsdError, RefusedError, UsageError
from qemu_esd.units import check_seconds

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from qemu_esd.metrics import Latest
    from qemu_esd.trouble import Lookout

EVERY_SECONDS, LEAST_SECONDS = 15.0, 1.0


def metrics(
    listen: Annotated[
        str | None, typer.Option(metavar="ADDRESS:PORT", help="Serve them by HTTP until Ctrl-C: 127.0.0.1:9790.")
    ] = None,
    textfile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write them to FILE once, for node_exporter's textfile collector."),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How often hosts are looked at; with --textfile: again and again."),
    ] = None,
) -> None:
    """Metrics of all guests known here, for Prometheus: devices, links, moves, downtimes.

    While it looks again and again it tells hooks of guests that come into trouble, and out of it.
    """
    if (listen is None) == (textfile is None):
        raise UsageError("say where metrics are to go", hint="--listen 127.0.0.1:9790, or --textfile FILE")
    if every is not None:
        check_seconds("--every", every, LEAST_SECONDS)
    if textfile is not None:
        render.check_file(textfile, "--textfile")
    if listen is not None:
        _until_interrupted(_serve(*parse_address(listen), every or EVERY_SECONDS))
    elif textfile is not None and every is not None:
        _until_interrupted(_write_again_and_again(textfile, every))
    elif textfile is not None:
        run(_write(textfile))


def parse_address(text: str) -> tuple[str, int]:
    """Address and port of "127.0.0.1:9790" or "[::1]:9790". Raises UsageError."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:]+)\]|([^:\[\]]+)):(\d{1,5})", text)
    if found is None or not 0 < int(found[3]) < 1 << 16:
        raise UsageError(f"{text!r} is not an address and a port", hint="write it like 127.0.0.1:9790 or [::1]:9790")
    return found[1] or found[2], int(found[3])


def _until_interrupted(work: object) -> None:
    try:
        run(work)  # type: ignore[arg-type]
    except BaseException as end:
        # Ctrl-C is how it ends.
        if not is_interruption(end):
            raise


async def _look(lookout: Lookout | None = None) -> list[Metric]:
    import time

    from qemu_esd import api
    from qemu_esd.journal import shelf
    from qemu_esd.metrics import families

    seen = await api.look_around()
    if lookout is not None:
        await lookout.hear(seen.guests)
    states = (story.state.value for story in shelf.stories())
    return families(seen.guests, shelf.figures("downtime"), states, time.time())


def _registry() -> tuple[Latest, CollectorRegistry]:
    from prometheus_client import CollectorRegistry

    from qemu_esd.metrics import Latest

    latest, registry = Latest(), CollectorRegistry()
    registry.register(latest)
    return latest, registry


async def _serve(address: str, port: int, every: float) -> None:
    import asyncio

    from prometheus_client import start_http_server

    from qemu_esd.trouble import Lookout

    (latest, registry), lookout = _registry(), Lookout()
    latest.families = await _look(lookout)
    try:
        server, _ = start_http_server(port, address, registry)
    except OSError as error:
        raise RefusedError(
            f"cannot listen on {address}:{port}: {error.strerror}", hint="name another one: --listen"
        ) from error
    render.note(f"metrics on http://{address}:{port}/metrics, looked at every {every:g} s; Ctrl-C ends")
    try:
        while True:
            await asyncio.sleep(every)
            latest.families = await _look(lookout)
    finally:
        server.shutdown()
        server.server_close()


async def _write(file: Path, lookout: Lookout | None = None) -> None:
    from prometheus_client import write_to_textfile

    latest, registry = _registry()
    latest.families = await _look(lookout)
    try:
        # In one step, and readable for who collects them.
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise EsdError(
            f"cannot write {file}: {error.strerror}", hint="--textfile names a file in a folder that is there"
        ) from error


async def _write_again_and_again(file: Path, every: float) -> None:
    import asyncio

    from qemu_esd.trouble import Lookout

    lookout = Lookout()
    while True:
        await _write(file, lookout)
        await asyncio.sleep(every)
