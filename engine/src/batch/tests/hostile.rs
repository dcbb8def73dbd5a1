//! Proves: no bytes make a parser panic or run away, whether random, mutated from a valid batch, or valid outside and random inside a codec.

use proptest::prelude::*;

use super::{CODECS, build, rules, three_records};
use crate::batch::{
    BatchHeader, Compression, HEADER_BYTES, ProduceRules, Records, batches, compress, decompress,
    first_at_or_after, max_timestamp_record, read_records, seal, validate_produce,
};

const CAP: usize = 1 << 16;

/// Everything that reads bytes from outside, on `bytes`.
fn read_every_way(bytes: &[u8]) {
    let capped = ProduceRules {
        decompressed_bytes_max: CAP,
        compacted: true,
        ..rules()
    };
    if let Ok(valid) = validate_produce(bytes, &capped) {
        // What is accepted can be stored and read back.
        let stored = [
            valid.header.assigned(7, 1).encode().as_slice(),
            &bytes[HEADER_BYTES..],
        ]
        .concat();
        let header = BatchHeader::parse(&stored).expect("an accepted header");
        assert!(header.checksum_matches(&stored));
        let records = read_records(&stored, &header, CAP).expect("accepted records");
        assert_eq!(
            records.iter().filter(|record| record.is_ok()).count(),
            header.record_count as usize
        );
        assert!(records.iter().all(|record| record.is_ok()));
    }
    for batch in batches(bytes).flatten() {
        let header = batch.header;
        let _ = batch.checksum_matches();
        let _ = header.last_sequence();
        let _ = header.next_offset();
        let _ = first_at_or_after(batch.bytes, &header, header.max_timestamp, CAP);
        let _ = max_timestamp_record(batch.bytes, &header, CAP);
        if let Ok(records) = read_records(batch.bytes, &header, CAP) {
            for record in records.iter().flatten() {
                assert!(record.headers().count() <= record.header_count as usize);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..400), fix in any::<bool>()) {
        if fix && bytes.len() > HEADER_BYTES {
            bytes[16] = 2;
            let length = bytes.len() as i32 - 12;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            seal(&mut bytes);
        }
        read_every_way(&bytes);
    }

    #[test]
    fn mutated_batches(
        codec in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep_header in any::<bool>(),
    ) {
        let mut batch = build(three_records().compression(CODECS[codec]));
        for (at, value) in changes {
            let from = if keep_header { HEADER_BYTES } else { 0 };
            let at = from + at.index(batch.len() - from);
            batch[at] = value;
        }
        seal(&mut batch);
        read_every_way(&batch);
    }

    #[test]
    fn random_records_in_a_valid_codec(codec in 0usize..5, records in prop::collection::vec(any::<u8>(), 0..300), count in 1..20i32) {
        let plain = build(three_records());
        let mut header = BatchHeader::parse(&plain).expect("a header");
        header.attributes = header.attributes.with_compression(CODECS[codec]);
        header.record_count = count;
        header.last_offset_delta = count - 1;
        let mut batch = vec![0; HEADER_BYTES];
        compress(CODECS[codec], &records, &mut batch).expect("codecs compress anything");
        header.length = batch.len() as i32 - 12;
        batch[..HEADER_BYTES].copy_from_slice(&header.encode());
        seal(&mut batch);
        read_every_way(&batch);
    }

    #[test]
    fn random_compressed_bytes(codec in 1usize..5, bytes in prop::collection::vec(any::<u8>(), 0..300), valid_start in 0usize..40) {
        let mut packed = Vec::new();
        compress(CODECS[codec], &[7; 1000], &mut packed).expect("codecs compress anything");
        packed.truncate(valid_start);
        packed.extend_from_slice(&bytes);
        if let Ok(out) = decompress(CODECS[codec], &packed, CAP) {
            prop_assert!(out.len() <= CAP);
        }
    }

    #[test]
    fn record_walks_end(bytes in prop::collection::vec(any::<u8>(), 0..200), count in any::<i32>()) {
        let walked = Records::new(&bytes, count).count();
        prop_assert!(walked <= bytes.len() + 1);
    }
}

#[test]
fn a_zstd_frame_that_claims_a_huge_window_is_refused() {
    // Magic, a frame header with a window descriptor of 2^41 bytes, one empty last block.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
    assert!(decompress(Compression::Zstd, &frame, CAP).is_err());
}
