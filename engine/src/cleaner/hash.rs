//! A keyed 128-bit hash of record keys: SipHash-2-4 with its 128-bit output (Aumasson and Bernstein 2012; output extension of the reference code).
//!
//! The offset map knows keys by their hash alone, so two keys with one hash would cost one of them its value. Keys are chosen by clients, who can make collisions of MD5 (what
//! Kafka hashes with) at will. SipHash under a secret key, drawn anew for each pass, is a pseudo-random function: without the key nobody does better than chance, and by chance a billion
//! keys collide with a probability of 2^-69.

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct KeyHash {
    key: [u64; 2],
}

#[derive(Clone, Copy)]
struct State([u64; 4]);

impl State {
    #[inline]
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.0;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }

    #[inline]
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    #[inline]
    fn squeeze(&mut self) -> u64 {
        for _ in 0..4 {
            self.round();
        }
        self.0.iter().fold(0, |all, word| all ^ word)
    }
}

impl KeyHash {
    /// Under a secret key.
    pub fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    /// The hash of `bytes`.
    #[inline]
    pub fn of(&self, bytes: &[u8]) -> [u64; 2] {
        let [k0, k1] = self.key;
        let mut state = State([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ]);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state.absorb(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = bytes.len() as u8;
        state.absorb(u64::from_le_bytes(last));
        state.0[2] ^= 0xee;
        let first = state.squeeze();
        state.0[1] ^= 0xdd;
        [first, state.squeeze()]
    }
}

#[cfg(test)]
mod tests {
    //! The reference code's own vectors (`vectors_sip128`): key 00 01 … 0f, message 00 01 … of each length.
    use super::*;

    const VECTORS: [(usize, [u8; 16]); 4] = [
        (
            0,
            [
                0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55,
                0x02, 0x93,
            ],
        ),
        (
            1,
            [
                0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22,
                0xfc, 0x45,
            ],
        ),
        (
            2,
            [
                0x81, 0x77, 0x22, 0x8d, 0xa4, 0xa4, 0x5d, 0xc7, 0xfc, 0xa3, 0x8b, 0xde, 0xf6, 0x0a,
                0xff, 0xe4,
            ],
        ),
        (
            3,
            [
                0x9c, 0x70, 0xb6, 0x0c, 0x52, 0x67, 0xa9, 0x4e, 0x5f, 0x33, 0xb6, 0xb0, 0x29, 0x85,
                0xed, 0x51,
            ],
        ),
    ];

    #[test]
    fn hashes_are_those_of_the_reference() {
        let key: [u8; 16] = std::array::from_fn(|at| at as u8);
        let (words, _) = key.as_chunks::<8>();
        let hash = KeyHash::new([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]);
        for (length, expected) in VECTORS {
            let message: Vec<u8> = (0..length as u8).collect();
            let [first, second] = hash.of(&message);
            let mut out = [0; 16];
            out[..8].copy_from_slice(&first.to_le_bytes());
            out[8..].copy_from_slice(&second.to_le_bytes());
            assert_eq!(out, expected, "{length} bytes");
        }
    }

    #[test]
    fn length_and_every_byte_count() {
        let hash = KeyHash::new([1, 2]);
        let mut seen = std::collections::BTreeSet::new();
        for length in 0..40usize {
            let zeros = vec![0; length];
            assert!(seen.insert(hash.of(&zeros)));
            for at in 0..length {
                let mut bytes = zeros.clone();
                bytes[at] = 1;
                assert!(seen.insert(hash.of(&bytes)), "{length}, {at}");
            }
        }
        assert_ne!(KeyHash::new([1, 3]).of(b"key"), hash.of(b"key"));
    }
}
