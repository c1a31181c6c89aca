"""What one QEMU can do and another cannot: found out here and nowhere else, and never guessed from a name.

What can be asked for is asked for, in ways that touch nothing. A fault cannot be asked for: there it is the version
that tells whether it has been mended.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from qemu_esd.errors import RefusedError
from qemu_esd.graph import tls
from qemu_esd.hosts.base import Completed, Host, run

BINARY = "qemu-system-x86_64"

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Mended:
    """Faults of older versions, and whether a QEMU is without them.

    `subclusters`: copy-on-read above a qcow2 with subclusters aborts.
    `tcg_memory`: TCG can miss that the dirty bitmap was cleared, in the path for whole words of it, and a migration
    loses what the guest writes to its memory (measured: 1 move in 12).
    `iothreads`: where a disk has a thread of its own, QEMU aborts when a client leaves an NBD export of it, and when a
    filter or a backing below it changes while the guest uses it (measured on 7.2.22: the first time, and within 6).
    """

    subclusters: bool
    tcg_memory: bool
    iothreads: bool


def mended(version: Version) -> Mended:
    """Which faults the QEMU of this version does not have."""
    return Mended(subclusters=version >= (8, 1, 0), tcg_memory=version >= (9, 0, 0), iothreads=version >= (9, 0, 0))


def text(version: Version) -> str:
    """As people write it: 7.2.22."""
    return ".".join(map(str, version))


@dataclass(frozen=True)
class Program:
    """The QEMU that a host starts: the machine types it knows, and whether it was built with TLS."""

    version: Version
    machine_types: frozenset[str]
    tls: bool


async def program(host: Host) -> Program:
    """Ask the QEMU of `host`, which must have one. Raises CommandFailedError where it does not answer."""
    told, kinds, has_tls = await asyncio.gather(
        run(host, (BINARY, "-version")), run(host, (BINARY, "-machine", "help")), _has_tls(host)
    )
    words = (line.split() for line in kinds.text.splitlines())
    return Program(_version(told), frozenset(line[0] for line in words if line), has_tls)


def _version(told: Completed) -> Version:
    """One that was built from a git tree has two numbers and more words behind them, or three as all others."""
    found = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", told.text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else (0, 0, 0)


async def _has_tls(host: Host) -> bool:
    """One that was built without TLS knows the object all the same, and refuses it before it looks for the key."""
    wanted = f"tls-creds-psk,id=esd-probe,endpoint=client,dir={tls.NO_FOLDER}"
    done = await host.attempt((BINARY, "-machine", "none", "-display", "none", "-object", wanted))
    return tls.looked_for_key(done.stderr)


async def newest_q35(host: Host) -> str:
    """What the alias q35 means to the QEMU of `host`: a guest must keep its versioned type wherever it goes."""
    kinds = await run(host, (BINARY, "-machine", "help"))
    found = re.search(r"^q35 .*\(alias of ([^)]+)\)", kinds.text, re.MULTILINE)
    if found is None:
        raise RefusedError("its QEMU has no machine type q35", host=host.name, hint="name one: --machine TYPE")
    return found[1]


async def unknown_option(host: Host, argv: Sequence[str]) -> str | None:
    """The first option of a command line that the QEMU of `host` does not know.

    It looks for all of them before it acts upon the first; and the first one here makes it tell its version and end.
    """
    done = await host.attempt((argv[0], "-version", *argv[1:]))
    found = re.search(r"(-\S+): invalid option", done.stderr)
    return found[1] if found else None
