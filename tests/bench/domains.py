"""The benchmark `libvirt`: the same domain moved by qemu-esd and by libvirt's own copying of storage, in turns.

Both unencrypted, because libvirt's storage goes so unless its hosts have certificates. In ms and bytes, by libvirt's
events of both hosts as they come to us:

running    from the command until the guest runs on the target
total      until the source is not needed any more: qemu-esd's background move has settled, virsh has come back
downtime   from the guest's stop on the source until it runs on the target
link       over the link, both ways, until then
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from images.console import LoadLine
from qemu_esd import api
from qemu_esd.errors import EsdError
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.hypervisors.libvirt.connection import open_libvirt
from qemu_esd.hypervisors.libvirt.events import LIFECYCLE, Listener
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.request import Request
from tests.bench.bench import Bench, Measure, Settings, Unit, turns
from tests.bench.one_move import check
from tests.bench.outcome import Results, Sample
from tests.bench.rows import LOAD, QUICK, Row, parse_row
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.integration.support.domain import IMAGES, Domain, sweep
from tests.integration.support.drives import Drive
from tests.integration.support.machine import Machine
from tests.support.domains import remove_all

ROWS = (parse_row("1G:256M"), parse_row("8G:3G"))
SUSPENDED, RESUMED = 3, 4

Way = Callable[[Domain, Machine, Drive], Awaitable[None]]


async def ours(domain: Domain, to: Machine, drive: Drive) -> None:
    source, plain = domain.machine.name, Transport.PLAINTEXT
    await api.migrate(Request(domain.name, to.name, Handler.BACKGROUND, source, transport=plain), lambda _: None)


async def theirs(domain: Domain, to: Machine, drive: Drive) -> None:
    """The target's image has to be there, of the same name."""
    to.run("qemu-img", "create", "-q", "-f", drive.format, drive.path, str(drive.size))
    words = ("--live", "--copy-storage-all", "--persistent", "--undefinesource", domain.name)
    command = (domain.machine.run, "virsh", "migrate", *words, f"qemu+ssh://{to.name}/system")
    await asyncio.to_thread(command[0], *command[1:], seconds=600)


OURS, THEIRS = "qemu-esd background", "virsh migrate --copy-storage-all"
WAYS: dict[str, Way] = {OURS: ours, THEIRS: theirs}


async def run(settings: Settings) -> Results:
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    rows = tuple(map(parse_row, settings.disks)) or (QUICK[:1] if settings.quick else ROWS)
    samples = []
    async with open_stand(settings.rate, libvirt=True) as stand:
        for number, row, way in turns(settings.runs, rows, tuple(WAYS)):
            samples.append(await _sample(stand, row, way, number))
            print(
                f"  run {number + 1}  {row.name:24} {way:34} {samples[-1].why or samples[-1].figures}",
                file=sys.stderr,
                flush=True,
            )
    return Results("libvirt", when, {**facts, "runs": settings.runs, "link_rate": settings.rate}, tuple(samples))


async def _sample(stand: Stand, row: Row, way: str, number: int) -> Sample:
    try:
        return Sample(row.name, way, number, await _measure(stand, row.drive(), WAYS[way]))
    except (EsdError, AssertionError, TimeoutError) as error:
        return Sample(row.name, way, number, None, f"{type(error).__name__}: {error}")
    finally:
        for machine in (stand.a, stand.b):
            await remove_all(machine.lab)
            sweep(machine)
            machine.run("rm", "-rf", f"{IMAGES}/*")


async def _measure(stand: Stand, drive: Drive, way: Way) -> Mapping[str, float]:
    domain = Domain(stand.a, [drive])
    await domain.define(stand.image, [stand.b], load=LOAD)
    before_it = await _written(domain)
    async with AsyncExitStack() as stack:
        hosts = await stack.enter_async_context(open_hosts())
        here, there = [
            await stack.enter_async_context(open_libvirt(await hosts.get(each.name))) for each in (stand.a, stand.b)
        ]
        leaving, arriving = (
            stack.enter_context(each.events.listening(domain.name, LIFECYCLE)) for each in (here, there)
        )
        stopped, running = (
            asyncio.ensure_future(_seen(leaving, SUSPENDED)),
            asyncio.ensure_future(_seen(arriving, RESUMED)),
        )
        began, before = time.monotonic(), stand.link_bytes()
        await way(domain, stand.b, drive)
        total, link = time.monotonic() - began, stand.link_bytes() - before
        now, then = await running, await stopped
    domain.arrived(stand.b)
    check(before_it, await domain.status())
    return {"running": 1000 * (now - began), "total": 1000 * total, "downtime": 1000 * (now - then), "link": link}


async def _written(domain: Domain) -> LoadLine:
    """What its load says when it has written something."""
    while not (line := await domain.status()).number("w"):
        pass
    return line


async def _seen(listener: Listener, kind: int) -> float:
    """When the event came."""
    while (await listener.get())["data"]["event"] != kind:
        pass
    return time.monotonic()


BENCH = Bench(
    "libvirt",
    "a domain of libvirt moved by qemu-esd, in the background; against virsh migrate --copy-storage-all",
    tuple(WAYS),
    (
        Measure("running", "runs on the target after", Unit.SECONDS),
        Measure("total", "needs the source until", Unit.SECONDS),
        Measure("downtime", "downtime", Unit.MILLIS),
        Measure("link", "bytes over the link", Unit.BYTES),
    ),
    run,
)
