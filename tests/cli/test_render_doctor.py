"""Findings and forecasts as people read them."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console, RenderableType

from qemu_esd.cli.render import drawn
from qemu_esd.cli.render_doctor import finding_text, findings_picture, forecast_picture
from qemu_esd.hosts.wire import Wire
from qemu_esd.model.finding import Finding, Level
from qemu_esd.model.policy import Handler
from qemu_esd.phases.forecast import forecast
from tests.support.samples import MIB, plan

GOOD = Finding("a", "tls", Level.GOOD, "QEMU has TLS")
NOTE = Finding("a", "kvm", Level.NOTE, "there is no /dev/kvm", "guests are emulated", "modprobe kvm")
PROBLEM = Finding("a -> b", "link", Level.PROBLEM, "port 1 cannot be reached: \x1b[31m", "data goes there", "open it")


def told(thing: RenderableType) -> str:
    return drawn(thing, Console(width=80, color_system=None))


def test_findings_by_host_and_what_they_come_to() -> None:
    assert told(findings_picture([GOOD, NOTE, PROBLEM])).splitlines() == [
        "a",
        "  ok      tls       QEMU has TLS",
        "  note    kvm       there is no /dev/kvm",
        "          guests are emulated",
        "          try: modprobe kvm",
        "a -> b",
        # What a host says cannot steer the terminal.
        "  PROBLEM link      port 1 cannot be reached: \\x1b[31m",
        "          data goes there",
        "          try: open it",
        "1 problem, 1 note",
    ]
    assert told(findings_picture([GOOD])).splitlines()[-1] == "nothing stands in the way of a migration (0 notes)"
    assert "kvm       a: there is no" in told(finding_text(NOTE, NOTE.host))


def test_a_forecast() -> None:
    lines = told(forecast_picture(forecast(plan(), Wire(16 * MIB, 0.0005), (100.0,)))).splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["memory", "256.0", "MiB", "-", "-"],
        ["root", "0", "B", "8.0", "MiB", "128.0", "MiB"],
    ]
    assert lines[4:] == [
        "  measured from source to target: 16.0 MiB/s, 0.5 ms there and back",
        "  memory takes 16.0 s at that rate, more if the guest writes much",
        "  the background move takes 500 ms, if nothing else slows it",
        "  downtime: 100 ms, the median of 1 migration from here",
    ]


def test_a_forecast_of_what_is_not_known() -> None:
    one = plan()
    asked = replace(one, disks=(replace(one.disks[0], handler=Handler.ON_DEMAND, member=None),))
    lines = told(forecast_picture(forecast(asked, None, ()))).splitlines()
    assert lines[3].split() == ["root", "0", "B", "up", "to", "8.0", "MiB", "-"]
    assert lines[4] == "  how long it takes is not known: the way was not measured"
    assert lines[5] == "  downtime: about 300 ms, QEMU's limit; none was measured here yet"
