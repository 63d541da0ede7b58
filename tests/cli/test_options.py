"""Options that several commands take are the same everywhere: name, help and default, from one record."""

import click
import pytest
import typer

from simulator.cli import app
from simulator.cli.options import MachineOptions, PoolOptions, ReadOptions

COMMAND = typer.main.get_command(app)


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


ALL = dict(commands(COMMAND))
WHO = {  # what a stranger would expect to take a machine, a pool, files of traces
    MachineOptions: {"run", "gantt", "whatif"},
    PoolOptions: {"run", "gantt", "whatif", "record server", "record llama"},
    ReadOptions: {
        *("run", "gantt", "whatif", "record server", "record llama"),
        *("score", "check", "audit", "convert"),
    },
}


def told(command):
    return {each.name: (each.opts, getattr(each, "help", None), each.default) for each in command.params}


@pytest.mark.parametrize("record", WHO)
def test_shared_options_are_the_same_everywhere(record):
    names = set(record.__dataclass_fields__)
    there = {name: told(ALL[name]) for name in WHO[record]}
    first = next(iter(there.values()))
    for options in there.values():
        assert names <= options.keys()
        assert {name: options[name] for name in names} == {name: first[name] for name in names}


@pytest.mark.parametrize("name", ALL)
def test_the_help_of_a_command_is_whole_at_80_columns(name):
    context = click.Context(ALL[name], info_name=f"forksim {name}", terminal_width=80)
    lines = ALL[name].get_help(context).splitlines()
    assert lines[0].startswith("Usage: ") and max(map(len, lines)) <= 80
    for option in ALL[name].params:
        assert option.param_type_name == "argument" or any(option.opts[0] in line for line in lines)
        assert getattr(option, "help", "x"), f"{name}: {option.name} has no help"
