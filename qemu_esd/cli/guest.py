"""tmp"""
from __future__ import annotations
import asyncio, sys
import typer
from qemu_esd import guests
from qemu_esd.hosts.connect import open_hosts
from qemu_esd.hypervisors.cmdline.disk_spec import disks_from
from qemu_esd.hypervisors.cmdline.spec import GuestSpec
from qemu_esd.units import parse_size
from qemu_esd.journal import registry
app = typer.Typer()

@app.command()
def run(name: str, host: str = "local", disk: list[str] = typer.Option([]), kernel: str = typer.Option(None), initrd: str = typer.Option(None), append: str = typer.Option(None), memory: str = "256M", smp: int = 1) -> None:
    async def go() -> None:
        async with open_hosts() as hosts:
            await guests.run(hosts, GuestSpec(name=name, disks=disks_from(disk), memory=parse_size(memory), smp=smp, kernel=kernel, initrd=initrd, append=append), host)
    asyncio.run(go())

@app.command()
def log(name: str) -> None:
    async def go() -> None:
        async with open_hosts() as hosts:
            k = registry.find(name)
            sys.stdout.buffer.write(await guests.console_log(hosts, name, k.hosts))
    asyncio.run(go())

@app.command()
def kill(name: str) -> None:
    async def go() -> None:
        async with open_hosts() as hosts:
            k = registry.find(name)
            await guests.kill(hosts, name, k.hosts[-1])
    asyncio.run(go())
