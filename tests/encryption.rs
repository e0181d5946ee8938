//! An encrypted repository in the hands of somebody who owns its storage but not its key: what they can see, what they can
//! change without being found out (nothing of an object; which objects are there is another matter), and what its keys do.
//!
//! Cost of Argon2id is the least there is, as it is paid for each time a repository is opened; `tests/cli/key.rs` pays the
//! usual one.
// A broken expectation must end the test, also in a function that several tests call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

mod faults;

mod encryption {
    pub mod golden;
    pub mod keys;
    pub mod layer;
    pub mod owner;
    pub mod victim;
}
