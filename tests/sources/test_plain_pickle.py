"""Pickles crafted to take memory or time without end, to call, or to change the reader."""

import inspect
import pickle
import struct

import numpy as np
import pytest

from s11_fastai.sources import plain_pickle
from s11_fastai.sources.plain_pickle import PlainArray, load_plain

ENCODE, TEXT = b"c_codecs\nencode\n", b"X\x01\x00\x00\x00a"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
BYTE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"


def pickled(*instructions: bytes) -> bytes:
    return b"\x80\x02" + b"".join(instructions) + b"."


def nested(depth: int = 30) -> bytes:
    """A list of 40 references to a list of 40 references, and so on: a line that never ends."""
    levels = [b"]q" + bytes([i + 1]) + b"(" + 40 * (b"h" + bytes([i])) + b"e" for i in range(depth)]
    return b"]q\x00" + b"".join(levels)


def large_texts() -> bytes:
    text = b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000
    once = b"h\x00h\x01\x85R"
    return pickled(b"](", ENCODE, b"q\x00", text, b"q\x01", 1000 * once, b"e")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pickled(b"}", b")", 100_000 * b"\x85", b"K\x01s"), "keys that are no text"),
        (pickled(b"}K\x01K\x01s"), "keys that are no text"),
        (pickled(300_000 * b"]"), "more than 200,000 instructions"),
        (bytes(plain_pickle.MAX_BYTES + 1), "more than 67,108,864 bytes"),
        (large_texts(), "unpacks to more than 67,108,864 bytes"),
        (pickled(b"\x8b", struct.pack("<i", 1000), bytes(1000)), "LONG4"),
        (pickled(b"L", b"9" * 10_000, b"L\n"), "limit"),
        (pickled(nested(), b"cnumpy\ndtype\nh\x1e\x85R"), "something else than bytes"),
        (pickled(nested(), ENCODE, TEXT, b"h\x1e\x86R"), "not written in latin1"),
        (pickled(nested(), b"h\x1eh\x1e\x93"), "a name that is no text"),
        (pickled(b"]", 100 * b"2", b"."), "uses DUP"),
        (pickled(b"\x82\x01"), "uses EXT1"),
        (pickled(b"Pabc\n"), "uses PERSID"),
        (pickled(b"cnumpy\nndarray\n)\x81"), "uses NEWOBJ"),
        (pickled(b"(inumpy\nndarray\n"), "uses INST"),
        (pickled(b"cos\nsystem\n"), "'os.system', which is not plain data"),
        (pickled(b"cos\n\x1b[2J\n"), r"os.\\x1b\[2J'"),
        (pickled(ENCODE, b"N}U\x0c__defaults__U\x03utfs\x86b"), "sets attributes"),
        (pickled(b"cnumpy\nndarray\nN}U\x05arrayK\x01s\x86b"), "sets attributes"),
        (pickled(b"]", b"}b"), "sets attributes"),
        (pickled(b"cnumpy\nndarray\n)R"), "calls something"),
        (pickled(b"K\x01K\x02a"), "no list"),
        (pickled(ARRAY, b"(K\x01K\xffK\xff\x86", BYTE, b"\x89U\x01xtb"), "cannot reshape"),
        (pickled(ARRAY, b"(K\x01J\xff\xff\xff\xff\x85", BYTE, b"\x89U\x01xtb"), "without a shape"),
        (pickled(ARRAY, b"(K\x01]", BYTE, b"\x89U\x01xtb"), "without a shape"),
        (pickled(ARRAY, b"(K\x01K\x01\x85", BYTE, b"\x89Ntb"), "something else than bytes"),
        (pickled(b"e"), "unreadable"),
        (pickled(b"\x85"), "a value is missing"),
        (pickled(b"h\x01"), "unreadable"),
        (b"\x80\x02K\x01", "unreadable"),
        (b"", "unreadable"),
    ],
)
def test_what_is_no_plain_data_is_refused_in_short_printable_words(data, says):
    with pytest.raises(ValueError, match=says) as error:
        load_plain(data)
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()


def test_an_array_whose_contents_never_come_has_none():
    assert load_plain(pickled(ARRAY)).array is None


def test_lists_that_hold_each_other_cost_nothing():
    value = load_plain(pickled(nested()))
    for _ in range(30):
        assert len(value) == 40
        value = value[0]
    assert value == []


def test_a_memo_takes_the_room_of_its_entries():
    """As an array, like Python's own, it would take 64 GiB."""
    assert load_plain(b"\x80\x02Nr\xff\xff\xff\xff.") is None


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_arrays_and_bytes_are_read_in_every_protocol(protocol):
    array = np.arange(120, dtype=np.uint8).reshape(2, 60)
    value = {"a": array, "b": (b"x", [1, -2, 3.5, None, True]), "n": 2**100}
    found = load_plain(pickle.dumps(value, protocol=protocol))
    assert isinstance(found["a"], PlainArray)
    np.testing.assert_array_equal(found["a"].array, array)
    assert (found["b"], found["n"]) == (value["b"], value["n"])


def test_the_reader_is_as_it_was_after_all_of_this():
    """It has no object that a pickle could be given: what it keeps are constants."""
    kept = {name: value for name, value in vars(plain_pickle).items() if isinstance(value, dict)}
    before = {name: dict(value) for name, value in kept.items()}
    for end in (b"b", b"u", b"s", b"e", b"a", b"R"):
        for each in (ENCODE, ARRAY, BYTE, b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"):
            with pytest.raises(ValueError, match="unreadable"):
                load_plain(pickled(each, b"(U\x01a}", end, each, b"}U\x01aU\x01bs", end))
    assert kept == before
    given = inspect.signature(load_plain).parameters
    assert {name: type(each.default) for name, each in given.items() if name != "data"} == {
        "max_bytes": int,
        "max_instructions": int,
    }
