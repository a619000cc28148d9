#!/bin/sh
# Checks and measures everything on a GPU: benchmarks/gpu/run.sh OUT [--dry-run] [--golden DIR]. See README.md beside it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
[ -x "$python" ] || python=python3
PYTHONPATH=$here:$here/..:$here/../../tests/support${PYTHONPATH:+:$PYTHONPATH} exec "$python" -P "$here/run.py" "$@"
