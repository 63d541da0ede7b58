"""`simulate` against the oracle, over all that it takes: clusters, conversations, closed loops, memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.support.engine_scenarios import QUIET, Scenario, agree, scenarios

# Who goes where depends on what is in memory in mid-leap: that is hard to come by at random.
where_memory_is = scenarios(paged=True, routing="prefix-affinity")


@settings(max_examples=300, **QUIET)
@given(scenarios())
def test_two_programs_agree(scenario: Scenario):
    agree(scenario)


@settings(max_examples=150, **QUIET)
@given(where_memory_is)
def test_two_programs_agree_on_who_goes_where_memory_is(scenario: Scenario):
    agree(scenario)


@pytest.mark.slow
@settings(max_examples=6_000, **QUIET)
@given(scenarios())
def test_two_programs_agree_many(scenario: Scenario):
    agree(scenario)


@pytest.mark.slow
@settings(max_examples=6_000, **QUIET)
@given(where_memory_is)
def test_two_programs_agree_on_who_goes_where_memory_is_many(scenario: Scenario):
    agree(scenario)
