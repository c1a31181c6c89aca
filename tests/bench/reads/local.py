"""The benchmark `local-read`: how fast a guest reads what is on the target already, and after the disk is settled.

Against a plain qcow2 with the same data in the same QEMU, opened with the same cache mode.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

from images import pattern
from qemu_esd import api
from qemu_esd.graph import nodes
from qemu_esd.model.disk import Image, images
from qemu_esd.model.policy import Handler
from tests.bench.bench import Bench, Settings
from tests.bench.outcome import Results
from tests.bench.reads import running, speed, stage
from tests.bench.reads.series import MIB, Series
from tests.bench.reads.stage import Stage
from tests.bench.stand import Stand
from tests.integration.support.drives import Drive, tool
from tests.integration.support.machine import SRV

NAME, PLAIN, OURS = "local-read", "plain qcow2", "guest's disk"
READ_BEFORE, SETTLED = "read before, on-demand", "settled"
FILE = f"{SRV}/plain.qcow2"


async def run(settings: Settings) -> Results:
    return await running.measure(NAME, settings, _tasks(settings), disk=speed.size(settings))


def _tasks(settings: Settings) -> Iterator[running.Task]:
    for number in range(settings.runs):
        for row in (READ_BEFORE, SETTLED):
            yield running.Task(number, ((row, PLAIN), (row, OURS)), partial(_measure, row, settings))


async def _measure(row: str, settings: Settings, stand: Stand) -> running.Measured:
    guest = await stage.move(stand, Handler.ON_DEMAND, speed.size(settings))
    if row == SETTLED:
        await api.settle_guest(guest.name, guest.machine.name, lambda *_: None)
    async with stage.opened(stand, guest) as here:
        plain = await _add_plain(here, guest.drives[0])
        for node in (here.top, plain):
            await _read_all(here, node, speed.size(settings))
        first, second = await speed.compare(here, (plain, here.top), settings)
    return {(row, PLAIN): first, (row, OURS): second}


async def _read_all(here: Stage, node: str, size: int) -> None:
    """Once, so that both have their tables and their data in memory."""
    await here.show(node)
    await here.read(node, Series("all", MIB, 4, size // MIB).reads(0, random.Random(1)), 4)
    await here.hide(node)


async def _add_plain(here: Stage, drive: Drive) -> str:
    """What is on the guest's disk, as one plain image."""
    file = here.stand.b.real(FILE)
    raw = file.with_suffix(".raw")
    pattern.fill(raw, drive.size, drive.seed)
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(file))
    raw.unlink()
    direct = images(here.station.record.disks[0].chain)[0].direct
    return await here.add_plain({"driver": "qcow2", "file": nodes.file_node(Image(FILE, "qcow2", direct))})


BENCH = Bench(
    NAME,
    "reads of data that is on the target, through the guest's disk, against a plain local qcow2 in the same QEMU",
    (PLAIN, OURS),
    speed.MEASURES,
    run,
)
