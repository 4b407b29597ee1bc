#!/usr/bin/env bash
# Sets up .venv with the test extra and runs the tests.   Usage: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh test
python -m pytest "$@"
