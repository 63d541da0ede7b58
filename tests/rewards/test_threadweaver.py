"""ThreadWeaver's reward equals its own code on any text, malformed or spaced, by token ids."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import make_reward, score_batch
from simulator.rewards import Reader
from tests.support.threadweaver_oracle import acceleration, longest_and_total

TAGS = {"<Parallel>": 1, "</Parallel>": 2, "<Thread>": 3, "</Thread>": 4}
IDS = {"(": 1, ")": 2, "[": 3, "]": 4, " ": 5, "o": 6, "p": 7, "c": 8, "d": 9}
OTHER = {"<Outlines>": 6, "</Outlines>": 7, "<Conclusion>": 8, "</Conclusion>": 9}
READERS = [
    Reader(format="threadweaver", tags=TAGS),
    Reader(format="threadweaver", tags=TAGS | OTHER, spaces=[5]),
]
REWARD = make_reward("threadweaver", factor=1.0, clip=None)

texts = st.text("([])[] abcdop", max_size=40)


def ids(text):
    return [IDS.get(character, 10 + ord(character)) for character in text]


def terms(text, reader):
    return score_batch([ids(text)], reward=REWARD, reader=reader, outcomes=[True]).terms["acceleration"][0]


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("ab([cde][f])g", 12),
        (
            "([aaa] [bbbbb]) ",
            3 + 2 * 2 + 1 + 5,
        ),  # a space between two threads comes after the other, and does not split
        ("([aaa]x[bbbbb]y[cc])", 2 + 6 + 2 + 5),
        ("([aaa[bb][c])", 2 + 3 + 1 + 6),  # a missing end: what follows is in the thread, up to the next end
        ("([aaa[bb)", 9),
        ("([a)(b])", 8),
        ("([aa][bbb", 1 + 3 + 3),  # the last has no end
        ("[a](b)[c]", 9),
        ("([a](b)[c])", 11),  # the inner block is text, and its end that of the block
        ("([a][bb]([ccc][d]))", 2 + 8 + 1 + 3 + 1),
        ("([a]][bb])", 1 + 5 + 2 + 1),
        ("", 0),
    ],
)
def test_by_hand(text, longest):
    assert longest_and_total(text) == (longest, len(text))
    for reader in READERS:
        assert terms(text, reader) == (pytest.approx(1 - longest / len(text)) if text else 0)


@given(text=texts)
def test_any_text(text):
    for reader in READERS:
        assert terms(text, reader) == pytest.approx(acceleration(text), abs=1e-12)


def test_ten_thousand_malformed_texts():
    draw = random.Random(12)
    made = []
    for _ in range(10_000):
        text = "".join(
            draw.choice(["so ", " "])
            + "("
            + "".join(
                "[" + "a" * draw.randrange(9) + "]" + draw.choice(["", "", " ", "x", "xy"])
                for _ in range(draw.randrange(5))
            )
            + ")"
            for _ in range(draw.randrange(4))
        )
        characters = list(text)
        for _ in range(draw.randrange(4)):
            if characters:
                at = draw.randrange(len(characters))
                characters[at : at + draw.randrange(2)] = draw.choice("([])o pcd")
        made.append("".join(characters))
    batch = score_batch([ids(text) for text in made], reward=REWARD, reader=READERS[1], outcomes=[True] * len(made))
    expected = [acceleration(text) for text in made]
    assert batch.terms["acceleration"].tolist() == pytest.approx(expected, abs=1e-12)
    assert sum(value > 0 for value in expected) > 2_000
