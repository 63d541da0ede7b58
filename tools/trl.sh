#!/usr/bin/env bash
# The tests that need the trainers, in an environment of their own (build/trl): tests/integrations/test_trl.py trains with TRL on the
# CPU, tests/integrations/test_integration_signatures.py reads the sources of TRL, verl, OpenRLHF and verifiers. About 1.6 GB.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
at=build/trl
if [ ! -e "$at/stamp" ]; then
    rm -rf "$at"
    "$PYTHON" -m venv "$at"
    install=("$at/bin/python" -m pip install --quiet --disable-pip-version-check)
    "${install[@]}" torch==2.13.0 # the CPU build: a later one may bring CUDA along
    "${install[@]}" trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0 tokenizers pytest hypothesis --editable .
    "${install[@]}" --no-deps verl==0.9.1 verifiers==0.4.0 # to read, not to run
    "${install[@]}" --no-deps openrlhf==0.11.2 || echo "no openrlhf for this Python: its test will be skipped" >&2
    touch "$at/stamp"
fi
exec "$at/bin/python" -m pytest -m "slow or not slow" tests/integrations/test_trl.py tests/integrations/test_integration_signatures.py "$@"
