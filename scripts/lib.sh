# shellcheck shell=bash disable=SC2034
# What `demo` and `test` share: finding cargo, and installing Debian packages where this is allowed.
#
# Trade-off: cargo is never installed behind anybody's back, the way to get it is told instead; Debian packages are
# installed only as root and only those whose programs are missing. Sourced, not run.
# If it is wrong: on another distribution than Debian nothing is installed; what is missing is named, and the step that
# needs it fails or is skipped by itself.

set -euo pipefail

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CARGO_AT_LEAST=1.95
BUILT=$(realpath -m "${CARGO_TARGET_DIR:-$PROJECT/target}")/release/blkdelta

need_cargo() {
  command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  if ! command -v cargo >/dev/null; then
    tell_how_to_get_cargo "There is no cargo here."
  fi
  local found
  found=$(cd "$PROJECT" && cargo --version | cut -d ' ' -f 2)
  if ! printf '%s\n' "$CARGO_AT_LEAST" "${found%-*}" | sort -VC; then
    tell_how_to_get_cargo "This cargo is $found, and $CARGO_AT_LEAST or newer is needed."
  fi
}

tell_how_to_get_cargo() {
  cat >&2 <<END
$1
HINT: get it with rustup (needs curl; Debian's own package of cargo is too old):
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default
  . "\$HOME/.cargo/env"
or, where rustup is there already: rustup update stable
END
  exit 1
}

install_missing() { # PROGRAM=PACKAGE...: the packages of the programs that are not here
  local pair packages=()
  for pair in "$@"; do
    [ -n "$(find_program "${pair%=*}")" ] || packages+=("${pair#*=}")
  done
  [ ${#packages[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing here: ${packages[*]} (Debian packages; not root, or no apt-get, so nothing is installed)" >&2
    return 0
  fi
  echo "+ apt-get install ${packages[*]}"
  apt_install "${packages[@]}" || { apt-get -qq update && apt_install "${packages[@]}"; } ||
    echo "Could not install: ${packages[*]}" >&2
}

find_program() { # NAME, or a pattern of absolute paths
  case $1 in
    /*) compgen -G "$1" ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" ;;
  esac || true
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 install \
    --no-install-recommends -y "$@" >/dev/null
}

install_s3_server() { # s3s-fs, which the tests of object storage start; where it cannot be had they are skipped and say so
  local folder=${CARGO_HOME:-$HOME/.cargo}/blkdelta-tools
  [ ! -x "$folder/bin/s3s-fs" ] || return 0
  echo "+ cargo install s3s-fs (once, into $folder)"
  cargo install s3s-fs --version 0.14.1 --locked --features binary --root "$folder" --target-dir "$folder/build" ||
    echo "Could not install: s3s-fs" >&2
  rm -rf "$folder/build"
}
