"""The link between two hosts of the lab: cut it, mend it, limit its rate, delay it.

What a link is like is read from the kernel, so nothing can disagree with it. A host that is started anew
gets whole links. Rate and delay hold for each direction by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from qemu_esd.errors import CommandFailedError, RefusedError, UsageError
from qemu_esd.hosts.lab.net import bridge_name, port_name, run_inside, run_ip
from qemu_esd.hosts.lab.process import Process
from qemu_esd.hosts.lab.state import Lab, LabHost, lab_root, load, locked

# A queue longer than this drops; the burst is what a link may send at once after a pause.
_QUEUE_MS = 50
_BURST_BYTES = 64 << 10
_BURST_SECONDS = 0.005


@dataclass(frozen=True)
class Link:
    """How two hosts are connected. `rate`: bytes per second, `delay`: seconds, each way; None: no limit."""

    one: str
    other: str
    up: bool = True
    rate: int | None = None
    delay: float | None = None


async def link_between(one: str, other: str) -> Link:
    """The link as it is now. Raises UsageError for a host that the lab has not, RefusedError if it is not up."""
    return await asyncio.to_thread(_link_between, one, other)


async def set_link(link: Link) -> None:
    """Make the link between `link.one` and `link.other` so. Raises RefusedError if the kernel cannot."""
    await asyncio.to_thread(_set_link, link)


def read_links(switch: Process, hosts: Sequence[LabHost]) -> tuple[Link, ...]:
    """The links of all pairs of `hosts` that are plugged in."""
    ups = {each["ifname"]: "UP" in each["flags"] for each in _ask(switch, "ip", "-json", "link", "show")}
    queues = {each["dev"]: each for each in _ask(switch, "tc", "-json", "qdisc", "show") if each.get("root")}
    links = []
    for one, other in combinations(hosts, 2):
        if (bridge := bridge_name(one, other)) in ups:
            rate, delay = _shape(queues.get(port_name(one, other), {}))
            links.append(Link(one.name, other.name, ups[bridge], rate, delay))
    return tuple(links)


def _link_between(one: str, other: str) -> Link:
    return _read_link(*_find_pair(one, other))


def _set_link(link: Link) -> None:
    with locked(lab_root()):
        switch, one, other = _find_pair(link.one, link.other)
        _read_link(switch, one, other)
        for port in (port_name(one, other), port_name(other, one)):
            _set_queue(switch, port, link)
        run_ip(switch, [f"link set dev {bridge_name(one, other)} {'up' if link.up else 'down'}"])


def _find_pair(one: str, other: str) -> tuple[Process, LabHost, LabHost]:
    lab = load(lab_root())
    if lab is None or lab.switch is None or not lab.switch.alive:
        raise RefusedError("the lab is not up", hint="qemu-esd lab up")
    if one == other:
        raise UsageError(f"a link is between two hosts, not {one} and itself")
    return lab.switch, _member(lab, one), _member(lab, other)


def _member(lab: Lab, name: str) -> LabHost:
    for host in lab.hosts:
        if host.name == name:
            return host
    raise UsageError(f"the lab has no host {name!r}", hint="it has " + ", ".join(host.name for host in lab.hosts))


def _read_link(switch: Process, one: LabHost, other: LabHost) -> Link:
    for link in read_links(switch, (one, other)):
        return link
    raise RefusedError(f"{one.name} and {other.name} are not connected", hint="qemu-esd lab up")


def _set_queue(switch: Process, port: str, link: Link) -> None:
    words = ("tc", "qdisc", *queue_words(port, link))
    done = run_inside(switch, words)
    if "qdisc kind is unknown" in done.stderr:
        raise RefusedError(
            f"this kernel has no {'sch_netem, so a link cannot be delayed' if link.delay else 'sch_tbf'}",
            hint="boot a kernel that has it, or put `nbdkit --filter=delay nbd` between the hosts",
        )
    if done.returncode != 0:
        raise CommandFailedError(words, done.returncode, done.stderr)


def queue_words(port: str, link: Link) -> tuple[str, ...]:
    """What to tell `tc qdisc` so that `port` sends as `link` says.

    netem does both; tbf, which more kernels have, does only rates.
    """
    if link.delay:
        # A rate is always named: netem keeps the former one otherwise. 0 is none.
        shape = ("delay", f"{round(link.delay * 1e6)}us", "rate", f"{(link.rate or 0) * 8}bit", "limit", "100000")
        return ("replace", "dev", port, "root", "netem", *shape)
    if link.rate:
        burst = max(_BURST_BYTES, round(link.rate * _BURST_SECONDS))
        limits = ("burst", f"{burst}b", "latency", f"{_QUEUE_MS}ms")
        return ("replace", "dev", port, "root", "tbf", "rate", f"{link.rate * 8}bit", *limits)
    return ("replace", "dev", port, "root", "noqueue")


def _shape(queue: dict[str, Any]) -> tuple[int | None, float | None]:
    """Rate and delay of a queue as `tc -json` tells them (bytes per second, seconds)."""
    options = queue.get("options", {})
    if queue.get("kind") == "tbf":
        return options["rate"], None
    if queue.get("kind") == "netem":
        rate, delay = options.get("rate", {}).get("rate"), options.get("delay", {}).get("delay")
        return rate or None, delay or None
    return None, None


def _ask(switch: Process, *argv: str) -> list[dict[str, Any]]:
    done = run_inside(switch, argv)
    if done.returncode != 0:
        raise CommandFailedError(argv, done.returncode, done.stderr)
    answer: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return answer
