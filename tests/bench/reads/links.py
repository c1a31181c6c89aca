"""The benchmark `tls`: what the protection of the link costs the reads of a guest."""

from __future__ import annotations

from functools import partial

from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from tests.bench.bench import Bench, Settings, turns
from tests.bench.outcome import Results
from tests.bench.reads import running, speed, stage
from tests.bench.reads.remote import HANDLERS
from tests.bench.stand import Stand

NAME = "tls"
WAYS = {"plaintext": Transport.PLAINTEXT, "TLS": Transport.TLS, "ssh": Transport.SSH}


async def run(settings: Settings) -> Results:
    rows = {handler.value: handler for handler in (HANDLERS[-1:] if settings.quick else HANDLERS)}
    tasks = (
        running.Task(number, ((row, way),), partial(_measure, rows[row], way, settings))
        for number, row, way in turns(settings.runs, tuple(rows), tuple(WAYS))
    )
    return await running.measure(NAME, settings, tasks, disk=speed.size(settings))


async def _measure(handler: Handler, way: str, settings: Settings, stand: Stand) -> running.Measured:
    guest = await stage.move(stand, handler, speed.size(settings), transport=WAYS[way])
    async with stage.opened(stand, guest) as here:
        (ours,) = await speed.compare(here, (here.top,), settings)
    return {(handler.value, way): ours}


BENCH = Bench(
    NAME,
    "reads of absent data through the guest's disk, by what protects the link, against a link without protection",
    tuple(WAYS),
    speed.MEASURES,
    run,
)
