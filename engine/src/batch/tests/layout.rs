//! Proves: headers and varints round-trip byte for byte, offsets and epochs are assigned outside the checksum, and walks over a log slice find exactly its whole batches.

use proptest::prelude::*;

use super::{build, three_records};
use crate::batch::{
    Attributes, BatchHeader, HEADER_BYTES, MAGIC, advance_sequence, assign, batches, varint,
};

fn any_header() -> impl Strategy<Value = BatchHeader> {
    let first = (
        0..=i64::MAX / 2,
        49..=i32::MAX,
        any::<i32>(),
        any::<u32>(),
        any::<i16>(),
        0..=i32::MAX,
    );
    let second = (
        any::<i64>(),
        any::<i64>(),
        any::<i64>(),
        any::<i16>(),
        any::<i32>(),
        any::<i32>(),
    );
    (first, second).prop_map(|(first, second)| BatchHeader {
        base_offset: first.0,
        length: first.1,
        leader_epoch: first.2,
        checksum: first.3,
        attributes: Attributes(first.4),
        last_offset_delta: first.5,
        base_timestamp: second.0,
        max_timestamp: second.1,
        producer_id: second.2,
        producer_epoch: second.3,
        base_sequence: second.4,
        record_count: second.5,
    })
}

proptest! {
    #[test]
    fn headers_round_trip(header in any_header()) {
        let raw = header.encode();
        prop_assert_eq!(raw[16] as i8, MAGIC);
        prop_assert_eq!(BatchHeader::parse(&raw), Ok(header));
    }

    #[test]
    fn varints_round_trip(value in any::<i64>(), shift in 0u32..64) {
        let value = value >> shift;
        let mut bytes = Vec::new();
        varint::write_i64(&mut bytes, value);
        let mut at = 0;
        prop_assert_eq!(varint::read_i64(&bytes, &mut at), Some(value));
        prop_assert_eq!(at, bytes.len());
        for cut in 0..bytes.len() {
            let mut at = 0;
            prop_assert_eq!(varint::read_i64(&bytes[..cut], &mut at), None);
            prop_assert_eq!(at, 0);
        }
        let narrow = varint::read_i32(&bytes, &mut 0);
        prop_assert_eq!(narrow, i32::try_from(value).ok());
    }

    #[test]
    fn assigning_leaves_the_checksum_valid(offset in 0..i64::MAX / 2, epoch in any::<i32>()) {
        let mut batch = build(three_records());
        let before = BatchHeader::parse(&batch).expect("a header");
        prop_assert!(assign(&mut batch, offset, epoch));
        let after = BatchHeader::parse(&batch).expect("a header");
        prop_assert!(after.checksum_matches(&batch));
        prop_assert_eq!(after, before.assigned(offset, epoch));
        prop_assert_eq!(after.last_offset(), offset + 2);
        prop_assert_eq!(after.next_offset(), offset + 3);
    }

    #[test]
    fn a_walk_finds_the_whole_batches_before_a_cut(counts in prop::collection::vec(1usize..5, 1..6), cut in any::<prop::sample::Index>()) {
        let mut log = Vec::new();
        let mut ends = Vec::new();
        let mut offset = 0;
        for count in counts {
            let mut builder = crate::batch::BatchBuilder::new().at(offset, 1);
            for _ in 0..count {
                builder.push(0, None, Some(b"value"), &[]);
            }
            offset += count as i64;
            log.extend_from_slice(&build(builder));
            ends.push(log.len());
        }
        let cut = cut.index(log.len() + 1);
        let mut walk = batches(&log[..cut]);
        let mut next_offset = 0;
        let mut found = 0;
        for batch in walk.by_ref() {
            let batch = batch.expect("an intact log");
            prop_assert!(batch.checksum_matches());
            prop_assert_eq!(batch.header.base_offset, next_offset);
            prop_assert_eq!(batch.payload().len() + HEADER_BYTES, batch.bytes.len());
            next_offset = batch.header.next_offset();
            found += 1;
        }
        prop_assert_eq!(found, ends.iter().filter(|end| **end <= cut).count());
        prop_assert_eq!(walk.position(), ends.iter().copied().filter(|end| *end <= cut).max().unwrap_or(0));
    }
}

#[test]
fn varints_too_long_are_refused() {
    let eleven_bytes = [0xff; 11];
    assert_eq!(varint::read_i64(&eleven_bytes, &mut 0), None);
    let mut sixty_five_bits = [0xff; 10];
    sixty_five_bits[9] = 2;
    assert_eq!(varint::read_i64(&sixty_five_bits, &mut 0), None);
    sixty_five_bits[9] = 1;
    assert_eq!(varint::read_i64(&sixty_five_bits, &mut 0), Some(i64::MIN));
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(advance_sequence(0, 4), 4);
    assert_eq!(advance_sequence(i32::MAX - 1, 1), i32::MAX);
    assert_eq!(advance_sequence(i32::MAX, 1), 0);
    assert_eq!(advance_sequence(i32::MAX - 2, 5), 2);
    assert_eq!(advance_sequence(i32::MAX, i32::MAX), i32::MAX - 1);
}

#[test]
fn a_walk_ends_with_one_error_at_damage() {
    let batch = build(three_records());
    let mut log = [batch.as_slice(), batch.as_slice(), batch.as_slice()].concat();
    log[batch.len() + 16] = 9;
    let outcomes: Vec<bool> = batches(&log).map(|batch| batch.is_ok()).collect();
    assert_eq!(outcomes, [true, false]);
}
