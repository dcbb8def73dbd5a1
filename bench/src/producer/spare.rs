//! Buffers of acknowledged batches, kept for the next ones: what makes a closed loop cost little.

use bytes::BytesMut;

use super::lane::Sent;
use crate::workload::{Producer, Rate};

/// Most that is kept of either kind.
const SPARE_MAX: usize = 4096;

/// Whole batches to be sent again, and room for due times.
pub struct Spare {
    /// Whether batches can be sent again with a fresh header.
    reusable: bool,
    /// Batches, and bytes of the values in each.
    batches: Vec<(BytesMut, u64)>,
    times: Vec<Vec<u64>>,
}

impl Spare {
    /// Nothing yet. Whole batches are kept in closed loops whose records are all alike.
    pub fn new(config: &Producer, stamped: bool) -> Spare {
        Spare {
            reusable: config.rate == Rate::Max && !stamped && config.key_bytes == 0,
            batches: Vec::new(),
            times: Vec::new(),
        }
    }

    /// A batch whose header needs stamping, and bytes of its values.
    pub fn batch(&mut self) -> Option<(BytesMut, u64)> {
        self.batches.pop()
    }

    /// Empty room for due times.
    pub fn times(&mut self) -> Option<Vec<u64>> {
        self.times.pop()
    }

    /// Keeps what can be used again of a batch that has its answer.
    pub fn keep(&mut self, sent: Sent) {
        self.keep_times(sent.intended);
        if self.reusable
            && self.batches.len() < SPARE_MAX
            && let Ok(buffer) = sent.bytes.try_into_mut()
        {
            self.batches.push((buffer, sent.value_bytes));
        }
    }

    /// Keeps the room that `times` has.
    pub fn keep_times(&mut self, mut times: Vec<u64>) {
        if times.capacity() > 0 && self.times.len() < SPARE_MAX {
            times.clear();
            self.times.push(times);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Only batches that nobody else holds, and that look like any other, come back.
    use bytes::Bytes;

    use super::*;
    use crate::workload::Workload;

    fn spare(keys: &str, stamped: bool) -> Spare {
        let text = format!("name = 'a'\n[producer]\n{keys}");
        let workload = Workload::parse(&text, "w.toml", &[]).unwrap();
        Spare::new(&workload.producer.unwrap(), stamped)
    }

    fn sent() -> Sent {
        Sent {
            bytes: Bytes::from(vec![1, 2, 3]),
            value_bytes: 2,
            intended: vec![4],
            ..Sent::default()
        }
    }

    #[test]
    fn batches_come_back_where_all_are_alike() {
        let mut spare = spare("rate = 'max'", false);
        spare.keep(sent());
        let (buffer, value_bytes) = spare.batch().unwrap();
        assert_eq!((&buffer[..], value_bytes), (&[1, 2, 3][..], 2));
        assert!(spare.times().unwrap().is_empty());
        assert!(spare.batch().is_none() && spare.times().is_none());
        let held = sent();
        let other = held.bytes.clone();
        spare.keep(held);
        assert!(spare.batch().is_none(), "{other:?} is still held");
    }

    #[test]
    fn batches_that_tell_themselves_apart_do_not() {
        for (keys, stamped) in [
            ("rate = 10", false),
            ("rate = 'max'", true),
            ("rate = 'max'\nkey_bytes = 8", false),
        ] {
            let mut spare = spare(keys, stamped);
            spare.keep(sent());
            assert!(spare.batch().is_none(), "{keys}");
            assert!(spare.times().is_some());
        }
    }
}
