//! What lvm2 says about the logical volumes of a volume group: one run of `lvs` in its JSON form.
//!
//! Trade-off: the whole group is listed where one volume is looked for. It is one run either way, and a volume is found by
//! its UUID whatever it is called by now. Other groups are not asked for: one that cannot be read would fail the run.
//! If a field were missing in an old lvm2, `lvs` itself refuses, and that is the error.

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::command::Command;

const FIELDS: &str = "lv_uuid,lv_name,vg_name,vg_uuid,lv_attr,lv_size,lv_dm_path,origin_uuid,pool_lv_uuid,segtype,\
                      thin_id,chunk_size,seg_start,seg_pe_ranges";

/// A program of lvm2, without its remarks on descriptors that somebody else left open.
pub fn program(name: &str) -> Command {
    Command::new(name).env("LVM_SUPPRESS_FD_WARNINGS", "1")
}

/// One logical volume, in lvm2's own words: UUIDs have dashes, numbers are digits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogicalVolumeReport {
    #[serde(rename = "lv_uuid")]
    pub uuid: String,
    #[serde(rename = "lv_name")]
    pub name: String,
    #[serde(rename = "vg_name")]
    pub group: String,
    #[serde(rename = "vg_uuid")]
    pub group_uuid: String,
    lv_attr: String,
    #[serde(rename = "lv_size")]
    pub size: String,
    /// Its device below /dev/mapper.
    #[serde(rename = "lv_dm_path")]
    pub device: String,
    pub origin_uuid: String,
    #[serde(rename = "pool_lv_uuid")]
    pub pool_uuid: String,
    segtype: String,
    /// Its number in its pool; empty when it is not thin.
    pub thin_id: String,
    pub chunk_size: String,
    seg_start: String,
    /// Where its segments lie on the physical volumes, in order.
    #[serde(rename = "seg_pe_ranges")]
    pub layout: String,
}

impl LogicalVolumeReport {
    /// `VG/LV`, as lvm2's commands take it.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// How device-mapper knows it; layers below it add a suffix.
    pub fn device_uuid(&self) -> String {
        format!("LVM-{}{}", plain(&self.group_uuid), plain(&self.uuid))
    }

    /// Whether it is the snapshot of a thick volume.
    pub fn is_thick_snapshot(&self) -> bool {
        matches!(self.attribute(0), 's' | 'S')
    }

    /// Whether a snapshot is to be merged into it, or is being merged.
    pub fn is_merged_into(&self) -> bool {
        self.attribute(0) == 'O'
    }

    /// Whether it lives in a thin pool.
    pub fn is_thin(&self) -> bool {
        self.segtype == "thin"
    }

    /// Whether writes are forbidden by its own metadata (not for this activation alone).
    pub fn is_read_only(&self) -> bool {
        self.attribute(1) == 'r'
    }

    fn attribute(&self, index: usize) -> char {
        self.lv_attr.chars().nth(index).unwrap_or('-')
    }
}

/// The volume group in the name of a mapped device: all before the first single hyphen, where hyphens of its own are
/// doubled.
pub fn group_of(device_name: &str) -> String {
    let mut group = String::new();
    let mut letters = device_name.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '-' && letters.next_if_eq(&'-').is_none() {
            break;
        }
        group.push(letter);
    }
    group
}

/// A UUID without its dashes, as device-mapper and our identities have it.
pub fn plain(uuid: &str) -> String {
    uuid.replace('-', "")
}

/// The visible logical volumes of these groups; none when lvm2 is not installed.
pub fn of(groups: &[&str]) -> Result<Vec<LogicalVolumeReport>> {
    let arguments = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o", FIELDS];
    match program("lvs").args(arguments).args(groups).run() {
        Ok(said) => parse(&said.out),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct Document {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    #[serde(alias = "seg")]
    lv: Vec<LogicalVolumeReport>,
}

/// There is a row for each segment.
fn parse(json: &str) -> Result<Vec<LogicalVolumeReport>> {
    let document: Document = serde_json::from_str(json).map_err(|source| {
        Error::new(ErrorKind::Io, "the report of lvs was not understood").because(source)
    })?;
    let mut volumes: Vec<LogicalVolumeReport> = Vec::new();
    for row in document.report.into_iter().flat_map(|section| section.lv) {
        match volumes.iter_mut().find(|volume| volume.uuid == row.uuid) {
            Some(volume) => volume.layout.push_str(&format!(" {}:{}", row.seg_start, row.layout)),
            None => volumes.push(row),
        }
    }
    Ok(volumes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, attr: &str, start: u64, ranges: &str) -> String {
        format!(
            r#"{{"lv_uuid":"{name}-uuid", "lv_name":"{name}", "vg_name":"vg", "vg_uuid":"g-r", "lv_attr":"{attr}",
            "lv_size":"8388608", "lv_dm_path":"/dev/mapper/vg-{name}", "origin_uuid":"", "pool_lv_uuid":"", "segtype":"linear",
            "thin_id":"", "chunk_size":"0", "seg_start":"{start}", "seg_pe_ranges":"{ranges}"}}"#
        )
    }

    #[test]
    fn a_volume_of_two_segments_is_one_volume() {
        let rows = [
            row("data", "owi-aos---", 0, "/dev/sda:0-0"),
            row("snap", "sri-a-s---", 0, "/dev/sda:1-1"),
            row("data", "owi-aos---", 4194304, "/dev/sda:7-7"),
        ];
        let volumes = parse(&format!(r#"{{"report": [{{"lv": [{}]}}]}}"#, rows.join(","))).unwrap();
        assert_eq!(volumes.len(), 2);
        assert_eq!(volumes[0].layout, "/dev/sda:0-0 4194304:/dev/sda:7-7");
        assert_eq!(
            (volumes[0].full_name().as_str(), volumes[0].device_uuid().as_str()),
            ("vg/data", "LVM-grdatauuid")
        );
        assert!(volumes[1].is_thick_snapshot() && volumes[1].is_read_only());
        assert!(!volumes[0].is_thick_snapshot() && !volumes[0].is_read_only() && !volumes[0].is_thin());
    }

    #[test]
    fn the_group_of_a_device_is_in_its_name() {
        for (name, group) in
            [("vg-lv", "vg"), ("my--vg-l--v", "my-vg"), ("a---b", "a-"), ("vg-pool_tmeta", "vg")]
        {
            assert_eq!(group_of(name), group, "{name}");
        }
    }

    #[test]
    fn a_report_that_is_not_one_is_refused() {
        assert!(parse(r#"{"report": [{"lv": []}]}"#).unwrap().is_empty());
        for text in ["", "{}", r#"{"report": [{"lv": [{"lv_name":"a"}]}]}"#, r#"{"report": [{"pv": []}]}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
