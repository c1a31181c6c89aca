"""Signals: one orderly cancellation, whatever else comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# Puts things in order for as long as the test wants it to: until a line comes.
PROGRAM = """
import asyncio, sys
from qemu_esd.cli.running import run

async def work():
    print("at work", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("putting in order", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print("in order", flush=True)

try:
    run(work())
except asyncio.CancelledError:
    print("over", flush=True)
    sys.stdin.readline()
    print("told", flush=True)
"""


def _start(*before: str) -> subprocess.Popen[str]:
    argv = [*before, sys.executable, "-c", PROGRAM]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def _expect(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


def _press_enter(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_break_off_what_the_first_began(number: signal.Signals) -> None:
    process = _start()
    try:
        _expect(process, "at work")
        process.send_signal(number)
        _expect(process, "putting in order")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == "stopping already: this puts things in order first\n"
        _press_enter(process)
        _expect(process, "in order")
        # The loop is gone now, and its handlers with it.
        _expect(process, "over")
        process.send_signal(number)
        _press_enter(process)
        _expect(process, "told")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()


def test_what_nohup_ignores_stays_ignored() -> None:
    process = _start("nohup")
    try:
        _expect(process, "at work")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        _expect(process, "putting in order")
        assert process.stderr is not None
        _press_enter(process)
        _expect(process, "in order")
        _press_enter(process)
        _, words = process.communicate(timeout=30)
        # Had the first signal counted, the second would have been told that it comes too late.
        assert "stopping already" not in words
    finally:
        process.kill()
        process.communicate()


STOPPED = """
import asyncio, sys
from qemu_esd.cli.app import _tell
from qemu_esd.cli.running import run, stopped
from qemu_esd.errors import EsdError

async def work():
    print("at work", flush=True)
    await asyncio.Event().wait()

try:
    with stopped("the guest runs on", "qemu-esd status vm1"):
        run(work(), "waiting")
except EsdError as error:
    _tell(error)
    sys.exit(error.exit_status)
"""


def test_ctrl_c_says_what_it_has_led_to_and_the_command_to_go_on() -> None:
    """At a terminal, where it is told first that something is waited for."""
    terminal, slave = os.openpty()
    argv, plain = [sys.executable, "-c", STOPPED], os.environ | {"TERM": "dumb"}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=slave, text=True, env=plain)
    os.close(slave)
    try:
        _expect(process, "at work")
        said = os.read(terminal, 4096)
        assert b"waiting ... 1 s (Ctrl-C leaves it)" in said
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        said = os.read(terminal, 4096)
    finally:
        process.kill()
        os.close(terminal)
    wiped = "\r\x1b[K"
    assert process.returncode == 1
    assert said.decode().endswith(f"{wiped}error: stopped: the guest runs on\r\n  try: qemu-esd status vm1\r\n")
