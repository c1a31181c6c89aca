"""What is found out about a QEMU, from the one that is here and from others by what they say."""

from __future__ import annotations

import pytest

from qemu_esd.errors import CommandFailedError, RefusedError
from qemu_esd.hosts.base import Completed
from qemu_esd.hosts.local import LocalHost
from qemu_esd.hypervisors import versions
from qemu_esd.qmp import machine
from tests.support.qemu import qemu_session, short_folder

MACHINES = "Supported machines are:\npc                   Standard PC (alias of pc-i440fx-9.1)\nnone   empty machine\n"
Q35 = "pc-q35-9.1  Standard PC (Q35)\nq35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-9.1)\n"


class OtherBuild(LocalHost):
    """Here, but its QEMU answers so: by the word that makes it answer, its output or what it refuses."""

    def __init__(self, told: str, *, refusal: str = "", machines: str = MACHINES) -> None:
        super().__init__()
        self.told, self.refusal, self.machines = told, refusal, machines

    async def attempt(self, argv: object, stdin: bytes = b"") -> Completed:
        assert isinstance(argv, tuple)
        if "-object" in argv:
            return Completed(1, b"", self.refusal)
        return Completed(0, (self.machines if "help" in argv else self.told).encode(), "")


async def test_the_program_tells_what_the_running_one_tells() -> None:
    told = await versions.program(LocalHost())
    with short_folder() as folder:
        async with qemu_session(folder) as session:
            assert told.version == await machine.version(session)
            assert told.tls and await machine.has_tls_psk(session)
    assert {"none", "pc", f"pc-q35-{told.version[0]}.{told.version[1]}"} <= told.machine_types


@pytest.mark.parametrize(
    ("words", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright", (7, 2, 22)),
        ("QEMU emulator version 9.1.50 (v9.1.0-711-gabc)", (9, 1, 50)),
        ("QEMU emulator version 8.2\n", (8, 2, 0)),
    ],
)
async def test_versions_are_read_as_they_are_written(words: str, version: versions.Version) -> None:
    told = await versions.program(OtherBuild(words))
    assert told == versions.Program(version, frozenset({"Supported", "pc", "none"}), tls=False)


async def test_a_build_without_tls_is_known_by_its_refusal() -> None:
    without = "qemu-system-x86_64: -object ...: TLS credentials support requires GNUTLS"
    assert not (await versions.program(OtherBuild("version 9.0.0", refusal=without))).tls
    looked = "Unable to access credentials /dev/null/keys.psk: Not a directory"
    assert (await versions.program(OtherBuild("version 9.0.0", refusal=looked))).tls


async def test_the_newest_q35_is_what_its_alias_means() -> None:
    assert await versions.newest_q35(OtherBuild("", machines=MACHINES + Q35)) == "pc-q35-9.1"
    with pytest.raises(RefusedError, match="no machine type q35") as refused:
        await versions.newest_q35(OtherBuild(""))
    assert refused.value.hint


async def test_a_program_that_does_not_answer_is_an_error() -> None:
    class Broken(LocalHost):
        async def attempt(self, argv: object, stdin: bytes = b"") -> Completed:
            return Completed(127, b"", "error while loading shared libraries")

    with pytest.raises(CommandFailedError, match="shared libraries"):
        await versions.program(Broken())


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        (("-m", "64", "-drive", "file=/nonexistent", "-S", "-incoming", "defer"), None),
        (("-m", "64", "-frobnicate", "yes", "-S"), "-frobnicate"),
        # A value may look like an option.
        (("-append", "-frobnicate", "-S"), None),
    ],
)
async def test_an_option_that_is_not_known_is_named(words: tuple[str, ...], unknown: str | None) -> None:
    """Nothing is opened or started for that, and it ends by itself."""
    assert await versions.unknown_option(LocalHost(), (versions.BINARY, *words)) == unknown


@pytest.mark.parametrize(
    ("version", "mended"),
    [
        ((7, 2, 22), (False, False, False)),
        ((8, 0, 5), (False, False, False)),
        ((8, 1, 0), (True, False, False)),
        ((9, 0, 0), (True, True, True)),
        ((10, 0, 2), (True, True, True)),
    ],
)
def test_which_faults_are_mended(version: versions.Version, mended: tuple[bool, bool, bool]) -> None:
    now = versions.mended(version)
    assert (now.subclusters, now.tcg_memory, now.iothreads) == mended
