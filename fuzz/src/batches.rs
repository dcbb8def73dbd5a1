//! Record batches: what a client may produce, what a log holds, and what the benchmark's client makes of the same bytes.
//!
//! Three readers of records (the checks on produce, the iterator, the benchmark) must agree on batches that are accepted; searches
//! by time must find what a look at every record finds; a batch with a changed byte must be refused; nothing may take more
//! memory than its caps, and checking a valid uncompressed batch none at all.

use ringlog_engine::batch::{
    Attributes, Batch, BatchBuilder, BatchError, BatchHeader, CHECKSUM_START, Compression,
    HEADER_BYTES, NO_TIMESTAMP, ProduceRules, TimedRecord, TimestampType, ValidBatch, batches,
    first_at_or_after, max_timestamp_record, read_records, seal, validate_produce,
};
use ringlog_net::arbitrary::Numbers;

use crate::client::batch::FetchedBatch;
use crate::{Choices, changed, memory};

/// Cap on what a batch may decompress to.
const CAP: usize = 256 << 10;
/// What a codec may take for itself: an lz4 frame of linked blocks holds three of 4 MiB, whatever arrived.
const CODEC_BYTES: usize = 13 << 20;

/// In an input's first byte: give every batch the checksum that it should have.
const SEALED: u8 = 1;

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let [kind, rules, at, change] = choices.take();
    let timestamp = choices.from_zero();
    let mut bytes = choices.rest().to_vec();
    if kind & SEALED != 0 {
        seal_all(&mut bytes);
    }
    let mut end = 0;
    let mut walk = batches(&bytes);
    for batch in walk.by_ref() {
        let Ok(batch) = batch else {
            break;
        };
        assert_eq!(batch.position, end);
        end += batch.bytes.len();
        stored(&batch, timestamp);
    }
    assert_eq!(walk.position(), end);
    assert!(end <= bytes.len());
    let rules = produce_rules(rules);
    let limit = CODEC_BYTES + 16 * CAP;
    let (answer, peak) = memory::measured(|| validate_produce(&bytes, &rules));
    assert!(peak <= limit, "{peak} bytes of memory were taken");
    match answer {
        Ok(valid) => {
            if valid.header.attributes.compression() == Ok(Compression::None) {
                assert_eq!(peak, 0, "a valid uncompressed batch takes no memory");
            }
            accepted(&bytes, &rules, &valid);
            let at = CHECKSUM_START + usize::from(at) * 257 % (bytes.len() - CHECKSUM_START);
            let damaged = changed(&bytes, at, change);
            assert!(
                validate_produce(&damaged, &rules).is_err(),
                "byte {at} was changed"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn produce_rules(choice: u8) -> ProduceRules {
    ProduceRules {
        compacted: choice & 1 != 0,
        timestamp_type: if choice & 2 == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        },
        zstd_allowed: choice & 4 == 0,
        transactional_allowed: choice & 8 != 0,
        check_compressed: choice & 16 == 0,
        timestamp_after_max_ms: if choice & 32 == 0 {
            i64::MAX
        } else {
            3_600_000
        },
        now_ms: 1_700_000_000_000,
        decompressed_bytes_max: CAP,
        ..ProduceRules::default()
    }
}

/// Seals every batch of a log as far as their lengths lead.
fn seal_all(bytes: &mut [u8]) {
    let mut at = 0;
    while let Ok(header) = BatchHeader::parse(&bytes[at..])
        && let Some(batch) = bytes[at..].get_mut(..header.size())
    {
        seal(batch);
        at += header.size();
    }
}

/// What a read does with a batch of a log, whether or not it is damaged.
fn stored(batch: &Batch<'_>, timestamp: i64) {
    let header = &batch.header;
    assert_eq!(header.encode(), batch.bytes[..HEADER_BYTES]);
    assert_eq!(BatchHeader::parse(batch.bytes).as_ref(), Ok(header));
    let limit = CODEC_BYTES + 16 * CAP;
    let largest = memory::within(limit, || max_timestamp_record(batch.bytes, header, CAP));
    let first = memory::within(limit, || {
        first_at_or_after(batch.bytes, header, timestamp, CAP)
    });
    let Ok(records) = memory::within(limit, || read_records(batch.bytes, header, CAP)) else {
        return;
    };
    let mut timed = Vec::new();
    let mut failure = None;
    for record in records.iter() {
        match record {
            Ok(record) => {
                assert_eq!(record.headers().count(), record.header_count as usize);
                timed.push(TimedRecord {
                    timestamp: match header.attributes.timestamp_type() {
                        TimestampType::LogAppendTime => header.max_timestamp,
                        TimestampType::CreateTime => {
                            header.base_timestamp.wrapping_add(record.timestamp_delta)
                        }
                    },
                    offset: header
                        .base_offset
                        .saturating_add(i64::from(record.offset_delta)),
                });
            }
            Err(error) => failure = Some(error),
        }
    }
    let expect = |found: Result<Option<TimedRecord>, BatchError>,
                  wanted: &dyn Fn(&TimedRecord) -> bool| {
        match (timed.iter().find(|record| wanted(record)), &failure) {
            (Some(record), _) => assert_eq!(found, Ok(Some(*record))),
            (None, None) => assert_eq!(found, Ok(None)),
            (None, Some(_)) => assert!(found.is_err(), "{found:?} although {failure:?}"),
        }
    };
    expect(largest, &|record| record.timestamp == header.max_timestamp);
    if header.max_timestamp < timestamp {
        assert_eq!(first, Ok(None));
    } else {
        expect(first, &|record| record.timestamp >= timestamp);
    }
}

/// What holds for a batch that produce accepted.
fn accepted(bytes: &[u8], rules: &ProduceRules, valid: &ValidBatch) {
    let sent = BatchHeader::parse(bytes).expect("an accepted batch");
    let header = valid.header.assigned(12_345, 6);
    let mut kept = bytes.to_vec();
    kept[..HEADER_BYTES].copy_from_slice(&header.encode());
    assert!(
        header.checksum_matches(&kept),
        "what is stored has its checksum"
    );
    let stamped = rules.timestamp_type == TimestampType::LogAppendTime;
    assert_eq!(
        valid.log_append_time,
        if stamped { rules.now_ms } else { NO_TIMESTAMP }
    );
    let compressed = sent.attributes.compression() != Ok(Compression::None);
    if compressed && !rules.check_compressed && !rules.compacted {
        return;
    }
    let records = read_records(&kept, &header, CAP).expect("records that were checked");
    let mut values = Vec::new();
    let mut max_timestamp = NO_TIMESTAMP;
    for (index, record) in records.iter().enumerate() {
        let record = record.expect("a record that was checked");
        assert_eq!(record.offset_delta as usize, index);
        assert!(record.key.is_some() || !rules.compacted);
        max_timestamp = max_timestamp.max(sent.base_timestamp.wrapping_add(record.timestamp_delta));
        values.push((12_345 + index as i64, record.value.unwrap_or_default()));
    }
    assert_eq!(values.len(), header.record_count as usize);
    assert_eq!(header.next_offset(), 12_345 + values.len() as i64);
    if !stamped {
        assert_eq!(header.max_timestamp, max_timestamp);
    }
    let (fetched, rest) = FetchedBatch::split_first(&kept)
        .expect("a whole batch")
        .expect("a batch that was checked");
    assert!(rest.is_empty());
    assert_eq!(fetched.check(), Ok(()));
    let mut expected = values.iter();
    let read = fetched.for_each(0, |offset, value| {
        assert_eq!(
            expected.next(),
            Some(&(offset, value)),
            "the benchmark reads something else"
        );
    });
    assert_eq!(read, Ok(()));
    assert_eq!(expected.next(), None);
}

/// Batches of every codec, kind and size, alone and in a row.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(5);
    let mut seeds = Vec::new();
    let mut log = Vec::new();
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for (number, compression) in codecs.iter().cycle().take(30).enumerate() {
        let mut builder = BatchBuilder::new().compression(*compression);
        if number % 3 == 1 {
            builder = builder.producer(77, 1, number as i32);
        }
        if number % 6 == 1 {
            builder = builder.attributes(Attributes::default().with_transactional(true));
        }
        for record in 0..1 + numbers.below(8) {
            let length = numbers.below(60);
            let value = numbers.bytes(length);
            let header: (&[u8], Option<&[u8]>) = (b"h", Some(b"v"));
            builder.push(
                1_700_000_000_000 + record as i64 * 3,
                (number % 2 == 0).then_some(b"key"),
                (number % 7 != 3).then_some(&value),
                &[header][..number % 2],
            );
        }
        let batch = builder.build().expect("a batch with records");
        let mut first = vec![SEALED, if number % 6 == 1 { 8 } else { 0 }, number as u8, 3];
        first.extend(1_700_000_000_004_i64.to_be_bytes());
        seeds.push([&first[..], &batch].concat());
        if number < 10 {
            log.extend(batch);
            seeds.push([&first[..], &log].concat());
        }
    }
    seeds
}
