"""`qemu-esd share`: a disk of a libvirt domain comes behind the path handler of its host."""

from __future__ import annotations

import shlex
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run, stopped
from qemu_esd.errors import UsageError
from qemu_esd.model.policy import parse_handler


def share(
    domain: Annotated[
        str, typer.Argument(help="A domain of libvirt.", autocompletion=complete.vms, callback=complete.one_line)
    ],
    disk: Annotated[
        str | None,
        typer.Argument(help="What libvirt calls the disk (vda); not needed for one.", autocompletion=complete.disks),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="HOST",
            help="Where the domain is.",
            autocompletion=complete.hosts,
            callback=complete.each_host,
        ),
    ] = "local",
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="HOST[,HOST]",
            help="Where it may move to.",
            autocompletion=complete.host_lists,
            callback=complete.each_host,
        ),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="P",
            help="on-demand, background or redirect.",
            autocompletion=complete.device_policies,
        ),
    ] = "background",
    owner: Annotated[str, typer.Option(metavar="UID:GID", help="The user of libvirt's QEMU, if not root.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Give it back: the domain gets the image itself.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Put a disk on a device that looks shared: then virsh migrate --live takes the domain, with no flag.

    A running domain stops meanwhile: libvirt saves its memory to the host's disk, and reads it back.
    """
    from qemu_esd import devices, sharing
    from qemu_esd.model.device_request import check_owner, check_policy

    if undo and (others or owner):
        raise UsageError("--undo gives a disk back, and goes with neither --with nor --owner")
    names = tuple(name for word in others or () for name in word.split(",") if name)
    if not names and not undo:
        raise UsageError(
            "to which hosts may it move?", hint=f"qemu-esd share {shlex.quote(domain)} --host {host} --with HOST"
        )
    wanted = sharing.Wanted(names, check_policy(parse_handler(policy)), check_owner(owner))

    async def work() -> dict[str, object]:
        async with devices.opened() as crew, AsyncExitStack() as stack:
            target = await sharing.find(crew, stack, host, domain, disk)
            if not undo:
                await sharing.check(crew, target)
                for remark in sharing.remarks(target):
                    render.note(f"note: {remark}")
            if target.runs and not yes:
                await _ask(domain, host)
            if undo:
                image = await sharing.undo(crew, target, render.note)
                return {"domain": domain, "disk": target.disk.target, "shared": False, "image": image.path}
            record = await sharing.share(crew, target, wanted, render.note)
            return {"domain": domain, "disk": target.disk.target, "shared": True, "device": record.suid}

    with stopped(f"{domain} may be shut off, its memory saved", "give the same command again"):
        told = run(work())
    if as_json:
        render.show_json(told)
    elif undo:
        render.show(f"{told['disk']} of {domain} is {told['image']} again")
    else:
        render.show(f"{told['disk']} of {domain} is the device {told['device']}")
        render.note(f"to move it: virsh migrate --live {shlex.quote(domain)} qemu+ssh://{names[0]}/system")


async def _ask(domain: str, host: str) -> None:
    """Raises UsageError unless somebody says yes."""
    from qemu_esd.cli import asking

    question = f"{domain} runs: it stops while its memory goes to the disk of {host} and back. Go on? [y/N] "
    if not (asking.somebody_is_there() and await asking.answered_yes(question)):
        what = f"{domain} runs, and would stop for some seconds: not confirmed, and nothing was touched"
        raise UsageError(what, hint="add --yes")
