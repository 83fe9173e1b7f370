#!/bin/sh
# Make the virtual environment .venv with the Python that is named, or say in plain words what is missing.
set -eu
python=${1:-}
if [ -z "$python" ]; then
    echo "wetread needs Python 3.11 or newer, and none was found. On Debian: apt-get install python3 python3-venv" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "wetread needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Name another: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing python3-venv ..."
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    else
        echo "Python's venv module is missing. On Debian, as root: apt-get install python3-venv" >&2
        exit 1
    fi
fi
"$python" -m venv .venv
