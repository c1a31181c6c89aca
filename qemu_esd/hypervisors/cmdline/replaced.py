"""Which options only the replaced disks needed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from qemu_esd.graph import names
from qemu_esd.hypervisors.cmdline.drives import as_drive
from qemu_esd.hypervisors.cmdline.facts import BlockUse, CommandLine, Drive, Node
from qemu_esd.hypervisors.cmdline.nodes import by_name, reachable

# Options whose values may name a block node.
_USE_NODES = {"device", "machine", "M", "object", "global"}
# Options whose values may name an -object.
_USE_OBJECTS = {"drive", "blockdev", "device", "object", "netdev", "chardev", "machine", "M", "vnc", "spice"}


def replaced(line: CommandLine, moved: Sequence[BlockUse]) -> frozenset[int]:
    """Places of the options that go with the disks: drives, nodes, and the objects that only those name."""
    drives = {use.drive.at for use in moved if use.drive}
    nodes = {node.at for node in replaced_nodes(line, moved)}
    return frozenset(drives | nodes | _unneeded_objects(line, drives | nodes))


def replaced_nodes(line: CommandLine, moved: Sequence[BlockUse]) -> frozenset[Node]:
    """The nodes that the disks stand on and that nothing else uses."""
    named = by_name(line.nodes)
    drives = [use.drive for use in moved if use.drive]
    roots = [use.node.name for use in moved if use.node]
    candidates = reachable([*roots, *_named_by(line, drives)], named)
    return candidates - reachable(_other_users(line, moved, candidates), named)


def _other_users(line: CommandLine, moved: Sequence[BlockUse], candidates: Collection[Node]) -> Iterator[str]:
    devices = {use.device.at for use in moved if use.device}
    yield from (name for node in line.nodes if node not in candidates for name in node.below)
    yield from _named_by(line, [drive for drive in line.drives if drive not in {use.drive for use in moved}])
    for at, one in enumerate(line.options):
        if one.flag in _USE_NODES and at not in devices:
            yield from (value for _, value in one.arguments.leaves())


def _named_by(line: CommandLine, drives: Iterable[Drive]) -> list[str]:
    """What drives refer to: `backing=NODE` and the like."""
    return [value for drive in drives for _, value in as_drive(line.options[drive.at]).leaves()]


def _unneeded_objects(line: CommandLine, gone: set[int]) -> set[int]:
    """Credentials, secrets and throttle groups that only what goes has named, and all of our own credentials.

    Those belong to one migration, and their keys are on no third host.
    """
    objects = {one.arguments.get("id"): at for at, one in enumerate(line.options) if one.flag == "object"}
    going = gone | {at for id, at in objects.items() if id and id.startswith(names.credentials(""))}
    while True:
        was, still = _values(line, going, inside=True), _values(line, going, inside=False)
        more = {at for id, at in objects.items() if id in was - still} - going
        if not more:
            return going - gone
        going |= more


def _values(line: CommandLine, places: set[int], inside: bool) -> set[str]:
    return {
        value
        for at, one in enumerate(line.options)
        if (at in places) is inside and one.flag in _USE_OBJECTS
        for key, value in one.arguments.leaves()
        if key != "id"
    }
