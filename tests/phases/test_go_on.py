"""Which stopped guests a host tells to go on by itself, by what their QEMUs answer."""

from __future__ import annotations

import subprocess

import pytest

from qemu_esd.graph import perl
from qemu_esd.graph.device_guests import GO_ON
from qemu_esd.model.vm import Kind
from qemu_esd.phases.links import go_on_of

STOPPED = '{"return": {"status": "io-error", "singlestep": false, "running": false}}'
FAILED = '{"return": [{"io-status": "ok"}, {"io-status": "failed"}]}'
# The guest is stopped by one disk, and another one waits for room.
BOTH = '{"return": [{"io-status": "failed"}, {"io-status": "nospace"}]}'
_ASKED = r"""
my %answers = ("query-status", $ARGV[0], "query-block", $ARGV[1]);
exit(may_go_on(sub { $answers{$_[0]} }) ? 1 : 0);
"""


@pytest.mark.parametrize(
    ("status", "disks", "may"),
    [
        (STOPPED, FAILED, True),
        (STOPPED, BOTH, False),
        (STOPPED.replace("io-error", "paused"), FAILED, False),
        (STOPPED.replace("io-error", "running"), FAILED, False),
        # It has not told in time.
        ("", FAILED, False),
        (STOPPED, "", False),
    ],
)
def test_who_may_go_on(status: str, disks: str, may: bool) -> None:
    program = f"use strict; {perl.MAY_GO_ON}{_ASKED}"
    done = subprocess.run(["perl", "-e", program, status, disks], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (int(may), b"")


@pytest.mark.parametrize(
    ("program", "word"),
    [
        (go_on_of(Kind.BARE, "").program, "/nowhere/control.sock"),
        (go_on_of(Kind.DOMAIN, "").program, "libvirt:nobody"),
        (GO_ON, "/nowhere/device/suid1/socket"),
    ],
)
def test_where_nobody_answers_nobody_is_told(program: str, word: str) -> None:
    done = subprocess.run(["perl", "-w", "-e", program, word], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
