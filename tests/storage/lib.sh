# shellcheck shell=bash disable=SC2034
# What the storage tests share: a work folder, loop devices and mounts that are always given back, running the command
# and judging how it ended.
#
# Trade-off: plain shell over the real command and real devices, so that a test shows what a user would see; slower and
# blunter than the Rust tests, which look inside. Sourced, not run: a test opens with `. lib.sh` and `start_test "$@"`.
# If it is wrong: everything taken (loop device, mount, server) is registered with `on_exit` the moment it exists. What
# is taken without that stays on the machine; what is given back by hand without `forget` is given back twice, which
# for a loop device may hit somebody else's.

set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MIB=$((1024 * 1024))
COMMAND_LIMIT=400 # seconds; whatever takes longer hangs, also on a machine that is busy with others
CLEANUPS=()
RC=0
ID=
CASE= # what a loop is at, for the text of a failure
VG=blkdelta_test_$$ # the volume group of a test that makes one

# --- a test's life ---

start_test() { # [path to blkdelta]
  BLKDELTA=$(readlink -f "${1:-${CARGO_TARGET_DIR:-$TESTS/../../target}/release/blkdelta}" || true)
  if [ ! -x "$BLKDELTA" ]; then
    echo "FAIL: there is no command at '${1:-$BLKDELTA}'. HINT: cargo build --release --locked -p blkdelta" >&2
    exit 1
  fi
  WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/blkdelta-test.XXXXXX")
  chmod 755 "$WORK"
  OUT=$WORK/stdout ERR=$WORK/stderr
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  unset "${!BLKDELTA_@}"
  BLKDELTA=$(copy_of_command)
  use_repository "$WORK/repo"
}

clean_up() {
  local status=$? i pid
  trap - EXIT INT TERM
  set +e
  for pid in $(jobs -p); do kill -KILL "$pid" 2>/dev/null; done
  wait
  for ((i = ${#CLEANUPS[@]} - 1; i >= 0; i--)); do eval "${CLEANUPS[i]}"; done
  rm -rf --one-file-system "$WORK"
  exit "$status"
}

on_exit() { CLEANUPS+=("$1"); }

forget() { # a cleanup that was done by hand
  local i
  for i in "${!CLEANUPS[@]}"; do [ "${CLEANUPS[i]}" != "$1" ] || unset "CLEANUPS[i]"; done
  CLEANUPS=("${CLEANUPS[@]}")
}

ok() { echo "  ok: $*"; }

fail() {
  echo "  FAIL: $*${CASE:+ [$CASE]}" >&2
  if [ -s "$OUT" ]; then echo "  its stdout ends:" && tail -n 8 "$OUT" | cut -c -400 | tr -cd '\11\12\40-\176'; fi >&2
  if [ -s "$ERR" ]; then echo "  its stderr ends:" && tail -n 12 "$ERR" | cut -c -400; fi >&2
  exit 1
}

skip() { # the whole test: say so and stop
  echo "  SKIPPED: $*"
  exit 77
}

skip_part() { echo "  SKIPPED PART: $*"; }

need_root() { [ "$(id -u)" = 0 ] || skip "needs root (loop devices and mounts)"; }

need_tools() {
  local tool
  for tool in "$@"; do command -v "$tool" >/dev/null || skip "needs the program $tool"; done
}

in_lvm_guest() { # goes on where there is real LVM, as support/lvm-guest finds it: from here on nothing is this machine's
  [ -z "${INSIDE_LVM_GUEST-}" ] || return 0
  local status=0
  GUEST_LIMIT=${GUEST_LIMIT:-1500} "$TESTS/support/lvm-guest" env INSIDE_LVM_GUEST=yes "$0" "$BLKDELTA" || status=$?
  exit "$status"
}

# --- loop devices and mounts ---

attach() { # VARIABLE FILE [losetup options]: the new device's path goes into VARIABLE
  local _device _try
  for _try in {1..100}; do # others may take the free device first
    if _device=$(losetup -f --show --direct-io=on "${@:3}" "$2" 2>"$ERR"); then
      on_exit "losetup -d $_device"
      printf -v "$1" %s "$_device"
      return
    fi
    sleep 0.1
  done
  skip "no loop device to be had here: $(tail -n 1 "$ERR")"
}

detach() { # DEVICE
  losetup -d "$1"
  forget "losetup -d $1"
}

mount_at() { # DIRECTORY [mount arguments]
  mkdir -p "$1"
  mount "${@:2}" "$1"
  on_exit "umount '$1'"
}

unmount() { # DIRECTORY
  local _try
  for _try in {1..150}; do
    if umount "$1" 2>"$ERR"; then
      forget "umount '$1'"
      return
    fi
    sleep 0.2
  done
  fail "cannot unmount $1"
}

# --- servers of the test's own ---

free_port() { # none that the kernel gives to connections, which could take it before we do
  python3 - <<'END'
import random, socket
end = int(open("/proc/sys/net/ipv4/ip_local_port_range").read().split()[0])
while True:
    try:
        port = random.randrange(min(10000, end - 1000), end)
        socket.socket().bind(("127.0.0.1", port))
        print(port)
        break
    except OSError:
        pass
END
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); } # PORT

# --- volumes whose content is known (support/volume says how) ---

volume() { "$TESTS/support/volume" "$@"; }

new_file() { # FILE BYTES: a hole of that size
  rm -f "$1"
  truncate -s "$2" "$1"
}

room_in_memory() { # MIB: there, and as much for others
  [ "$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)" -gt $((2 * $1)) ]
}

# --- running the command ---

copy_of_command() { # where every user may run it, and no build may replace it during the test
  local copy=$WORK/blkdelta
  cp "$BLKDELTA" "$copy"
  chmod 755 "$copy"
  echo "$copy"
}

use_repository() { # DIRECTORY: not yet made
  export BLKDELTA_REPO=$1 BLKDELTA_STATE=$1.state
}

blkdelta() { timeout -k 5 "$COMMAND_LIMIT" "$BLKDELTA" "$@"; }

run() { # COMMAND...: RC, $OUT and $ERR say how it ended
  RC=0
  "$@" >"$OUT" 2>"$ERR" || RC=$?
  assert_no_panic "$@"
}

assert_no_panic() {
  if grep -q panicked "$ERR"; then fail "a panic: $*"; fi
  case $RC in
    101 | 132 | 134 | 136 | 139) fail "died with $RC: $*" ;;
    124 | 137) fail "hangs (ended after $COMMAND_LIMIT s) or was killed: $*" ;;
  esac
}

assert_exit() { # CODE COMMAND...
  run "${@:2}"
  [ "$RC" = "$1" ] || fail "exit $RC, not $1: ${*:2}"
}

refused() { # CODE|any WORD COMMAND...: fails with a text that holds WORD (a path, an id) and a hint
  run "${@:3}"
  [ "$RC" != 0 ] || fail "should have been refused: ${*:3}"
  [ "$1" = any ] || [ "$RC" = "$1" ] || fail "exit $RC, not $1: ${*:3}"
  grep -qF -- "$2" "$ERR" || fail "the error does not name '$2': ${*:3}"
  grep -q 'HINT: .' "$ERR" || fail "the error has no HINT: ${*:3}"
}

json() { # KEY [FILE]: a dotted key of a JSON document (default: the last stdout); '#' is the length
  python3 - "$1" "${2:-$OUT}" <<'END'
import json, sys
key, path = sys.argv[1:]
value = json.load(open(path))
for part in key.split("."):
    if part == "#":
        value = len(value)
    else:
        value = value[int(part) if isinstance(value, list) else part]
print(value if isinstance(value, str) else json.dumps(value))
END
}

backup() { # SOURCE [options]: must work; ID is the new backup
  assert_exit 0 blkdelta backup "$@" --json
  ID=$(json backup_id)
}

backup_count() {
  blkdelta list --json >"$WORK/list.json"
  json '#' "$WORK/list.json"
}

# --- judging ---

assert_eq() { # WANTED GOT WHAT
  [ "$1" = "$2" ] || fail "$3: wanted '$1', got '$2'"
}

assert_same() { # FILE FILE WHAT: byte for byte, and of one length
  cmp "$1" "$2" >"$ERR" 2>&1 || fail "$3: the bytes differ"
}

assert_restores() { # ID WANTED-FILE [restore options]: into a fresh file
  rm -f "$WORK/restored"
  assert_exit 0 blkdelta restore "$1" "$WORK/restored" "${@:3}"
  assert_same "$2" "$WORK/restored" "restore of $1"
  rm -f "$WORK/restored"
}

assert_sound() { # WHAT [ID...]: verify --data finds nothing
  assert_exit 0 blkdelta verify --data --json "${@:2}"
  assert_eq true "$(json ok)" "verify --data $1"
}

stray_files() { # files of the repository that no record names
  local file name
  find "$BLKDELTA_REPO" -type f ! -name config.json ! -name lock ! -path '*/records/*.json' ! -path '*/tags/*.json' ! -path '*/audit/*' | while read -r file; do
    name=$(basename "$file")
    case $name in
      *.delta | *.manifest)
        [ ! -e "$(dirname "$file")/../records/${name%%.*}.json" ] || continue
        ! grep -rqF -- "$name" "$(dirname "$file")/../records" || continue ;;
    esac
    echo "${file#"$BLKDELTA_REPO"/}"
  done
}

assert_no_strays() { # WHAT
  local strays records deltas
  strays=$(stray_files)
  [ -z "$strays" ] || fail "$1: files that no record names: $strays"
  records=$(find "$BLKDELTA_REPO" -path '*/records/*.json' | wc -l)
  deltas=$(find "$BLKDELTA_REPO" -name '*.delta' | wc -l)
  assert_eq "$records" "$deltas" "$1: one delta for each record"
}

# --- waiting: for a condition, never for a time that a busy machine may not keep ---

wait_while() { # PID WHAT COMMAND...: until the command succeeds; fails when the process ends before that
  local end=$((SECONDS + COMMAND_LIMIT))
  until "${@:3}" 2>/dev/null; do
    [ "$SECONDS" -le "$end" ] || fail "it never came to this: $2"
    kill -0 "$1" 2>/dev/null || fail "it was over before this: $2"
    sleep 0.02
  done
}

wait_until() { wait_while "$$" "$@"; } # WHAT COMMAND...: the same where there is no process to watch

in_three_tries() { # COMMAND...: where time itself is judged: again when it says `late`; left out where the machine was late
  local try status watcher
  for try in 1 2 3; do
    status=0
    "$TESTS/support/yardstick" >"$WORK/lateness" &
    watcher=$!
    "$@" & # where `set -e` holds
    wait $! || status=$?
    kill "$watcher" && wait "$watcher" || true
    [ "$status" = 75 ] || break
    echo "  (that was try $try; the machine itself was late by $(cat "$WORK/lateness") %)"
  done
  if [ "$status" = 75 ] && [ "0$(cat "$WORK/lateness")" -gt 5 ]; then
    skip_part "what is judged by time in $1 (this machine stops too often)"
  elif [ "$status" != 0 ]; then
    exit "$status"
  fi
}

late() { # what a machine that stops now and then may cause as well
  echo "  LATE: $*" >&2
  exit 75
}

judge_throttle() { # fail|late EXPRESSION WHAT: python over the last JSON (said), its throttle, and when others were there (busy)
  python3 - "$2" "$OUT" <<'END' || "$1" "$3"
import json, sys
said = json.load(open(sys.argv[2]))
throttle = said["throttle"]
busy = [point["at_s"] for point in throttle["rates"] if point["others_active"]]
if not eval(sys.argv[1]):
    sys.exit(f"  {sys.argv[1]}: gave way for {throttle['latency_s']:.2f} of {said['duration_s']:.2f} s; others at {busy}; "
             f"limited for {throttle['limit_s']:.1f} s")
END
}

# --- runs that are killed, and go on ---

wait_for_note() { # PATTERN PID WORD: until a note of the local state holds the word
  wait_while "$2" "a mark is written: $1" noted "$1" "$3"
}

noted() { # PATTERN WORD
  # shellcheck disable=SC2086 # a pattern
  cat "$BLKDELTA_STATE"/*/$1 | grep -- "$2" >/dev/null
}

kill_hard() { # PID
  kill -KILL "$1" || fail "process $1 had ended before it could be killed"
  wait "$1" 2>/dev/null || true
}
