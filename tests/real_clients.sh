#!/usr/bin/env bash
# Other people's clients against `gcache serve` with the embedded small model, and lm-evaluation-harness beside
# `gcache eval`. Not part of the test suite: it installs about 1.3 GB and takes about 15 minutes on two cores.
#
#   GSM8K=FOLDER tests/real_clients.sh
#
#   GSM8K         folder with GSM8K's train.jsonl and test.jsonl
#   CLIENTS_HOME  where the clients' environments are kept (default: gcache-clients in the folder of temporary files)
#   PYTHON        a python that has gcache with its tests (default: .venv/bin/python of this repository)
#
# One line a check, ok or failed. The exit code is 0 where all are ok, 1 where one failed, 2 where nothing could be run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

OPENAI=3.57.0
LANGCHAIN_OPENAI=1.7.4
LANGCHAIN_TESTS=1.1.9
LITELLM=1.110.2
OPENAI_LIKE=0.8.1
LM_EVAL=0.4.13
DATASETS=5.2.0
TRANSFORMERS=5.24.0
AI=7.0.173
AI_COMPATIBLE=3.0.92
export CLIENTS_HOME=${CLIENTS_HOME:-${TMPDIR:-/tmp}/gcache-clients}
PYTHON=${PYTHON:-$PWD/.venv/bin/python}

fail() { echo "real_clients: $1" >&2; exit 2; }

command -v "$PYTHON" >/dev/null || fail "no python at $PYTHON; run 'make setup', or set PYTHON"
command -v npm >/dev/null || fail "npm is not installed; install Node.js 20 or later"
[ -e "${GSM8K:-}/test.jsonl" ] || fail "no test.jsonl in '${GSM8K:-}'; set GSM8K to the folder of GSM8K's files"

environment() { # name, then packages
  "$PYTHON" -m venv "$CLIENTS_HOME/$1"
  "$CLIENTS_HOME/tools/bin/uv" pip install -q --python "$CLIENTS_HOME/$1/bin/python" "${@:2}"
}

install() {
  rm -rf "$CLIENTS_HOME"
  mkdir -p "$CLIENTS_HOME/node"
  "$PYTHON" -m venv "$CLIENTS_HOME/tools"
  "$CLIENTS_HOME/tools/bin/python" -m pip install -q uv
  # with what the client's own tests need
  environment openai "openai[aiohttp]==$OPENAI" pytest pytest-asyncio rich
  environment langchain "langchain-openai==$LANGCHAIN_OPENAI" "langchain-tests==$LANGCHAIN_TESTS"
  environment litellm "litellm==$LITELLM"
  environment llama_index "llama-index-llms-openai-like==$OPENAI_LIKE"
  environment harness "lm-eval[api]==$LM_EVAL" "datasets==$DATASETS" "transformers==$TRANSFORMERS"
  "$PYTHON" -m pip download -q --no-deps --no-binary :all: "openai==$OPENAI" -d "$CLIENTS_HOME" ||
    fail "the source of openai $OPENAI, whose tests are run, cannot be had"
  tar xzf "$CLIENTS_HOME/openai-$OPENAI.tar.gz" -C "$CLIENTS_HOME"
  mv "$CLIENTS_HOME/openai-$OPENAI" "$CLIENTS_HOME/openai-source"
  (cd "$CLIENTS_HOME/node" && npm init -y >/dev/null && npm install --silent "ai@$AI" "@ai-sdk/openai-compatible@$AI_COMPATIBLE")
  touch "$CLIENTS_HOME/.installed"
}

[ -e "$CLIENTS_HOME/.installed" ] || { echo "installing the clients in $CLIENTS_HOME"; install; } >&2
PYTHONPATH=$PWD:$PWD/tests exec "$PYTHON" tests/real_clients.py "$CLIENTS_HOME" "$GSM8K"
