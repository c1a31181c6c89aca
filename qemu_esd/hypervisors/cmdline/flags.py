"""The options of qemu-system-x86_64 by what follows them. Source: qemu-options.hx of QEMU 7.2 and 10.1."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Entries without HAS_ARG.
ALONE = _words("""
    S async-teardown audio-help daemonize enable-kvm enable-sync-profile full-screen h help jitdump
    mem-prealloc no-acpi no-fd-bootchk no-hpet no-reboot no-shutdown no-user-config nodefaults nographic
    old-param only-migratable perfmap portrait preconfig s semihosting singlestep snapshot usb version
    win2k-hack xen-attach xen-domid-restrict
""")

# Entries with HAS_ARG: they take the next word whatever it looks like.
WITH_VALUE = _words("""
    D L M accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev chroot compat
    cpu d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda
    hdb hdc hdd icount incoming initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock
    name net netdev nic numa object option-rom overcommit parallel pflash pidfile plugin prom-env qmp
    qmp-pretty qtest qtest-log readconfig rotate rtc run-with runas sandbox sd seed semihosting-config
    serial set shim smbios smp spice tb-size tpmdev trace usbdevice uuid vga virtfs vnc watchdog
    watchdog-action xen-domid
""")

# The key that the first value may leave out (`.implied_opt_name`, or the argument of keyval_parse).
IMPLIED = {
    "M": "type",
    "accel": "accel",
    "acpitable": "data",
    "audio": "driver",
    "audiodev": "driver",
    "blockdev": "driver",
    "boot": "order",
    "chardev": "backend",
    "device": "driver",
    "display": "type",
    "fsdev": "fsdriver",
    "fw_cfg": "name",
    "icount": "shift",
    "m": "size",
    "machine": "type",
    "mon": "chardev",
    "name": "guest",
    "net": "type",
    "netdev": "type",
    "nic": "type",
    "numa": "type",
    "object": "qom-type",
    "option-rom": "romfile",
    "plugin": "file",
    "sandbox": "enable",
    "smp": "cpus",
    "tpmdev": "type",
    "trace": "enable",
    "virtfs": "fsdriver",
    "vnc": "vnc",
}
