"""The four read handlers, one small module each, and the one table that names them.

A handler module has:
`overlay_options(logical_block)`: qcow2 creation options of the member on the target;
`nodes_of(suid, member, link, size)`: the nodes below the guest's disk, in the order in which they are opened;
`top(suid)`: the node that the guest's disk is on;
`READ_ERRORS`: QEMU's rerror for the guest's disk, where only one will do; None: as the user wants it.
"""

from __future__ import annotations

from types import ModuleType

from qemu_esd.graph.handlers import background, miss, on_demand, redirect
from qemu_esd.model.policy import Handler

HANDLERS: dict[Handler, ModuleType] = {
    Handler.MISS: miss,
    Handler.REDIRECT: redirect,
    Handler.BACKGROUND: background,
    Handler.ON_DEMAND: on_demand,
}
