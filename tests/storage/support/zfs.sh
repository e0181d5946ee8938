# shellcheck shell=bash disable=SC2034
# A zvol of a storage test, in a pool of its own on a file, and a repository with small blocks for it.
#
# Trade-off: small, because it mostly runs in a slow guest. Sourced after lib.sh.
# If it is wrong: the reference is a plain file that gets the same changes and is never read back from the device.

COMMAND_LIMIT=900 # the guest is slow
SIZE=$((24 * MIB))
POOL=blkdeltatest$$
VOLUME=$POOL/group/vol

make_volume() {
  assert_exit 0 blkdelta init --block-size 64KiB --grain-size 4KiB
  truncate -s 400M "$WORK/pool.img"
  zpool create -m none "$POOL" "$WORK/pool.img"
  on_exit "zpool destroy -f $POOL"
  zfs create "$POOL/group"
  zfs create -V "$SIZE" -b 8k "$VOLUME"
  find_device
  volume fill "$DEVICE" "$SIZE" 1
  volume fill "$WORK/reference" "$SIZE" 1
}

find_device() { # of the volume; there may be no udev that makes links
  local device _try
  for _try in {1..2000}; do
    for device in /dev/zvol/"$VOLUME" /dev/zd*; do
      if [ -b "$device" ] && [ "$(/lib/udev/zvol_id "$device" 2>/dev/null)" = "$VOLUME" ]; then
        DEVICE=$device
        return
      fi
    done
    sleep 0.2
  done
  fail "the zvol has no device"
}

change_both() { # SEED [WRITES]: the device and the reference
  volume change "$DEVICE" "$@"
  volume change "$WORK/reference" "$@"
}
