#!/usr/bin/env bash
# The kernel tests on a build with the address and undefined-behaviour sanitizers, in a copy of the package.
# Usage: PYTHON=.venv/bin/python benchmarks/kernels/sanitize.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -r "$root/src/foveal" "$work/foveal"
rm -f "$work"/foveal/kernels/_native*
cmake -S "$root/src/foveal/kernels/csrc" -B "$work/build" -DPython_EXECUTABLE="$python" -DFOVEAL_SANITIZE=ON \
  -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$work/foveal/kernels" >"$work/configure.log"
cmake --build "$work/build" >"$work/build.log"

# Python itself is not instrumented: its own leaks are not ours, and the runtime must be loaded before it.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
cd "$root"
# An editable installation puts its own finder first; leave it out, so that the copy is imported.
exec_tests='
import sys, pytest
sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__name__.startswith("ScikitBuild")]
sys.path.insert(0, sys.argv[1])
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/unit/kernels/native", "tests/unit/engine/execution/sampling/test_row_draw.py"]))
'
"$python" -c "$exec_tests" "$work"
