"""`qemu-esd vm`: bare QEMU guests."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run, stopped
from qemu_esd.errors import EsdError, RefusedError, UsageError
from qemu_esd.units import parse_size

if TYPE_CHECKING:
    from qemu_esd.hosts.connect import Hosts
    from qemu_esd.hypervisors.cmdline.spec import GuestSpec

T = TypeVar("T")
app = typer.Typer(help="Bare QEMU guests: run, list, stop, console.", no_args_is_help=True)
File = Annotated[str | None, typer.Option(metavar="FILE")]


@app.command("run")
def start(
    name: Annotated[str | None, typer.Argument()] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Where it runs; local if nothing is said.",
            autocompletion=complete.hosts,
            callback=complete.each_host,
        ),
    ] = None,
    toml: Annotated[
        Path | None, typer.Option(metavar="FILE", help="All of it from a file, with the same words as keys.")
    ] = None,
    disk: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[,WORD=..]",
            help="An image on the host; words: id, bus=virtio|scsi|nvme|ide, serial, wwn, format=raw|qcow2, "
            "cache=none|writeback|writethrough, block=512|4096, readonly, discard. Can be repeated.",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUID",
            help="A device that looks shared (see: qemu-esd device). Can be repeated.",
            autocompletion=complete.suids,
        ),
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="512M if nothing is said.")] = None,
    smp: Annotated[int | None, typer.Option(metavar="CPUS")] = None,
    cpu: Annotated[str | None, typer.Option(metavar="MODEL")] = None,
    machine: Annotated[
        str | None, typer.Option(metavar="TYPE", help="q35, or a version of it such as pc-q35-7.2.")
    ] = None,
    kernel: File = None,
    initrd: File = None,
    append: Annotated[str | None, typer.Option(metavar="WORDS", help="The kernel's command line.")] = None,
    firmware: File = None,
    nic: Annotated[
        list[str] | None, typer.Option(metavar="TYPE,..", help="As -netdev, with mac= and model=; or none.")
    ] = None,
    uuid: Annotated[str | None, typer.Option(metavar="UUID")] = None,
) -> None:
    """Start a guest that goes on when this command has ended."""
    from qemu_esd import guests
    from qemu_esd.hypervisors.cmdline.disk_spec import disks_from
    from qemu_esd.hypervisors.cmdline.spec import GuestSpec, check_spec, parse_nics

    given = {
        "disks": None if disk is None else disks_from(disk),
        "memory": None if memory is None else parse_size(memory),
        "nics": None if nic is None else parse_nics(nic),
        "smp": smp,
        "cpu": cpu,
        "machine": machine,
        "kernel": kernel,
        "initrd": initrd,
        "append": append,
        "firmware": firmware,
        "uuid": uuid,
    }
    words = {key: value for key, value in given.items() if value is not None}
    if toml is not None:
        spec = _from_file(toml, name, words)
    elif name is not None:
        spec = check_spec(GuestSpec(name, **words))  # type: ignore[arg-type]
    else:
        raise UsageError("a guest needs a name", hint="qemu-esd vm run NAME --disk FILE, or --toml FILE")
    where = host or spec.host or "local"
    if device:
        spec = replace(spec, extra=(*spec.extra, *_device_words(device, where)))
    with stopped(f"nothing of {spec.name} is left on {where}", "give the same command again"):
        _with_hosts(lambda hosts: guests.run(hosts, spec, where), f"starting {spec.name}")
    render.show(f"{spec.name} runs on {where}")


def _device_words(suids: Sequence[str], host: str) -> tuple[str, ...]:
    from qemu_esd import devices

    async def work() -> tuple[str, ...]:
        async with devices.opened() as crew:
            return tuple([word for suid in suids for word in await devices.guest_words(crew, suid, host)])

    return run(work(), "asking for the devices")


def _from_file(file: Path, name: str | None, words: Mapping[str, object]) -> GuestSpec:
    from qemu_esd.hypervisors.cmdline.spec import spec_from_toml

    if name is not None or words:
        raise UsageError("--toml describes the whole guest", hint="only --host goes together with it")
    try:
        return spec_from_toml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error


@app.command("list")
def show_all(
    host: complete.OnlyHosts = None,
) -> None:
    """Every QEMU on the hosts known here, ours or not."""
    from qemu_esd import listing

    seen, failures = run(listing.list_everywhere(host or listing.known_hosts()), "asking the hosts")
    table = render.plain_table("name", "host", "pid", "kept by", right=("pid",))
    for row in seen:
        table.add_row(render.printable(row.name), row.host, str(row.pid), row.keeper)
    if seen:
        render.show(table)
    elif not failures:
        render.note("no QEMU runs there")
    for error in failures:
        render.note(render.error_text(error))
    if failures:
        raise typer.Exit(failures[0].exit_status)


@app.command("start")
def start_again(name: complete.Vm) -> None:
    """Start a guest again whose QEMU has ended, from its disks, wherever their data is."""
    from qemu_esd import guests, mover_process

    async def work(hosts: Hosts) -> str:
        host = await _host_of(hosts, name)
        async with mover_process.taken_over(name):
            await guests.start(hosts, name, host)
        return host

    with stopped(f"{name} may be starting", f"qemu-esd status {shlex.quote(name)}"):
        host = _with_hosts(work, f"starting {name}")
    render.show(f"{render.printable(name)} runs on {host}")


@app.command()
def stop(
    name: complete.Vm,
    force: Annotated[bool, typer.Option("--force", help="End its QEMU now, as if the power had gone.")] = False,
) -> None:
    """Ask a guest to shut down, and wait until it has."""
    from qemu_esd import guests, mover_process

    end = guests.kill if force else guests.stop

    async def work(hosts: Hosts) -> str:
        host = await _host_of(hosts, name)
        async with mover_process.taken_over(name):
            await end(hosts, name, host)
        return host

    with stopped(f"{name} was asked to end, and may still do so", f"qemu-esd status {shlex.quote(name)}"):
        host = _with_hosts(work, f"waiting for {name} to end")
    render.show(f"{render.printable(name)} has ended on {host}")


@app.command("cont")
def resume(name: complete.Vm) -> None:
    """Let a paused guest run on."""
    from qemu_esd import guests, mover_process

    async def work(hosts: Hosts) -> str:
        host = await _host_of(hosts, name)
        async with mover_process.taken_over(name) as mover:
            await guests.cont(hosts, name, host)
        mover_process.restart(mover)
        return host

    render.show(f"{render.printable(name)} runs on {_with_hosts(work, 'asking the hosts')}")


@app.command()
def console(name: complete.Vm) -> None:
    """Be the guest's serial console; Ctrl-] leaves it."""
    from qemu_esd import guests
    from qemu_esd.cli import terminal

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "the console needs a terminal", hint=f"to read what it said: qemu-esd vm log {shlex.quote(name)}"
        )

    async def work(hosts: Hosts) -> None:
        socket = await guests.console_socket(hosts, name, await _host_of(hosts, name))
        render.note(f"the console of {render.printable(name)}; Ctrl-] leaves it")
        await terminal.be_console(socket)

    _with_hosts(work)


@app.command()
def log(name: complete.Vm) -> None:
    """All that the guest's serial console has said, on whichever hosts it ran."""
    from qemu_esd import guests
    from qemu_esd.journal import registry

    known = registry.find(name)

    async def work(hosts: Hosts) -> bytes:
        names = known.hosts if known else (await _host_of(hosts, name),)
        parts = []
        for host in dict.fromkeys(names):
            try:
                parts.append(await guests.console_parts(hosts, name, host))
            except EsdError as error:
                render.note(render.error_text(error))
        return guests.joined(parts)

    render.show_bytes(_with_hosts(work, "asking the hosts"))


@app.command()
def forget(name: complete.Vm) -> None:
    """Remove what is known of a guest that runs nowhere: its records and console logs. Its images stay."""
    from qemu_esd import guests
    from qemu_esd.journal import registry

    known = registry.find(name)
    if known is None:
        raise RefusedError(f"no guest {name} is known here", hint="see: qemu-esd status")
    _with_hosts(lambda hosts: guests.forget(hosts, name, known.hosts), "asking the hosts")
    render.show(f"{render.printable(name)} is forgotten; its images are where they were")


async def _host_of(hosts: Hosts, name: str) -> str:
    from qemu_esd.phases import look

    return await look.find_host(hosts, name)


def _with_hosts(work: Callable[[Hosts], Awaitable[T]], waiting: str | None = None) -> T:
    """Do something with hosts that are open meanwhile; `waiting` as for `run`."""
    from qemu_esd.hosts.connect import open_hosts

    async def whole() -> T:
        async with open_hosts() as hosts:
            return await work(hosts)

    return run(whole(), waiting)
