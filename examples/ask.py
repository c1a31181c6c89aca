"""Where each guest's data is, and what its QEMU says of its disks.

python examples/ask.py
"""

import asyncio

from qemu_esd import api


async def main() -> None:
    for guest in await api.look_at_guests():
        print(f"{guest.vm} on {guest.host}: {guest.state}, link {guest.link}")
        for disk in guest.disks:
            print(
                f"  {disk.disk}: {disk.handler}, {disk.local_bytes} bytes here, {disk.remote_bytes} on {guest.source}"
            )
        async with api.open_peer(guest.vm) as qemu:
            for row in await qemu.execute("query-blockstats", {}, write=False):
                print(f"  {row.get('qdev', '-')}: {row['stats']['rd_operations']} reads")


if __name__ == "__main__":
    asyncio.run(main())
