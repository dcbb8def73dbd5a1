//! Proves: an independent implementation (the `kafka-protocol` crate) reads what is built here and the other way round, for every codec.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{protocol::StrBytes, records as theirs};
use proptest::prelude::*;

use super::{CAP, CODECS, NOW_MS, build, rules};
use crate::batch::{BatchBuilder, BatchHeader, Compression, read_records, validate_produce};

fn their_codec(compression: Compression) -> theirs::Compression {
    match compression {
        Compression::None => theirs::Compression::None,
        Compression::Gzip => theirs::Compression::Gzip,
        Compression::Snappy => theirs::Compression::Snappy,
        Compression::Lz4 => theirs::Compression::Lz4,
        Compression::Zstd => theirs::Compression::Zstd,
    }
}

#[derive(Clone, Debug)]
struct Sample {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    header: Option<Option<Vec<u8>>>,
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let bytes = |max| prop::option::of(prop::collection::vec(any::<u8>(), 0..max));
    let sample = (
        0i64..100_000,
        bytes(200),
        bytes(5000),
        prop::option::of(bytes(20)),
    )
        .prop_map(|(age, key, value, header)| Sample {
            timestamp: NOW_MS - age,
            key,
            value,
            header,
        });
    prop::collection::vec(sample, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn they_read_ours(samples in samples()) {
        for compression in CODECS {
            let mut builder = BatchBuilder::new().compression(compression).producer(9, 2, 70).at(500, 4);
            for sample in &samples {
                let headers: Vec<(&[u8], Option<&[u8]>)> =
                    sample.header.iter().map(|value| (b"h".as_slice(), value.as_deref())).collect();
                builder.push(sample.timestamp, sample.key.as_deref(), sample.value.as_deref(), &headers);
            }
            let mut bytes = Bytes::from(build(builder));
            let set = theirs::RecordBatchDecoder::decode(&mut bytes).expect("they read it");
            prop_assert_eq!(set.compression, their_codec(compression));
            prop_assert_eq!(set.records.len(), samples.len());
            for (index, (record, sample)) in set.records.iter().zip(&samples).enumerate() {
                prop_assert_eq!(record.offset, 500 + index as i64);
                prop_assert_eq!(record.sequence, 70 + index as i32);
                prop_assert_eq!((record.producer_id, record.producer_epoch, record.partition_leader_epoch), (9, 2, 4));
                prop_assert_eq!(record.timestamp, sample.timestamp);
                prop_assert_eq!(record.key.as_deref(), sample.key.as_deref());
                prop_assert_eq!(record.value.as_deref(), sample.value.as_deref());
                prop_assert_eq!(record.headers.get(&StrBytes::from_static_str("h")).map(|value| value.as_ref().map(|value| value.to_vec())), sample.header.clone());
            }
        }
    }

    #[test]
    fn we_read_theirs(samples in samples()) {
        let records: Vec<theirs::Record> = samples.iter().enumerate().map(|(index, sample)| {
            let mut record = theirs::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: 9,
                producer_epoch: 2,
                timestamp_type: theirs::TimestampType::Creation,
                offset: index as i64,
                sequence: 70 + index as i32,
                timestamp: sample.timestamp,
                key: sample.key.clone().map(Bytes::from),
                value: sample.value.clone().map(Bytes::from),
                headers: Default::default(),
            };
            if let Some(value) = &sample.header {
                record.headers.insert(StrBytes::from_static_str("h"), value.clone().map(Bytes::from));
            }
            record
        }).collect();
        for compression in CODECS {
            let mut batch = BytesMut::new();
            let options = theirs::RecordEncodeOptions { version: 2, compression: their_codec(compression) };
            theirs::RecordBatchEncoder::encode(&mut batch, &records, &options).expect("they write it");
            let valid = validate_produce(&batch, &rules()).expect("theirs is valid");
            prop_assert_eq!(valid.header, BatchHeader::parse(&batch).expect("a header"), "nothing to correct");
            let bytes = read_records(&batch, &valid.header, CAP).expect("intact");
            let mut count = 0;
            for (record, sample) in bytes.iter().zip(&samples) {
                let record = record.expect("intact");
                prop_assert_eq!(valid.header.base_timestamp + record.timestamp_delta, sample.timestamp);
                prop_assert_eq!(record.key, sample.key.as_deref());
                prop_assert_eq!(record.value, sample.value.as_deref());
                let header = record.headers().next().map(|header| header.value.map(<[u8]>::to_vec));
                prop_assert_eq!(header, sample.header.clone());
                count += 1;
            }
            prop_assert_eq!(count, samples.len());
        }
    }

    #[test]
    fn uncompressed_bytes_are_the_same(samples in samples()) {
        // They count timestamps from the smallest, we from the first: equal where the first is the smallest.
        let start = samples.iter().map(|sample| sample.timestamp).min().expect("not empty");
        let mut ours = BatchBuilder::new().record(start, None, None);
        let mut records = vec![];
        for (index, (timestamp, key, value)) in std::iter::once((start, None, None))
            .chain(samples.iter().map(|sample| (sample.timestamp, sample.key.clone(), sample.value.clone())))
            .enumerate()
        {
            if index > 0 {
                ours.push(timestamp, key.as_deref(), value.as_deref(), &[]);
            }
            records.push(theirs::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: 1,
                producer_epoch: 0,
                timestamp_type: theirs::TimestampType::Creation,
                offset: index as i64,
                sequence: index as i32,
                timestamp,
                key: key.map(Bytes::from),
                value: value.map(Bytes::from),
                headers: Default::default(),
            });
        }
        let mut batch = BytesMut::new();
        let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
        theirs::RecordBatchEncoder::encode(&mut batch, &records, &options).expect("they write it");
        prop_assert_eq!(&build(ours.producer(1, 0, 0))[..], &batch[..]);
    }
}
