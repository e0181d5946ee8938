//! `blkdelta diff`

use support::binary::Shell;
use support::content::random_bytes;
use support::model::{Change, Volume};

use super::{number, ranges, text};

#[test]
fn changed_ranges_between_any_two_backups() {
    let shell = Shell::with_repository();
    let mut volume = Volume::new(shell.scratch.path("db"), random_bytes(4, 200_000));
    let first = shell.backup("db");
    volume.write(10_000, b"changed");
    let _ = shell.backup("db");
    volume.apply(&Change::WriteZeros { at: 65_536, len: 65_536 });
    let third = shell.backup("db");
    let report = shell.json(&["diff", text(&first, "backup_id"), "latest"]);
    assert_eq!(ranges(&report), [(8192, 4096, "data"), (65_536, 65_536, "zero")]);
    assert_eq!((number(&report, "blocks_changed"), number(&report, "bytes_changed")), (2, 69_632));
    assert_eq!((&report["from"], &report["to"]), (&first["backup_id"], &third["backup_id"]));
    let back = shell.json(&["diff", "latest", "latest~1"]);
    assert_eq!(ranges(&back), [(65_536, 65_536, "data")], "a comparison may look back");
    assert_eq!(ranges(&shell.json(&["diff", "latest", "latest"])), []);
    let lines = shell.run(&["diff", "latest~2", "latest"]).exits(0);
    assert_eq!(lines.text(), "8192 4096 data\n65536 65536 zero\n");
}

#[test]
fn two_volumes_cannot_be_compared() {
    let shell = Shell::with_repository();
    shell.scratch.file("a", b"first");
    shell.scratch.file("b", b"second");
    let (first, second) = (shell.backup("a"), shell.backup("b"));
    let ids = [text(&first, "backup_id"), text(&second, "backup_id")];
    shell.run(&["diff", ids[0], ids[1]]).fails(2, &["different volumes"]);
}
