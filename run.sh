#!/usr/bin/env bash
# The one door. ./run.sh sets up and starts; ./run.sh test checks; ./run.sh COMMAND does one thing; ./run.sh --help lists them.
set -euo pipefail
export CONSILIUM_CALLED_FROM="$PWD"  # paths on the command line are meant from here
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }

suitable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

if ! [ -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
  python=""
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null && suitable "$candidate"; then python="$candidate"; break; fi
  done
  if [ -z "$python" ]; then
    say "Python 3.11 or newer with venv is needed. Install it (Debian: apt-get install python3 python3-venv) or name it: PYTHON=/path/to/python ./run.sh"
    say "需要 Python 3.11 或更高版本（含 venv）。请安装，或指定：PYTHON=/path/to/python ./run.sh"
    exit 2
  fi
  say "Creating .venv with $("$python" --version) ..."
  rm -rf .venv
  "$python" -m venv .venv
fi

# install only when requirements.txt has changed since it was last installed completely
wanted="$(.venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(open("requirements.txt", "rb").read()).hexdigest())')"
if [ "$(cat .venv/.installed 2>/dev/null || true)" != "$wanted" ]; then
  say "Installing requirements.txt (this takes a few minutes once) ..."
  if ! .venv/bin/python -m pip install --disable-pip-version-check --quiet -r requirements.txt; then
    say "The packages could not be installed; the lines above say why. Check the network or pip's settings, then run ./run.sh again."
    say "依赖包安装失败，原因见上。请检查网络或 pip 配置后重新运行 ./run.sh。"
    exit 2
  fi
  printf '%s' "$wanted" > .venv/.installed
fi

[ $# -gt 0 ] || set -- serve
case "$1" in
  --port | --port=* | --empty | --no-browser) set -- serve "$@" ;;
esac
exec .venv/bin/python -m app "$@"
