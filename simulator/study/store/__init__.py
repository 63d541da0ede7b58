"""The folder that a study's results live in: a journal that survives anything, and tables made from it."""
