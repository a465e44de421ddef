#!/usr/bin/env bash
# The wheel by itself: build it, install it into an empty environment, and edit a short clip with it, offline, in a folder
# from which the clone cannot be imported. Arguments go to the pip that installs it.
#   bash .ci/wheel.sh [FOLDER [PIP ARGUMENT ...]]      default: a temporary folder, which is removed
set -euo pipefail
cd "$(dirname "$0")/.."
clone=$PWD

if (($#)); then
  folder=$(mkdir -p "$1" && cd "$1" && pwd)
  shift
else
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi

"${SG3_PYTHON:-${PYTHON:-python3}}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder" .
"$python" -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt "$@" "$folder"/sg3cli-*.whl

cd "$folder"
unset PYTHONPATH
"$python" -m sg3cli --version
"$python" - "$clone" <<'PYTHON'
import sys

import sg3cli

assert not sg3cli.__file__.startswith(sys.argv[1] + "/sg3cli"), f"{sg3cli.__file__} is the clone"
PYTHON
"$folder/env/bin/sg3" models pull face-mesh

# From here on nothing may use the network: a proxy that does not answer stands before it.
export SG3_OFFLINE=1 http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9
"$python" - "$clone/examples/woman_talks.mp4" talk.mp4 <<'PYTHON'
"""The first half second of a clip, its packets as they are."""

import sys

import av

with av.open(sys.argv[1]) as source, av.open(sys.argv[2], "w") as out:
    streams = {s.index: out.add_stream_from_template(s) for s in source.streams if s.type in ("video", "audio")}
    for packet in source.demux(*(source.streams[i] for i in streams)):
        if packet.dts is not None and packet.dts * packet.time_base < 0.5:
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
PYTHON
"$folder/env/bin/sg3" run talk.mp4 -o older.mp4 --edit age=2 --finetune-steps 4
"$folder/env/bin/sg3" evaluate talk.sg3
"$folder/env/bin/sg3" report talk.sg3 -o report.html --quick   # its template is in the wheel
