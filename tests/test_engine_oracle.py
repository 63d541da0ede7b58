"""`simulate` against the oracle, over all that it takes: clusters, conversations, closed loops, memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.engine_scenarios import QUIET, Scenario, agree, scenarios


@settings(max_examples=300, **QUIET)
@given(scenarios())
def test_two_programs_agree(scenario: Scenario):
    agree(scenario)


@pytest.mark.slow
@settings(max_examples=6_000, **QUIET)
@given(scenarios())
def test_two_programs_agree_many(scenario: Scenario):
    agree(scenario)
