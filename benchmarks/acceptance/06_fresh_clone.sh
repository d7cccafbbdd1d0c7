#!/usr/bin/env bash
# `make demo` and `make test` as a stranger: a fresh clone in an empty folder, a fresh virtual environment.
set -euo pipefail
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git clone --quiet "$root" "$folder/foveal"
cd "$folder/foveal"
env -u VIRTUAL_ENV -u PYTHONPATH make demo
env -u VIRTUAL_ENV -u PYTHONPATH make test
