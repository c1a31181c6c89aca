"""Guests as users describe them: --disk, --nic, names, TOML."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.errors import UsageError
from qemu_esd.hypervisors.cmdline.disk_spec import GuestDisk, disks_from
from qemu_esd.hypervisors.cmdline.spec import (
    GuestSpec,
    Nic,
    check_name,
    check_spec,
    parse_nic,
    spec_from_toml,
)

PATHS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1)


def test_the_suffix_says_the_format_and_the_bus_the_id() -> None:
    disks = disks_from(["/i/a.raw", "/i/b.IMG,bus=scsi", "/i/c.qcow2,bus=nvme", "/i/d.qcow2", "/i/e.raw,bus=ide"])
    assert [(disk.id, disk.format, disk.node) for disk in disks] == [
        ("vda", "raw", "vda"),
        ("sda", "raw", "sda"),
        ("nvme0", "qcow2", "nvme0"),
        ("vdb", "qcow2", "vdb"),
        ("hda", "raw", "hda"),
    ]


def test_all_words_of_a_disk() -> None:
    text = (
        "/i/x,bus=scsi,format=qcow2,id=root,serial=a,,b,wwn=0x5000c500,cache=writethrough,block=4096,readonly,"
        "discard=ignore,node=n1"
    )
    assert disks_from([text]) == (
        GuestDisk(
            id="root",
            path="/i/x",
            format="qcow2",
            bus="scsi",
            node="n1",
            serial="a,b",
            wwn="0x5000c500",
            logical_block_size=4096,
            cache="writethrough",
            read_only=True,
            discard="ignore",
        ),
    )


def test_an_id_that_somebody_gave_is_not_given_again() -> None:
    assert [disk.id for disk in disks_from(["/a.raw", "/b.raw,id=vda", "/c.raw"])] == ["vdb", "vda", "vdc"]


@given(PATHS)
def test_any_printable_path_arrives_whole(path: str) -> None:
    """Commas are doubled by the user, everything else is written as it is."""
    (disk,) = disks_from([f"file={path.replace(',', ',,')},format=raw"])
    assert disk.path == path


@pytest.mark.parametrize(
    "path", ["/a b.raw", "-x.raw", "../y.raw", "$(id).raw", "a=b.raw", 'it\'s "q".raw', "a,,b.raw"]
)
def test_odd_paths_stay_as_they_are(path: str) -> None:
    (disk,) = disks_from([path])
    assert disk.path == path.replace(",,", ",")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["/a"], "does not say the format"),
        (["/a.vmdk"], "does not say the format"),
        (["/a.raw,seriel=1"], "unknown word 'seriel'"),
        (["/a.raw,bus=virtuo"], "bus cannot be 'virtuo'"),
        (["/a.raw,format=vmdk"], "format cannot be 'vmdk'"),
        (["/a.raw,block=1024"], "block cannot be '1024'"),
        (["/a.raw,id=1a"], "letter first"),
        (["/a.raw,id=" + "a" * 32], "at most 31"),
        (["/a.raw,id=esd-scsi"], "are ours"),
        (["/a.raw,node=a/b"], "node 'a/b'"),
        (["/a.raw,serial=123456789012345678901"], "1 to 20"),
        (["/a.raw,serial="], "1 to 20"),
        (["/a.raw,serial=é"], "printable ASCII"),
        (["/a.raw,bus=scsi,serial=" + "x" * 37], "1 to 36"),
        (["/a.raw,wwn=0x5000"], "only scsi and ide"),
        (["/a.raw,bus=scsi,wwn=5000"], "wwn is 0x"),
        (["/a.raw,bus=ide,block=4096"], "blocks of 512"),
        (["/a.raw,bus=ide,readonly"], "ide disk is writable"),
        (["/a\nb.raw"], "line break"),
        (["/a\0b.raw"], "control character"),
        ([",format=raw"], "path is empty"),
        (["/a.raw,id=x", "/b.raw,id=x"], "two disks have the id 'x'"),
        (["/a.raw,node=x", "/b.raw,node=x"], "two disks have the node 'x'"),
        ([f"/{n}.raw,bus=ide" for n in range(7)], "more than 6 ide"),
    ],
)
def test_wrong_disks_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        disks_from(texts)
    assert said in caught.value.what


def test_the_nearest_word_is_suggested() -> None:
    with pytest.raises(UsageError) as caught:
        disks_from(["/a.raw,seriel=1"])
    assert caught.value.hint == "did you mean 'serial'?"


@pytest.mark.parametrize("name", ["vm1", "my vm", "grüße", "a" * 64, "a.b-c", "$(id)", 'it\'s, "me"'])
def test_names_of_guests(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "a" * 65, "-x", ".hidden", "../x", "a/b", "a\nb", "a\0b", "\x1b[0m", "\ud800"])
def test_wrong_names_of_guests(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "nic"),
    [
        ("none", None),
        ("user", Nic("user")),
        ("user,mac=52:54:00:12:34:56", Nic("user", mac="52:54:00:12:34:56")),
        ("tap,ifname=t,,0,script=no,model=e1000", Nic("tap,ifname=t,,0,script=no", "e1000")),
    ],
)
def test_network_cards(text: str, nic: Nic | None) -> None:
    assert parse_nic(text) == nic


@pytest.mark.parametrize("text", ["", "user,mac=1:2", "user,id=n0", "mac=52:54:00:12:34:56"])
def test_wrong_network_cards(text: str) -> None:
    with pytest.raises(UsageError, match="--nic"):
        parse_nic(text)


def test_a_guest_in_toml() -> None:
    spec = spec_from_toml("""
        name = "vm1"
        host = "hostA"
        uuid = "6f1b1b8e-62ad-4a50-8a26-3a3ba0b1a5f7"
        memory = "1G"
        smp = 2
        cpu = "max"
        machine = "q35"
        kernel = "/boot/vmlinuz"
        initrd = "/boot/initrd"
        append = "console=ttyS0 a,b"
        nic = ["user,mac=52:54:00:12:34:56", "none"]
        extra = ["-device", "virtio-rng-pci"]
        disk = ["/i/a.qcow2,serial=S", {file = "/i/b,c.raw", bus = "scsi", block = 4096, readonly = true}]
    """)
    assert spec == GuestSpec(
        name="vm1",
        host="hostA",
        uuid="6f1b1b8e-62ad-4a50-8a26-3a3ba0b1a5f7",
        memory=1 << 30,
        smp=2,
        cpu="max",
        machine="q35",
        kernel="/boot/vmlinuz",
        initrd="/boot/initrd",
        append="console=ttyS0 a,b",
        nics=(Nic("user", mac="52:54:00:12:34:56"),),
        extra=("-device", "virtio-rng-pci"),
        disks=(
            GuestDisk("vda", "/i/a.qcow2", "qcow2", node="vda", serial="S"),
            GuestDisk("sda", "/i/b,c.raw", "raw", "scsi", "sda", logical_block_size=4096, read_only=True),
        ),
    )


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("name = 'a'\nmemmory = '1G'", "unknown key 'memmory'", "did you mean 'memory'?"),
        ("smp = 1", "'name' is missing", None),
        ("name = 1", "name must be a text", None),
        ("name = 'a'\nsmp = '2'", "smp must be a number", None),
        ("name = 'a'\nmemory = 'much'", "'much' is not a size", "write it like 512M or 4G"),
        ("name = 'a'\nmemory = true", "memory must be a number", None),
        ("name = 'a'\ndisk = '/a.raw'", "disk must be a list", None),
        ("name = 'a'\ndisk = [{id = 'x'}]", "a disk has no 'file'", None),
        ("name = 'a'\ndisk = [{file = '/a.raw', id = ['x']}]", "disk: id must be", None),
        ("name = 'a'\ndisk = [{file = '/a.raw', bux = 'x'}]", "unknown word 'bux'", "did you mean 'bus'?"),
        ("name = 'a'\nsmp = 0", "at least one CPU", None),
        ("name = ", "not a TOML file", None),
        ("name = '../a'", "cannot be the name", None),
    ],
)
def test_wrong_toml_names_the_key(text: str, said: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        spec_from_toml(text)
    assert said in caught.value.what
    assert hint is None or caught.value.hint == hint


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("append", "quiet", "need a kernel"),
        ("initrd", "/i", "need a kernel"),
        ("machine", "pc", "not a q35"),
        ("uuid", "1-2", "not a UUID"),
        ("memory", 512, "512 bytes of memory are too few"),
        ("firmware", "/a\nb", "line break"),
        ("extra", ("-device", "a\0b"), "NUL"),
    ],
)
def test_words_that_do_not_go_together(field: str, value: object, said: str) -> None:
    spec = dataclasses.replace(GuestSpec("vm1"), **{field: value})  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        check_spec(spec)
    assert said in caught.value.what
