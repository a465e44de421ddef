#!/usr/bin/env bash
# Everything that must hold, from a fresh clone: a virtual environment in the clone, the package, the landmark model,
# linters, types, floors, tests. Runs twice in a row; leaves nothing outside the clone but caches.
# SG3_PYTHON or PYTHON names the interpreter (default python3). Arguments go to pytest: bash tests/run.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -x .venv/bin/python ]; then
  "${SG3_PYTHON:-${PYTHON:-python3}}" -m venv .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev]'

# Without it the tests that look at faces are skipped; offline it is enough that it was pulled before.
.venv/bin/sg3 models pull face-mesh >/dev/null || echo 'going on without the landmark model' >&2
.venv/bin/sg3 models pull perceptual >/dev/null || echo 'going on without the perceptual backbone' >&2

.venv/bin/ruff check sg3cli tests
.venv/bin/ruff format --check sg3cli tests
.venv/bin/mypy
.venv/bin/lint-imports
# Two at a time, a file of tests each; every one on a thread of its own.
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
