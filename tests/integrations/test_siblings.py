"""Rollouts whose threads are rows of their own: put together, scored once, and shared out again."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ConfigError, Protocol, Reader, score_batch
from simulator.integrations import Scorer, slime
from simulator.integrations.siblings import Row, score_rows

SCORER = Scorer(protocol=Protocol(capacity=3))
MAIN = "so <FORK-1>q</FORK-1><FORK-2>r</FORK-2><JOIN-1>9</JOIN-1><JOIN-2>8</JOIN-2><ANSWER>17</ANSWER>"
FIRST, SECOND = "thinking about it <RETURN>9</RETURN>", "short <RETURN>8</RETURN>"
ALONE = "<ANSWER>17</ANSWER>"
WHOLE = SCORER.score([MAIN], None, [{"1": FIRST, "2": SECOND}], ["17"]).total[0]


def rows(rollout=0):
    return [
        Row(MAIN, truth="17", rollout=rollout, thread="organizer"),
        Row(FIRST, truth="17", rollout=rollout, thread="1"),
        Row(SECOND, rollout=rollout, thread="2"),
    ]


def test_a_rollout_of_three_rows_is_scored_once():
    found = score_rows(SCORER, rows())
    assert found.rewards == [WHOLE] * 3 and found.rollouts == [0, 0, 0] and len(found.batch) == 1
    assert found.batch.workers.tolist() == [2] and found.batch.violations["forged_join"].tolist() == [0]


@given(st.permutations([*rows("a"), *rows("b"), Row(ALONE, truth="17"), Row(ALONE, truth="8")]))
def test_rows_may_come_in_any_order(given_rows):
    found = score_rows(SCORER, given_rows)
    for row, reward, rollout in zip(given_rows, found.rewards, found.rollouts, strict=True):
        assert reward == found.batch.total[rollout]
        assert reward == (WHOLE if row.rollout else SCORER.score([ALONE], None, None, [row.truth]).total[0])
    assert len(found.batch) == 4 and sorted(set(found.rollouts)) == [0, 1, 2, 3]


def test_shares_go_by_tokens_and_add_up():
    found = score_rows(SCORER, [*rows("a"), *rows("b")], share="tokens")
    sizes = [(len(text) + 3) // 4 for text in (MAIN, FIRST, SECOND)]
    assert found.rewards[:3] == pytest.approx([WHOLE * size / sum(sizes) for size in sizes])
    assert sum(found.rewards[3:]) == pytest.approx(WHOLE)
    assert sum(score_rows(SCORER, [Row(""), Row(None)], share="tokens").rewards) == -2.0
    with pytest.raises(ConfigError, match="share must be"):
        score_rows(SCORER, [], share="words")


@pytest.mark.parametrize(
    "wrong",
    [
        rows()[1:],  # no organizer
        [*rows(), rows()[0]],  # two
        [*rows(), rows()[1]],  # a worker twice
    ],
)
def test_what_is_no_rollout_fails_in_its_rows_alone(wrong):
    found = score_rows(SCORER, [*wrong, Row(ALONE, truth="17")])
    assert found.rewards[:-1] == [-1.0] * len(wrong) and found.rewards[-1] > 1
    assert found.batch.failed.tolist() == [True, False]
    assert found.batch.reason[0].startswith("a rollout has one row of the organizer and one of each worker")


def test_token_ids_and_masks_go_along():
    reader = Reader(decode=lambda ids: bytes(ids).decode(errors="replace"))
    scorer = Scorer(protocol=Protocol(capacity=3), reader=reader)
    ids = [list(text.encode()) for text in (MAIN, FIRST, SECOND)]
    made = [row._replace(text="gone", ids=each) for row, each in zip(rows(), ids, strict=True)]
    mask = [1] * len(ids[0])
    expected = score_batch(
        [{"text": ids[0], "workers": {"1": ids[1], "2": ids[2]}}],
        protocol=Protocol(capacity=3), reader=reader, outcomes=[True],
    )  # fmt: skip
    assert score_rows(scorer, made).rewards == expected.total.tolist() * 3
    made[0] = made[0]._replace(mask=mask)
    assert score_rows(scorer, made).batch.violations["forged_join"].tolist() == [2]


def sample(text, thread, rollout=5, **more):
    metadata = {"thread": thread} | ({"rollout": rollout} if rollout is not None else {})
    return SimpleNamespace(response=text, label="17", metadata=metadata, **more)


def test_slime_scores_siblings_together():
    group = [
        sample(MAIN, "organizer"),
        sample(FIRST, 1),
        sample(SECOND, "2"),
        SimpleNamespace(response=ALONE, label="17"),
    ]
    own = SCORER.score([ALONE], None, None, ["17"]).total[0]
    rewards = asyncio.run(slime.make_custom_rm(SCORER)(SimpleNamespace(reward_key=None), group))
    assert rewards == [WHOLE] * 3 + [own]
    parts = asyncio.run(slime.make_custom_rm(SCORER, share="tokens")(None, group))
    assert sum(parts[:3]) == pytest.approx(WHOLE) and parts[3] == own
    dicts = asyncio.run(slime.make_custom_rm(SCORER)(SimpleNamespace(reward_key="score"), group))
    assert [each["score"] for each in dicts] == rewards and dicts[1]["workers"] == 2.0
    indexed = [
        sample(MAIN, "organizer", None, index=3),
        sample(FIRST, "1", None, index=3),
        sample(SECOND, "2", None, index=3),
    ]
    assert asyncio.run(slime.custom_rm(None, indexed, scorer=SCORER)) == [WHOLE] * 3
    with pytest.raises(ConfigError, match="--group-rm"):
        asyncio.run(slime.custom_rm(None, sample(FIRST, "1"), scorer=SCORER))
    with pytest.raises(ConfigError, match="share must be"):
        slime.make_custom_rm(SCORER, share="words")
