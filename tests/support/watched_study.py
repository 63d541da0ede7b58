"""Runs the command line under watch: `python -m tests.support.watched_study HOW NUMBER ARGUMENT...`.

HOW is `stop`: when NUMBER runs are added it says so, and waits for ever. Or `die`: it kills itself at file operation
NUMBER of the process that writes, halfway if it is a write; 0 is never. In the end it prints how many there were.
"""

import signal
import sys

from simulator.cli import main
from simulator.study.store.folder import ResultFolder
from tests.support.fill_folder import Saboteur, die


def stopping(number):
    """Return an `add` of a folder that stops."""
    added = 0
    add = ResultFolder.add

    def watched(*given):
        nonlocal added
        if added == number:
            print("waiting", flush=True)
            while True:
                signal.pause()
        add(*given)
        added += 1

    return watched


if __name__ == "__main__":  # not in the processes that share the work, which import this
    how, number, *arguments = sys.argv[1:]
    if how == "stop":
        ResultFolder.add = stopping(int(number))
        sys.argv[1:] = arguments
        main()
    with Saboteur(int(number), die).at_work() as saboteur:
        sys.argv[1:] = arguments
        try:
            main()
        finally:
            print("operations", saboteur.count)
