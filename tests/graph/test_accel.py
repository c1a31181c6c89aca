"""The accelerator probe with a real QEMU: what it chooses boots a kernel; no answer, no choice."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from images.build import KERNEL_WORDS, build
from qemu_esd.graph.accel import PROBE_EXIT, PROBE_ROM, PROBE_SECONDS, choose, probe_argv

QEMU = "qemu-system-x86_64"


@pytest.fixture
def rom(tmp_path: Path) -> Path:
    path = tmp_path / "probe, with a comma"
    path.write_bytes(PROBE_ROM)
    return path


def run(argv: tuple[str, ...], seconds: float) -> int | None:
    """The exit status; None when the program had to be killed after `seconds`."""
    try:
        return subprocess.run(argv, timeout=seconds, check=False, capture_output=True).returncode
    except subprocess.TimeoutExpired:
        return None


def console_until(argv: tuple[str, ...], text: str, seconds: float) -> str:
    """What the guest says up to the line with `text`; then, or after `seconds`, it is killed."""
    said = ""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdout is not None
        alarm = threading.Timer(seconds, qemu.kill)
        alarm.start()
        for line in qemu.stdout:
            said += line
            if text in line:
                break
        alarm.cancel()
        qemu.kill()
    return said


def test_the_guest_comes_to_its_end_under_tcg(rom: Path) -> None:
    assert run(probe_argv(QEMU, str(rom), "tcg"), 60) == PROBE_EXIT


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_any_machine_type_will_do(rom: Path, machine: str) -> None:
    assert run((*probe_argv(QEMU, str(rom), "tcg"), "-machine", machine), 60) == PROBE_EXIT


def test_a_guest_that_hangs_is_killed_and_not_chosen(rom: Path) -> None:
    stuck = bytearray(PROBE_ROM)
    stuck[0xFFF0:0xFFF2] = b"\xeb\xfe"  # at the reset vector: jmp to itself
    rom.write_bytes(stuck)
    status = run(probe_argv(QEMU, str(rom), "tcg"), 2)
    assert status is None
    assert choose(status) == "tcg"


def test_a_guest_that_crashes_is_not_chosen(rom: Path) -> None:
    broken = PROBE_ROM.replace(b"\x0f\x30", b"\x0f\x0b", 1)  # an undefined instruction in place of wrmsr
    rom.write_bytes(broken)
    status = run(probe_argv(QEMU, str(rom), "tcg"), 60)
    assert status is not None
    assert choose(status) == "tcg"


def test_a_qemu_that_refuses_is_not_chosen(rom: Path) -> None:
    status = run((*probe_argv(QEMU, str(rom)), "-no-such-option"), 60)
    assert status == 1
    assert choose(status) == "tcg"


def test_kvm_is_the_default_and_chosen_when_it_answers(rom: Path) -> None:
    argv = probe_argv(QEMU, str(rom))
    assert argv[argv.index("-accel") + 1] == "kvm"
    assert choose(PROBE_EXIT) == "kvm"


def test_the_chosen_accelerator_boots_a_kernel(rom: Path) -> None:
    """Wherever this runs: with working KVM, with a KVM that only looks like it, and with none."""
    accel = choose(run(probe_argv(QEMU, str(rom)), PROBE_SECONDS))
    image = build()
    argv = (QEMU, "-accel", accel, "-m", "256", "-nodefaults", "-display", "none", "-no-reboot")
    guest = ("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-serial", "stdio")
    append = ("-append", f"{KERNEL_WORDS} esd.mode=idle")
    assert "esd-load ready mode=idle" in console_until(argv + guest + append, "esd-load ready", 120)
