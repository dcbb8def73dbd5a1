//! Proves: every codec gives back what went in, in every shape that clients produce; output never exceeds the cap, and memory never follows a claim.

use std::io::Write;

use proptest::prelude::*;

use super::{CAP, CODECS, NOW_MS, build, rules, three_records};
use crate::batch::{
    Attributes, BatchBuilder, BatchError, BatchHeader, Compression, HEADER_BYTES, ProduceRules,
    Record, TimedRecord, TimestampType, code, compress, decompress, first_at_or_after,
    max_timestamp_record, read_records, seal, validate_produce,
};

/// `batch` with its records replaced by `payload`, said to be compressed so.
fn repacked(batch: &[u8], compression: Compression, payload: &[u8]) -> Vec<u8> {
    let mut header = BatchHeader::parse(batch).expect("a header");
    header.attributes = header.attributes.with_compression(compression);
    header.length = (HEADER_BYTES - 12 + payload.len()) as i32;
    let mut out = [header.encode().as_slice(), payload].concat();
    seal(&mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn codecs_give_back_what_went_in(
        pieces in prop::collection::vec((any::<u8>(), 1usize..9000), 0..30),
        noise in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let mut plain: Vec<u8> = pieces.iter().flat_map(|(byte, count)| std::iter::repeat_n(*byte, *count)).collect();
        plain.extend_from_slice(&noise);
        for compression in CODECS {
            let mut packed = Vec::new();
            compress(compression, &plain, &mut packed).expect("codecs compress anything");
            prop_assert_eq!(&decompress(compression, &packed, plain.len()).expect("intact"), &plain);
            if !plain.is_empty() {
                let too_little = decompress(compression, &packed, plain.len() - 1);
                prop_assert_eq!(too_little, Err(BatchError::DecompressionCap { cap: plain.len() - 1 }));
            }
        }
    }

    #[test]
    fn records_come_back_from_every_codec(
        records in prop::collection::vec(
            (-5i64..5, prop::option::of(prop::collection::vec(any::<u8>(), 0..300)), prop::option::of(prop::collection::vec(any::<u8>(), 0..3000)), 0usize..4),
            1..40,
        ),
    ) {
        for compression in CODECS {
            let mut builder = BatchBuilder::new().compression(compression).at(1000, 2);
            for (timestamp, key, value, headers) in &records {
                let headers = vec![(b"name".as_slice(), value.as_deref()); *headers];
                builder.push(NOW_MS + timestamp, key.as_deref(), value.as_deref(), &headers);
            }
            let batch = build(builder);
            let header = BatchHeader::parse(&batch).expect("a header");
            let bytes = read_records(&batch, &header, CAP).expect("intact");
            let mut index = 0;
            for record in bytes.iter() {
                let record = record.expect("intact");
                let (timestamp, key, value, headers) = &records[index];
                prop_assert_eq!(header.base_timestamp + record.timestamp_delta, NOW_MS + timestamp);
                prop_assert_eq!(record.offset_delta as usize, index);
                prop_assert_eq!(record.key, key.as_deref());
                prop_assert_eq!(record.value, value.as_deref());
                prop_assert_eq!(record.headers().count(), *headers);
                prop_assert!(record.headers().all(|header| header.key == b"name" && header.value == value.as_deref()));
                index += 1;
            }
            prop_assert_eq!(index, records.len());

            // Timestamps are found as a plain search through the list finds them.
            for wanted in -6..6 {
                let expected = records.iter().position(|record| record.0 >= wanted).map(|index| TimedRecord {
                    timestamp: NOW_MS + records[index].0,
                    offset: 1000 + index as i64,
                });
                prop_assert_eq!(first_at_or_after(&batch, &header, NOW_MS + wanted, CAP), Ok(expected));
            }
            let largest = records.iter().map(|record| record.0).max().expect("not empty");
            let first_largest = records.iter().position(|record| record.0 == largest).expect("not empty");
            prop_assert_eq!(
                max_timestamp_record(&batch, &header, CAP),
                Ok(Some(TimedRecord { timestamp: NOW_MS + largest, offset: 1000 + first_largest as i64 }))
            );
        }
    }
}

#[test]
fn the_legacy_format_of_lz4_is_refused() {
    let plain = build(three_records());
    let block = lz4_flex::block::compress(&plain[HEADER_BYTES..]);
    let mut legacy = vec![0x02, 0x21, 0x4c, 0x18];
    legacy.extend_from_slice(&(block.len() as u32).to_le_bytes());
    legacy.extend_from_slice(&block);
    assert_eq!(
        validate_produce(&repacked(&plain, Compression::Lz4, &legacy), &rules()),
        Err(BatchError::BadCompression {
            codec: "lz4",
            reason: "it is no LZ4 frame"
        })
    );
}

#[test]
fn shapes_that_clients_write_are_read() {
    let plain = build(three_records());
    let records = &plain[HEADER_BYTES..];
    // librdkafka and franz-go: one raw snappy block.
    let raw_snappy = snap::raw::Encoder::new()
        .compress_vec(records)
        .expect("snappy");
    assert!(
        validate_produce(
            &repacked(&plain, Compression::Snappy, &raw_snappy),
            &rules()
        )
        .is_ok()
    );
    // Java: xerial blocks of its own choice of size.
    let mut xerial = vec![
        0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
    ];
    for block in records.chunks(7) {
        let packed = snap::raw::Encoder::new()
            .compress_vec(block)
            .expect("snappy");
        xerial.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        xerial.extend_from_slice(&packed);
    }
    assert!(validate_produce(&repacked(&plain, Compression::Snappy, &xerial), &rules()).is_ok());
    // lz4 with every frame option that producers use.
    for (independent, content_size, checksums, block) in [
        (true, false, false, lz4_flex::frame::BlockSize::Max64KB),
        (false, false, true, lz4_flex::frame::BlockSize::Max4MB),
        (true, true, true, lz4_flex::frame::BlockSize::Max1MB),
    ] {
        let mut info = lz4_flex::frame::FrameInfo::new()
            .block_size(block)
            .content_checksum(checksums)
            .block_checksums(checksums)
            .content_size(content_size.then_some(records.len() as u64));
        if !independent {
            info = info.block_mode(lz4_flex::frame::BlockMode::Linked);
        }
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(records).expect("lz4");
        let packed = encoder.finish().expect("lz4");
        assert!(validate_produce(&repacked(&plain, Compression::Lz4, &packed), &rules()).is_ok());
    }
    // zstd from its fastest level to the one with the largest window.
    for level in [-5, 1, 3, 22] {
        let packed = zstd::stream::encode_all(records, level).expect("zstd");
        assert!(
            validate_produce(&repacked(&plain, Compression::Zstd, &packed), &rules()).is_ok(),
            "level {level}"
        );
    }
}

#[test]
fn output_may_end_where_a_chunk_does() {
    for length in [
        0,
        1,
        16 * 1024 - 1,
        16 * 1024,
        16 * 1024 + 1,
        32 * 1024,
        64 * 1024,
        128 * 1024,
        256 * 1024,
    ] {
        let plain: Vec<u8> = (0..length)
            .map(|index| ((index % 977) >> (index % 5)) as u8)
            .collect();
        for compression in CODECS {
            let mut packed = Vec::new();
            compress(compression, &plain, &mut packed).expect("codecs compress anything");
            assert_eq!(
                decompress(compression, &packed, CAP).as_ref(),
                Ok(&plain),
                "{compression:?} {length}"
            );
        }
    }
}

#[test]
fn zstd_frames_follow_each_other_and_may_be_skipped() {
    let mut packed = zstd::stream::encode_all(&b"one "[..], 1).expect("zstd");
    packed.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9]);
    packed.extend_from_slice(&zstd::stream::encode_all(&b"two"[..], 1).expect("zstd"));
    assert_eq!(
        decompress(Compression::Zstd, &packed, CAP),
        Ok(b"one two".to_vec())
    );
    for cut in [packed.len() - 1, packed.len() - 20, 3] {
        assert!(
            decompress(Compression::Zstd, &packed[..cut], CAP).is_err(),
            "cut at {cut}"
        );
    }
    // After a failure the kept context serves the next batch all the same.
    assert_eq!(
        decompress(Compression::Zstd, &packed, CAP),
        Ok(b"one two".to_vec())
    );
}

#[test]
fn bombs_end_at_the_cap() {
    let plain = build(three_records());
    let zeros = vec![0u8; 8 << 20];
    let cap = 1 << 20;
    for compression in &CODECS[1..] {
        let mut packed = Vec::new();
        compress(*compression, &zeros, &mut packed).expect("codecs compress anything");
        assert_eq!(
            decompress(*compression, &packed, cap),
            Err(BatchError::DecompressionCap { cap })
        );
    }
    // One record that is all value: only its length is true.
    let mut builder = BatchBuilder::new().compression(Compression::Zstd);
    builder.push(NOW_MS, None, Some(&zeros), &[]);
    let bomb = build(builder);
    assert!(bomb.len() < 10_000 && plain.len() < bomb.len());
    let capped = ProduceRules {
        decompressed_bytes_max: cap,
        ..rules()
    };
    let error = validate_produce(&bomb, &capped).expect_err("over the cap");
    assert_eq!(error.code(), code::MESSAGE_TOO_LARGE);
    assert!(validate_produce(&bomb, &rules()).is_ok());
}

#[test]
fn a_snappy_length_beyond_what_its_bytes_can_hold_is_refused_unallocated() {
    // Claims 2^32 - 1 bytes in a varint, and carries three.
    let block = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
    let refused = decompress(Compression::Snappy, &block, usize::MAX);
    assert!(matches!(refused, Err(BatchError::BadCompression { .. })));
}

#[test]
fn damage_inside_a_codec_is_an_invalid_record() {
    let plain = build(three_records());
    for compression in &CODECS[1..] {
        let packed = build(three_records().compression(*compression));
        let payload = &packed[HEADER_BYTES..];
        for cut in 0..payload.len() {
            let batch = repacked(&plain, *compression, &payload[..cut]);
            match validate_produce(&batch, &rules()) {
                Err(error) => assert_eq!(
                    error.code(),
                    code::INVALID_RECORD,
                    "{compression:?} cut at {cut}: {error}"
                ),
                // A trailer or checksum may be missing once all records are out.
                Ok(valid) => assert_eq!(valid.header.record_count, 3),
            }
        }
        let batch = repacked(&plain, *compression, b"\x0bnonsense that is no codec's");
        assert_eq!(
            validate_produce(&batch, &rules()).map_err(|error| error.code()),
            Err(code::INVALID_RECORD)
        );
    }
}

#[test]
fn with_log_append_time_every_record_has_the_batch_timestamp() {
    let attributes = Attributes::default().with_timestamp_type(TimestampType::LogAppendTime);
    let batch = build(three_records().attributes(attributes).at(50, 0));
    let header = BatchHeader::parse(&batch).expect("a header");
    let first = TimedRecord {
        timestamp: NOW_MS,
        offset: 50,
    };
    assert_eq!(
        first_at_or_after(&batch, &header, NOW_MS - 5, CAP),
        Ok(Some(first))
    );
    assert_eq!(
        first_at_or_after(&batch, &header, NOW_MS + 1, CAP),
        Ok(None)
    );
    assert_eq!(max_timestamp_record(&batch, &header, CAP), Ok(Some(first)));
}

#[test]
fn a_record_reads_alone() {
    let batch = build(BatchBuilder::new().record(3, Some(b"k"), None));
    let mut at = HEADER_BYTES;
    let record = Record::read(&batch, &mut at).expect("intact");
    assert_eq!(
        (record.key, record.value, at),
        (Some(b"k".as_slice()), None, batch.len())
    );
}
