"""-blockdev: the nodes that a command line makes, which of them stand on which, and where their data is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from qemu_esd.hypervisors.cmdline.facts import Node
from qemu_esd.hypervisors.cmdline.keyval import Json
from qemu_esd.hypervisors.cmdline.options import Option

# Drivers whose `filename` is on this host. Everything else with an address of its own is on the network.
_LOCAL = {"file", "host_device", "host_cdrom", None}
# Protocols in front of a file name that still mean this host.
_LOCAL_PROTOCOLS = {"file", "host_device", "host_cdrom", "fat"}
# Keys of a node whose text value is the name of another node.
_CHILDREN = {"file", "backing", "data-file", "raw", "test", "image", "top", "local", "children"}
_PROTOCOL_DRIVERS = {"file", "host_device", "host_cdrom", "nbd", "null-co", "null-aio"}


def read_nodes(options: Sequence[Option]) -> tuple[Node, ...]:
    return tuple(_node(at, option) for at, option in enumerate(options) if option.flag == "blockdev")


def _node(at: int, option: Option) -> Node:
    given = option.arguments
    tree = given.tree()
    driver = given.get("driver") or ""
    return Node(
        at=at,
        name=given.get("node-name") or "",
        driver=driver,
        format=None if driver in _PROTOCOL_DRIVERS else driver,
        names=tuple(_names(tree)),
        below=tuple(_references(tree)),
        read_only=given.is_on("read-only"),
        path=local_path(tree),
    )


def by_name(nodes: Iterable[Node]) -> dict[str, Node]:
    """Every node name that a -blockdev makes, children written in place included."""
    return {name: node for node in nodes for name in node.names}


def reachable(roots: Iterable[str], nodes: Mapping[str, Node]) -> frozenset[Node]:
    """The nodes with these names and all that they stand on."""
    found: set[Node] = set()
    waiting = list(roots)
    while waiting:
        node = nodes.get(waiting.pop())
        if node and node not in found:
            found.add(node)
            waiting += node.below
    return frozenset(found)


def data_path(node: Node | None, nodes: Mapping[str, Node]) -> str | None:
    """The local file that a node's data is in: its own, or that of the first node it stands on."""
    seen: set[str] = set()
    while node and node.name not in seen:
        seen.add(node.name)
        if node.path or not node.below:
            return node.path
        node = nodes.get(node.below[0])
    return None


def local_path(tree: Mapping[str, Json]) -> str | None:
    """The file on this host that a node written in one piece reads and writes; None if there is none."""
    child = tree.get("file")
    if isinstance(child, dict):
        return local_path(child)
    filename = tree.get("filename")
    if not isinstance(filename, str) or not filename or tree.get("driver") not in _LOCAL:
        return None
    protocol, path = split_protocol(filename)
    return path if protocol is None or protocol in _LOCAL_PROTOCOLS else None


def split_protocol(filename: str) -> tuple[str | None, str]:
    """("nbd", "//host/x") of "nbd://host/x"; (None, name) of a plain file name. As path_has_protocol() does."""
    before, colon, after = filename.partition(":")
    return (before, after) if colon and "/" not in before else (None, filename)


def _names(tree: Json) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("node-name"), str):
            yield str(tree["node-name"])
        for value in tree.values():
            yield from _names(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from _names(item)


def _references(tree: Json, key: str = "") -> Iterator[str]:
    """Names of other nodes, the one that holds the data first."""
    if isinstance(tree, dict):
        ordered = sorted(tree.items(), key=lambda item: item[0] != "file")
        for name, value in ordered:
            yield from _references(value, key if key == "children" else name)
    elif isinstance(tree, list):
        for item in tree:
            yield from _references(item, key)
    elif isinstance(tree, str) and key in _CHILDREN:
        yield tree
