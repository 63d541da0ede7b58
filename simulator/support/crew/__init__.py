"""A crew of workers, any of which may die at any time, and two kinds of workers: processes, and actors on Ray."""
