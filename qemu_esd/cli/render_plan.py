"""A plan and what stands in its way: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qemu_esd.cli.render import hint_text, plain_table, printable, whole_line
from qemu_esd.model.disk import Image
from qemu_esd.model.plan import DiskPlan, Plan, Problem, Transport
from qemu_esd.model.policy import Handler
from qemu_esd.phases.checks import growth
from qemu_esd.units import human_bytes

# What a handler puts below the guest's disk, from the top.
GRAPHS = {
    Handler.MISS: "qcow2 overlay → reads fail",
    Handler.REDIRECT: "qcow2 overlay → NBD",
    Handler.BACKGROUND: "copy-on-read → qcow2 overlay → NBD, prefetched",
    Handler.ON_DEMAND: "copy-on-read → qcow2 overlay → NBD",
}
TRANSPORTS = {
    Transport.TLS: "TLS with a key of this migration",
    Transport.SSH: "one supervised ssh",
    Transport.PLAINTEXT: "unencrypted TCP",
}


def graph_of(disk: DiskPlan) -> str:
    return GRAPHS[disk.handler] if disk.member else "NBD, read and written"


def needed_bytes(disk: DiskPlan) -> int:
    """What the disk's member on the target can grow to by what the policy moves."""
    return growth(disk.handler, disk.disk.data) if disk.member else 0


def plan_picture(plan: Plan, remarks: Iterable[str]) -> RenderableType:
    """The plan as a page."""
    parts: list[RenderableType] = [_hosts(plan), "", _disks(plan), *_members(plan)]
    parts += [whole_line(f"note: {remark}", "yellow") for remark in remarks]
    return Group(*parts)


def _hosts(plan: Plan) -> RenderableType:
    table = plain_table("", "host", "address", "port")
    via_ssh = plan.transport is Transport.SSH
    table.add_row("from", plan.source.host, plan.source.address, "-" if via_ssh else f"{plan.nbd_port} (disks)")
    table.add_row("to", plan.target.host, plan.target.address, "-" if via_ssh else f"{plan.ram_port} (memory)")
    words = [TRANSPORTS[plan.transport], f"{human_bytes(plan.guest.memory)} of memory", plan.guest.machine_type]
    words += [f"{_limit(plan.bandwidth)} in the background"] if plan.bandwidth else []
    words += [f"at most {plan.downtime_ms} ms of downtime"] if plan.downtime_ms else []
    title = Text.assemble("migrate ", (printable(plan.vm), "bold"), ": ", ", ".join(words))
    return Group(title, table)


def _limit(bandwidth: int | Literal["auto"]) -> str:
    return f"at most {human_bytes(bandwidth)}/s" if isinstance(bandwidth, int) else "as fast as the guest bears"


def _disks(plan: Plan) -> Table:
    table = plain_table("disk", "policy", "size", "data", "needs", "graph", right=("size", "data", "needs"))
    for disk in plan.disks:
        sizes = (disk.disk.size, disk.disk.data, needed_bytes(disk))
        table.add_row(printable(disk.disk.id), disk.handler, *map(human_bytes, sizes), graph_of(disk))
    return table


def _members(plan: Plan) -> list[Text]:
    """Which file becomes which; in lines of their own, for paths are long."""
    lines = []
    for disk in plan.disks:
        top = disk.disk.chain[0]
        old = top.path if isinstance(top, Image) else "its source"
        new = disk.member.path if disk.member else "no file"
        lines.append(whole_line(f"{disk.disk.id}: {old} on {plan.source.host}, {new} on {plan.target.host}"))
    return [Text(""), *lines]


def plan_json(plan: Plan, remarks: Sequence[str]) -> dict[str, Any]:
    """The plan for scripts. Sizes in bytes; nothing secret is in a plan."""
    return {
        "vm": plan.vm,
        "source": {"host": plan.source.host, "address": plan.source.address, "port": plan.nbd_port},
        "target": {"host": plan.target.host, "address": plan.target.address, "port": plan.ram_port},
        "transport": plan.transport,
        "machine": plan.guest.machine_type,
        "memory_bytes": plan.guest.memory,
        "bandwidth": plan.bandwidth,
        "downtime_ms": plan.downtime_ms,
        "disks": [_disk_json(disk) for disk in plan.disks],
        "remarks": list(remarks),
    }


def _disk_json(disk: DiskPlan) -> dict[str, Any]:
    return {
        "disk": disk.disk.id,
        "suid": disk.disk.suid,
        "handler": disk.handler,
        "write_policy": "local",
        "graph": graph_of(disk),
        "virtual_bytes": disk.disk.size,
        "data_bytes": disk.disk.data,
        "needed_bytes": needed_bytes(disk),
        "images": [layer.path for layer in disk.disk.chain if isinstance(layer, Image)],
        "member": disk.member.path if disk.member else None,
    }


def problem_list(problems: Sequence[Problem]) -> RenderableType:
    """Every problem with its host and what mends it."""
    if not problems:
        return Text("no problem found, and nothing was touched", "green")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    head = Text(f"{count} found, and nothing was touched:", "bold")
    return Group(head, *(_problem(problem) for problem in problems))


def _problem(problem: Problem) -> Text:
    text = whole_line("  ").append(problem.host, "bold").append(f": {printable(problem.what)}")
    return text.append_text(hint_text(problem.hint, "    ")) if problem.hint else text


def refusal(vm: str, target: str, problems: Sequence[Problem]) -> RenderableType:
    """An error with all its reasons."""
    head = Text.assemble(("error: ", "bold red"), f"{printable(vm)} cannot be migrated to {target}:")
    return Group(head, *(_problem(problem) for problem in problems), Text("Nothing was touched."))


def doubts(plan: Plan, remarks: Sequence[str]) -> list[str]:
    """What a user may not have meant: one asks before it."""
    left = [disk.disk.id for disk in plan.disks if disk.handler is Handler.MISS]
    found = list(remarks)
    if left:
        found.append(f"the data of {', '.join(left)} stays on {plan.source.host}: the guest's reads of it will fail")
    if plan.transport is Transport.PLAINTEXT:
        found.append("memory and disks cross the network unencrypted")
    return found


def doubt_list(found: Iterable[str]) -> Text:
    return Text("\n".join(f"note: {printable(one)}" for one in found), "yellow")
