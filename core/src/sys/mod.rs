//! System calls: the only `unsafe` of the core, and the only place that talks to the kernel directly.
//!
//! Every call that can fail passes a [`faults::point`] first, so that tests can make the n-th one fail. Callers above see
//! safe types only. If an invariant stated in a `SAFETY` comment here were broken, memory could be corrupted while a
//! backup looks fine; so buffers are owned by the ring until their completion has arrived, also when cancelling.
#![allow(unsafe_code)]

pub mod block_device;
pub mod buffer_pool;
pub mod cache_guard;
pub mod cgroup;
pub mod command;
pub mod direct_file;
pub mod faults;
pub mod files;
pub mod freeze;
pub mod host;
pub mod io_priority;
#[cfg(test)]
pub(crate) mod loop_for_tests;
pub mod mounts;
pub mod pressure;
pub mod queue_stats;
pub mod ring;
pub mod terminal;
