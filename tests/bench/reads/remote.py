"""The benchmark `remote-read`: how fast a guest reads what is still on the source.

The disk as a migration leaves it, against a second NBD client of the same export in the same QEMU, over the same TLS.
Whatever is read is absent on the target until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from qemu_esd.model.policy import Handler
from tests.bench.bench import Bench, Settings
from tests.bench.outcome import Results
from tests.bench.reads import running, speed, stage
from tests.bench.stand import Stand

NAME, PLAIN, OURS = "remote-read", "NBD export", "guest's disk"
HANDLERS = (Handler.REDIRECT, Handler.ON_DEMAND)


async def run(settings: Settings) -> Results:
    return await running.measure(NAME, settings, _tasks(settings), transport="NBD over TLS", disk=speed.size(settings))


def _tasks(settings: Settings) -> Iterator[running.Task]:
    for number in range(settings.runs):
        for handler in HANDLERS:
            row = handler.value
            yield running.Task(number, ((row, PLAIN), (row, OURS)), partial(_measure, handler, settings))


async def _measure(handler: Handler, settings: Settings, stand: Stand) -> running.Measured:
    guest = await stage.move(stand, handler, speed.size(settings))
    async with stage.opened(stand, guest) as here:
        plain, ours = await speed.compare(here, (await here.add_plain_link(), here.top), settings)
    return {(handler.value, PLAIN): plain, (handler.value, OURS): ours}


BENCH = Bench(
    NAME,
    "reads of absent data through the guest's disk, against the same reads straight from the NBD export",
    (PLAIN, OURS),
    speed.MEASURES,
    run,
)
