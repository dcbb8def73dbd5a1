//! Snapshots of producer state.
//!
//! A snapshot with a changed byte is refused; one that is read is written again to bytes that read the same; its table answers
//! batches without panicking and stays within its limits; reading takes memory in proportion.

use ringlog_engine::batch::crc32c;
use ringlog_engine::producer_state::{
    ProducerBatch, ProducerLimits, ProducerStates, SequenceCheck,
};
use ringlog_net::arbitrary::Numbers;

use crate::{Choices, changed, memory};

/// In an input's first byte: give the snapshot its version and checksum.
const SEALED: u8 = 1;
/// In an input's first byte: a table of few producers.
const SMALL: u8 = 2;
const NOW_MS: i64 = 1_000_000;

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let [choice, at, change] = choices.take();
    let batch = batch(&mut choices);
    let mut bytes = choices.rest().to_vec();
    if choice & SEALED != 0 {
        reseal(&mut bytes);
    }
    let limits = ProducerLimits {
        producers_max: if choice & SMALL == 0 { 10_000 } else { 3 },
        ..ProducerLimits::default()
    };
    // A producer of 46 bytes takes some 250 in the table, and twice that while the table grows.
    let decoded = memory::within(20 * bytes.len() + 4096, || {
        ProducerStates::decode_snapshot(&bytes, limits, NOW_MS)
    });
    let Ok(mut states) = decoded else {
        return;
    };
    let at = usize::from(at) * 257 % bytes.len();
    let damaged = changed(&bytes, at, change);
    assert!(
        ProducerStates::decode_snapshot(&damaged, limits, NOW_MS).is_err(),
        "byte {at} was changed"
    );
    again(&states, limits);
    if let Ok(SequenceCheck::Fresh) = states.check(&batch, NOW_MS) {
        states.record(&batch, i64::from(batch.last_offset_delta) + 5000, NOW_MS);
        assert!(
            matches!(
                states.check(&batch, NOW_MS),
                Ok(SequenceCheck::Duplicate(_))
            ),
            "{batch:?}"
        );
        again(&states, limits);
    }
    let _ = states.first_unstable_offset();
    states.expire(i64::MAX, states.len());
}

fn again(states: &ProducerStates, limits: ProducerLimits) {
    if states.len() > limits.producers_max as usize {
        // Open transactions are kept beyond the limit; which producers go for them depends on what was read before.
        return;
    }
    let once = states.encode_snapshot(NOW_MS);
    let read = ProducerStates::decode_snapshot(&once, limits, NOW_MS)
        .expect("a snapshot that was written");
    assert_eq!(read.views(NOW_MS), states.views(NOW_MS));
    assert_eq!(read.first_unstable_offset(), states.first_unstable_offset());
    assert_eq!(read.encode_snapshot(NOW_MS), once);
}

/// A batch as it comes from a header that was checked.
fn batch(choices: &mut Choices<'_>) -> ProducerBatch {
    let [id, epoch, sequence, delta, flags] = choices.take();
    ProducerBatch {
        producer_id: i64::from(id % 16),
        producer_epoch: i16::from(epoch % 4),
        base_sequence: i32::from(sequence),
        last_offset_delta: i32::from(delta),
        max_timestamp: 77,
        transactional: flags & 1 != 0,
    }
}

fn reseal(bytes: &mut [u8]) {
    if let Some((head, checked)) = bytes.split_at_mut_checked(6) {
        head[..2].copy_from_slice(&1_i16.to_be_bytes());
        head[2..].copy_from_slice(&crc32c(checked).to_be_bytes());
    }
}

/// Snapshots with and without earlier batches and open transactions.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(9);
    let mut states = ProducerStates::new(ProducerLimits::default());
    let mut seeds = Vec::new();
    for round in 0..40_usize {
        let numbers = numbers.bytes(5);
        let batch = batch(&mut Choices::new(&numbers));
        if states.check(&batch, NOW_MS) == Ok(SequenceCheck::Fresh) || round % 2 == 0 {
            states.record(&batch, round as i64 * 300 + 299, NOW_MS);
        }
        if round % 5 == 0 {
            let snapshot = states.encode_snapshot(NOW_MS);
            let first = [SEALED | (round as u8 & SMALL), round as u8, 3];
            seeds.push([&first[..], &numbers, &snapshot].concat());
        }
    }
    seeds
}
