"""The files that make a lab host somebody: what lies over its /etc, in its home, and on the machine for us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from qemu_esd.hosts.lab import libvirt
from qemu_esd.hosts.lab.init import DISK_FOLDERS
from qemu_esd.hosts.lab.net import SWITCH_ADDRESS
from qemu_esd.hosts.lab.state import Lab, LabHost, write_file

_HOME = DISK_FOLDERS["home"]
_DISK_MODES = {"tmp": 0o1777, "var-tmp": 0o1777, "state": 0o700, "home": 0o700}
# Everything is said, nothing included: the machine's own sshd configuration must not matter.
_SSHD_CONFIG = """\
ListenAddress 0.0.0.0:22
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile none
PermitRootLogin prohibit-password
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
MaxSessions 100
MaxStartups 100
PrintLastLog no
PrintMotd no
Subsystem sftp internal-sftp
"""

EtcFiles = dict[str, tuple[int, str]]


def disk_folders(lab: Lab) -> Mapping[str, str]:
    """Folder of each host below its data folder on the machine → where the host sees it."""
    return DISK_FOLDERS | libvirt.FOLDERS if lab.libvirt else DISK_FOLDERS


def etc_files(host: LabHost, lab: Lab) -> EtcFiles:
    """Path below /etc → (mode, content)."""
    users = [f"root:x:0:0:root:{_HOME}:/bin/bash", *([libvirt.PASSWD] if lab.libvirt else [])]
    groups = [libvirt.GROUP] if lab.libvirt else []
    return {
        "hostname": (0o644, host.name + "\n"),
        "machine-id": (0o444, host.machine_id + "\n"),
        "passwd": (0o644, _with_lines(Path("/etc/passwd"), users)),
        "group": (0o644, _with_lines(Path("/etc/group"), groups)),
        # "*": no password, but not locked; without PAM sshd turns a locked account away.
        "shadow": (0o600, _with_lines(Path("/etc/shadow"), ["root:*:19000:0:99999:7:::"])),
        "ssh/sshd_config": (0o600, _SSHD_CONFIG),
        "ssh/ssh_host_ed25519_key": (0o600, _host_key(host).read_text()),
        "ssh/ssh_host_ed25519_key.pub": (0o644, _public(_host_key(host))),
        **shared_etc_files(lab.hosts),
    }


def shared_etc_files(hosts: Sequence[LabHost]) -> EtcFiles:
    """The part that tells each host of all of them."""
    return {"hosts": (0o644, _hosts_file(hosts)), "ssh/ssh_known_hosts": (0o644, _known_hosts(hosts))}


def make_folders(host: LabHost, lab: Lab) -> None:
    """The host's folders on the machine; those that are there stay as they are."""
    host.folder.mkdir(mode=0o700, exist_ok=True)
    host.data.mkdir(mode=0o700, exist_ok=True)
    for name in disk_folders(lab):
        folder = host.data / name
        folder.mkdir(exist_ok=True)
        folder.chmod(_DISK_MODES.get(name, 0o755))


def write_keys(root: Path, hosts: Iterable[LabHost]) -> None:
    """Make what is missing of: the key that opens every host, and each host's own key; and tell who is who."""
    for name, key in (("the lab's user", root / "id_ed25519"), *((host.name, _host_key(host)) for host in hosts)):
        if not key.exists():
            _make_key(key, name)


def write_known_hosts(root: Path, hosts: Sequence[LabHost]) -> None:
    write_file(root / "known_hosts", _known_hosts(hosts))


def write_home(host: LabHost) -> None:
    """~/.ssh of the host's root: the lab's key goes in, and out to the other hosts."""
    ssh = host.data / "home/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    key = host.root / "id_ed25519"
    write_file(ssh / "id_ed25519", key.read_text())
    # A host that is started again keeps what others have been allowed since, as a real one does.
    allowed = ssh / "authorized_keys"
    others = allowed.read_text().splitlines() if allowed.exists() else []
    write_file(allowed, "".join(f"{line}\n" for line in dict.fromkeys((_public(key).strip(), *others))))


def tell_of_others(host: LabHost, hosts: Sequence[LabHost]) -> None:
    """Give a running host the present list of hosts."""
    assert host.init is not None
    for name, (mode, content) in shared_etc_files(hosts).items():
        write_file(Path(f"/proc/{host.init.pid}/root/etc", name), content, mode)


def _with_lines(machine_file: Path, lines: Sequence[str]) -> str:
    """The machine's file, in which each of `lines` stands first, instead of one that begins with the same name."""
    names = {line.split(":")[0] for line in lines}
    others = [each for each in machine_file.read_text().splitlines() if each.split(":")[0] not in names]
    return "\n".join([*lines, *others]) + "\n"


def _hosts_file(hosts: Sequence[LabHost]) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"{SWITCH_ADDRESS} controller"]
    return "\n".join([*lines, *(f"{host.address} {host.name}" for host in hosts)]) + "\n"


def _known_hosts(hosts: Sequence[LabHost]) -> str:
    return "".join(f"{host.name},{host.address} {_public(_host_key(host))}" for host in hosts)


def _host_key(host: LabHost) -> Path:
    return host.folder / "ssh_host_ed25519_key"


def _public(key: Path) -> str:
    return key.with_name(key.name + ".pub").read_text()


def _make_key(path: Path, comment: str) -> None:
    from qemu_esd.hosts.sshlib import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519", comment=comment)
    # The public part first: where the private one is, nothing is missing.
    write_file(path.with_name(path.name + ".pub"), key.export_public_key().decode())
    write_file(path, key.export_private_key().decode())
