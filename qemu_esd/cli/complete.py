"""What a shell offers for a word: guests, hosts, disks, policies, migrations, by what this controller knows.

Nobody is asked over the network. A file that cannot be read offers nothing, and says nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from qemu_esd.cli import complete_shells
from qemu_esd.errors import EsdError, UsageError
from qemu_esd.log import logger
from qemu_esd.model.policy import Handler


def _offered(words: Callable[[typer.Context], Iterable[str]]) -> Callable[[typer.Context], list[str]]:
    """What typer is to choose from: it keeps those words that go on from what is typed."""

    def offer(ctx: typer.Context) -> list[str]:
        logger.level = logging.CRITICAL
        found = list[str]()
        with suppress(EsdError, OSError, ValueError):
            found.extend(words(ctx))
        kept = complete_shells.kept()
        return list(dict.fromkeys(word.removeprefix(kept) for word in found if word.startswith(kept)))

    return offer


def _vms() -> Iterator[str]:
    from qemu_esd.journal import registry

    return (known.name for known in registry.everything())


@_offered
def vms(_: typer.Context) -> Iterable[str]:
    return _vms()


@_offered
def peers(_: typer.Context) -> Iterator[str]:
    """Guests, and the path handlers that may serve them, and those of devices."""
    from qemu_esd.journal import devices, registry

    yield from _vms()
    yield from (f"{known.name}@{host}" for known in registry.everything() for host in known.hosts[:-1])
    yield from (f"{suid}@{host}" for suid, hosts in devices.everything().items() for host in hosts)


@_offered
def suids(_: typer.Context) -> Iterable[str]:
    """Devices that look shared."""
    from qemu_esd.journal import devices

    return devices.everything()


@_offered
def vms_and_suids(_: typer.Context) -> Iterator[str]:
    from qemu_esd.journal import devices

    yield from _vms()
    yield from devices.everything()


@_offered
def hosts_of_device(ctx: typer.Context) -> Iterable[str]:
    """Of the device that was named before; all hosts, where none was."""
    from qemu_esd.journal import devices

    return devices.hosts_of(ctx.params.get("suid") or "") or _hosts()


@_offered
def hosts(_: typer.Context) -> Iterator[str]:
    return _hosts()


def host_lists(ctx: typer.Context, incomplete: str) -> list[str]:
    """HOST[,HOST]: what is typed already, and one more."""
    first = incomplete[: incomplete.rfind(",") + 1]
    return [first + host for host in hosts(ctx) if host not in first.split(",")]


def _hosts() -> Iterator[str]:
    from qemu_esd.hosts import lab
    from qemu_esd.journal import registry

    yield "local"
    yield from (host.name for host in lab.status().hosts)
    yield from (host for known in registry.everything() for host in known.hosts)
    yield from ssh_aliases(Path.home() / ".ssh/config")


def ssh_aliases(file: Path, depth: int = 3) -> Iterator[str]:
    """The names that an ssh configuration gives to hosts, without patterns; with the files that it includes."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if word.lower() == "host":
            yield from (name for name in rest.split() if re.fullmatch(r"[^*?!\"]+", name))
        elif word.lower() == "include" and depth:
            for pattern in rest.split():
                # As ssh does it: from the folder of the user's configuration.
                whole = Path(pattern).expanduser()
                for found in sorted(file.parent.glob(pattern) if not whole.is_absolute() else _matching(whole)):
                    yield from ssh_aliases(found, depth - 1)


def _matching(pattern: Path) -> Iterable[Path]:
    return Path("/").glob(str(pattern).lstrip("/"))


@_offered
def policies(_: typer.Context) -> Iterable[str]:
    return Handler


@_offered
def device_policies(_: typer.Context) -> Iterable[str]:
    return [handler for handler in Handler if handler.needs_source]


def _disks(ctx: typer.Context) -> Iterator[str]:
    """Of the guest that was named before, as its newest migration knows them; of all guests where none was, or where
    typer does not tell (at the value of an option)."""
    from qemu_esd.journal import shelf

    named = ctx.params.get("vm") or ctx.params.get("domain")
    for vm in [named] if named else _vms():
        story = shelf.newest_of(vm)
        yield from (disk.disk.id for disk in story.plan.disks) if story else ()


@_offered
def disks(ctx: typer.Context) -> Iterable[str]:
    return _disks(ctx)


@_offered
def disks_and_policies(ctx: typer.Context) -> Iterator[str]:
    """For `policy VM [DISK] POLICY`."""
    if not ctx.params.get("words"):
        yield from _disks(ctx)
    yield from Handler


@_offered
def disk_policies(ctx: typer.Context) -> Iterator[str]:
    """DISK=POLICY."""
    yield from (f"{disk}={policy}" for disk in _disks(ctx) for policy in Handler)


@_offered
def migrations(_: typer.Context) -> Iterator[str]:
    """Ids of migrations that were broken off, and their guests."""
    from qemu_esd.journal import shelf

    for story in shelf.unfinished():
        yield story.plan.id
        yield story.plan.vm


@_offered
def stories(_: typer.Context) -> Iterator[str]:
    """All migrations that have a journal here, and all guests."""
    from qemu_esd.journal import shelf

    yield from shelf.all_ids()
    yield from _vms()


def one_line(ctx: typer.Context, word: str | None) -> str | None:
    """What can name a guest or a migration at all. Raises UsageError."""
    if word is not None and not ctx.resilient_parsing and not (word.strip() and word.isprintable()):
        raise UsageError(f"{word!r} is no name", hint="see: qemu-esd status")
    return word


def one_line_each(ctx: typer.Context, words: list[str]) -> list[str]:
    """Several of them. Raises UsageError."""
    return [name for word in words if (name := one_line(ctx, word)) is not None]


def each_host(ctx: typer.Context, words: str | list[str] | None) -> str | list[str] | None:
    """Hosts, also in lists. Raises UsageError for nothing where a host is named: it is not the same as none named."""
    for word in [words] if isinstance(words, str) else words or []:
        if not ctx.resilient_parsing and not all(name.strip() for name in word.split(",")):
            raise UsageError(f"{word!r} names no host", hint="use what you would give to ssh, a lab host, or local")
    return words


Vm = Annotated[str, typer.Argument(autocompletion=vms, callback=one_line)]
Vms = Annotated[list[str], typer.Argument(metavar="VM...", autocompletion=vms, callback=one_line_each)]
Suid = Annotated[str, typer.Argument(autocompletion=suids)]
# For commands that look at all hosts else, and for those about a thing that hosts know, if this controller does not.
OnlyHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host", metavar="HOST", help="Only there; can be repeated.", autocompletion=hosts, callback=each_host
    ),
]
OneOfItsHosts = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="HOST",
        help="One of its hosts, if it is not known here.",
        autocompletion=hosts,
        callback=each_host,
    ),
]
AHost = Annotated[str, typer.Argument(autocompletion=hosts, callback=each_host)]
