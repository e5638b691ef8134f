#!/usr/bin/env bash
# Tests of the frameworks that cannot be installed beside the others: each gets an environment of
# its own, in which the tool's child process runs; the tests run in the current one.
# Usage: bash tests/frameworks/run.sh [jax] [paddle] [mindspore]     (default: all)
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/../.."
home="${INFERTOOL_FRAMEWORKS:-$PWD/.frameworks}"
tests=()
for name in ${*:-jax paddle mindspore}; do
  if [ ! -e "$home/$name/done" ]; then
    rm -rf "${home:?}/$name"
    python3 -m venv "$home/$name"
    "$home/$name/bin/python" -m pip install --quiet -r "$here/$name.txt"
    touch "$home/$name/done"
  fi
  export "INFERTOOL_${name^^}_PYTHON=$home/$name/bin/python"
  tests+=("$here/test_$name.py")
done
python -m pytest "${tests[@]}"
