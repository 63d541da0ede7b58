"""Compile the engine with mypyc, in place: `make compiled`. What is compiled is the same source that is interpreted.

    python tools/compiled.py [--clean]

Python imports a compiled module instead of the source beside it, so nothing else changes; `--clean` takes the compiled
ones away again. A wheel holds sources only.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

MODULES = (
    "simulator/engine/deadlock.py",
    "simulator/engine/fleet.py",
    "simulator/engine/kv.py",
    "simulator/engine/paged.py",
    "simulator/engine/pool.py",
    "simulator/engine/query.py",
    "simulator/engine/run.py",
    "simulator/engine/server.py",
    "simulator/engine/station.py",
    "simulator/engine/threads.py",
    "simulator/graph/clock.py",
)
# Left interpreted, where speed would count:
# - simulator/engine/clock.py, whose classes derive from SimPy's, which are interpreted;
# - simulator/machine/cost/laws.py: a compiled dataclass refuses what is no number before our checks can, with a
#   TypeError in place of a ConfigError;
# - simulator/formats/asyncthink.py: CPython appends to a text in place, mypyc copies it, and a hostile text then takes
#   time by its length squared.


def compiled() -> list[Path]:
    """What an earlier call has left."""
    return [*ROOT.glob("*__mypyc.*.so"), *(path for name in MODULES for path in (ROOT / name).parent.glob("*.so"))]


def main() -> None:
    os.chdir(ROOT)
    for path in compiled():
        path.unlink(missing_ok=True)
    if "--clean" in sys.argv[1:]:
        return
    from mypyc.build import mypycify
    from setuptools import Distribution

    extensions = mypycify([*MODULES], opt_level="3", target_dir="build/mypyc")
    # Not `setuptools.setup`, which would read pyproject.toml, and that is hatchling's.
    command = Distribution({"name": "forksim-compiled", "ext_modules": extensions}).get_command_obj("build_ext")
    command.inplace = True
    command.build_temp = command.build_lib = "build/mypyc"
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    main()
