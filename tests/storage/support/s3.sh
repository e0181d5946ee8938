# shellcheck shell=bash disable=SC2034
# A real S3 server for a storage test: s3s-fs, a process of the test's own, which keeps objects as files in a folder.
#
# Trade-off: it checks signatures and conditions as S3 does, and starts in a moment; it does not enforce object lock and
# knows no storage classes: scripts/test-ceph shows those on a distributed engine.
# If it is wrong: its check for an absent object and the writing of it are two steps, so of two puts at the very same
# moment both may succeed; tests that need exactly one winner let one of the two wait.

S3_BINARY=${S3S_FS:-${CARGO_HOME:-$HOME/.cargo}/blkdelta-tools/bin/s3s-fs}
S3_FOLDER= S3_PORT= S3_PID=

need_s3() {
  need_tools python3
  [ -x "$S3_BINARY" ] || skip "needs s3s-fs: cargo install s3s-fs --version 0.14.1 --locked --features binary --root ${CARGO_HOME:-$HOME/.cargo}/blkdelta-tools"
}

start_s3() { # the server at $S3_PORT, with the bucket `backups`
  choose_folder
  mkdir -p "$S3_FOLDER/backups"
  S3_PORT=$(free_port)
  run_server
  export AWS_ACCESS_KEY_ID=AKTEST AWS_SECRET_ACCESS_KEY=SKTEST AWS_REGION=us-east-1
  export AWS_ENDPOINT_URL=http://127.0.0.1:$S3_PORT
  unset AWS_PROFILE AWS_SESSION_TOKEN
}

choose_folder() { # in memory where there is plenty, so that no disk is waited for
  S3_FOLDER=$WORK/s3
  room_in_memory 4096 && [ "$(df --output=avail -m /dev/shm | tail -n 1)" -gt 4096 ] || return 0
  S3_FOLDER=$(mktemp -d /dev/shm/blkdelta-test.XXXXXX)
  on_exit "rm -rf '$S3_FOLDER'"
}

run_server() {
  "$S3_BINARY" --host 127.0.0.1 --port "$S3_PORT" --access-key AKTEST --secret-key SKTEST "$S3_FOLDER" \
    >"$WORK/s3.log" 2>&1 &
  S3_PID=$!
  wait_while "$S3_PID" "the server listens" listens "$S3_PORT"
}

kill_server() {
  kill -KILL "$S3_PID"
  wait "$S3_PID" 2>/dev/null || true
}

use_bucket() { # NAME [options of the URL]: a repository there, not yet made, and state of its own
  export BLKDELTA_REPO=s3://backups/$1${2:+?$2} BLKDELTA_STATE=$WORK/$1.state
}

objects() { # [PATTERN]: names of the repository's objects
  local prefix=${BLKDELTA_REPO#s3://backups/}
  find "$S3_FOLDER/backups/${prefix%%\?*}" -type f -path "*${1-}*" 2>/dev/null | sort
}

object_texts() { # [PATTERN]: each on a line of its own
  objects "$@" | while read -r object; do { cat "$object" && echo; } 2>/dev/null || true; done
}

start_proxy() { # [options of fault_proxy]: requests go through it from here on
  rm -f "$WORK/proxy.port"
  : >"$WORK/proxy.log"
  "$TESTS/support/fault_proxy" "$S3_PORT" "$WORK/proxy.port" "$WORK/proxy.log" "$@" >"$WORK/proxy.out" 2>&1 &
  PROXY_PID=$!
  wait_while "$PROXY_PID" "the proxy listens" test -s "$WORK/proxy.port"
  export AWS_ENDPOINT_URL=http://127.0.0.1:$(cat "$WORK/proxy.port")
}

stop_proxy() {
  kill "$PROXY_PID"
  wait "$PROXY_PID" 2>/dev/null || true
  export AWS_ENDPOINT_URL=http://127.0.0.1:$S3_PORT
}

assert_faults() { # KIND...: each was made at least once
  local kind
  for kind in "$@"; do grep -q "^$kind " "$WORK/proxy.log" || fail "the proxy made no fault '$kind'"; done
}
