"""The version of forksim, in the one place from which the package and its build take it."""

VERSION = "0.1.0"
