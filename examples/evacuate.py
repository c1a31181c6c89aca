"""Empty a host in a window: only if, by the forecast, all guests have left it and settled in less than so many minutes.

python examples/evacuate.py FROM TO MINUTES
"""

import asyncio
import sys

from qemu_esd import api
from qemu_esd.api import EsdError, Evacuation, EvacuationPlan, EvacuationRefusedError


async def main(source: str, target: str, minutes: float) -> int:
    async def agree(plan: EvacuationPlan) -> bool:
        """Asked when all guests have been tried out, and nothing has been touched."""
        told = plan.forecasts.values()
        seconds = sum((each.memory_seconds or 0) + (each.later_seconds or 0) for each in told)
        known = all(each.rate for each in told)
        print(
            f"{len(told)} to move, in about {seconds:.0f} s" if known else "nobody knows how long it takes", flush=True
        )
        return known and seconds < minutes * 60

    done = await api.evacuate(Evacuation(source, (target,), release=True), lambda vm, event: None, agree)
    for guest in done.guests:
        print(f"{guest.vm} is {guest.state}, on {guest.host}", guest.problem or "", flush=True)
    return done.exit_status


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
    except EvacuationRefusedError as error:
        for step in error.plan.steps:
            for problem in step.problems:
                print(f"{step.vm}: {problem.host}: {problem.what} (try: {problem.hint})", file=sys.stderr)
        sys.exit(error.exit_status)
    except EsdError as error:
        print(f"{error} (try: {error.hint})", file=sys.stderr)
        sys.exit(error.exit_status)
