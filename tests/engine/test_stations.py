"""Handles that can be cancelled, and the station of Delays."""

from __future__ import annotations

from simulator import GPU, Answer, Cluster, Delay, Fork, Protocol, Return, Thread, Trace, compile_trace, simulate
from simulator.engine.clock import EventClock
from simulator.timeline import CANCELLED
from tests.support.engine_scenarios import Scenario


def test_what_was_cancelled_is_not_called():
    clock, called = EventClock(), []
    first = clock.call_at(1.0, lambda _: called.append("first"))
    clock.call_at(2.0, lambda _: (called.append("second"), third.cancel()))
    third = clock.call_at(3.0, lambda _: called.append("third"))
    first.cancel()
    clock.run()
    assert called == ["second"]
    third.cancel()  # over, or cancelled already: nothing happens
    clock.run()


def test_a_delay_ends_when_its_query_is_answered():
    """The worker waits for a person for 100 seconds; the organizer answers at 2 and has not asked for it."""
    organizer = Thread("organizer", (Fork(1, 1), Answer(1)))
    graph = compile_trace(Trace("t", (organizer, Thread("1", (Delay(100.0), Return(1))))))
    rules = Protocol(delay_steps_per_second=1.0)
    run = Scenario([graph], protocol=rules).run()
    run.begin()
    while run.clock.now < 1:
        run.clock.step()
    (worker,) = (thread for thread in run.threads.open[0].threads if thread.number)
    pause = worker.work
    run.clock.run()
    assert pause.end.callbacks in (None, [])
    last = list(run.end("raise").stays())[-1]
    assert (last.thread, last.finish, last.flags) == (1, 2.0, CANCELLED)
    assert simulate(graph, protocol=rules.with_(after_answer="finish")).makespan == 102


def test_an_observer_is_told_of_every_step_of_every_replica():
    organizer = Thread("organizer", (Fork(1, 2), Answer(6)), 3)
    graphs = [compile_trace(Trace("t", (organizer, Thread("1", (Return(9),), 2)))) for _ in range(3)]
    cluster = Cluster(replicas=[GPU(max_num_seqs=2)] * 2)
    leaps = []
    timeline = simulate(graphs, gpu=cluster, arrivals=[0, 1.5, 4], observe=leaps.append)
    assert timeline.rows.tobytes() == simulate(graphs, gpu=cluster, arrivals=[0, 1.5, 4]).rows.tobytes()
    for number, replica in enumerate(timeline.replicas):
        own = [leap for leap in leaps if leap.replica == number]
        assert sum(leap.steps for leap in own) == replica.steps > 0
        assert all(0 < leap.decodes <= 2 for leap in own)
    decoded = sum(leap.steps * leap.decodes for leap in leaps)
    assert decoded == timeline.column("tokens").sum()
