"""background: as on-demand, and everything else is moved while the guest runs.

guest disk → copy-on-read → overlay (qcow2) → NBD → source
                 ↑
mirror job ──────┘ reads everything through the filter into a sink that keeps nothing
"""

from __future__ import annotations

from qemu_esd.graph.handlers.on_demand import READ_ERRORS, nodes_of, overlay_options, top

__all__ = ["READ_ERRORS", "nodes_of", "overlay_options", "top"]
