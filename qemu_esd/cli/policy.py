"""`qemu-esd policy`: another read handler under a running guest."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run, stopped
from qemu_esd.errors import UsageError
from qemu_esd.model.policy import parse_handler


def policy(
    vm: complete.Vm,
    words: Annotated[
        list[str],
        typer.Argument(
            help="[DISK] POLICY: one disk or all, and what becomes of its data.",
            autocompletion=complete.disks_and_policies,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Change the policy of a running guest's disks: miss, redirect, background, on-demand."""
    if len(words) > 2:
        raise UsageError("too many words", hint="qemu-esd policy VM [DISK] POLICY")
    disk, handler = (words[0] if len(words) == 2 else None), parse_handler(words[-1])
    from qemu_esd import api
    from qemu_esd.cli.render_status import guest_picture

    with stopped(f"{vm} runs on, and some of its disks may have the new policy", f"qemu-esd status {shlex.quote(vm)}"):
        seen = run(api.change_policy(vm, disk, handler), "changing the policy")
    if as_json:
        render.show_json(dataclasses.asdict(seen))
    else:
        render.show(guest_picture(seen))
