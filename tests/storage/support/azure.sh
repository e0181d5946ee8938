# shellcheck shell=bash disable=SC2034
# A real server of Azure Blob Storage for a storage test: Microsoft's emulator Azurite, a process of the test's own.
#
# Trade-off: one small server on this machine; it checks signatures and conditions as Azure does, but has no access tiers'
# costs, no managed identities, no clouds' latency.
# If it is wrong: names are listed as the server tells them, so one that changes there makes a test fail, not pass.

AZURITE=${BLKDELTA_AZURITE-} # its program azurite-blob
AZURITE_PORT= AZURITE_PID=

need_azurite() {
  need_tools node python3
  [ -x "$AZURITE" ] || skip "needs Azurite: scripts/test-azure installs it with npm, or BLKDELTA_AZURITE names its azurite-blob"
}

start_azurite() { # with the container `backups`
  AZURITE_PORT=$(free_port)
  run_server
  export AZURE_STORAGE_USE_EMULATOR=true AZURITE_BLOB_STORAGE_URL=http://127.0.0.1:$AZURITE_PORT
  unset AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_ACCOUNT_KEY
  azrequest PUT '/backups?restype=container' >"$OUT" || fail "no container can be made"
}

run_server() {
  "$AZURITE" --silent --disableTelemetry --blobHost 127.0.0.1 --blobPort "$AZURITE_PORT" --location "$WORK/azurite" \
    >"$WORK/azurite.log" 2>&1 &
  AZURITE_PID=$!
  wait_while "$AZURITE_PID" "the server listens" listens "$AZURITE_PORT"
}

kill_server() { # it writes down what it has every few seconds and when it is asked to end: killed hard it would forget
  kill -TERM "$AZURITE_PID"
  wait "$AZURITE_PID" 2>/dev/null || true
}

azrequest() { "$TESTS/support/azrequest" "$@"; }

use_bucket() { # NAME: a repository there, not yet made, and state of its own
  export BLKDELTA_REPO=az://backups/$1 BLKDELTA_STATE=$WORK/$1.state
}

objects() { # [PATTERN]: names of the repository's objects
  azrequest GET "/backups?restype=container&comp=list&prefix=${BLKDELTA_REPO#az://backups/}/" |
    grep -o '<Name>[^<]*' | sed 's/<Name>//' | { grep -F -- "${1-}" || true; } | sort
}

object_texts() { # [PATTERN]: each on a line of its own
  objects "$@" | while read -r object; do { azrequest GET "/backups/$object" && echo; } || true; done
}
