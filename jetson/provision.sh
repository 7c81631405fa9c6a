#!/usr/bin/env bash
# From a flashed board to a running service, offline: finds a Python and the program beside it. All else is Python:
# runtime/edge_reclass_appliance, so this folder alone is not enough; edge-reclass-appliance is all of it in one file.
# docs/jetson.md describes the whole way.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
for modules in "$here" "$here/../runtime"; do
  [ ! -d "$modules/edge_reclass_appliance" ] || break
done
if [ ! -d "$modules/edge_reclass_appliance" ]; then
  echo "error: the folder edge_reclass_appliance was found neither beside $here/provision.sh nor in $here/../runtime" >&2
  echo "  to fix it: copy the whole checkout; or, without one, the file edge-reclass-appliance, which" >&2
  echo "  jetson/make_wheelhouse.sh writes beside the wheelhouse:" >&2
  echo "    sudo python3 -IB edge-reclass-appliance provision --wheelhouse TAR" >&2
  exit 1
fi

# JetPack 6 has Python 3.10 and Debian 12 has 3.11, both as python3.
for python in python3 python3.10 python3.11 python3.12; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
    # -I: modules are looked for nowhere else, and no variable of the caller's changes that.
    exec "$python" -I -B -c 'import sys; sys.path.insert(0, sys.argv.pop(1))
from edge_reclass_appliance.__main__ import main
sys.exit(main(["provision", *sys.argv[1:]], "provision.sh"))' "$modules" "$@"
  fi
done
echo "error: Python 3.10 or newer was not found (JetPack 6 and 7, and Debian 12, come with one)" >&2
echo "  to fix it: sudo apt-get install python3" >&2
exit 5
