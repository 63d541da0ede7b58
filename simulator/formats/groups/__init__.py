"""Formats in which parallel paths come in groups: all of a group start together, and end before the text goes on."""
