"""``forksim study plot``: the results of a study as a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from simulator.cli.common import Picture, complain, wrote
from simulator.errors import ConfigError
from simulator.study import Table, load_results
from simulator.support.checks import choose


def plot(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder of results.")],
    out: Picture,
    kind: Annotated[
        str, typer.Option("--kind", "-k", help="capacity, knee, heatmap or pareto; see docs/studies.md.")
    ] = "capacity",
    x: Annotated[
        str | None,
        typer.Option(
            "-x", metavar="NAME", help="Axis along which it is drawn; of a knee, the load; of pareto, the cost."
        ),
    ] = None,
    y: Annotated[str | None, typer.Option("-y", metavar="NAME", help="Second axis of a heat map.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="AXIS", help="A line for each value. Default: all other axes; several: repeat it."
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", "-m", metavar="NAME", help="Column drawn upwards, or coloured.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="AXIS=VALUE", help="Only the points that have this value.")
    ] = None,
) -> int:
    """Draw the results of a study: a metric over capacity, the knee of latency, two axes, or the Pareto front."""
    from simulator import plots

    choose(kind, _KINDS, "kind of picture")
    stored = load_results(folder)
    table = _chosen(stored.table, where or [])
    if not len(table):
        raise ConfigError(
            f"{folder} has no rows yet" if not len(stored.table) else f"no row has {' and '.join(where or [])}"
        )
    axes = _KINDS[kind](table, x, y, by or [], metric)
    plots.save(axes, out)
    if stored.missing:
        complain(f"{stored.missing:,} runs have not ended and are not in the picture; forksim study run goes on")
    wrote(out)
    return 0


def _capacity(table: Table, x: str | None, y: str | None, by: list[str], metric: str | None) -> Any:
    from simulator import plots

    _refuse("capacity", y=y)
    return plots.latency_capacity(table, **_given(x=x or _only_axis(table), by=by, metric=metric))


def _knee(table: Table, x: str | None, y: str | None, by: list[str], metric: str | None) -> Any:
    from simulator import plots

    _refuse("knee", y=y)
    return plots.knee(table, **_given(load=x, by=by, latency=metric))


def _heatmap(table: Table, x: str | None, y: str | None, by: list[str], metric: str | None) -> Any:
    from simulator import plots

    _refuse("heatmap", by=by)
    if x is None and y is None and len(table.axes) == 2:
        x, y = table.axes
    if x is None or y is None:
        raise ConfigError(f"a heat map needs -x and -y; the axes are {', '.join(table.axes) or 'none'}")
    return plots.heatmap(table, **_given(x=x, y=y, metric=metric))


def _pareto(table: Table, x: str | None, y: str | None, by: list[str], metric: str | None) -> Any:
    from simulator import plots

    _refuse("pareto", y=y)
    if len(by) > 1:
        raise ConfigError(f"--by takes one axis for pareto, got {', '.join(by)}")
    return plots.pareto(table, **_given(cost=x, latency=metric, by=by[0] if by else None))


_KINDS: dict[str, Callable[[Table, str | None, str | None, list[str], str | None], Any]] = {
    "capacity": _capacity,
    "knee": _knee,
    "heatmap": _heatmap,
    "pareto": _pareto,
}


def _refuse(kind: str, **options: Any) -> None:
    for name, value in options.items():
        if value:
            dashes = "--" if len(name) > 1 else "-"
            raise ConfigError(f"{dashes}{name} is not for --kind {kind}")


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given; the others are the picture's own."""
    return {name: value for name, value in options.items() if value not in (None, [])}


def _only_axis(table: Table) -> str | None:
    """Return the only axis of a table that has one, unless it is the one that is drawn along by default."""
    return table.axes[0] if len(table.axes) == 1 else None


def _chosen(table: Table, where: list[str]) -> Table:
    """Return the rows with given values of axes."""
    for text in where:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--where takes AXIS=VALUE; got {text!r}")
        column = table[choose(name, table.axes, "axis of the study")].tolist()
        known = {_said(each): each for each in column}
        if value not in known:
            same = [each for each in known.values() if isinstance(each, (int, float)) and _equal(value, each)]
            if not same:
                raise ConfigError(f"--where: {name} is never {value}; it is {', '.join(known)}")
            known[value] = same[0]
        table = table.where({name: known[value]})
    return table


def _equal(text: str, number: float) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def _said(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
