"""A block graph in the words of Graphviz and of Mermaid."""

from __future__ import annotations

import json
from collections.abc import Iterator

from qemu_esd.cli.render import printable
from qemu_esd.cli.render_graph import title, user_text
from qemu_esd.model.block_graph import BlockGraph, BlockNode, Program, UserKind


def node_lines(node: BlockNode) -> list[str]:
    """What a box says of a node: its name, its driver, the last part of its file's path."""
    file = [node.file.rpartition("/")[2]] if node.file else []
    return [printable(line) for line in (node.name, node.driver, *file)]


def boxes(number: int, program: Program) -> dict[str, str]:
    """Names for the boxes of a program that need no quotes: by node, and by user (kind and name)."""
    nodes = {node.name: f"p{number}n{index}" for index, node in enumerate(program.nodes)}
    return nodes | {f"{user.kind} {user.name}": f"p{number}u{index}" for index, user in enumerate(program.users)}


def arrows(number: int, program: Program) -> Iterator[tuple[str, str, str]]:
    """All arrows within a program: from, to, word."""
    names = boxes(number, program)
    for user in program.users:
        yield from ((names[f"{user.kind} {user.name}"], names[node], "") for node in user.on if node in names)
    for edge in program.edges:
        if edge.parent in names and edge.child in names:
            yield names[edge.parent], names[edge.child], edge.role


def _all_arrows(graph: BlockGraph) -> Iterator[tuple[str, str, str]]:
    for number, program in enumerate(graph.programs):
        yield from arrows(number, program)


def crossings(graph: BlockGraph) -> Iterator[tuple[str, str]]:
    """All arrows from an NBD client to the export that it reads from."""
    for reading in graph.readings:
        ours = boxes(reading.program, graph.programs[reading.program])
        theirs = boxes(reading.of, graph.programs[reading.of])
        yield ours[reading.node], theirs[f"{UserKind.EXPORT} {reading.export}"]


def labels(number: int, program: Program) -> Iterator[tuple[str, list[str]]]:
    """Each box of a program with its lines."""
    names = boxes(number, program)
    yield from ((names[f"{user.kind} {user.name}"], [user_text(user)]) for user in program.users)
    yield from ((names[node.name], node_lines(node)) for node in program.nodes)
    if program.problem:
        yield f"p{number}problem", [printable(program.problem)]


def dot(graph: BlockGraph) -> str:
    """For `dot -Tsvg`."""
    lines = ["digraph blocks {", "  rankdir=TB; node [shape=box];"]
    for number, program in enumerate(graph.programs):
        lines.append(f"  subgraph cluster{number} {{ label={_dot(title(program))};")
        lines += [f"    {box} [label={_dot(*words)}];" for box, words in labels(number, program)]
        lines.append("  }")
    lines += [f"  {one} -> {other} [label={_dot(word)}];" for one, other, word in _all_arrows(graph)]
    lines += [f"  {one} -> {other} [style=dashed, constraint=false];" for one, other in crossings(graph)]
    return "\n".join([*lines, "}"])


def _dot(*lines: str) -> str:
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


def mermaid(graph: BlockGraph) -> str:
    """For a page that draws Mermaid, such as those of GitHub and GitLab."""
    lines = ["flowchart TB"]
    for number, program in enumerate(graph.programs):
        lines.append(f"  subgraph s{number}[{_mermaid(title(program))}]")
        lines += [f"    {box}[{_mermaid(*words)}]" for box, words in labels(number, program)]
        lines.append("  end")
    lines += [f"  {one} -->{f'|{_mermaid(word)}|' if word else ''} {other}" for one, other, word in _all_arrows(graph)]
    lines += [f"  {one} -.-> {other}" for one, other in crossings(graph)]
    return "\n".join(lines)


def _mermaid(*lines: str) -> str:
    entities = {"#": "#35;", '"': "#quot;", "&": "#amp;", "<": "#lt;", ">": "#gt;"}
    return json.dumps("<br>".join("".join(entities.get(char, char) for char in line) for line in lines))
