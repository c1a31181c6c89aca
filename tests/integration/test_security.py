"""Who may read the disks of a guest on the move, and what is left of its keys."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd import api
from qemu_esd.errors import HostKeyError
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from qemu_esd.model.request import Request
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.machine import RUN, STATE, Machine

pytestmark = pytest.mark.lab

SOME_KEY = "qemu:" + "5a" * 32 + "\n"


async def test_only_the_key_opens_the_disks(fleet: Fleet) -> None:
    """With real clients, from the target and from a third host."""
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    told = await guest.migrate(fleet.b, Handler.REDIRECT)
    keys = f"{STATE}/link/{told.id}/keys.psk"
    fleet.c.path(f"{STATE}/other.psk").write_text(SOME_KEY)
    fleet.c.path(f"{STATE}/stolen.psk").write_bytes(fleet.b.path(keys).read_bytes())
    where, export = served(fleet.a)

    assert "export-size: 8388608" in info(fleet.b, f"nbds://qemu@{where}/{export}?tls-psk-file={keys}")
    # The key is what counts, not the address: so this shows that the others fail for want of it.
    assert "8388608" in info(fleet.c, f"nbds://qemu@{where}/{export}?tls-psk-file={STATE}/stolen.psk")
    for machine in (fleet.b, fleet.c):
        assert "8388608" not in info(machine, f"nbd://{where}/{export}")
        assert "8388608" not in info(machine, f"nbds://{where}/{export}")
    assert "8388608" not in info(fleet.c, f"nbds://qemu@{where}/{export}?tls-psk-file={STATE}/other.psk")
    assert "8388608" not in info(fleet.c, "--list", f"nbd://{where}")
    image = {"driver": "nbd", "server.type": "inet", "server.host": fleet.a.address, "export": export}
    words = ",".join(f"{name}={value}" for name, value in {**image, "server.port": where.split(":")[1]}.items())
    assert fleet.c.run("qemu-img", "info", "--image-opts", words, check=False).returncode != 0
    fleet.c.path(f"{STATE}/other.psk").unlink()
    fleet.c.path(f"{STATE}/stolen.psk").unlink()
    await fleet.finish(guest)


def served(machine: Machine) -> tuple[str, str]:
    """ADDRESS:PORT of the path handler there, and the export of its disk."""
    (handler,) = machine.path_handlers()
    (where,) = machine.listening()
    export = json.loads(handler.argv[handler.argv.index("--export") + 1])["name"]
    return where, export


def info(machine: Machine, *words: str) -> str:
    done = machine.run("nbdinfo", *words, check=False)
    return done.stdout + done.stderr


async def test_ports_are_on_one_address_and_only_while_they_are_needed(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    seen: dict[str, set[str]] = {}

    def at_each_state(what: State | Measured | Progress) -> None:
        if isinstance(what, State):
            seen[what] = {f"{machine.name} {port}" for machine in fleet.machines for port in machine.listening()}

    await guest.migrate(fleet.b, Handler.REDIRECT, report=at_each_state)
    handler, stream = f"hostA {fleet.a.address}:49800", f"hostB {fleet.b.address}:49800"
    assert seen[State.PREPARING] == set()
    assert seen[State.SWITCHING] == {handler, stream}
    assert {f"{machine.name} {port}" for machine in fleet.machines for port in machine.listening()} == {handler}
    await fleet.finish(guest)


async def test_keys_are_in_files_only_and_gone_afterwards(
    fleet: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    told = await guest.migrate(fleet.b, Handler.ON_DEMAND)
    folder = f"{STATE}/link/{told.id}"
    key = key_in(fleet.a.path(f"{folder}/keys.psk"))
    assert key_in(fleet.b.path(f"{folder}/keys.psk")) == key
    for machine in (fleet.a, fleet.b):
        assert stat.S_IMODE(machine.path(folder).stat().st_mode) == 0o700
        assert stat.S_IMODE(machine.path(f"{folder}/keys.psk").stat().st_mode) == 0o600
        assert list(where_is(key, machine)) == [f"{folder}/keys.psk"]
        assert all(key not in " ".join(process.argv) for process in machine.processes())
        assert all(key not in environment(process.pid) for process in machine.processes())
    assert not any(key.encode() in path.read_bytes() for path in controller_files())
    spoken = capfd.readouterr()
    assert key not in json.dumps(dataclasses.asdict(told)) + caplog.text + spoken.out + spoken.err

    await api.settle_guest("vm1", "hostB", lambda *_: None)

    assert [list(where_is(key, machine)) for machine in fleet.machines] == [[], [], []]
    await fleet.finish(guest)


def key_in(path: Path) -> str:
    text = path.read_text()
    assert re.fullmatch(r"qemu:[0-9a-f]{64}\n", text)
    return text.split(":")[1].strip()


def where_is(text: str, machine: Machine) -> Iterator[str]:
    """The files of ours on a host that contain `text`; images are left out, sockets have no content."""
    for path, (mode, _, _) in machine.files(STATE, RUN, "/tmp", "/var/log").items():
        if stat.S_ISREG(mode) and not path.endswith(".qcow2") and text.encode() in machine.path(path).read_bytes():
            yield path


def environment(pid: int) -> str:
    """Of a process; one that has ended shows nothing."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def controller_files() -> list[Path]:
    return [path for path in Path(os.environ["QEMU_ESD_STATE"]).rglob("*") if path.is_file()]


async def test_each_migration_has_a_key_and_export_names_of_its_own(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=MIB), Drive("vdb", 8, size=MIB))
    keys, exports = set(), set()
    for target in (fleet.b, fleet.c):
        source = guest.machine
        told = await guest.migrate(target, Handler.REDIRECT)
        keys.add(key_in(target.path(f"{STATE}/link/{told.id}/keys.psk")))
        (handler,) = source.path_handlers()
        words = [
            json.loads(word) for flag, word in zip(handler.argv, handler.argv[1:], strict=False) if flag == "--export"
        ]
        exports |= {word["name"] for word in words}
    assert len(keys) == 2
    assert len(exports) == 4
    assert all(re.fullmatch(r"esd-[0-9a-f]{32}", name) for name in exports)
    await fleet.finish(guest)


async def test_plaintext_has_no_key(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=8 * MIB))
    await guest.migrate(fleet.b, Handler.REDIRECT, transport=Transport.PLAINTEXT)
    where, export = served(fleet.a)
    assert where.startswith(f"{fleet.a.address}:")
    assert "8388608" in info(fleet.b, f"nbd://{where}/{export}")
    await fleet.finish(guest)


async def test_an_unknown_host_key_is_refused(fleet: Fleet) -> None:
    guest = await fleet.idle(Drive("vda", 7, size=MIB))
    before = fleet.snapshot()
    with swapped_keys(fleet.a.lab.root / "known_hosts"), pytest.raises(HostKeyError) as refused:
        await api.migrate(Request("vm1", "hostB", Handler.REDIRECT, source="hostA"), print)
    assert (refused.value.host, refused.value.exit_status) == ("hostB", 3)
    assert "ssh -- hostB true" in (refused.value.hint or "")
    await fleet.unchanged(before)
    assert guest.qemu()


@contextmanager
def swapped_keys(path: Path) -> Iterator[None]:
    """Host B shows a key that is not the one we know: here, because we know that of C for it."""
    right = path.read_text()
    rows = [line.split(" ", 1) for line in right.splitlines()]
    names = [names for names, _ in rows]
    path.write_text(
        "".join(f"{name} {key}\n" for name, (_, key) in zip(names, [rows[0], rows[2], rows[1]], strict=True))
    )
    try:
        yield
    finally:
        path.write_text(right)
