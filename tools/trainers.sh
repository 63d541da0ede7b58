#!/usr/bin/env bash
# The tests that need the trainers, in an environment of their own (build/trainers, about 2.1 GB): TRL trains on the CPU;
# verl's reward managers, OpenRLHF's executor and verifiers' scoring run with our reward; their sources are read, too.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
at=build/trainers
if [ ! -e "$at/stamp" ]; then
    rm -rf "$at"
    "$PYTHON" -m venv "$at"
    install=("$at/bin/python" -m pip install --quiet --disable-pip-version-check)
    "${install[@]}" torch==2.13.0 # the CPU build: a later one may bring CUDA along
    "${install[@]}" trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0 tokenizers pytest hypothesis --editable .
    "${install[@]}" verifiers==0.4.0
    # verl and OpenRLHF ask for other releases of transformers, and for CUDA: only what their rewards need.
    "${install[@]}" --no-deps verl==0.9.1
    "${install[@]}" --no-deps openrlhf==0.11.2 || echo "no openrlhf for this Python: its tests will be skipped" >&2
    "${install[@]}" ray==2.60.0 tensordict==0.10.0 hydra-core==1.3.8 cachetools codetiming fastapi dill pylatexenc aiohttp
    touch "$at/stamp"
fi
exec "$at/bin/python" -m pytest -m "slow or not slow" tests/integrations/test_trl.py tests/integrations/test_run_*.py \
    tests/integrations/test_integration_signatures.py "$@"
