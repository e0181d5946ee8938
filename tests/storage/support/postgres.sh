# shellcheck shell=bash disable=SC2034
# A PostgreSQL cluster of pgbench's tables, and what must be true of it. Sourced after lib.sh by the tests that need one.
#
# Trade-off: the server trusts everybody who reaches its socket, which lies in a folder that only postgres may enter.
# If it is wrong: `assert_sums` relies on pgbench adding the same amount to four tables in one transaction; with another
# script than pgbench's own it would prove nothing.

BIN=
SOCKETS=
LOAD=

find_postgres() {
  BIN=$(find /usr/lib/postgresql/*/bin -maxdepth 0 2>/dev/null | sort -V | tail -n 1)
  local program
  for program in initdb pg_ctl psql pgbench pg_amcheck pg_dump; do
    [ -x "$BIN/$program" ] || skip "needs PostgreSQL's $program (Debian: apt-get install postgresql-15)"
  done
  id postgres >/dev/null 2>&1 || skip "needs the user postgres"
  SOCKETS=$WORK/sockets
  install -d -o postgres -g postgres -m 700 "$SOCKETS"
}

as_postgres() {
  (cd "$SOCKETS" && PGHOST=$SOCKETS PGPORT=54399 PGCTLTIMEOUT=$COMMAND_LIMIT setpriv --reuid=postgres --regid=postgres --clear-groups "$@")
}

start_server() { # DIRECTORY: where the volume is mounted
  rm -f "$1/data/postmaster.pid" # of a server that ran when its volume was read; the number may be another's by now
  on_exit "as_postgres '$BIN/pg_ctl' -s -m immediate -D '$1/data' stop >/dev/null 2>&1"
  as_postgres "$BIN/pg_ctl" -s -w -D "$1/data" -l "$SOCKETS/log" start >"$OUT" 2>"$ERR" || {
    tail -n 5 "$SOCKETS/log" >>"$ERR"
    fail "no server on $1"
  }
}

stop_server() { # DIRECTORY
  as_postgres "$BIN/pg_ctl" -s -w -m fast -D "$1/data" stop
  forget "as_postgres '$BIN/pg_ctl' -s -m immediate -D '$1/data' stop >/dev/null 2>&1"
}

ask() { as_postgres "$BIN/psql" -qAt -v ON_ERROR_STOP=1 bench -c "$1"; }

make_database() { # MOUNT SCALE: a running cluster in MOUNT/data
  install -d -o postgres -g postgres -m 700 "$1/data"
  as_postgres "$BIN/initdb" -D "$1/data" -A trust -E UTF8 --no-locale >/dev/null
  cat >>"$1/data/postgresql.conf" <<END
port = 54399
unix_socket_directories = '$SOCKETS'
listen_addresses = ''
shared_buffers = 64MB
max_wal_size = 96MB
min_wal_size = 32MB
END
  start_server "$1"
  as_postgres "$BIN/createdb" bench
  as_postgres "$BIN/pgbench" -q -i -s "$2" bench 2>/dev/null
}

bench() { as_postgres "$BIN/pgbench" -n -c 2 "$@" bench >/dev/null 2>&1; }

rows() { ask 'select count(*) from pgbench_history'; }

start_load() { # [options of pgbench]: LOAD runs, and has committed, until `end_load`
  local before
  before=$(rows)
  bench -T 3600 "$@" &
  LOAD=$!
  wait_while "$LOAD" "the load commits" more_rows_than "$before"
}

more_rows_than() { [ "$(rows)" -gt "$1" ]; }

end_load() {
  ask "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgbench'" >/dev/null
  wait "$LOAD" || true
}

assert_sums() { # every pgbench transaction adds the same amount in four tables
  local sums
  sums=$(ask "select count(distinct s) from (
    select sum(abalance) s from pgbench_accounts union all select sum(bbalance) from pgbench_branches
    union all select sum(tbalance) from pgbench_tellers union all select coalesce(sum(delta), 0) from pgbench_history) x")
  assert_eq 1 "$sums" "different sums in pgbench's four tables"
}

assert_sound_database() { # WHAT
  as_postgres "$BIN/pg_amcheck" --all --install-missing --heapallindexed >"$OUT" 2>"$ERR" || fail "pg_amcheck, $1"
  [ ! -s "$OUT" ] || fail "pg_amcheck found something in $1"
  as_postgres "$BIN/pg_dump" bench >"$WORK/dump" 2>"$ERR" || fail "pg_dump of $1"
  tail -n 5 "$WORK/dump" | grep 'dump complete' >/dev/null || fail "the dump of $1 is cut"
  rm "$WORK/dump"
}
