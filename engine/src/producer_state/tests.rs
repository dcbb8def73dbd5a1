//! Proves: the table judges every batch as a naive model with full history does, stays within its limits, and survives snapshots; no bytes make a snapshot panic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    BATCHES_KEPT, Duplicate, ProducerBatch, ProducerLimits, ProducerStates, SequenceCheck,
    SequenceError, SnapshotError,
};
use crate::batch::{code, crc32c};

const LIMITS: ProducerLimits = ProducerLimits {
    producers_max: 1000,
    expiration_ms: 1000,
};

fn batch(producer_id: i64, producer_epoch: i16, base_sequence: i32, records: i32) -> ProducerBatch {
    ProducerBatch {
        producer_id,
        producer_epoch,
        base_sequence,
        last_offset_delta: records - 1,
        max_timestamp: i64::from(base_sequence) + 7,
        transactional: false,
    }
}

/// Appends a batch at the end of a log that ends at `end`, as the log does; returns the check.
fn append(
    states: &mut ProducerStates,
    end: &mut i64,
    batch: &ProducerBatch,
    now_ms: i64,
) -> Result<SequenceCheck, SequenceError> {
    let check = states.check(batch, now_ms)?;
    if check == SequenceCheck::Fresh {
        *end += i64::from(batch.last_offset_delta) + 1;
        states.record(batch, *end - 1, now_ms);
    }
    Ok(check)
}

/// The rules once more, on a plain list of everything appended.
#[derive(Default)]
struct Model {
    producers: BTreeMap<i64, ModelProducer>,
}

/// Epoch, when it was used last, and (first sequence, last sequence, base offset, last offset) of all batches of that epoch.
type ModelProducer = (i16, i64, Vec<(i32, i32, i64, i64)>);

impl Model {
    fn judge(&self, batch: &ProducerBatch, now_ms: i64) -> Result<Option<(i64, i64)>, i16> {
        let Some((epoch, used_ms, batches)) = self.producers.get(&batch.producer_id) else {
            return Ok(None);
        };
        if now_ms - used_ms >= LIMITS.expiration_ms {
            return Ok(None);
        }
        let wrapped = |sequence: i64| (sequence % (1 << 31)) as i32;
        let first = batch.base_sequence;
        let last = wrapped(i64::from(first) + i64::from(batch.last_offset_delta));
        if batch.producer_epoch < *epoch {
            return Err(code::INVALID_PRODUCER_EPOCH);
        }
        if batch.producer_epoch > *epoch {
            return if first == 0 {
                Ok(None)
            } else {
                Err(code::OUT_OF_ORDER_SEQUENCE_NUMBER)
            };
        }
        let lately = &batches[batches.len().saturating_sub(BATCHES_KEPT)..];
        if let Some((.., base, end)) = lately
            .iter()
            .rev()
            .find(|kept| (kept.0, kept.1) == (first, last))
        {
            return Ok(Some((*base, *end)));
        }
        let next = batches
            .last()
            .map_or(0, |kept| wrapped(i64::from(kept.1) + 1));
        if first == next {
            Ok(None)
        } else {
            Err(code::OUT_OF_ORDER_SEQUENCE_NUMBER)
        }
    }

    fn append(&mut self, batch: &ProducerBatch, base_offset: i64, now_ms: i64) {
        let last_offset = base_offset + i64::from(batch.last_offset_delta);
        let producer = self.producers.entry(batch.producer_id).or_insert((
            batch.producer_epoch,
            now_ms,
            Vec::new(),
        ));
        let expired = now_ms - producer.1 >= LIMITS.expiration_ms;
        if producer.0 != batch.producer_epoch || expired {
            *producer = (batch.producer_epoch, now_ms, Vec::new());
        }
        producer.1 = now_ms;
        let last = batch.last_sequence();
        producer
            .2
            .push((batch.base_sequence, last, base_offset, last_offset));
    }
}

#[derive(Clone, Debug)]
struct Sent {
    producer_id: i64,
    epoch: i16,
    // Where the batch starts, counted from the producer's next sequence: mostly 0, or a batch sent again, or a gap.
    shift: i64,
    records: i32,
    after_ms: i64,
    snapshot: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let shift = prop_oneof![6 => Just(0i64), 3 => -20i64..0, 1 => 1i64..5];
    let after = prop_oneof![20 => 0i64..30, 1 => 900i64..1100];
    (
        0i64..4,
        prop_oneof![20 => Just(0i16), 1 => 0i16..3],
        shift,
        1i32..4,
        after,
        prop::bool::weighted(0.05),
    )
        .prop_map(
            |(producer_id, epoch, shift, records, after_ms, snapshot)| Sent {
                producer_id,
                epoch,
                shift,
                records,
                after_ms,
                snapshot,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn judges_as_the_model_does(sent in prop::collection::vec(sent(), 1..200), start in prop::sample::select(vec![0, 100, i32::MAX - 10])) {
        let mut states = ProducerStates::new(LIMITS);
        let mut model = Model::default();
        let mut next: BTreeMap<i64, i64> = BTreeMap::new();
        let (mut end, mut now_ms) = (0, 0);
        for sent in sent {
            now_ms += sent.after_ms;
            let next = next.entry(sent.producer_id).or_insert(i64::from(start));
            let sequence = (*next + sent.shift).rem_euclid(1 << 31) as i32;
            let batch = batch(sent.producer_id, sent.epoch, sequence, sent.records);
            let expected = model.judge(&batch, now_ms);
            let base = end;
            let outcome = append(&mut states, &mut end, &batch, now_ms);
            match (outcome, expected) {
                (Ok(SequenceCheck::Fresh), Ok(None)) => {
                    model.append(&batch, base, now_ms);
                    *next = i64::from(batch.last_sequence()) + 1;
                }
                (Ok(SequenceCheck::Duplicate(found)), Ok(Some((base_offset, last_offset)))) => {
                    prop_assert_eq!((found.base_offset, found.last_offset), (base_offset, last_offset));
                    prop_assert_eq!(found.next_offset(), last_offset + 1);
                }
                (Err(error), Err(number)) => prop_assert_eq!(error.code(), number),
                (outcome, expected) => prop_assert!(false, "{outcome:?} but the model says {expected:?}"),
            }
            if sent.snapshot {
                // A restart at any time changes no answer; it counts as a use of every producer.
                let bytes = states.encode_snapshot(now_ms);
                states = ProducerStates::decode_snapshot(&bytes, LIMITS, now_ms).expect("its own bytes");
                prop_assert_eq!(states.encode_snapshot(now_ms), bytes);
                for (_, used_ms, _) in model.producers.values_mut() {
                    if now_ms - *used_ms < LIMITS.expiration_ms {
                        *used_ms = now_ms;
                    }
                }
            }
        }
    }

    #[test]
    fn the_oldest_make_way(ids in prop::collection::vec(0i64..30, 1..300), limit in 1u32..10) {
        let mut states = ProducerStates::new(ProducerLimits { producers_max: limit, expiration_ms: 50 });
        // The model: ids in order of last use, with the time of it.
        let mut used: Vec<(i64, i64)> = Vec::new();
        for (now_ms, id) in ids.into_iter().enumerate() {
            let now_ms = now_ms as i64;
            states.record(&batch(id, 0, 0, 1), now_ms, now_ms);
            used.retain(|(other, _)| *other != id);
            used.push((id, now_ms));
            if used.len() > limit as usize {
                used.remove(0);
            }
            prop_assert!(states.len() <= limit as usize);
            let mut expected: Vec<i64> = used.iter().filter(|(_, at)| now_ms - at < 50).map(|(id, _)| *id).collect();
            expected.sort_unstable();
            let found: Vec<i64> = states.views(now_ms).iter().map(|view| view.producer_id).collect();
            prop_assert_eq!(found, expected);
        }
        let forgotten = states.expire(1_000_000, usize::MAX);
        prop_assert!(forgotten > 0 && states.is_empty());
    }

    #[test]
    fn hostile_snapshots_are_refused_or_harmless(mut bytes in prop::collection::vec(any::<u8>(), 0..400), sealed in any::<bool>(), count in 0u8..9) {
        if sealed && bytes.len() >= 10 {
            bytes[..2].copy_from_slice(&[0, 1]);
            bytes[6..10].copy_from_slice(&[0, 0, 0, count]);
            let at = 10 + usize::from(count) * 46;
            if bytes.len() > at + 5 {
                bytes[at..at + 5].copy_from_slice(b"RLEB\x01");
            }
            let checksum = crc32c(&bytes[6..]);
            bytes[2..6].copy_from_slice(&checksum.to_be_bytes());
        }
        if let Ok(mut states) = ProducerStates::decode_snapshot(&bytes, LIMITS, 0) {
            prop_assert!(states.len() <= bytes.len() / 46);
            for view in states.views(0) {
                let next = batch(view.producer_id, view.producer_epoch, 5, 2);
                let _ = states.check(&next, 0);
                states.record(&next, 100, 0);
            }
            let again = states.encode_snapshot(0);
            prop_assert!(ProducerStates::decode_snapshot(&again, LIMITS, 0).is_ok());
        }
    }
}

#[test]
fn five_batches_in_flight_can_all_be_sent_again_and_the_sixth_last_cannot() {
    let mut states = ProducerStates::new(LIMITS);
    let mut end = 0;
    for number in 0..6 {
        assert_eq!(
            append(&mut states, &mut end, &batch(1, 0, number * 2, 2), 0),
            Ok(SequenceCheck::Fresh)
        );
    }
    for number in 1..6 {
        let original = Duplicate {
            base_offset: i64::from(number) * 2,
            last_offset: i64::from(number) * 2 + 1,
            timestamp: i64::from(number) * 2 + 7,
        };
        assert_eq!(
            states.check(&batch(1, 0, number * 2, 2), 0),
            Ok(SequenceCheck::Duplicate(original))
        );
    }
    assert!(matches!(
        states.check(&batch(1, 0, 0, 2), 0),
        Err(SequenceError::OutOfOrder { last: 11, .. })
    ));
    // Half of a batch is not a batch sent again.
    assert!(matches!(
        states.check(&batch(1, 0, 10, 1), 0),
        Err(SequenceError::OutOfOrder { .. })
    ));
}

#[test]
fn sequences_go_on_at_zero_after_the_largest() {
    let mut states = ProducerStates::new(LIMITS);
    let mut end = 0;
    // Unknown producer: any start. The batch itself crosses the wrap.
    let across = batch(1, 0, i32::MAX - 1, 4);
    assert_eq!(across.last_sequence(), 1);
    assert_eq!(
        append(&mut states, &mut end, &across, 0),
        Ok(SequenceCheck::Fresh)
    );
    assert!(matches!(
        states.check(&across, 0),
        Ok(SequenceCheck::Duplicate(Duplicate {
            base_offset: 0,
            last_offset: 3,
            ..
        }))
    ));
    assert_eq!(
        append(&mut states, &mut end, &batch(1, 0, 2, 1), 0),
        Ok(SequenceCheck::Fresh)
    );
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
    let mut states = ProducerStates::new(LIMITS);
    let mut end = 0;
    assert!(append(&mut states, &mut end, &batch(1, 3, 0, 1), 0).is_ok());
    assert!(matches!(
        states.check(&batch(1, 4, 1, 1), 0),
        Err(SequenceError::OutOfOrder { .. })
    ));
    assert_eq!(
        append(&mut states, &mut end, &batch(1, 4, 0, 1), 0),
        Ok(SequenceCheck::Fresh)
    );
    let fenced = states.check(&batch(1, 3, 1, 1), 0);
    assert_eq!(
        fenced,
        Err(SequenceError::InvalidEpoch {
            producer_id: 1,
            epoch: 3,
            current: 4
        })
    );
}

#[test]
fn expiry_ends_whatever_its_budget_when_every_producer_is_in_a_transaction() {
    let mut states = ProducerStates::new(LIMITS);
    for id in 1..=3 {
        let open = ProducerBatch {
            transactional: true,
            ..batch(id, 0, 0, 1)
        };
        states.record(&open, 10 + id, 0);
    }
    // One that went round by its budget would not come back.
    assert_eq!(states.expire(i64::MAX / 2, usize::MAX), 0);
    assert_eq!(states.views(0).len(), 3);
}

#[test]
fn an_open_transaction_is_neither_expired_nor_evicted() {
    let limits = ProducerLimits {
        producers_max: 2,
        expiration_ms: 10,
    };
    let mut states = ProducerStates::new(limits);
    let transactional = |id| ProducerBatch {
        transactional: true,
        ..batch(id, 0, 0, 3)
    };
    states.record(&transactional(1), 12, 0);
    assert_eq!(states.first_unstable_offset(), Some(10));
    states.record(&batch(2, 0, 0, 1), 13, 0);
    states.record(&batch(3, 0, 0, 1), 14, 0);
    let ids = |states: &ProducerStates, now| {
        states
            .views(now)
            .iter()
            .map(|view| view.producer_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&states, 0), [1, 3]);
    states.expire(100, 10);
    assert_eq!(ids(&states, 100), [1]);
    states.record(&transactional(4), 20, 100);
    assert_eq!(
        states.check(&batch(5, 0, 0, 1), 100),
        Err(SequenceError::TooManyProducers { producers_max: 2 })
    );
    assert_eq!(states.end_transaction(1, 0, 6, 90, 100), Some(10));
    assert_eq!(states.end_transaction(1, 0, 6, 90, 100), None);
    assert_eq!(states.first_unstable_offset(), Some(18));
    assert_eq!(
        states.check(&batch(5, 0, 0, 1), 100),
        Ok(SequenceCheck::Fresh)
    );
    let view = states.views(100)[0];
    assert_eq!(
        (
            view.coordinator_epoch,
            view.last_timestamp,
            view.current_transaction_start_offset
        ),
        (6, 90, -1)
    );
    // The transaction survives a restart.
    let bytes = states.encode_snapshot(100);
    let reloaded = ProducerStates::decode_snapshot(&bytes, limits, 100).expect("its own bytes");
    assert_eq!(reloaded.views(100), states.views(100));
    assert_eq!(reloaded.first_unstable_offset(), Some(18));
}

#[test]
fn snapshots_have_kafkas_bytes() {
    let mut states = ProducerStates::new(LIMITS);
    states.record(&batch(0x0102, 3, 4, 2), 0x0506, 0);
    let bytes = states.encode_snapshot(0);
    let mut body = vec![0, 0, 0, 1];
    body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]); // producer id
    body.extend_from_slice(&[0, 3]); // epoch
    body.extend_from_slice(&[0, 0, 0, 5]); // last sequence
    body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 5, 6]); // last offset
    body.extend_from_slice(&[0, 0, 0, 1]); // offset delta
    body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 11]); // timestamp
    body.extend_from_slice(&[0xff; 4]); // coordinator epoch
    body.extend_from_slice(&[0xff; 8]); // no transaction
    assert_eq!(bytes[..2], [0, 1]);
    assert_eq!(bytes[2..6], crc32c(&body).to_be_bytes());
    assert_eq!(
        bytes[6..],
        body,
        "one batch: nothing follows that Kafka would not write"
    );
    states.record(&batch(0x0102, 3, 6, 1), 0x0507, 0);
    let longer = states.encode_snapshot(0);
    assert_eq!(longer.len(), bytes.len() + 5 + 9 + 24);
}

#[test]
fn damaged_snapshots_are_named() {
    let mut states = ProducerStates::new(LIMITS);
    for sequence in 0..3 {
        states.record(&batch(1, 0, sequence, 1), i64::from(sequence), 0);
    }
    let good = states.encode_snapshot(0);
    for at in 2..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(
            ProducerStates::decode_snapshot(&bad, LIMITS, 0).err(),
            Some(SnapshotError::BadChecksum)
        );
    }
    for cut in 0..good.len() {
        assert!(ProducerStates::decode_snapshot(&good[..cut], LIMITS, 0).is_err());
    }
    let mut newer = good;
    newer[1] = 2;
    assert_eq!(
        ProducerStates::decode_snapshot(&newer, LIMITS, 0).err(),
        Some(SnapshotError::UnknownVersion { version: 2 })
    );
}

#[test]
fn an_unused_table_holds_nothing() {
    let mut states = ProducerStates::new(LIMITS);
    assert!(states.is_empty());
    states.record(&batch(1, 0, 0, 1), 0, 0);
    assert_eq!(states.expire(LIMITS.expiration_ms - 1, 5), 0);
    assert_eq!(states.expire(LIMITS.expiration_ms, 5), 1);
    assert!(states.is_empty());
    assert!(
        std::mem::size_of::<ProducerStates>() <= 128,
        "{}",
        std::mem::size_of::<ProducerStates>()
    );
}
