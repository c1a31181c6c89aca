"""key=value strings: what QEMU reads in them, and that nothing is lost on the way there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_esd.hypervisors.cmdline.keyval import Arguments, join, keyval, nested, parse

KEYS = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
PAIRS = st.lists(st.tuples(KEYS, TEXTS)).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(PAIRS, st.none() | KEYS)
def test_what_is_written_is_read_again(pairs: tuple[tuple[str, str], ...], implied: str | None) -> None:
    assert parse(join(pairs, implied), implied).pairs == pairs


@given(st.tuples(st.just("driver"), TEXTS), PAIRS)
def test_the_key_that_may_be_left_out_loses_nothing(first: tuple[str, str], rest: tuple[tuple[str, str], ...]) -> None:
    assert parse(join((first, *rest), "driver"), "driver").pairs == (first, *rest)


@given(st.dictionaries(TEXTS, JSON))
def test_json_is_read_again(value: dict[str, object]) -> None:
    written = Arguments(tuple(value.items()), "driver", is_json=True).text()  # type: ignore[arg-type]
    assert dict(parse(written, "driver").pairs) == value


@pytest.mark.parametrize(
    ("text", "implied", "pairs"),
    [
        ("virtio-blk-pci,drive=d", "driver", (("driver", "virtio-blk-pci"), ("drive", "d"))),
        ("driver=nvme,serial=a,,b=c", "driver", (("driver", "nvme"), ("serial", "a,b=c"))),
        ("file=/a,,b.raw,if=none", None, (("file", "/a,b.raw"), ("if", "none"))),
        ("a,,b,c=d", "guest", (("guest", "a,b"), ("c", "d"))),
        ("readonly,nowait,x=", None, (("readonly", "on"), ("wait", "off"), ("x", ""))),
        ("unix:/q,server,nowait", "path", (("path", "unix:/q"), ("server", "on"), ("wait", "off"))),
        ("a=b,", None, (("a", "b"),)),
        ("a=,,,,b", None, (("a", ",,b"),)),
        ("", "driver", ()),
    ],
)
def test_what_qemu_reads(text: str, implied: str | None, pairs: tuple[tuple[str, str], ...]) -> None:
    assert parse(text, implied).pairs == pairs


def test_the_last_of_two_equal_keys_counts() -> None:
    assert parse("a=1,a=2").get("a") == "2"


def test_both_forms_answer_alike() -> None:
    flat = parse("qcow2,file.driver=file,file.filename=/x,read-only=on,cache.direct=off", "driver")
    text = '{"driver":"qcow2","file":{"driver":"file","filename":"/x"},"read-only":true,"cache":{"direct":false}}'
    tree = parse(text, "driver")
    assert flat.leaves() == tree.leaves()
    assert flat.get("file.filename") == tree.get("file.filename") == "/x"
    assert flat.is_on("read-only") and tree.is_on("read-only") and not tree.is_on("cache.direct", True)


def test_a_change_stays_in_its_place_and_form() -> None:
    flat = parse("nvme,drive=a,id=x", "driver").with_value("drive", "b,c").with_value("serial", "s")
    assert flat.text() == "nvme,drive=b,,c,id=x,serial=s"
    tree = parse('{"drive": "a", "id": "x"}').with_value("drive", "b").without("id")
    assert tree.text() == '{"drive": "b"}'


def test_nested_and_keyval() -> None:
    assert nested((("a.b.c", "1"), ("a.d", "2"))) == {"a": {"b": {"c": "1"}, "d": "2"}}
    assert keyval({"backend": "socket", "path": None, "id": "a,b"}, "backend") == "socket,id=a,,b"


@pytest.mark.parametrize("text", ["{", "{'driver': 'raw'}", '{"a": 1'])
def test_broken_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expect|quotes"):
        parse(text)
