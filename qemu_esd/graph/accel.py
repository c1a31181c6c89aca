"""Which accelerator a host's QEMU can really use: a guest of 64 KiB that does a little work, and its argv.

Neither /dev/kvm nor a guest that starts is enough. On a virtual machine whose own hypervisor offers KVM
without hardware support, /dev/kvm opens and SeaBIOS boots a sector, yet no kernel ever comes up: measured
there, every instruction in long mode is emulated, two million of them in a second. So the probe enters long
mode, as a kernel would, and counts through 2^27 instructions: less than 0.1 s on a processor, 0.3 s under
TCG, a minute there.

The guest is its own firmware: no disk, no boot order, and any machine type will do. Pure: the caller writes
PROBE_ROM to a file, runs `probe_argv` for at most PROBE_SECONDS, and PROBE_CPU_SECONDS of a processor, kills it
then, and asks `choose`.
"""

from __future__ import annotations

import struct
from typing import Literal

Accel = Literal["kvm", "tcg"]

PROBE_SECONDS = 5.0
"""After this long without an answer the accelerator is of no use; kill the QEMU."""

PROBE_CPU_SECONDS = 2
"""The same of a processor's time: an accelerator that is of no use takes all that it gets."""

_ROM_SIZE = 0x10000  # the smallest that QEMU takes; it is mapped to end at 1 MiB and at 4 GiB
_ROM_AT = 0xF0000  # where its first byte is below 1 MiB

# Offsets in the ROM of the program's parts; the processor starts, in real mode, at _RESET.
_REAL, _PROTECTED, _LONG, _GDT, _GDTR, _RESET = 0xFF00, 0xFF20, 0xFF80, 0xFFA0, 0xFFC0, 0xFFF0

_EXIT_PORT, _EXIT_VALUE = 0xF4, 0x10
_ROUNDS = 1 << 26

PROBE_EXIT = _EXIT_VALUE << 1 | 1
"""The exit status of a QEMU whose guest came to its end (isa-debug-exit: twice the value plus one)."""


def _le16(value: int) -> bytes:
    return struct.pack("<H", value)


def _le32(value: int) -> bytes:
    return struct.pack("<I", value)


_REAL_MODE = b"".join(
    (
        b"\x2e\x66\x0f\x01\x16" + _le16(_GDTR),  # lgdt cs:[gdtr]
        b"\x0f\x20\xc0",  # mov eax, cr0
        b"\x0c\x01",  # or al, 1                     protected mode
        b"\x0f\x22\xc0",  # mov cr0, eax
        b"\x66\xea" + _le32(_ROM_AT + _PROTECTED) + _le16(0x08),  # jmp 0x08:protected
    )
)

# Memory is zero when QEMU starts, so three entries make the page tables: 0x1000 -> 0x2000 -> 0x3000 -> 2 MiB.
_PROTECTED_MODE = b"".join(
    (
        b"\x66\xb8" + _le16(0x10),  # mov ax, 0x10
        b"\x8e\xd8",  # mov ds, ax
        b"\xc7\x05" + _le32(0x1000) + _le32(0x2003),  # mov dword [0x1000], 0x2000 | present, writable
        b"\xc7\x05" + _le32(0x2000) + _le32(0x3003),  # mov dword [0x2000], 0x3000 | present, writable
        b"\xc7\x05" + _le32(0x3000) + _le32(0x0083),  # mov dword [0x3000], 0 | present, writable, 2 MiB
        b"\xb8" + _le32(0x1000),  # mov eax, 0x1000
        b"\x0f\x22\xd8",  # mov cr3, eax
        b"\xb8" + _le32(0x20),  # mov eax, 0x20                physical address extension
        b"\x0f\x22\xe0",  # mov cr4, eax
        b"\xb9" + _le32(0xC0000080),  # mov ecx, EFER
        b"\xb8" + _le32(0x100),  # mov eax, 0x100               long mode enable
        b"\x31\xd2",  # xor edx, edx
        b"\x0f\x30",  # wrmsr
        b"\xb8" + _le32(0x80000001),  # mov eax, 0x80000001          paging, protection
        b"\x0f\x22\xc0",  # mov cr0, eax
        b"\xea" + _le32(_ROM_AT + _LONG) + _le16(0x18),  # jmp 0x18:long
    )
)
_LONG_MODE = b"".join(
    (
        b"\xb9" + _le32(_ROUNDS),  # mov ecx, rounds
        b"\xff\xc9",  # again: dec ecx
        b"\x75\xfc",  # jnz again
        b"\xb0" + bytes([_EXIT_VALUE]),  # mov al, value
        b"\xe6" + bytes([_EXIT_PORT]),  # out port, al                 QEMU exits
        b"\xf4",  # stop: hlt
        b"\xeb\xfd",  # jmp stop
    )
)

# Segments: 0x08 code of 32 bits, 0x10 data, 0x18 code of 64 bits; each from 0 to 4 GiB.
_SEGMENTS = struct.pack("<4Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF)

_PARTS = (
    (_REAL, _REAL_MODE),
    (_PROTECTED, _PROTECTED_MODE),
    (_LONG, _LONG_MODE),
    (_GDT, _SEGMENTS),
    (_GDTR, _le16(len(_SEGMENTS) - 1) + _le32(_ROM_AT + _GDT)),
    (_RESET, b"\xe9" + _le16((_REAL - _RESET - 3) & 0xFFFF)),  # jmp real
)


def _rom() -> bytes:
    rom = bytearray(_ROM_SIZE)
    for offset, part in _PARTS:
        rom[offset : offset + len(part)] = part
    return bytes(rom)


PROBE_ROM = _rom()
"""The guest: 64 KiB, to be written to a file on the host that is asked about."""


def probe_argv(qemu: str, rom_path: str, accel: Accel = "kvm") -> tuple[str, ...]:
    """The command line that runs the guest in the file `rom_path` with the QEMU binary `qemu` and `accel`.

    It ends by itself with PROBE_EXIT, or with another status at once where the accelerator is not there, or
    not at all.
    """
    device = f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=1"
    return (
        *(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-accel", accel, "-m", "16", "-bios", rom_path, "-device", device),
    )


def choose(kvm_exit_status: int | None) -> Accel:
    """The accelerator to use, from how the probe with kvm ended; None: it did not, and was killed."""
    return "kvm" if kvm_exit_status == PROBE_EXIT else "tcg"
