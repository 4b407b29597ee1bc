# Sourced by quickstart.sh and test.sh: makes .venv with the package and the given extra, and activates it.
# Usage: source scripts/environment.sh EXTRA

set_up() {
    local extra=$1 stamp=".venv/installed-$1" candidate python=""
    for candidate in python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [[ -z $python ]]; then
        echo "error: Python 3.11 or 3.12 with the venv module is needed; found neither" >&2
        return 1
    fi
    if ! cat setup.cfg scripts/constraints.txt 2>/dev/null | cmp -s - "$stamp"; then
        echo "Installing bert_jax[$extra] into .venv ..."
        [[ -x .venv/bin/python ]] || "$python" -m venv .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check \
            --editable ".[$extra]" --constraint scripts/constraints.txt
        cat setup.cfg scripts/constraints.txt > "$stamp"
    fi
    source .venv/bin/activate
}

set_up "$1"
