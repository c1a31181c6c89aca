"""`qemu-esd device`: devices that look shared, whichever host has their data."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.migrate import parse_limit
from qemu_esd.cli.running import run, stopped
from qemu_esd.errors import UsageError
from qemu_esd.model.policy import parse_handler
from qemu_esd.units import check_seconds, human_bytes, parse_size

if TYPE_CHECKING:
    from qemu_esd.model.device import DeviceRecord
    from qemu_esd.phases.device_daemons import Crew

T = TypeVar("T")
app = typer.Typer(help="Devices that look shared: the same local name on each host.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
At = complete.OneOfItsHosts
Policy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="P",
        help="on-demand, background or redirect: what follows a guest that moves.",
        autocompletion=complete.device_policies,
    ),
]

Bandwidth = Annotated[
    str | None, typer.Option("--bandwidth", metavar="RATE", help="What bringing data over may take: 100M, 1gbit.")
]


@app.command()
def create(
    suid: Annotated[str | None, typer.Argument(help="Its name on every host, and the serial of the disk.")] = None,
    size: Annotated[str, typer.Option(metavar="SIZE", help="As 10G.")] = "",
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="HOST[,HOST]",
            help="Where it is; the first has its data.",
            autocompletion=complete.host_lists,
            callback=complete.each_host,
        ),
    ] = None,
    policy: Policy = None,
    owner: Annotated[
        str, typer.Option(metavar="UID:GID", help="Who may connect on each host, besides root: QEMU's user.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make a device before any guest exists. Its local socket is the same on each of its hosts."""
    from qemu_esd import devices
    from qemu_esd.cli import render_device
    from qemu_esd.model import device_request

    if not size:
        raise UsageError("a device needs a size", hint="--size 10G")
    names = tuple(name for word in host or () for name in word.split(",") if name)
    if not names:
        raise UsageError("a device needs hosts", hint="--host hostA,hostB")
    wanted = device_request.DeviceRequest(
        device_request.check_suid(suid) if suid else device_request.new_suid(),
        names,
        size=_whole_sectors(parse_size(size)),
        policy=device_request.check_policy(parse_handler(policy or "background")),
        owner=device_request.check_owner(owner),
    )
    record = _with_crew(lambda crew: devices.create(crew, wanted))
    _tell(record, as_json, f"{record.suid} is there on {', '.join(record.hosts)}: {render_device.socket(record)}")


def _whole_sectors(size: int) -> int:
    if size < 512 or size % 512:
        raise UsageError(f"a disk of {size} bytes has no whole sectors", hint="--size 10G")
    return size


@app.command("list")
def show_all(
    host: complete.OnlyHosts = None,
    as_json: Json = False,
) -> None:
    """The devices of the hosts known here."""
    from qemu_esd import devices
    from qemu_esd.cli import render_device

    records, silent = _with_crew(lambda crew: devices.list_all(crew, host or ()), "asking the hosts")
    for error in silent:
        render.note(render.error_text(error))
    if as_json:
        render.show_json({"devices": [render_device.facts(record) for record in records]})
    elif records:
        render.show(render_device.table(records))
    else:
        render.note("no device is known here")
    if silent:
        raise typer.Exit(silent[0].exit_status)


@app.command()
def show(suid: complete.Suid, host: At = None, as_json: Json = False) -> None:
    """Where a device is, who uses it, and what is still elsewhere."""
    from qemu_esd import devices
    from qemu_esd.cli import render_device

    view = _with_crew(lambda crew: devices.look(crew, suid, host), "asking the hosts")
    if as_json:
        render.show_json(render_device.view_facts(view))
        return
    render.show(render_device.page(view))
    for words in render_device.advice(view):
        render.note(words)


@app.command()
def attach(
    suid: complete.Suid,
    vm: Annotated[
        str,
        typer.Argument(
            help="A domain of libvirt; or any name, to be told the words of a bare QEMU.",
            autocompletion=complete.vms,
            callback=complete.one_line,
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="HOST",
            help="Where it is.",
            autocompletion=complete.hosts_of_device,
            callback=complete.each_host,
        ),
    ] = "local",
) -> None:
    """Make the device one more disk of a domain; or say how a bare QEMU is started with it."""
    import shlex

    from qemu_esd import devices, sharing

    async def work(crew: Crew) -> tuple[str | None, tuple[str, ...]]:
        words = await devices.guest_words(crew, suid, host)
        return await sharing.attach(crew, suid, host, vm), words

    target, words = _with_crew(work)
    if target is not None:
        render.show(f"{suid} is {target} of {vm}")
        return
    render.note(f"{host} has no domain {vm}; a bare QEMU there takes these words:")
    render.show(shlex.join(words))


@app.command()
def move(
    suid: complete.Suid,
    to: Annotated[
        str,
        typer.Argument(
            metavar="HOST",
            help="One of its hosts: where the guest is now.",
            autocompletion=complete.hosts_of_device,
            callback=complete.each_host,
        ),
    ],
    policy: Policy = None,
    bandwidth: Bandwidth = None,
    host: At = None,
    as_json: Json = False,
) -> None:
    """Let another host take the writes, under the guest that runs there; the policy says what becomes of the data."""
    from qemu_esd import devices
    from qemu_esd.cli import render_device
    from qemu_esd.model.device_request import check_policy
    from qemu_esd.model.policy import Handler

    handler, limit = check_policy(parse_handler(policy)) if policy else None, _limit(bandwidth)

    async def work(crew: Crew) -> DeviceRecord:
        record = await devices.move(crew, suid, to, handler, host)
        if record.handler is Handler.BACKGROUND:
            record = await devices.settle(crew, suid, _progress(suid), host, limit)
        return record

    record = _with_crew(work)
    _tell(record, as_json, f"{suid} is at {record.authority}: {render_device.state(record)}")


@app.command()
def follow(
    suid: complete.Suid,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="From one look to the next.")] = 2.0,
    bandwidth: Bandwidth = None,
    host: At = None,
) -> None:
    """Stay, and let the data follow the guest wherever it is moved to, by the device's policy. Ctrl-C ends it."""
    from qemu_esd import devices

    check_seconds("--every", every, 0.2)
    limit = _limit(bandwidth)

    async def work() -> None:
        await devices.follow(suid, every, lambda to: render.note(f"{suid} is at {to} now"), host, limit)

    run(work())


@app.command()
def settle(suid: complete.Suid, bandwidth: Bandwidth = None, host: At = None, as_json: Json = False) -> None:
    """Bring over what is left, prove it, and end the dependence on the host before."""
    from qemu_esd import devices

    limit = _limit(bandwidth)
    record = _with_crew(lambda crew: devices.settle(crew, suid, _progress(suid), host, limit))
    _tell(record, as_json, f"{suid} is whole on {record.authority}")


@app.command()
def release(suid: complete.Suid, host: At = None, as_json: Json = False) -> None:
    """Delete what former hosts have put aside."""
    from qemu_esd import devices

    record = _with_crew(lambda crew: devices.release(crew, suid, host))
    _tell(record, as_json, f"nothing of {suid} is left but on {record.authority}")


@app.command()
def restore(suid: complete.Suid, host: At = None, as_json: Json = False) -> None:
    """After a reboot of a host, or a command that was broken off: all of it runs again as its record says."""
    from qemu_esd import devices

    record = _with_crew(lambda crew: devices.restore(crew, suid, host))
    _tell(record, as_json, f"{suid} runs on {', '.join(record.hosts)}")


@app.command()
def delete(
    suid: complete.Suid,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    host: At = None,
    as_json: Json = False,
) -> None:
    """Remove a device that nobody uses, with its data."""
    from qemu_esd import devices
    from qemu_esd.cli import asking

    async def work(crew: Crew) -> DeviceRecord:
        record = await devices.find(crew, suid, host)
        question = f"delete {suid} and its {human_bytes(record.size)} on {', '.join(record.hosts)}? [y/N] "
        if not yes and not (asking.somebody_is_there() and await asking.answered_yes(question)):
            raise UsageError("not confirmed, and nothing was touched", hint="add --yes")
        return await devices.delete(crew, suid, host)

    record = _with_crew(work)
    _tell(record, as_json, f"{suid} is gone")


def _limit(text: str | None) -> int:
    """Bytes per second; 0: none."""
    return 0 if text is None else parse_limit(text)


def _progress(suid: str) -> Callable[[int, int], None]:
    from qemu_esd.cli.render_progress import LineDisplay
    from qemu_esd.model.progress import Progress

    display = LineDisplay(sys.stderr)
    return lambda done, total: display.show(Progress(suid, done, total))


def _tell(record: DeviceRecord, as_json: bool, words: str) -> None:
    from qemu_esd.cli import render_device

    if as_json:
        render.show_json(render_device.facts(record))
    else:
        render.show(words)


def _with_crew(work: Callable[[Crew], Awaitable[T]], waiting: str | None = None) -> T:
    """Do something with hosts and monitors that are open meanwhile; `waiting` as for `run`."""
    from qemu_esd import devices

    async def whole() -> T:
        async with devices.opened() as crew:
            return await work(crew)

    with stopped("what was done until now stays done", "the same again goes on; see: qemu-esd device show SUID"):
        return run(whole(), waiting)
