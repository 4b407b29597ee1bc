#!/usr/bin/env bash
# Sets up .venv with the test extra and runs the tests, in a process for each core but four at the most.
# Usage: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh test
python -m pytest -n auto --maxprocesses=4 --dist=worksteal "$@"
