"""Move every guest of ours away from a host: first see that all of them can, then move one after another.

python examples/evacuate.py FROM TO
"""

import asyncio
import sys

from qemu_esd import api
from qemu_esd.api import EsdError, Handler, Request


async def main(source: str, target: str) -> int:
    guests = [guest.vm for guest in await api.look_at_guests() if guest.host == source]
    requests = [Request(vm, target, Handler.BACKGROUND, source=source) for vm in guests]
    for request in requests:
        trial = await api.try_out(request)
        for problem in trial.problems:
            print(f"{request.vm}: {problem.host}: {problem.what} (try: {problem.hint})", file=sys.stderr)
        if trial.problems:
            return 3
        if trial.forecast and trial.forecast.later_seconds is not None:
            print(f"{request.vm}: about {trial.forecast.later_seconds:.0f} s in the background", flush=True)
    for request in requests:
        # Returns when the guest runs on the target and needs the source no more.
        moved = await api.migrate(request, lambda _: None)
        await api.release_guest(request.vm)
        print(f"{moved.vm} has left {source}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(*sys.argv[1:])))
    except EsdError as error:
        print(f"{error} (try: {error.hint})", file=sys.stderr)
        sys.exit(error.exit_status)
