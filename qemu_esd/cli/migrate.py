"""`qemu-esd migrate`: the main job."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import typer

from qemu_esd import api
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import parse_handler
from qemu_esd.model.request import Request


def add_to(app: typer.Typer) -> None:
    app.command()(migrate)
    app.command()(settle)
    app.command()(release)
    app.command()(policy)
    app.command()(status)


def migrate(vm: str, host: str, policy: str = "on-demand", from_: str = typer.Option(None, "--from"), disk_policy: list[str] = typer.Option([]), transport: str = "tls", no_local_space: bool = False, bandwidth: int = 0) -> None:
    dp = dict(x.split("=", 1) for x in disk_policy)
    request = Request(vm, host, parse_handler(policy), source=from_, disk_handlers={k: parse_handler(v) for k, v in dp.items()}, transport=Transport(transport), local_space=not no_local_space, bandwidth=bandwidth or None)
    try:
        view = asyncio.run(api.migrate(request, lambda x: typer.echo(str(x), err=True)))
    except api.PlanRefusedError as e:
        for p in e.problems:
            typer.echo(str(p), err=True)
        raise
    typer.echo(json.dumps(dataclasses.asdict(view)))


def settle(vm: str) -> None:
    typer.echo(json.dumps(dataclasses.asdict(asyncio.run(api.settle_guest(vm, None, lambda *a: typer.echo(str(a), err=True))))))


def release(vm: str) -> None:
    typer.echo(json.dumps(dataclasses.asdict(asyncio.run(api.release_guest(vm)))))


def policy(vm: str, handler: str, disk: str = typer.Option(None)) -> None:
    typer.echo(json.dumps(dataclasses.asdict(asyncio.run(api.change_policy(vm, disk, parse_handler(handler))))))


def status(vm: str) -> None:
    async def go() -> None:
        from qemu_esd import view
        async with api.open_guest(vm) as st:
            typer.echo(json.dumps(dataclasses.asdict(await view.of_station(st))))
    asyncio.run(go())
