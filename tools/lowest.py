"""Print pip constraints that pin each run-time dependency to its lower bound in pyproject.toml."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    bound = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([^,]+)(,.*)?", requirement)
    if bound is None:
        raise SystemExit(f"a dependency needs a lower bound, written first: {requirement!r}")
    print(f"{bound[1]}=={bound[2]}")
