"""Where one migration's things are: units, sockets, keys. Derived from the plan, so a crash leaves no riddle."""

from __future__ import annotations

from dataclasses import replace

from qemu_esd.graph import names
from qemu_esd.graph.path_handler import observer
from qemu_esd.model.disk import Endpoint, PlainTcp, TlsTcp, UnixPath
from qemu_esd.model.host import GuestSockets, HostPaths, guest_sockets, vm_key
from qemu_esd.model.plan import Plan, Site, Transport
from qemu_esd.model.record import LinkMember
from qemu_esd.model.resource import Unit

# The units of a link, by the first word of their names; the rest is the migration. Each needs none that come after it.
LINK_UNITS = ("path", "tunnel", "relay", "watch")


def path_handler_name(migration: str) -> str:
    return f"path-{migration}"


def guest_unit_name(vm: str) -> str:
    return f"vm-{vm_key(vm)}"


def watch_name(migration: str) -> str:
    return f"watch-{migration}"


def tunnel_name(migration: str) -> str:
    return f"tunnel-{migration}"


def path_handler(plan: Plan) -> Unit:
    return Unit(plan.source.host, path_handler_name(plan.id))


def guest_unit(plan: Plan) -> Unit:
    return Unit(plan.target.host, guest_unit_name(plan.vm))


def watch(plan: Plan) -> Unit:
    return Unit(plan.target.host, watch_name(plan.id))


def relay_name(migration: str) -> str:
    return f"relay-{migration}"


def relay(plan: Plan) -> Unit:
    return Unit(plan.target.host, relay_name(plan.id))


def relay_monitor(paths: HostPaths, migration: str) -> str:
    """Of the target's host."""
    return f"{paths.link_run(migration)}/relay.sock"


def relay_observer(paths: HostPaths, migration: str) -> str:
    """And one for whoever only looks."""
    return observer(relay_monitor(paths, migration))


def relay_socket(paths: HostPaths, migration: str) -> str:
    """Where the domain's QEMU reads, on the target's host."""
    return f"{paths.guest_run(migration)}/nbd.sock"


def tunnel(plan: Plan) -> Unit:
    return Unit(plan.target.host, tunnel_name(plan.id))


def key_dir(site: Site, migration: str) -> str:
    """The folder of keys.psk: the link folder itself."""
    return site.paths.link_state(migration)


def source_socket(plan: Plan) -> str:
    """The NBD server of the source QEMU, for the path handler. A QEMU has one: ours, where the guest has come to."""
    if plan.guest.upstream:
        here = plan.source.paths
        ours = guest_sockets(here, plan.vm).nbd
        return ours if plan.domain is None else windows_of_domain(here, plan.guest.migration or "")
    return f"{_qemus_folder(plan, plan.source)}/source.sock"


def windows_of_domain(paths: HostPaths, migration: str) -> str:
    """The NBD server of a domain that came by that migration."""
    return f"{paths.guest_run(migration)}/windows.sock"


def ram_socket(plan: Plan, site: Site) -> str:
    """The end of the tunnel on one host that the guest's memory goes through."""
    return f"{_qemus_folder(plan, site)}/ram.sock"


def _qemus_folder(plan: Plan, site: Site) -> str:
    """Where the guest's QEMU may make sockets."""
    return site.paths.link_run(plan.id) if plan.domain is None else site.paths.guest_run(plan.id)


def handler_monitor(plan: Plan) -> str:
    return handler_socket(plan.source.paths, plan.id)


def handler_socket(paths: HostPaths, migration: str) -> str:
    """The monitor of a path handler, on its host."""
    return f"{paths.link_run(migration)}/control.sock"


def observer_socket(paths: HostPaths, migration: str) -> str:
    """The monitor of a path handler for whoever only looks."""
    return observer(handler_socket(paths, migration))


def handler_listen(plan: Plan) -> Endpoint:
    """Where the path handler listens, as seen on the source: one address, never all of them."""
    match plan.transport:
        case Transport.TLS:
            return TlsTcp(plan.source.address, plan.nbd_port, key_dir(plan.source, plan.id))
        case Transport.PLAINTEXT:
            return PlainTcp(plan.source.address, plan.nbd_port)
        case Transport.SSH:
            return UnixPath(f"{plan.source.paths.link_run(plan.id)}/nbd.sock")


def target_sockets(plan: Plan) -> GuestSockets:
    return guest_sockets(plan.target.paths, plan.vm)


def target_monitor(plan: Plan) -> str:
    """A domain is found by its name on any host."""
    return target_sockets(plan).control if plan.domain is None else plan.guest.monitor


def credentials(plan: Plan) -> str:
    return names.credentials(plan.id)


def members(plan: Plan) -> tuple[LinkMember, ...]:
    """What the path handler of this migration serves while the source QEMU runs: to read only."""
    return tuple(LinkMember(disk.disk.suid, disk.disk.chain, disk.export, disk.disk.size) for disk in plan.disks)


def taken_members(plan: Plan) -> tuple[LinkMember, ...]:
    """What it serves once it holds the images: a disk without local space is written here."""
    return tuple(
        replace(member, writable=disk.member is None) for member, disk in zip(members(plan), plan.disks, strict=True)
    )
