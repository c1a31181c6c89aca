"""A link with a delay, where the kernel has no sch_netem: two processes that keep each frame for a while, one per way.

    python -m tests.bench.delay FROM TO SECONDS

They take the place of the bridge between the two ports of the pair, in the namespace of the lab's switch, and hand on
whole frames as the kernel has them (up to 64 KiB), so that neither end notices anything but the time.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from qemu_esd.hosts.lab.net import bridge_name, port_name, run_ip
from qemu_esd.hosts.lab.process import Process
from qemu_esd.hosts.lab.state import LabHost, lab_root, load

ROOT = Path(__file__).resolve().parents[2]
# From linux/if_packet.h and linux/if_ether.h; Python does not name them.
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 0x0003
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
# What comes while we are busy is not lost: more than a second of the link at full speed.
BUFFER = 512 << 20
FRAME = 128 << 10
READY = b"ready\n"


@asynccontextmanager
async def delayed(one: LabHost, other: LabHost, seconds: float) -> AsyncIterator[None]:
    """Everything between the two hosts takes `seconds` longer, each way."""
    lab = load(lab_root())
    assert lab is not None and lab.switch is not None
    switch, ports = lab.switch, (port_name(one, other), port_name(other, one))
    run_ip(switch, [f"link set dev {port} nomaster" for port in ports])
    try:
        async with AsyncExitStack() as stack:
            for begin, end in (ports, ports[::-1]):
                await stack.enter_async_context(_line(switch, begin, end, seconds))
            yield
    finally:
        run_ip(switch, [f"link set dev {port} master {bridge_name(one, other)}" for port in ports])


@asynccontextmanager
async def _line(switch: Process, begin: str, end: str, seconds: float) -> AsyncIterator[None]:
    words = (sys.executable, "-m", "tests.bench.delay", begin, end, str(seconds))
    enter = ("nsenter", f"--net=/proc/{switch.pid}/ns/net", "--")
    process = await asyncio.create_subprocess_exec(*enter, *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == READY, "the delay could not be made"
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def main(begin: str, end: str, seconds: float) -> None:
    source, sink = _listener(begin), _sender(end)
    print(READY.decode(), end="", flush=True)
    waiting: deque[tuple[float, bytes]] = deque()
    while True:
        due = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        if select.select([source], [], [], due)[0]:
            waiting.append((time.monotonic() + seconds, source.recv(FRAME)))
        while waiting and waiting[0][0] <= time.monotonic():
            sink.send(waiting.popleft()[1])


def _listener(port: str) -> socket.socket:
    each = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    # A header in front of each frame says what the kernel has left undone in it (checksum, cutting into packets).
    each.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    each.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    each.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    each.bind((port, ETH_P_ALL))
    return each


def _sender(port: str) -> socket.socket:
    each = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    each.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    each.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    each.bind((port, 0))
    return each


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
