"""`qemu-esd graph`: what is below a guest's disks now, on all hosts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from qemu_esd.cli import complete, render
from qemu_esd.cli.running import run
from qemu_esd.errors import UsageError


def graph(
    vm: complete.Vm,
    as_dot: Annotated[bool, typer.Option("--dot", help="In the words of Graphviz.")] = False,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="In the words of Mermaid.")] = False,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="As a picture, into FILE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Draw the block graph as it is now: the guest's QEMU, and the path handlers that it reads from.

    Of a domain of libvirt also the relay between them.
    """
    if sum((as_dot, as_mermaid, svg is not None, as_json)) > 1:
        raise UsageError("one form at a time", hint="choose one of --dot, --mermaid, --svg FILE, --json")
    if svg is not None:
        render.check_file(svg, "--svg")
    from qemu_esd import api

    seen = run(api.graph_guest(vm), "asking the hosts")
    if as_json:
        render.show_json(dataclasses.asdict(seen))
        return
    from qemu_esd.cli import graph_svg, graph_text, render_graph

    if svg is not None:
        render.write_file(svg, graph_svg.svg(seen))
    elif as_dot or as_mermaid:
        render.show(graph_text.dot(seen) if as_dot else graph_text.mermaid(seen))
    else:
        render.show(render_graph.picture(seen))
