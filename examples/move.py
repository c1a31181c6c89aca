"""Move one guest, say how it goes, and wait until it needs the source no more.

python examples/move.py VM HOST [POLICY]        POLICY: background (default), on-demand, redirect, miss
"""

import asyncio
import sys

from qemu_esd import api
from qemu_esd.api import EsdError, Event, Handler, Measured, Progress, Request, State


def report(event: Event) -> None:
    match event:
        case State():
            print(f"now {event}", flush=True)
        case Measured(name, ms):
            print(f"{name}: {ms:.0f} ms", flush=True)
        case Progress(what, done, total):
            print(f"{what}: {done} of {total} bytes", flush=True)


async def main(vm: str, host: str, policy: str = "background") -> int:
    try:
        moved = await api.migrate(Request(vm, host, Handler(policy)), report)
    except EsdError as error:
        # The exit status tells what has become of the guest: rolled back, refused, or committed and not finished.
        print(f"{error} (try: {error.hint})", file=sys.stderr)
        return error.exit_status
    print(f"{vm} runs on {moved.target}, and stood still for {moved.downtime_ms} ms")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
