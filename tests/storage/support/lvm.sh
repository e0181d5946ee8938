# shellcheck shell=bash disable=SC2034
# Volume groups for the tests that need real LVM, and what must be true of them after every run. Sourced after lib.sh,
# used after `in_lvm_guest`.
#
# Trade-off: physical volumes are loop devices over sparse files, so a thin volume may be larger than the machine.
# If it is wrong: a test that ends between two steps leaves its group active on a host that runs it without a guest;
# `make_group` registers the removal before anything else is made.

CHUNK=65536 # of every pool here

make_group() { # MIB: $VG, on one physical volume of that size
  local device
  new_file "$WORK/pv.img" $(($1 * MIB))
  attach device "$WORK/pv.img"
  lvm2 vgcreate "$VG" "$device"
  on_exit "vgchange -q -an $VG >/dev/null 2>&1; vgremove -q -ff -y $VG >/dev/null 2>&1"
}

lvm2() { # COMMAND...: quiet unless it fails
  "$@" >"$WORK/lvm2" 2>&1 || { cat "$WORK/lvm2" >&2 && fail "$*"; }
}

make_pool() { # NAME MIB: chunks of 64 KiB, with enough metadata for a start
  lvm2 lvcreate --type thin-pool --chunksize 64k --size "$2m" --name "$1" "$VG"
}

make_thin() { # POOL NAME SIZE
  lvm2 lvcreate --virtualsize "$3" --thinpool "$1" --name "$2" "$VG"
}

pool_status() { # POOL
  dmsetup status "$VG-$1-tpool"
}

held_root() { # POOL: of its metadata snapshot; - when there is none
  pool_status "$1" | cut -d ' ' -f 7
}

snapshots_of_ours() { # their names, in one line
  lvs --noheadings -o lv_name "$VG" | tr -d ' ' | grep '^blkdelta-' | sort | xargs
}

baseline_of() { # ID: the name that its record gives
  assert_exit 0 blkdelta show "$1" --json
  json snapshot.name
}

assert_only_baseline() { # WHAT: the newest backup ($ID) left its baseline, and there is nothing else of ours
  assert_eq "$(baseline_of "$ID")" "$VG/$(snapshots_of_ours)" "snapshots after $1"
}

assert_no_snapshots() { # WHAT
  assert_eq "" "$(snapshots_of_ours)" "snapshots after $1"
}

read_in_full() { # WORDS OF THE REASON: why the last backup had no hint on changes
  [[ "$(json hint.kind)" == @(none|unmapped) ]] || fail "the hint is $(json hint.kind) ($(json hint.reason))"
  [[ "$(json hint.reason)" == *"$1"* ]] || fail "the reason is '$(json hint.reason)', not '$1'"
}

# --- a volume and its reference, which gets the same writes and is never read back from it: $WORK/VOLUME ---

fill_device() { # DEVICE VOLUME: $SIZE known bytes
  volume fill "$WORK/$2" "$SIZE" 1 100
  dd if="$WORK/$2" of="$1" bs=1M oflag=direct status=none
}

write_to() { # DEVICE VOLUME CHUNK [COUNT]: random bytes
  head -c $((${4:-1} * CHUNK)) /dev/urandom >"$WORK/piece"
  dd if="$WORK/piece" of="$1" bs=64k seek="$3" oflag=direct conv=notrunc status=none
  dd if="$WORK/piece" of="$WORK/$2" bs=64k seek="$3" conv=notrunc status=none
}

proven_backup() { # DEVICE VOLUME [options]: it restores to what the volume is; $OUT is its report
  backup "$1" --volume "$2" --full-speed "${@:3}"
  prove_restore "$2"
}

prove_restore() { # VOLUME: of the newest backup, whose report stays in $OUT
  cp "$OUT" "$WORK/report"
  assert_restores "$ID" "$WORK/$1"
  cp "$WORK/report" "$OUT"
}

play() { # PROGRAM SCRIPT: for PATH=$WORK/played:$PATH, instead of the real one
  mkdir -p "$WORK/played"
  printf '#!/bin/sh\n%s\n' "$2" >"$WORK/played/$1"
  chmod +x "$WORK/played/$1"
}
