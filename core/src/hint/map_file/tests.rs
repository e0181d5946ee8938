//! Every form: what it means, what it is bound to, and how its damage is refused.

use super::*;
use crate::geometry::Geometry;

const BLOCK: u64 = 64 << 10;
const BLOCKS: u64 = 16;

fn parsed(text: &str) -> Result<(Binding, Vec<u64>)> {
    let mut map = ChangeMap::new(Geometry::new(BLOCKS * BLOCK, 64 << 10, 4 << 10).unwrap());
    let binding = parse(text.as_bytes(), &mut map)?;
    Ok((binding, (0..BLOCKS).filter(|index| map.changed().contains(*index)).collect()))
}

/// The form, the changed blocks and the size that a map tells.
#[track_caller]
fn means(text: &str, form: &str, blocks: &[u64], size: Option<u64>) {
    let (binding, changed) = parsed(text).unwrap();
    assert_eq!((binding.form, changed.as_slice(), binding.volume_size), (form, blocks, size), "{text}");
}

/// Refused as wrong use, with a hint, for a reason that holds this word.
#[track_caller]
fn refused(text: &str, word: &str) {
    let error = parsed(text).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::WrongUse, "{text}");
    assert!(error.next_step().is_some(), "{text}");
    let whole = format!("{} {}", error.full_text(), error.next_step().unwrap_or_default());
    assert!(whole.contains(word), "'{text}' was refused for: {whole}");
}

/// Whatever is cut off the end of a map is missed.
fn never_believed_when_cut(text: &str) {
    for len in 0..text.trim_end().len() {
        assert!(parsed(&text[..len]).is_err(), "believed: {}", &text[..len]);
    }
}

#[test]
fn own_ranges() {
    let scan = r#"{"source":"/dev/x","size_bytes":1048576,"root":"aa","parent_root":"bb","hint":{"kind":"none"},
        "warnings":[],"ranges":[
{"offset":0,"length":4096,"kind":"zero"},
{"offset":131071,"length":2,"kind":"data"}]}
"#;
    means(scan, "ranges", &[0, 1, 2], Some(1 << 20));
    let binding = parsed(scan).unwrap().0;
    assert_eq!((binding.parent_root.as_deref(), binding.root.as_deref()), (Some("bb"), Some("aa")));
    never_believed_when_cut(scan);

    let diff = r#"{"from":"11","to":"22","size_bytes":1048576,"ranges":[]}"#;
    means(diff, "ranges", &[], Some(1 << 20));
    assert_eq!(parsed(diff).unwrap().0.parent_backup.as_deref(), Some("11"));
    means(r#"{"ranges":[{"offset":"65536","length":"1"}]}"#, "ranges", &[1], None);

    refused(r#"{"parent_root":null,"ranges":[]}"#, "without --manifest");
    refused(r#"{"ranges":[{"offset":0,"length":1,"kind":"same"}]}"#, "unknown variant");
    refused(r#"{"ranges":[{"offset":0}]}"#, "length");
    refused(r#"{"ranges":[]} {"ranges":[]}"#, "a second JSON document");
    refused(r#"{"backup_id":"x","blocks_changed":3}"#, "no known change map");
}

#[test]
fn numbers_that_are_no_bytes() {
    for number in ["-1", "1.5", "1e3", "18446744073709551616", "\"0x10\"", "\"\"", "true", "null", "[]"] {
        refused(&format!(r#"{{"ranges":[{{"offset":{number},"length":1}}]}}"#), "line 1");
    }
    let most = u64::MAX;
    refused(&format!(r#"{{"ranges":[{{"offset":{most},"length":1}}]}}"#), "64 bits");
    refused(&format!(r#"[{{"offset":{most},"length":1,"exists":true}}]"#), "64 bits");
    means(&format!(r#"{{"ranges":[{{"offset":983040,"length":{}}}]}}"#, 1u64 << 62), "ranges", &[15], None);
    means(&format!(r#"{{"ranges":[{{"offset":{most},"length":0}}]}}"#), "ranges", &[], None);
    refused(&format!("{most} 1 data\n"), "64 bits");
    refused("18446744073709551616 1 data\n", "line 1");
}

#[test]
fn lines_of_changes() {
    means("65536 8192 data\n1000000 1 zero\n", "lines", &[1, 15], None);
    means("# what changed\n\n0x10000 0x2000 data # rows\r\n", "lines", &[1], None);
    refused("65536 8192 data", "cut short");
    refused("# nothing\n", "0 SIZE same");
    for line in ["65536 8192", "65536 8192 data more", "-1 2 data", "1 2 dirty", "1 0x data", "1, 2, data"] {
        refused(&format!("0 1 data\n{line}\n"), "line 2");
    }
    refused(&format!("0 1 data\n{}", "1".repeat(100_000)), "has no end");
}

#[test]
fn lines_that_claim_every_byte_must_tell_of_every_byte() {
    means("0 65536 same\n65536 10 data\n65546 983030 same\n", "lines", &[1], Some(1 << 20));
    means("0 1048576 same\n", "lines", &[], Some(1 << 20));
    refused("0 65536 same\n65537 10 data\n", "line 2");
    refused("10 65536 data\n65546 10 same\n", "line 1");
    refused("0 65536 data\n60000 10 same\n", "without a gap");
}

#[test]
fn rbd_diff() {
    let map =
        r#"[{"offset":0,"length":4194304,"exists":"false"},{"offset":4194304,"length":1,"exists":"true"}]"#;
    means(map, "rbd diff", &(0..16).collect::<Vec<_>>(), None);
    never_believed_when_cut(map);
    means(r#"[{"offset":65536,"length":512,"exists":true}]"#, "rbd diff", &[1], None);
    means("[]\n", "empty list", &[], None);
    refused(r#"[{"offset":0,"length":1,"exists":"perhaps"}]"#, "perhaps");
    refused(r#"[{"offset":0,"length":1}]"#, "neither");
    refused(r#"[{"offset":0,"length":1,"exists":true},{"offset":1,"length":1,"type":1}]"#, "two forms");
    refused(r#"{"offset":0,"length":1,"exists":true}"#, "no known change map");
}

#[test]
fn nbd_dirty_bitmap() {
    let map = r#"[
{ "offset": 0, "length": 65536, "type": 0, "description": "clean"},
{ "offset": 65536, "length": 65536, "type": 1, "description": "dirty"},
{ "offset": 131072, "length": 917504, "type": 0, "description": "clean"}
]
"#;
    means(map, "dirty bitmap", &[1], Some(1 << 20));
    never_believed_when_cut(map);
    refused(r#"[{"offset":512,"length":1,"type":0,"description":"clean"}]"#, "gap");
    for description in ["data", "hole", "zero", "hole,zero", "local"] {
        let map = format!(r#"[{{"offset":0,"length":1,"type":0,"description":"{description}"}}]"#);
        refused(&map, "qemu:dirty-bitmap");
    }
    refused(r#"[{"offset":0,"length":1,"type":4}]"#, "without a description");
}

#[test]
fn ebs_pages() {
    let page = |blocks: &str, more: &str| {
        format!(
            r#"{{"ChangedBlocks":[{blocks}],"ExpiryTime":1576287332.8,"VolumeSize":1,"BlockSize":524288{more}}}"#
        )
    };
    let block = r#"{"BlockIndex":1,"FirstBlockToken":"AAAB","SecondBlockToken":"AAAC"}"#;
    let last = page(block, "");
    means(&last, "EBS", &(8..16).collect::<Vec<_>>(), Some(1 << 30));
    never_believed_when_cut(&last);
    means(&page("", r#","NextToken":null"#), "EBS", &[], Some(1 << 30));
    means(
        &last.replace(":1,\"BlockSize", ":32212254720,\"BlockSize"),
        "EBS",
        &(8..16).collect::<Vec<_>>(),
        Some(30 << 30),
    );

    let first = page(r#"{"BlockIndex":0,"SecondBlockToken":"AAAD"}"#, r#","NextToken":"AAAE""#);
    means(&format!("{first}\n{last}\n"), "EBS", &(0..16).collect::<Vec<_>>(), Some(1 << 30));
    means(&format!("[{first},{last}]"), "EBS", &(0..16).collect::<Vec<_>>(), Some(1 << 30));
    refused(&format!("{last}{first}"), "NextToken");
    refused(&format!("{first}{}", last.replace(":1,\"BlockSize", ":2,\"BlockSize")), "different sizes");
    refused(&last.replace("524288", "4096"), "524288");
    refused(r#"{"ChangedBlocks":[]}"#, "BlockSize");
    refused(&page(r#"{"BlockIndex":99999999999999}"#, ""), "too large");
    refused(&format!("{first}[]{{\"ranges\":[]}}"), "two forms");
}

#[test]
fn csi_messages() {
    let snake = r#"{"block_metadata_type":1,"volume_capacity_bytes":1048576,"block_metadata":[{"size_bytes":65536},
        {"byte_offset":131072,"size_bytes":65536}]}"#;
    means(snake, "CSI", &[0, 2], Some(1 << 20));
    never_believed_when_cut(snake);
    let camel = r#"{"blockMetadataType":"VARIABLE_LENGTH","volumeCapacityBytes":"1048576",
        "blockMetadata":[{"byteOffset":"196608","sizeBytes":"1"}]}"#;
    means(camel, "CSI", &[3], Some(1 << 20));
    means(&format!("{snake}\n{camel}"), "CSI", &[0, 2, 3], Some(1 << 20));
    means(&format!("[{snake},{camel}]"), "CSI", &[0, 2, 3], Some(1 << 20));
    means(r#"{"volumeCapacityBytes":"1048576"}"#, "CSI", &[], Some(1 << 20));
    means(r#"[{"volume_capacity_bytes":1048576,"block_metadata":null}]"#, "CSI", &[], Some(1 << 20));
    refused(&format!("{snake}{}", camel.replace("1048576", "4096")), "different sizes");
    refused(r#"{"volume_capacity_bytes":1,"block_metadata":[{"byte_offset":0}]}"#, "size_bytes");
}

#[test]
fn era_blocks() {
    let map = "<!-- block=64KiB -->\n<blocks>\n  <range begin=\"1\" end = \"3\"/>\n  <block block=\"5\"/>\n</blocks>\n";
    means(map, "era", &[1, 2, 5], None);
    never_believed_when_cut(map);
    means("<?xml version=\"1.0\"?><!-- of > sda --><blocks/>", "era", &[], None);
    means("<blocks>\n</blocks>", "era", &[], None);
    refused("<blocks><block block=\"5\"/></blocks>", "block=64KiB");
    for size in ["128", "0KiB", "1MB", "", "100B"] {
        refused(&format!("<!--block={size}--><blocks><block block=\"5\"/></blocks>"), "dmsetup table");
    }
    for wrong in [
        "<range begin=\"3\" end=\"1\"/>",
        "<range begin=\"3\"/>",
        "<range begin=\"0\" end=\"18446744073709551615\"/>",
        "<block block=\"-1\"/>",
        "<different begin=\"1\" length=\"1\"/>",
        "five",
        "<blocks/>",
    ] {
        refused(&format!("<!-- block=64KiB --><blocks>{wrong}</blocks>"), "wrong before byte");
    }
    refused("<blocks></blocks><blocks/>", "follows");
    refused("<html></html>", "<html>");
    refused(&format!("<blocks {}", "x".repeat(1 << 20)), "without an end");
}

#[test]
fn what_is_no_map_is_refused() {
    for text in ["", " \n\n", "hello\n", "\u{feff}[]", "\0\0\0", "null", "\"x\"", "offset,length\n"] {
        let error = parsed(text).expect_err(text);
        assert!(error.next_step().is_some());
    }
    refused("[5]", "change map");
    refused("[[]]", "change map");
    refused(&"[".repeat(100_000), "change map");
    refused(&format!("{{\"x\":{}", "[".repeat(100_000)), "cut short");
}

/// Every byte of a map replaced by what is likeliest to lead a parser astray.
#[test]
fn no_byte_makes_it_panic() {
    for map in [
        "0 65536 same\n0x10000 1 data\n",
        "<!-- block=64KiB --><blocks><range begin='1' end=\"18446744073709551615\"/></blocks>",
        r#"{"size_bytes":1,"ranges":[{"offset":18446744073709551615,"length":"1","kind":"zero"}]}"#,
        r#"[{"offset":0,"length":18446744073709551615,"type":1,"description":"dirty"}]"#,
        r#"{"ChangedBlocks":[{"BlockIndex":35184372088831}],"VolumeSize":65536,"BlockSize":524288}"#,
        r#"[{"volume_capacity_bytes":1,"block_metadata":[{"byte_offset":1,"size_bytes":1}]}]"#,
    ] {
        for at in 0..map.len() {
            for byte in *b"\0 09<>/-!#{}[],:\"\\nx\n\xff" {
                let mut bytes = map.as_bytes().to_vec();
                bytes[at] = byte;
                let mut changes = ChangeMap::new(Geometry::new(BLOCK, 64 << 10, 4 << 10).unwrap());
                let _ = parse(bytes.as_slice(), &mut changes);
            }
        }
    }
}

#[test]
fn every_error_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut map = ChangeMap::new(Geometry::new(BLOCK, 64 << 10, 4 << 10).unwrap());
    let file = folder.path().join("map");
    std::fs::write(&file, "{\"ranges\":[\n{\"offset\":").unwrap();
    for path in [file.as_path(), folder.path(), &folder.path().join("absent")] {
        let error = read(path, &mut map).unwrap_err();
        assert_eq!(error.error_path(), Some(path));
        assert!(error.next_step().is_some(), "{error:?}");
    }
}

#[test]
fn thin_delta() {
    let map = r#"<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="1600">
  <diff left="1" right="2">
    <same begin="0" length="3"/>
    <different begin="3" length="1"/>
    <left_only begin="4" length="1"/>
    <right_only begin="7" length="2"/>
  </diff>
</superblock>
"#;
    means(map, "thin_delta", &[3, 4, 7, 8], None);
    never_believed_when_cut(map);
    refused(&map.replace("different", "differing"), "differing");
    refused(&map.replace("\"128\"", "\"127\""), "127");
}
