# shellcheck shell=bash
# What a repository must do in an object store of any kind: its whole life, two hosts at once, runs and servers that are
# killed in the middle of an upload. Sourced after lib.sh and one of the stores (s3.sh, azure.sh), which give:
#
#   use_bucket NAME [OPTIONS]   a repository there, not yet made, and local state of its own
#   objects [PATTERN]           names of the repository's objects, a line each
#   object_texts [PATTERN]      what is in them; what is gone meanwhile is left out
#   kill_server, run_server     the server dies, and comes back with what it had
#
# Trade-off: what only one store can show (faults of the network, object lock, its own names) is in that store's test.
# If it is wrong: the objects are counted as the store tells them, so a name that changes makes a test fail, not pass.

life() {
  use_bucket life
  refused 10 backups/life blkdelta list
  assert_exit 0 blkdelta init
  refused any life blkdelta init
  volume fill "$WORK/db" $((96 * MIB)) 1
  backup "$WORK/db" --volume db
  local full=$ID
  cp "$WORK/db" "$WORK/db.1"
  assert_eq full "$(json kind)" "the first backup"
  volume change "$WORK/db" 2
  backup "$WORK/db" --volume db
  cp "$WORK/db" "$WORK/db.2"
  volume change "$WORK/db" 3
  backup "$WORK/db" --volume db
  assert_eq incremental "$(json kind)" "the third backup"
  local third=$ID
  assert_eq 3 "$(backup_count)" "backups"
  assert_sound "after three backups"
  assert_restores "$full" "$WORK/db.1"
  assert_restores latest~1 "$WORK/db.2"
  assert_restores latest "$WORK/db"
  assert_exit 0 blkdelta diff latest~1 latest --json
  assert_exit 0 blkdelta tag "$third" --add pin
  assert_exit 0 blkdelta show "$third" --json
  assert_eq '["pin"]' "$(json tags)" "tags"
  cp "$WORK/db" "$WORK/db.3"
  lost_state "$WORK/db"
  assert_exit 0 blkdelta merge latest~1
  assert_sound "after a merge"
  assert_restores latest~1 "$WORK/db.3"
  assert_exit 0 blkdelta prune --keep-last 1 --json
  assert_sound "after a prune"
  assert_restores latest "$WORK/db"
  assert_eq 0 "$(objects /tombstones/ | wc -l)" "tombstones after a prune"
  assert_eq "$(backup_count)" "$(objects .delta | wc -l)" "deltas after a prune"
  assert_exit 0 blkdelta unlock
  ok "init, full, incremental, restore, verify, diff, tag, merge, prune"
}

lost_state() { # SOURCE: local state is a cache
  rm -rf "$BLKDELTA_STATE"
  volume change "$1" 4
  backup "$1" --volume db
  assert_eq incremental "$(json kind)" "a backup without local state"
}

# --- two hosts ---

another_host() { # COMMAND...: with local state of its own
  BLKDELTA_STATE=$WORK/other.state "$@"
}

new_repository() { # NAME: with a first backup of $WORK/disk
  use_bucket "$1"
  rm -rf "$WORK/other.state"
  assert_exit 0 blkdelta init --compression none
  volume fill "$WORK/disk" $((40 * MIB)) "$1" 100
  backup "$WORK/disk" --volume disk
}

racing_hosts() {
  new_repository race
  volume change "$WORK/disk" 5
  local first=0 second=0
  "$BLKDELTA" backup "$WORK/disk" --volume disk --kind full --bwlimit 8MiB/s >"$WORK/first" 2>&1 &
  local pid=$!
  wait_for_lock_of "$pid"
  kill -STOP "$pid" # in the middle, however slow the other is
  another_host blkdelta backup "$WORK/disk" --volume disk >"$WORK/second" 2>"$ERR" || second=$?
  kill -CONT "$pid"
  wait "$pid" || first=$?
  assert_eq 0 "$first" "the first of two hosts: $(tail -n 1 "$WORK/first")"
  assert_eq 11 "$second" "the second of two hosts"
  grep -q "locked by.*pid" "$ERR" || fail "the second is not told who holds the lock"
  assert_eq 2 "$(backup_count)" "backups of two hosts"
  assert_sound "after a race"
  ok "of two hosts one commits, the other is told (11)"
}

wait_for_lock_of() { # PID
  wait_while "$1" "process $1 takes the lock" has_lock "$1"
}

has_lock() { object_texts /lock | grep "\"pid\":$1," | grep -v '"released":true' >/dev/null; } # PID

# --- killed in the middle of an upload ---

killed_writer() {
  new_repository killed
  local round pid
  for round in 1 2 3; do
    CASE="round $round"
    "$BLKDELTA" backup "$WORK/disk" --volume disk --kind full --bwlimit 3MiB/s >"$OUT" 2>"$ERR" &
    pid=$!
    wait_for_lock_of "$pid"
    sleep "0.$((RANDOM % 9 + 1))"
    kill_hard "$pid"
  done
  CASE=
  backup "$WORK/disk" --volume disk --kind full
  assert_sound "after kill -9"
  assert_restores latest "$WORK/disk"
  assert_eq "$(backup_count)" "$(objects .delta | wc -l)" "deltas after kill -9"
  ok "after kill -9 in the middle of an upload the next run goes at once"
}

killed_server() {
  new_repository gone
  local status=0 pid
  BLKDELTA_PATIENCE=3s "$BLKDELTA" backup "$WORK/disk" --volume disk --kind full --bwlimit 5MiB/s >"$OUT" 2>"$ERR" &
  pid=$!
  wait_for_lock_of "$pid"
  sleep 0.8
  kill_server
  wait "$pid" || status=$?
  assert_eq 1 "$status" "a backup whose server died"
  grep -q "HINT: check the endpoint" "$ERR" || fail "the dead server is not told"
  run_server
  assert_eq 1 "$(backup_count)" "backups after the server died"
  # A short outage is nothing to a run.
  "$BLKDELTA" backup "$WORK/disk" --volume disk --kind full --bwlimit 5MiB/s >"$OUT" 2>"$ERR" &
  pid=$!
  wait_for_lock_of "$pid"
  sleep 0.8
  kill_server
  sleep 1
  run_server
  wait "$pid" || fail "a backup did not outlive a short outage"
  assert_sound "after the server died"
  assert_restores latest "$WORK/disk"
  ok "a server that dies is told; one that comes back is waited for"
}
