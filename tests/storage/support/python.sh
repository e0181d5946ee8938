# shellcheck shell=bash disable=SC2034
# The environment with the Python module, which `scripts/test-python` makes. Sourced after lib.sh by the tests of examples.
#
# Trade-off: nothing is built here, so that a storage test stays quick and needs no network.
# If it is wrong: the environment is as old as the last `scripts/test-python`; `scripts/test` runs that first.

EXAMPLES=$TESTS/../../bindings/python/examples
PYTHON=$(realpath -m "${CARGO_TARGET_DIR:-$TESTS/../../target}")/python/bin/python

need_python_module() {
  "$PYTHON" -c 'import blkdelta' 2>/dev/null || skip "needs the Python module: scripts/test-python makes it"
}

python_packages() { "$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("platlib"))'; }
