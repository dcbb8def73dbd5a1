//! Numbers that look random and are the same in every run (xorshift64*, Vigna 2016), and the mutations made with them.

/// A small deterministic generator; not for secrets.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

/// Integers at which length and sign checks go wrong, if they go wrong.
const EDGES: [&[u8]; 10] = [
    &[0xff, 0xff, 0xff, 0xff],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0x00, 0x00, 0x00],
    &[0x00, 0x10, 0x00, 0x00],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x7f, 0xff],
    &[0xff, 0xff],
    &[0x00],
    &[0xff],
];

impl Numbers {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number, any.
    pub fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    /// The next number, less than `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.any() % limit.max(1) as u64) as usize
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.any() as u8).collect()
    }

    /// Changes `bytes` in one to four places: bits flipped, bytes replaced by edges, removed, doubled, or inserted.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
                1 | 2 => {
                    let edge = EDGES[self.below(EDGES.len())];
                    let end = bytes.len().min(at + edge.len());
                    bytes.splice(at..end, edge.iter().copied());
                }
                3 => {
                    let end = at + self.below(bytes.len() - at + 1);
                    bytes.drain(at..end);
                }
                4 => {
                    let end = at + self.below((bytes.len() - at + 1).min(64));
                    let doubled = bytes[at..end].to_vec();
                    bytes.splice(at..at, doubled);
                }
                _ => {
                    let length = self.below(9);
                    let inserted = self.bytes(length);
                    bytes.splice(at..at, inserted);
                }
            }
        }
    }
}
