//! Proves: every rule of a produce request refuses what it should, with the protocol's number, and lets a correct batch pass unchanged.

use super::{NOW_MS, build, rules, three_records};
use crate::batch::{
    Attributes, BatchBuilder, BatchError, BatchHeader, Compression, HEADER_BYTES, ProduceRules,
    TimestampType, checksum, code, seal, validate_produce,
};

/// `batch` with a changed header and a checksum that fits it.
fn with_header(batch: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut header = BatchHeader::parse(batch).expect("a whole header");
    change(&mut header);
    let mut changed = batch.to_vec();
    changed[..HEADER_BYTES].copy_from_slice(&header.encode());
    seal(&mut changed);
    changed
}

fn refused(batch: &[u8], rules: &ProduceRules) -> BatchError {
    validate_produce(batch, rules).expect_err("has to be refused")
}

#[test]
fn a_correct_batch_passes_unchanged() {
    let batch = build(three_records());
    let valid = validate_produce(&batch, &rules()).expect("correct");
    assert_eq!(valid.header.encode(), batch[..HEADER_BYTES]);
    assert_eq!(valid.log_append_time, -1);
}

#[test]
fn every_header_rule_has_its_error() {
    let good = build(three_records().producer(7, 0, 0));
    let cases: [(&str, Vec<u8>, i16); 16] = [
        ("empty", Vec::new(), code::CORRUPT_MESSAGE),
        (
            "shorter than a header",
            good[..60].to_vec(),
            code::CORRUPT_MESSAGE,
        ),
        (
            "cut off",
            good[..good.len() - 1].to_vec(),
            code::CORRUPT_MESSAGE,
        ),
        (
            "two batches",
            [good.as_slice(), good.as_slice()].concat(),
            code::INVALID_RECORD,
        ),
        (
            "old magic",
            {
                let mut b = good.clone();
                b[16] = 1;
                b
            },
            code::INVALID_RECORD,
        ),
        (
            "length too small",
            with_header(&good, |h| h.length = 48),
            code::CORRUPT_MESSAGE,
        ),
        (
            "negative length",
            with_header(&good, |h| h.length = -1),
            code::CORRUPT_MESSAGE,
        ),
        (
            "base offset",
            with_header(&good, |h| h.base_offset = 1),
            code::INVALID_RECORD,
        ),
        (
            "no records",
            with_header(&good, |h| h.record_count = 0),
            code::INVALID_RECORD,
        ),
        (
            "negative count",
            with_header(&good, |h| h.record_count = -3),
            code::INVALID_RECORD,
        ),
        (
            "count and delta",
            with_header(&good, |h| h.last_offset_delta = 3),
            code::INVALID_RECORD,
        ),
        (
            "control",
            with_header(&good, |h| h.attributes = h.attributes.with_control(true)),
            code::INVALID_RECORD,
        ),
        (
            "delete horizon",
            with_header(&good, |h| h.attributes = Attributes(1 << 6)),
            code::INVALID_RECORD,
        ),
        (
            "no sequence",
            with_header(&good, |h| h.base_sequence = -1),
            code::INVALID_RECORD,
        ),
        (
            "no producer epoch",
            with_header(&good, |h| h.producer_epoch = -1),
            code::INVALID_RECORD,
        ),
        (
            "codec 5",
            with_header(&good, |h| h.attributes = Attributes(5)),
            code::UNSUPPORTED_COMPRESSION_TYPE,
        ),
    ];
    for (name, batch, expected) in cases {
        let error = refused(&batch, &rules());
        assert_eq!(error.code(), expected, "{name}: {error}");
    }
}

#[test]
fn a_wrong_checksum_is_corrupt_wherever_the_bit_flipped() {
    let good = build(three_records());
    for at in 17..good.len() {
        let mut batch = good.clone();
        batch[at] ^= 0x10;
        let error = refused(&batch, &rules());
        assert_eq!(error.code(), code::CORRUPT_MESSAGE, "byte {at}: {error}");
    }
}

#[test]
fn size_is_limited_by_max_message_bytes() {
    let batch = build(three_records());
    let at_limit = ProduceRules {
        max_message_bytes: batch.len(),
        ..rules()
    };
    assert!(validate_produce(&batch, &at_limit).is_ok());
    let below = ProduceRules {
        max_message_bytes: batch.len() - 1,
        ..rules()
    };
    assert_eq!(refused(&batch, &below).code(), code::MESSAGE_TOO_LARGE);
}

#[test]
fn transactional_batches_need_transactions_and_a_producer() {
    let attributes = Attributes::default().with_transactional(true);
    let batch = build(three_records().producer(7, 0, 0).attributes(attributes));
    assert_eq!(refused(&batch, &rules()).code(), code::INVALID_TXN_STATE);
    let offered = ProduceRules {
        transactional_allowed: true,
        ..rules()
    };
    assert!(validate_produce(&batch, &offered).is_ok());
    let without_producer = build(three_records().attributes(attributes));
    assert_eq!(
        refused(&without_producer, &offered).code(),
        code::INVALID_RECORD
    );
}

#[test]
fn zstd_needs_its_request_version() {
    let batch = build(three_records().compression(Compression::Zstd));
    assert!(validate_produce(&batch, &rules()).is_ok());
    let old = ProduceRules {
        zstd_allowed: false,
        ..rules()
    };
    assert_eq!(
        refused(&batch, &old).code(),
        code::UNSUPPORTED_COMPRESSION_TYPE
    );
    assert!(validate_produce(&build(three_records().compression(Compression::Lz4)), &old).is_ok());
}

#[test]
fn a_compacted_topic_names_the_records_without_key() {
    let compacted = ProduceRules {
        compacted: true,
        check_compressed: false,
        ..rules()
    };
    for compression in super::CODECS {
        let batch = build(
            BatchBuilder::new()
                .compression(compression)
                .record(NOW_MS, Some(b""), None)
                .record(NOW_MS, None, Some(b"v"))
                .record(NOW_MS, Some(b"k"), Some(b"v"))
                .record(NOW_MS, None, None),
        );
        assert!(validate_produce(&batch, &rules()).is_ok());
        let error = refused(&batch, &compacted);
        assert_eq!(error.code(), code::INVALID_RECORD);
        let at_fault: Vec<i32> = error
            .record_errors()
            .iter()
            .map(|record| record.index)
            .collect();
        assert_eq!(at_fault, [1, 3], "{compression:?}");
    }
}

#[test]
fn timestamps_have_bounds_on_both_sides() {
    let bounded = ProduceRules {
        timestamp_before_max_ms: 1000,
        timestamp_after_max_ms: 500,
        ..rules()
    };
    for compression in super::CODECS {
        let one = |timestamp| {
            build(
                BatchBuilder::new()
                    .compression(compression)
                    .record(timestamp, None, Some(b"v")),
            )
        };
        for accepted in [NOW_MS - 1000, NOW_MS, NOW_MS + 500, -1] {
            assert!(
                validate_produce(&one(accepted), &bounded).is_ok(),
                "{accepted}"
            );
        }
        for refused_timestamp in [NOW_MS - 1001, NOW_MS + 501, i64::MAX, i64::MIN, 0, -2] {
            let error = refused(&one(refused_timestamp), &bounded);
            assert_eq!(error.code(), code::INVALID_TIMESTAMP, "{refused_timestamp}");
            assert_eq!(error.record_errors().len(), 1);
        }
    }
}

#[test]
fn log_append_time_replaces_whatever_the_producer_said() {
    let append_time = ProduceRules {
        timestamp_type: TimestampType::LogAppendTime,
        timestamp_before_max_ms: 0,
        timestamp_after_max_ms: 0,
        ..rules()
    };
    for compression in super::CODECS {
        let batch = build(
            BatchBuilder::new()
                .compression(compression)
                .record(5, None, Some(b"v")),
        );
        let valid = validate_produce(&batch, &append_time).expect("any timestamp will do");
        assert_eq!(valid.log_append_time, NOW_MS);
        assert_eq!(valid.header.max_timestamp, NOW_MS);
        assert_eq!(
            valid.header.attributes.timestamp_type(),
            TimestampType::LogAppendTime
        );
        assert_eq!(valid.header.base_timestamp, 5);
        let stored = [
            valid.header.assigned(40, 3).encode().as_slice(),
            &batch[HEADER_BYTES..],
        ]
        .concat();
        let header = BatchHeader::parse(&stored).expect("a header");
        assert!(header.checksum_matches(&stored));
        assert_eq!((header.base_offset, header.leader_epoch), (40, 3));
    }
}

#[test]
fn a_producer_must_not_claim_log_append_time() {
    let attributes = Attributes::default().with_timestamp_type(TimestampType::LogAppendTime);
    let batch = build(three_records().attributes(attributes));
    assert_eq!(refused(&batch, &rules()).code(), code::INVALID_TIMESTAMP);
}

#[test]
fn a_wrong_largest_timestamp_is_corrected() {
    for compression in super::CODECS {
        let right = build(three_records().compression(compression));
        for claimed in [-1, 0, i64::MAX] {
            let wrong = with_header(&right, |header| header.max_timestamp = claimed);
            let valid = validate_produce(&wrong, &rules()).expect("clients exist that do so");
            assert_eq!(
                valid.header.encode(),
                right[..HEADER_BYTES],
                "{compression:?} {claimed}"
            );
        }
    }
}

#[test]
fn offset_deltas_count_up_from_zero() {
    // The second of two one-byte offset deltas, in records of equal size.
    let batch = build(
        BatchBuilder::new()
            .record(0, None, Some(b"x"))
            .record(0, None, Some(b"y")),
    );
    let record_bytes = (batch.len() - HEADER_BYTES) / 2;
    for wrong in [0u8, 4, 1, 3] {
        let mut changed = batch.clone();
        changed[HEADER_BYTES + record_bytes + 3] = wrong;
        seal(&mut changed);
        let error = refused(&changed, &rules());
        assert_eq!(error.code(), code::INVALID_RECORD);
        assert_eq!(
            error
                .record_errors()
                .iter()
                .map(|record| record.index)
                .collect::<Vec<_>>(),
            [1]
        );
    }
}

#[test]
fn records_fill_their_batch_exactly() {
    let good = build(three_records());
    let with_payload = |payload: &[u8]| {
        let mut batch = [&good[..HEADER_BYTES], payload].concat();
        let length = (batch.len() - 12) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        seal(&mut batch);
        batch
    };
    assert!(validate_produce(&with_payload(&good[HEADER_BYTES..]), &rules()).is_ok());
    let one_more_byte = [&good[HEADER_BYTES..], &[0]].concat();
    assert_eq!(
        refused(&with_payload(&one_more_byte), &rules()).code(),
        code::INVALID_RECORD
    );
    for cut in HEADER_BYTES..good.len() {
        let error = refused(&with_payload(&good[HEADER_BYTES..cut]), &rules());
        assert_eq!(error.code(), code::INVALID_RECORD, "cut at {cut}");
    }
    // A count of 1000 with three records present.
    let claimed = with_header(&good, |header| {
        header.record_count = 1000;
        header.last_offset_delta = 999;
    });
    assert!(matches!(
        refused(&claimed, &rules()),
        BatchError::BadRecord { index: 3, .. }
    ));
}

#[test]
fn a_compressed_batch_that_is_not_looked_into_is_judged_by_its_header() {
    let trusting = ProduceRules {
        check_compressed: false,
        timestamp_before_max_ms: 1000,
        ..rules()
    };
    let good = build(three_records().compression(Compression::Lz4));
    assert!(validate_produce(&good, &trusting).is_ok());
    let mut damaged_inside = good.clone();
    if let Some(last) = damaged_inside.last_mut() {
        *last ^= 0xff;
    }
    seal(&mut damaged_inside);
    assert!(validate_produce(&damaged_inside, &trusting).is_ok());
    let old = build(BatchBuilder::new().compression(Compression::Lz4).record(
        NOW_MS - 2000,
        None,
        None,
    ));
    assert_eq!(refused(&old, &trusting).code(), code::INVALID_TIMESTAMP);
}

#[test]
fn a_refusal_names_a_limited_number_of_records() {
    let mut builder = BatchBuilder::new();
    for _ in 0..10_000 {
        builder.push(NOW_MS, None, None, &[]);
    }
    let compacted = ProduceRules {
        compacted: true,
        ..rules()
    };
    let error = refused(&build(builder), &compacted);
    assert_eq!(error.record_errors().len(), crate::batch::MAX_RECORD_ERRORS);
}

#[test]
fn checksums_are_castagnoli() {
    // RFC 3720, B.4: 32 bytes of zeros.
    assert_eq!(crate::batch::crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crate::batch::crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(checksum(&[0; 20]), 0);
}
