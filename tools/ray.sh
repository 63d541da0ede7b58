#!/usr/bin/env bash
# The tests that need Ray, in an environment of their own (build/ray). With `lowest`: in the oldest Ray that is accepted.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
at=build/ray
ray=ray
if [ "${1:-}" = lowest ]; then
    shift
    at=build/ray-lowest
    ray="$(sed -n 's/^ray = \["ray>=\(.*\)"\]$/ray==\1/p' pyproject.toml)"
fi
if [ ! -e "$at/stamp" ] || [ pyproject.toml -nt "$at/stamp" ]; then
    rm -rf "$at"
    "$PYTHON" -m venv "$at"
    "$at/bin/python" -m pip install --quiet --disable-pip-version-check "$ray" pytest hypothesis psutil pyarrow --editable '.[ray]'
    touch "$at/stamp"
fi
exec "$at/bin/python" -m pytest -m "slow or not slow" tests/study/test_ray.py "$@"
