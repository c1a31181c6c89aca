"""`qemu-esd lab`: two (or N) real hosts on this machine."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from qemu_esd.cli.running import run, stopped
from qemu_esd.errors import RefusedError, UsageError
from qemu_esd.units import human_bytes, human_seconds, parse_rate

if TYPE_CHECKING:
    from qemu_esd.hosts import lab
    from qemu_esd.hosts.base import Completed

# What tc counts in 32 bits: bytes of a burst, microseconds.
MOST_RATE, MOST_DELAY = 100 << 30, 4000.0

app = typer.Typer(help="Two (or N) real hosts on this machine: namespaces, sshd, own state.", no_args_is_help=True)


@app.command()
def up(
    hosts: Annotated[int, typer.Option(metavar="N", help="How many hosts there must be.")] = 2,
    libvirt: Annotated[bool, typer.Option("--libvirt", help="Each with a libvirt of its own.")] = False,
) -> None:
    """Bring up hostA, hostB …; what runs already stays as it is."""
    from qemu_esd.hosts import lab

    with stopped("the lab may be up, or half of it", "qemu-esd lab up goes on, qemu-esd lab down removes it"):
        built = run(lab.up(hosts, libvirt=libvirt), "bringing up the hosts")
    if built.cleaned:
        print("removed what an earlier lab left")
    for host in built.lab.hosts:
        print(f"{host.name}  {host.address}  {'started' if host in built.started else 'was up'}  /srv is {host.srv}")


@app.command()
def down() -> None:
    """End all hosts and remove everything they had, their disks included."""
    from qemu_esd.hosts import lab

    with stopped("some of the lab may be gone", "qemu-esd lab down"):
        removed = run(lab.down(), "ending the hosts")
    if removed.stopped:
        print(f"stopped {', '.join(removed.stopped)}; nothing is left")
    else:
        print("removed what an earlier lab left" if removed.leftovers else "no lab is up")


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False) -> None:
    """What is up."""
    from qemu_esd.hosts import lab

    now = lab.status()
    if as_json:
        print(json.dumps(dataclasses.asdict(now), default=str))
        return
    print(_STATES[now.state])
    for host in now.hosts:
        print(f"{host.name}  {host.address}  {host.state:6}{_libvirt_word(host)}  /srv is {host.srv}")
    for link in now.links:
        print(_link_line(link))


def _libvirt_word(host: lab.HostStatus) -> str:
    """Nothing where the lab has no libvirt."""
    return "" if host.libvirt is None else f"  libvirt: {'yes' if host.libvirt else 'no '}"


_STATES = {
    "none": "no lab is up",
    "up": "the lab is up",
    "broken": "the lab is broken; mend it with: qemu-esd lab up",
    "stale": "nothing of the lab runs; qemu-esd lab up starts it, qemu-esd lab down removes it",
    "changing": "another lab command is at work",
}


@app.command()
def link(
    one: str,
    other: str,
    down: Annotated[bool, typer.Option("--down", help="Swallow everything in silence, both ways.")] = False,
    up: Annotated[bool, typer.Option("--up", help="Let everything through again.")] = False,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="For each direction: 1gbit, 100M (bytes per second), none.")
    ] = None,
    delay: Annotated[str | None, typer.Option(metavar="TIME", help="For each direction: 10ms, 0.5s, none.")] = None,
) -> None:
    """Show or change the link between two hosts; every other link stays as it is."""
    if down and up:
        raise UsageError("a link is either --down or --up")
    changes: dict[str, object] = {"up": up} if up or down else {}
    if rate is not None:
        changes["rate"] = _parse_rate(rate)
    if delay is not None:
        changes["delay"] = parse_delay(delay)
    print(_link_line(run(_change_link(one, other, changes))))


@app.command("exec")
def execute(
    host: str, command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="Program and arguments.")]
) -> None:
    """Run a program on a lab host; prints what it printed, ends as it ended."""
    done = run(_execute(host, command))
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    sys.stderr.write(done.stderr)
    # As a shell tells it: 128 and the signal's number.
    raise typer.Exit(done.status if done.status >= 0 else 128 - done.status)


async def _execute(name: str, command: list[str]) -> Completed:
    from qemu_esd.hosts import lab

    host = lab.find(name)
    if host is None:
        raise RefusedError(f"the lab has no host {name!r}", hint="qemu-esd lab status")
    async with lab.connect(host) as opened:
        return await opened.attempt(command)


async def _change_link(one: str, other: str, changes: dict[str, object]) -> lab.Link:
    from qemu_esd.hosts import lab

    link = await lab.link_between(one, other)
    if not changes:
        return link
    await lab.set_link(dataclasses.replace(link, **changes))  # type: ignore[arg-type]
    return await lab.link_between(one, other)


def _parse_rate(text: str) -> int | None:
    if text == "none":
        return None
    rate = parse_rate(text)
    if rate < 1:
        raise UsageError("a rate is more than zero", hint="to stop everything: --down; to limit nothing: --rate none")
    if rate > MOST_RATE:
        raise UsageError(f"{text!r} is more than tc can limit to", hint="to limit nothing: --rate none")
    return rate


def parse_delay(text: str) -> float | None:
    """Seconds of "10ms", "250us", "0.5s"; None for "none" and nothing. Raises UsageError."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a delay", hint="write it like 10ms, or none")
    seconds = float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2]]
    if seconds > MOST_DELAY:
        raise UsageError(f"{text!r} is longer than tc can delay", hint="to swallow everything: --down")
    return seconds or None


def _link_line(link: lab.Link) -> str:
    limits = [f"{human_bytes(link.rate)}/s"] if link.rate else []
    limits += [f"delay {human_seconds(link.delay)}"] if link.delay else []
    return f"{link.one} -- {link.other}  {'up' if link.up else 'down'}  {', '.join(limits)}".rstrip()
