"""Token counters, and how they are named."""

import builtins
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import ConfigError
from simulator.formats import parse
from simulator.trace.tokens import APPROXIMATE, COUNTERS, by_characters, by_words, counter_name, load_tokenizer

anything = st.text(st.characters())


@pytest.mark.parametrize(
    ("text", "characters", "words"),
    [
        ("", 0, 0),
        ("a", 1, 1),
        ("abcd", 1, 1),
        ("abcde", 2, 1),
        (" \n\t ", 1, 0),
        ("two words", 3, 2),
        ("  many   spaces\nand lines ", 7, 4),
        ("五个汉字啊", 2, 1),
        ("\ud800", 1, 1),
    ],
)
def test_by_hand(text, characters, words):
    assert (by_characters(text), by_words(text)) == (characters, words)


@given(anything)
def test_characters_are_a_quarter_rounded_up(text):
    assert 4 * by_characters(text) - 3 <= len(text) <= 4 * by_characters(text)


@given(st.lists(anything, max_size=8))
def test_pieces_count_at_least_what_the_whole_does(pieces):
    """A counter sees the pieces between tags: cutting makes no fewer tokens, and at most one more a piece."""
    whole = "".join(pieces)
    apart = sum(map(by_characters, pieces))
    assert by_characters(whole) <= apart <= by_characters(whole) + len(pieces)
    assert by_words(whole) <= sum(map(by_words, pieces))


@pytest.mark.parametrize("name", COUNTERS)
def test_counters_are_named_and_count_nothing_for_nothing(name):
    assert counter_name(COUNTERS[name]) == name
    assert COUNTERS[name]("") == 0
    assert COUNTERS[name]("x") == 1
    assert parse("two words", count=COUNTERS[name]).token_source == name


def test_the_default_is_said_to_be_an_approximation():
    assert COUNTERS[APPROXIMATE] is by_characters
    assert parse("x").token_source == APPROXIMATE


class Counter:
    """A counter without a name, and without a hash."""

    __hash__ = None

    def __call__(self, text):
        return len(text)


def named(text):
    return len(text)


def test_callers_counters_are_named_as_well_as_can_be():
    assert counter_name(named) == "named"
    assert counter_name(len) == "len"
    assert counter_name(Counter()) == "caller's counter"
    with_source = Counter()
    with_source.token_source = "our tokenizer"
    assert counter_name(with_source) == "our tokenizer"


# ---------------------------------------------------------------- tokenizer.json


def test_without_the_extra_it_says_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(tmp_path / "tokenizer.json")
    assert str(caught.value) == "counting with a tokenizer.json needs: pip install 'forksim[tokenizers]'"


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer of whole words, with a token that it puts in front of every text."""
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    vocabulary = {"[UNK]": 0, "[BOS]": 1, "fork": 2, "join": 3}
    bos = {"id": "[BOS]", "ids": [1], "tokens": ["[BOS]"]}
    path.write_text(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "pre_tokenizer": {"type": "WhitespaceSplit"},
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [
                        {"SpecialToken": {"id": "[BOS]", "type_id": 0}},
                        {"Sequence": {"id": "A", "type_id": 0}},
                    ],
                    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                    "special_tokens": {"[BOS]": bos},
                },
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
            }
        ),
        encoding="utf-8",
    )
    return path


def test_a_tokenizer_counts_its_tokens_without_special_ones(tokenizer):
    count = load_tokenizer(tokenizer)
    assert [count(text) for text in ("", "fork", "fork join other", "  ")] == [0, 1, 3, 0]
    assert counter_name(count) == "tokenizer:tokenizer.json"
    trace = parse("fork join <FORK-1>join</FORK-1>", count=count)
    assert (trace.tokens, trace.token_source) == (3, "tokenizer:tokenizer.json")


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", "\0\1\2"])
def test_what_is_no_tokenizer(tmp_path, content):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"not a readable tokenizer\.json") as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_tokenizer(tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_surrogates_do_not_stop_a_tokenizer(tokenizer):
    assert load_tokenizer(tokenizer)("fork \ud800") >= 1
