"""The benchmark `shared`: what the hop costs from a guest to the path handler of a device that looks shared.

One guest per way, on the same raw image, with one operation after another as fast as it can. By its own lines, one a
second; each way is its own run of the guest, in turns.

local image      QEMU has the image open itself
device           over the local socket of the host that has the authority (NBD): what `share` makes
vhost-user-blk   over a socket of a storage daemon too, but with the guest's memory shared: no copy, no NBD
forwarded        on the other host, before `device move`: two daemons more, and TLS
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import pairwise

from images.build import KERNEL_WORDS
from qemu_esd import devices, guests
from qemu_esd.graph import device_argv
from qemu_esd.hosts import service
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.hypervisors.cmdline.spec import GuestSpec
from qemu_esd.model.device_request import DeviceRequest
from qemu_esd.model.disk import Image
from qemu_esd.model.policy import Handler
from qemu_esd.units import MIB
from tests.bench.bench import Bench, Measure, Settings, Unit, turns
from tests.bench.outcome import Results, Sample
from tests.bench.rows import FrontDrive
from tests.bench.stand import Stand, machine_facts, open_stand
from tests.integration.support.guest import MEMORY, PATHS, Guest
from tests.integration.support.machine import Machine

LOCAL, DEVICE, VHOST, FORWARDED = "local image", "device", "vhost-user-blk", "forwarded"
READS, MIXED = "4 KiB reads", "4 KiB, 40 of 100 writes"
MIXES = {READS: "0/0/100", MIXED: "40/30/30"}
SIZE, SUID, SOCKET = 256 * MIB, "bench", f"{PATHS.run}/vhost.sock"
BEATS, QUICK_BEATS = 8, 3
Words = Callable[[Stand, FrontDrive], Awaitable[tuple[str, ...]]]


async def run(settings: Settings) -> Results:
    when, facts = datetime.now(UTC).isoformat(timespec="seconds"), machine_facts()
    samples = []
    async with open_stand(settings.rate) as stand:
        for number, row, way in turns(settings.runs, tuple(MIXES), tuple(WAYS)):
            samples.append(await _sample(stand, row, way, number, QUICK_BEATS if settings.quick else BEATS))
            print(f"  run {number + 1}  {row:26} {way:16} {samples[-1].figures}", file=sys.stderr, flush=True)
        facts |= {"accel": stand.accel(), "guest_memory_mib": MEMORY >> 20, "tls": True}
    return Results("shared", when, facts | {"runs": settings.runs}, tuple(samples))


async def _sample(stand: Stand, row: str, way: str, number: int, beats: int) -> Sample:
    stand.sweep()
    drive = FrontDrive("vda", seed=7, size=SIZE, data=SIZE)
    drive.make(stand.a)
    words = await WAYS[way](stand, drive)
    guest = Guest("bench", stand.b if way == FORWARDED else stand.a, [drive])
    load = f"esd.mode=verify esd.rate=0 esd.area=16M esd.spread=0 esd.mix={MIXES[row]} {drive.option}"
    spec = GuestSpec(
        guest.name,
        memory=MEMORY,
        kernel=str(stand.image.kernel),
        initrd=str(stand.image.initrd),
        append=f"{KERNEL_WORDS} {load}",
        extra=words,
    )
    async with open_hosts() as hosts:
        await guests.run(hosts, spec, guest.machine.name)
    await guest.settle_in(booted=True)
    await guest.status()
    told = [await guest.status() for _ in range(beats)]
    # One line a second.
    rates = [float(two.number("ops") - one.number("ops")) for one, two in pairwise(told)]
    rate = statistics.median(rates)
    stand.sweep()
    return Sample(row, way, number, {"rate": rate, "latency": 1000 / rate})


async def _local(stand: Stand, drive: FrontDrive) -> tuple[str, ...]:
    cache = {"direct": True}
    file = {"driver": "file", "filename": drive.path, "aio": "threads", "cache": cache}
    node = {"driver": "raw", "node-name": "vda", "cache": cache, "file": file}
    return ("-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=vda")


async def _device(stand: Stand, drive: FrontDrive, machine: Machine | None = None) -> tuple[str, ...]:
    image = Image(drive.path, "raw", direct=True)
    wanted = DeviceRequest(SUID, (stand.a.name, stand.b.name), SIZE, (image,), Handler.ON_DEMAND)
    async with devices.opened() as crew:
        record = await devices.create(crew, wanted)
    return device_argv.guest_words(record, record.seat((machine or stand.a).name))


async def _forwarded(stand: Stand, drive: FrontDrive) -> tuple[str, ...]:
    return await _device(stand, drive, stand.b)


async def _vhost(stand: Stand, drive: FrontDrive) -> tuple[str, ...]:
    node = {"driver": "raw", "node-name": "vda", "cache": {"direct": True}}
    file = {"driver": "file", "filename": drive.path, "cache": {"direct": True}}
    export = {"type": "vhost-user-blk", "id": "vda", "node-name": "vda", "writable": True}
    address = {"addr": {"type": "unix", "path": SOCKET}}
    argv = ("qemu-storage-daemon", "--blockdev", json.dumps({**node, "file": file}))
    unit = service.Service("vhost", PATHS.unit("vhost"), (*argv, "--export", json.dumps({**export, **address})))
    stand.a.run("mkdir", "-p", PATHS.run)
    async with open_hosts() as hosts:
        await service.start_ready(await hosts.get(stand.a.name), unit, SOCKET)
    memory = f"memory-backend-memfd,id=shared,size={MEMORY},share=on"
    words = ("-object", memory, "-machine", "memory-backend=shared", "-chardev", f"socket,id=vhost,path={SOCKET}")
    return (*words, "-device", "vhost-user-blk-pci,chardev=vhost")


WAYS: dict[str, Words] = {LOCAL: _local, DEVICE: _device, VHOST: _vhost, FORWARDED: _forwarded}

BENCH = Bench(
    "shared",
    "what the hop costs from a guest to a device that looks shared; against the image in QEMU itself",
    tuple(WAYS),
    (
        Measure("rate", "operations, one at a time", Unit.PER_SECOND, drawn="Operations per second, one at a time"),
        Measure("latency", "of one: mean", Unit.MILLIS),
    ),
    run,
)
