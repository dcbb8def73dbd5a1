//! Record batches: checking what a producer sent, and the checksum that most of it is.

use bytes::Bytes;
use ringlog_engine::batch::{
    BatchBuilder, Compression, ProduceRules, ValidBatch, validate_produce,
};
use ringlog_engine::producer_state::{
    ProducerBatch, ProducerLimits, ProducerStates, SequenceCheck,
};

use crate::NOW_MS;

/// A batch of `count` records with values of `bytes` bytes each, which compress to about half.
pub fn batch(count: usize, bytes: usize, compression: Compression) -> Bytes {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut builder = BatchBuilder::new().compression(compression);
    for number in 0..count {
        let value: Vec<u8> = (0..bytes)
            .map(|at| {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                if at % 2 == 0 {
                    b'a'
                } else {
                    (noise >> 56) as u8
                }
            })
            .collect();
        builder = builder.record(NOW_MS + number as i64, Some(b"key"), Some(&value));
    }
    Bytes::from(builder.build().expect("a batch of sound records"))
}

/// Checks one produced batch.
pub struct Validate {
    batch: Bytes,
    rules: ProduceRules,
}

impl Validate {
    /// A batch of `count` records of `bytes` bytes.
    pub fn new(count: usize, bytes: usize, compression: Compression) -> Self {
        Self {
            batch: batch(count, bytes, compression),
            rules: ProduceRules {
                now_ms: NOW_MS,
                ..ProduceRules::default()
            },
        }
    }

    /// Bytes of the batch.
    pub fn bytes(&self) -> usize {
        self.batch.len()
    }

    /// Checks it.
    pub fn run(&self) -> ValidBatch {
        validate_produce(&self.batch, &self.rules).expect("a sound batch")
    }
}

/// Checks an idempotent producer's next sequence among a thousand producers, and remembers it.
pub struct Sequence {
    states: ProducerStates,
    next: ProducerBatch,
    offset: i64,
}

impl Sequence {
    /// A thousand producers that have each written once.
    #[expect(clippy::new_without_default, reason = "a path is made on purpose")]
    pub fn new() -> Self {
        let mut states = ProducerStates::new(ProducerLimits::default());
        let batch = |producer_id| ProducerBatch {
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            last_offset_delta: 0,
            max_timestamp: NOW_MS,
            transactional: false,
        };
        for producer_id in 0..1000 {
            states.record(&batch(producer_id), producer_id, NOW_MS);
        }
        let mut next = batch(500);
        next.base_sequence = 1;
        Self {
            states,
            next,
            offset: 1000,
        }
    }

    /// One batch.
    pub fn run(&mut self) -> i64 {
        match self.states.check(&self.next, NOW_MS) {
            Ok(SequenceCheck::Fresh) => {}
            other => panic!("the next batch is expected: {other:?}"),
        }
        self.states.record(&self.next, self.offset, NOW_MS);
        self.next.base_sequence += 1;
        self.offset += 1;
        self.offset
    }
}
