//! Any backup restores exactly, whatever happened to the volume and to the local state: random stories, with a plain array
//! of bytes as the model. PROPTEST_CASES asks for more stories than the few of an ordinary run.
#![allow(clippy::expect_used, clippy::unwrap_used)] // the helpers of a test may end it too

mod properties {
    pub mod chains;
    pub mod changes;
    pub mod formats;
    pub mod hints;
    pub mod resumes;
    pub mod retention;
    pub mod scans;

    use blkdelta_core::backup_id::Statistics;
    use support::expect::Expected;

    /// Any number as an index below `end`.
    fn index(pick: u64, end: usize) -> usize {
        usize::try_from(pick).expect("a 64-bit machine") % end.max(1)
    }

    /// What was counted against the model; `exactly`, or at least so much.
    fn assert_counts(found: &Statistics, expected: &Expected, exactly: bool) {
        assert_eq!(found.blocks_changed, expected.blocks, "blocks_changed");
        if exactly {
            let counts = (found.grains_changed, found.bytes_changed);
            assert_eq!(counts, (expected.grains, expected.bytes), "grains_changed, bytes_changed");
        } else {
            assert!(found.grains_changed >= expected.grains && found.bytes_changed >= expected.bytes);
        }
    }
}
