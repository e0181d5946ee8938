//! Master keys wrapped by a passphrase or a key file: Argon2id makes a wrapping key of it, AES-256-GCM wraps.
//!
//! Next to the wrapping key Argon2id gives 16 bytes that are stored as they are, so that a wrong passphrase is told apart
//! from a changed slot, and no other key opens the same slot. What a slot says of its cost is believed up to a bound: a
//! hostile one must not make us take a hundred GiB.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::master_keys::{KEY_LEN, MasterKeys};
use super::sealing::{ObjectKey, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::format::key_slot::Cost;

/// Bytes of the salt.
pub const SALT_LEN: usize = 32;
/// Bytes that tell whether a passphrase is the right one.
pub const CHECK_LEN: usize = 16;

const BOUND_TO: &[u8] = b"blkdelta.slot.1";

/// The greatest cost that a slot is believed.
const COST_MAX: Cost = Cost { memory_kib: 256 << 10, passes: 16, lanes: 16 };

fn params(cost: Cost) -> Result<Params> {
    let within = cost.memory_kib <= COST_MAX.memory_kib
        && cost.passes <= COST_MAX.passes
        && cost.lanes <= COST_MAX.lanes;
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_LEN + CHECK_LEN));
    params.ok().filter(|_| within).ok_or_else(|| {
        let Cost { memory_kib, passes, lanes } = cost;
        let text =
            format!("a key slot asks for {memory_kib} KiB, {passes} passes and {lanes} lanes of Argon2id");
        Error::new(ErrorKind::Unsupported, text)
    })
}

/// What a passphrase or a key file becomes for one slot.
pub struct WrappingKey {
    key: ObjectKey,
    check: [u8; CHECK_LEN],
}

impl WrappingKey {
    /// Takes a while on purpose.
    pub fn derive(secret: &[u8], salt: &[u8; SALT_LEN], cost: Cost) -> Result<Self> {
        let mut output = Zeroizing::new([0; KEY_LEN + CHECK_LEN]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params(cost)?)
            .hash_password_into(secret, salt, &mut *output)
            .map_err(|error| Error::new(ErrorKind::Io, format!("Argon2id failed: {error}")))?;
        let (mut key, mut check) = (Zeroizing::new([0; KEY_LEN]), [0; CHECK_LEN]);
        key.copy_from_slice(&output[..KEY_LEN]);
        check.copy_from_slice(&output[KEY_LEN..]);
        Ok(Self { key: ObjectKey::new(&key)?, check })
    }

    /// What the slot stores to know it again.
    #[must_use]
    pub fn check(&self) -> [u8; CHECK_LEN] {
        self.check
    }

    /// Wraps the keys, bound to a configuration and to what their slot says. Once for each salt.
    pub fn wrap(&self, keys: &MasterKeys, config: &[u8; 32], slot: &[u8]) -> Result<Vec<u8>> {
        let plain = keys.encode();
        // With room for the tag: a vector that moved would leave the keys behind.
        let mut bytes = Vec::with_capacity(plain.len() + TAG_LEN);
        bytes.extend_from_slice(&plain);
        self.key.seal_with(0, true, &bound(config, slot), &mut bytes, 0)?;
        Ok(bytes)
    }

    /// Unwraps them; `None` when configuration, slot or keys are not those that were wrapped.
    #[must_use]
    pub fn unwrap(&self, wrapped: &[u8], config: &[u8; 32], slot: &[u8]) -> Option<MasterKeys> {
        let mut bytes = Zeroizing::new(wrapped.to_vec());
        let plain = self.key.open_with(0, true, &bound(config, slot), &mut bytes)?;
        MasterKeys::decode(plain).ok()
    }
}

fn bound(config: &[u8; 32], slot: &[u8]) -> Vec<u8> {
    [BOUND_TO, config, slot].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_cost_is_refused_before_it_is_paid() {
        for (memory_kib, passes, lanes) in
            [(u32::MAX, 1, 1), (64, u32::MAX, 1), (1 << 10, 1, 1 << 20), (0, 0, 0)]
        {
            let cost = Cost { memory_kib, passes, lanes };
            let error = WrappingKey::derive(b"secret", &[0; SALT_LEN], cost).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    }

    #[test]
    fn what_was_wrapped_is_bound_to_all_around_it() {
        let keys = MasterKeys::new_random().unwrap();
        let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
        let key = WrappingKey::derive(b"secret", &[7; SALT_LEN], cost).unwrap();
        let wrapped = key.wrap(&keys, &[1; 32], b"slot").unwrap();
        let unwrapped = key.unwrap(&wrapped, &[1; 32], b"slot").unwrap();
        assert_eq!(unwrapped.encode(), keys.encode());
        assert!(key.unwrap(&wrapped, &[2; 32], b"slot").is_none(), "another configuration");
        assert!(key.unwrap(&wrapped, &[1; 32], b"other").is_none(), "another slot");
        let other = WrappingKey::derive(b"secrey", &[7; SALT_LEN], cost).unwrap();
        assert!(other.check() != key.check() && other.unwrap(&wrapped, &[1; 32], b"slot").is_none());
    }
}
