"""--transport ssh: no port is open anywhere, and the key is for this migration only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from images.pattern import MIB
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from tests.integration.support import content
from tests.integration.support.drives import Drive
from tests.integration.support.fleet import Fleet
from tests.integration.support.machine import SSH, STATE

pytestmark = pytest.mark.lab


async def test_story(fleet: Fleet, tmp_path: Path) -> None:
    vda, vdb = Drive("vda", 7), Drive("vdb", 9, "b.qcow2", size=24 * MIB, fill="holes", chain=1)
    guest = await fleet.boot(vda, vdb)
    ports = set[str]()

    def at_each_state(what: State | Measured | Progress) -> None:
        if isinstance(what, State):
            ports.update(port for machine in fleet.machines for port in machine.listening())

    chosen = {"vdb": Handler.BACKGROUND}
    told = await guest.migrate(
        fleet.b, Handler.ON_DEMAND, disk_handlers=chosen, transport=Transport.SSH, report=at_each_state
    )

    assert ports == set()
    assert [(disk.handler, disk.needs_source) for disk in told.disks] == [("on-demand", True), ("local", False)]
    await guest.is_well()
    assert fleet.b.files(f"{STATE}/link").keys() >= {f"{STATE}/link/{told.id}/tunnel.key"}
    modes = {stat.S_IMODE(mode) for mode, _, _ in fleet.b.files(f"{STATE}/link").values()}
    assert modes <= {0o700, 0o600, 0o644}
    assert stat.S_IMODE(fleet.b.files(f"{STATE}/link")[f"{STATE}/link/{told.id}/tunnel.key"][0]) == 0o600
    (line,) = [
        line
        for line in fleet.a.path(f"{SSH}/authorized_keys").read_text().splitlines()
        if f"qemu-esd-migration-{told.id}" in line
    ]
    assert line.startswith("restrict,port-forwarding,")
    key = f"{STATE}/link/{told.id}/tunnel.key"
    known = f"UserKnownHostsFile={STATE}/link/{told.id}/known_hosts"
    options = ("-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", known)
    done = fleet.b.run("ssh", *options, f"root@{fleet.a.address}", "id", check=False)
    assert "uid" not in done.stdout and done.returncode != 0

    await guest.pause()
    await guest.recheck()
    for drive in (vda,):
        source = content.flatten(drive.source(fleet.a, told.id), tmp_path / "source")
        target = content.flatten(content.over(guest.member(drive), drive.source(fleet.a, told.id)), tmp_path / "target")
        assert len(content.later_writes(source, target)) > 0
        assert content.crc(target) == await guest.crc(drive)
    await fleet.finish(guest)
