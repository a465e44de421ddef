#!/usr/bin/env bash
# Install sg3 into this clone and make a person older, offline, on a CPU. Run it again at any time: what is done stays done.
#   PYTHON=python3.12 bash examples/quickstart.sh [CLIP] [EDIT ...]      default: examples/woman_talks.mp4 age=2
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

clip=${1:-examples/woman_talks.mp4}
if (($#)); then shift; fi
edits=()
for edit in "${@:-age=2}"; do edits+=(--edit "$edit"); done

if [[ ! -x .venv/bin/python ]]; then
  echo "Creating .venv ..."
  "${PYTHON:-python3}" -m venv .venv
fi
echo "Installing sg3 (a few minutes the first time) ..."
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable .
.venv/bin/sg3 models pull face-mesh
.venv/bin/sg3 models pull perceptual  # 19 MB: faces are tuned to what people see, not to pixels alone

mkdir -p out
name=$(basename "${clip%.*}")
result=out/${name}_edited.mp4
.venv/bin/sg3 run "$clip" --project "out/$name.sg3" -o "$result" "${edits[@]}"
echo
echo "Before: $clip"
echo "After:  $result"
