"""Formats in which parallel paths come in groups: all of a group start together, and end before the text goes on."""

from simulator.formats.groups import multiverse, npr, parallel_r1, threadweaver

__all__ = ["GROUPS"]

GROUPS = (npr, multiverse, threadweaver, parallel_r1)
"""The dialects, in the order in which they are asked whether they know a text."""
