//! Two sums with two purposes.
//!
//! * [`body_sum`], a CRC32C, guards bytes against decay. 32 bits are enough to notice a broken medium and far too few
//!   to name a message.
//! * [`identity`], an AEGIS-128L tag, *names* what it covers: a header's identity names the message, each prepare
//!   carries its parent's, and so the log is hash-chained. [`PageKey::tag`] does the same for a page of state, under a
//!   key that clients do not know (they write whole pages, and under a known key they could forge equal tags).
//!
//! All values are part of the disk and wire formats; the tests pin them by vector.

use aegis::aegis128l::Aegis128LMac;

/// CRC32C (Castagnoli) of `bytes`.
#[must_use]
pub fn body_sum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The CRC32C of bytes that came before, whose sum is `sum`, and of `bytes` after them.
#[must_use]
pub fn body_sum_append(sum: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(sum, bytes)
}

/// The 128-bit identity of `bytes`: their AEGIS-128L tag under the zero key. It detects accident and names content;
/// it does not stop an attacker.
#[must_use]
pub fn identity(bytes: &[u8]) -> u128 {
    tag(&[0; 16], bytes)
}

/// Whether there is nothing but zeros. Without an early end the compiler takes many bytes at a time: what follows a small
/// prepare is nearly a sector.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, &byte| all | byte) == 0
}

/// The key of the page tags of one cluster, drawn at random by the first op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageKey(pub [u8; 16]);

impl PageKey {
    /// The AEGIS-128L tag of a page. Zero is reserved for "no page here" (a null leaf), so a tag that came out zero
    /// becomes one: 2^-128 is not worth a second code path.
    #[must_use]
    pub fn tag(&self, page: &[u8]) -> u128 {
        tag(&self.0, page).max(1)
    }
}

fn tag(key: &[u8; 16], bytes: &[u8]) -> u128 {
    // Implementations disagree about the tag of nothing, and nothing of ours is empty.
    assert!(!bytes.is_empty());
    let mut mac = Aegis128LMac::<16>::new(key);
    mac.update(bytes);
    u128::from_le_bytes(mac.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_sum_matches_the_published_vector() {
        assert_eq!(body_sum(b"123456789"), 0xe306_9283); // RFC 3720, appendix B.4
        assert_eq!(body_sum(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn one_bit_is_not_zero() {
        let mut bytes = [0; 257];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in 0..bytes.len() {
            bytes[at] = 0x80;
            assert!(!is_zero(&bytes));
            bytes[at] = 0;
        }
    }

    #[test]
    fn tags_never_change() {
        // Published AEGISMAC-128L vectors use other nonces (the crate tests them); these pin our use of it.
        assert_eq!(identity(&[0x5a; 48]), IDENTITY_48);
        assert_eq!(identity(&[0x5a; 240]), IDENTITY_240);
        assert_eq!(PageKey([7; 16]).tag(&[0; 4096]), TAG_ZERO_PAGE);
    }

    const IDENTITY_48: u128 = 0x8186_e142_6a4f_bbe9_38e3_72ca_0766_5eec;
    const IDENTITY_240: u128 = 0x8ef6_ba47_1e2e_1b40_e6e6_e89f_ad13_5b88;
    const TAG_ZERO_PAGE: u128 = 0xb644_0118_898f_75d6_fec7_bcfb_bee5_4eb4;
}
