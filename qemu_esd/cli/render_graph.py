"""A block graph as a tree in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from qemu_esd.cli.render import printable
from qemu_esd.model.block_graph import BlockGraph, BlockNode, Program, ProgramKind, User, UserKind
from qemu_esd.units import human_bytes

_COLOURS = {UserKind.DEVICE: "bold green", UserKind.EXPORT: "bold blue", UserKind.JOB: "bold yellow"}


def title(program: Program) -> str:
    """What a program is, and where."""
    what = program.name if program.kind is ProgramKind.GUEST else f"{program.kind} of migration {program.name}"
    return printable(f"{what} on {program.host}" + (f", {program.state}" if program.state else ""))


def _server(program: Program) -> str:
    """A relay is on the same host as who reads from it."""
    return "relay" if program.kind is ProgramKind.RELAY else program.host


def user_text(user: User) -> str:
    """What uses nodes, and how far it is."""
    words = f"{user.kind} {user.name}"
    if user.state:
        words += f" ({user.state})"
    if user.total:
        words += f" {human_bytes(user.done or 0)} of {human_bytes(user.total)}"
    return printable(words)


def picture(graph: BlockGraph) -> RenderableType:
    """All programs, each with its users on top and what lies below them."""
    return Group(*(_Drawing(graph, number).tree() for number in range(len(graph.programs))))


class _Drawing:
    """The tree of one program. A node that several are above of is drawn once, and named where it comes again."""

    def __init__(self, graph: BlockGraph, number: int) -> None:
        self._program = graph.programs[number]
        self._leads = {
            reading.node: f"{_server(graph.programs[reading.of])}, export {reading.export}"
            for reading in graph.readings
            if reading.program == number
        }
        self._seen = set[str]()

    def tree(self) -> Tree:
        tree = Tree(Text(title(self._program), "bold"))
        if self._program.problem:
            tree.add(Text(printable(self._program.problem), "yellow"))
        for user in in_order(self._program.users):
            branch = tree.add(Text(user_text(user), _COLOURS[user.kind]))
            for name in user.on:
                self._add(branch, "", name)
        for name in self._program.roots():
            self._add(tree, "", name)
        return tree

    def _add(self, branch: Tree, role: str, name: str) -> None:
        node = self._program.node(name)
        label = Text.assemble((f"{role}: " if role else "", "dim"), printable(name))
        if node is None or name in self._seen:
            branch.add(label.append(" (see above)", "dim"))
            return
        self._seen.add(name)
        below = branch.add(label.append_text(self._about(node)))
        for edge in self._program.children(name):
            self._add(below, edge.role, edge.child)

    def _about(self, node: BlockNode) -> Text:
        text = Text(f"  {printable(node.driver)}", "cyan")
        if node.file:
            text.append(f"  {printable(node.file)}", "")
        if node.name in self._leads:
            text.append(f"  ──▶ {printable(self._leads[node.name])}", "bold magenta")
        return text.append(" (read-only)", "dim") if node.read_only else text


def in_order(users: Iterable[User]) -> list[User]:
    """Devices first, because what they are on is what one looks for."""
    return sorted(users, key=lambda user: list(UserKind).index(user.kind))
