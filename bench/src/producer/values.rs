//! What records carry: a pool of values that take turns, and keys.

use std::io;

use bytes::Bytes;

use crate::schedule::Random;
use crate::workload::{PAYLOADS, Producer, sizes};

/// Keys and values of a load.
pub struct Values {
    pool: Vec<Bytes>,
    /// Whether their sizes follow a mix.
    varied: bool,
    smallest: usize,
    key: Vec<u8>,
}

impl Values {
    /// As the workload asks: a file's bytes, or random ones of which the last part repeats one byte.
    pub fn make(config: &Producer, seed: u64) -> io::Result<Values> {
        let pool = match &config.payload_file {
            Some(file) => vec![Bytes::from(std::fs::read(file)?); PAYLOADS],
            None => random_pool(config, seed),
        };
        Ok(Values {
            pool,
            varied: !config.record_sizes.is_empty(),
            smallest: config.smallest_record(),
            key: vec![b'k'; config.key_bytes],
        })
    }

    /// The value of record `number`. Values of one size take turns; which size comes next is chance.
    pub fn value(&self, number: u64, random: &mut Random) -> Bytes {
        let count = self.pool.len() as u64;
        let at = if self.varied {
            random.below(count)
        } else {
            number % count
        };
        self.pool[at as usize].clone()
    }

    /// Bytes of the smallest value.
    pub fn smallest(&self) -> usize {
        self.smallest
    }

    /// The key of record `number`, where records have keys: it ends in the number, least significant byte first.
    pub fn key(&mut self, number: u64) -> Option<&[u8]> {
        for (place, byte) in self.key.iter_mut().zip(number.to_le_bytes()) {
            *place = byte;
        }
        (!self.key.is_empty()).then_some(self.key.as_slice())
    }
}

fn random_pool(config: &Producer, seed: u64) -> Vec<Bytes> {
    let mut random = Random::new(seed);
    let pool = match config.record_sizes.as_slice() {
        [] => vec![config.record_bytes; PAYLOADS],
        mix => sizes::pool(mix),
    };
    let value = |size: usize| {
        let fresh = (size as f64 * (1.0 - config.repetition)) as usize;
        let bytes = (0..size).map(|at| {
            if at < fresh {
                random.bits() as u8
            } else {
                b'r'
            }
        });
        bytes.collect::<Vec<u8>>().into()
    };
    pool.into_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    //! Values have the size and the repetition that was asked for, and keys tell records apart.
    use super::*;
    use crate::workload::Workload;

    fn values(keys: &str) -> Values {
        let text = format!("name = 'a'\n[producer]\nrate = 1\n{keys}");
        let workload = Workload::parse(&text, "w.toml", &[]).unwrap();
        Values::make(&workload.producer.unwrap(), 7).unwrap()
    }

    #[test]
    fn values_of_one_size_take_turns() {
        let values = values("record_bytes = 100\nrepetition = 0.25");
        let mut random = Random::new(1);
        let (first, second) = (values.value(0, &mut random), values.value(1, &mut random));
        assert_ne!(first, second);
        assert_eq!(first, values.value(PAYLOADS as u64, &mut random));
        assert_eq!((first.len(), values.smallest()), (100, 100));
        assert!(first[75..].iter().all(|&byte| byte == b'r'));
        assert!(first[..75].iter().any(|&byte| byte != first[0]));
    }

    #[test]
    fn sizes_of_a_mix_come_by_chance() {
        let values = values("record_sizes = [{ bytes = 10, weight = 9 }, { bytes = 1000 }]");
        let mut random = Random::new(1);
        let large = (0..1000)
            .filter(|_| values.value(0, &mut random).len() == 1000)
            .count();
        assert!((50..150).contains(&large), "{large}");
        assert_eq!(values.smallest(), 10);
    }

    #[test]
    fn keys_tell_records_apart() {
        assert_eq!(values("").key(1), None);
        let mut keyed = values("key_bytes = 10");
        assert_eq!(keyed.key(0x0102).unwrap(), b"\x02\x01\0\0\0\0\0\0kk");
        assert_eq!(values("key_bytes = 1").key(0x0102).unwrap(), [2]);
    }
}
