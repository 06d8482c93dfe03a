import numpy as np
import pyarrow as pa
import pytest

from refit import texts as module
from refit.texts import Texts, hash_texts


def number(*texts: str) -> Texts:
    array = pa.array(texts, pa.string())
    return Texts(array, hash_texts(array))


def test_texts_have_numbers_as_in_a_dictionary():
    rng = np.random.default_rng(0)
    known = list(dict.fromkeys(f"item-{n}" for n in rng.integers(0, 10**6, 5000)))
    texts, expected = number(*known), {text: i for i, text in enumerate(known)}
    assert texts == expected
    assert list(texts) == list(texts.texts) == known
    for unknown in ("item-", "", "item--1", "ö"):
        assert unknown not in texts
        assert texts.get(unknown, -1) == -1
        with pytest.raises(KeyError):
            texts[unknown]
    assert texts.texts[3:6] == known[3:6]
    assert texts.texts[np.int64(7)] == known[7]
    with pytest.raises(IndexError):
        texts.texts[len(known)]


def test_the_first_texts_are_found_alone():
    texts = number("a", "b", "c").first(2)
    assert (len(texts), texts.find("b"), texts.find("c"), list(texts.texts)) == (
        2,
        1,
        None,
        ["a", "b"],
    )


def test_any_text_may_be_asked_for():
    texts = number("", "ö", "日本", "\x00")
    assert [texts.find(text) for text in ("", "ö", "日本", "\x00", "\ud800", "\x00\x00")] == [
        *range(4),
        None,
        None,
    ]
    assert number().find("a") is None
    part = pa.array(["x", "y", "z"])[1:]
    assert Texts(part, hash_texts(part)) == {"y": 0, "z": 1}


def test_texts_of_one_checksum_are_told_apart(monkeypatch):
    class Same:
        @staticmethod
        def crc32(text: bytes) -> int:
            return 5

    monkeypatch.setattr(module, "zlib", Same)
    known = [f"t{n}" for n in range(50)]
    assert number(*known) == {text: i for i, text in enumerate(known)}
    assert number(*known).find("t50") is None
