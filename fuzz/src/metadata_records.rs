//! Values of records in the metadata log and in its snapshots: framed records, and the bodies of control records.
//!
//! What decodes survives being encoded in its highest version and decoded, in memory in proportion.

use ringlog_net::Bytes;
use ringlog_net::arbitrary::{ArbitraryMessage, Form, Numbers, Source};
use ringlog_net::codec::{Reader, TopLevel, Writer};
use ringlog_net::metadata::{
    ControlRecordType, KRaftVersionRecord, LeaderChangeMessage, MetadataRecord,
    SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord,
};

use crate::messages::FORMS;
use crate::{Choices, memory};

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let choice = choices.byte();
    let version = i16::from(choice >> 4);
    let bytes = Bytes::copy_from_slice(choices.rest());
    match choice & 7 {
        0 => control::<LeaderChangeMessage>(bytes, version),
        1 => control::<SnapshotHeaderRecord>(bytes, version),
        2 => control::<SnapshotFooterRecord>(bytes, version),
        3 => control::<KRaftVersionRecord>(bytes, version),
        4 => control::<VotersRecord>(bytes, version),
        5 => {
            if let Some(kind) = ControlRecordType::from_key(&bytes) {
                assert_eq!(ControlRecordType::from_key(&kind.key()), Some(kind));
            }
        }
        _ => record(bytes),
    }
}

pub(crate) fn record(bytes: Bytes) {
    let limit = memory::of_message(bytes.len());
    let Ok(record) = memory::within(limit, || MetadataRecord::decode(bytes)) else {
        return;
    };
    let encode = |record: &MetadataRecord| {
        record
            .encode()
            .expect("the highest version carries everything")
    };
    let once = encode(&record);
    let again = MetadataRecord::decode(once.clone()).expect("what was encoded");
    // By their bytes: a number that is not equal to itself may be in there.
    assert_eq!(encode(&again), once);
}

fn control<M: TopLevel + PartialEq + std::fmt::Debug>(bytes: Bytes, version: i16) {
    let limit = memory::of_message(bytes.len());
    let Ok(message) = memory::within(limit, || M::decode(&mut Reader::new(bytes), version)) else {
        return;
    };
    let mut writer = Writer::new();
    message
        .encode(&mut writer, version)
        .expect("what was decoded");
    let mut reader = Reader::new(writer.into_bytes());
    assert_eq!(M::decode(&mut reader, version), Ok(message));
    assert_eq!(reader.finish(), Ok(()));
}

fn control_seeds<M: TopLevel + ArbitraryMessage>(
    choice: u8,
    numbers: &mut Numbers,
    seeds: &mut Vec<Vec<u8>>,
) {
    for version in M::VERSIONS.iter() {
        let message = M::arbitrary(&mut Source::new(&numbers.bytes(90)), version);
        let mut writer = Writer::new();
        message
            .encode(&mut writer, version)
            .expect("what the version can carry");
        let first = choice | (version as u8) << 4;
        seeds.push([&[first], &writer.into_bytes()[..]].concat());
    }
}

/// Every record in every version, every control record, every key.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(4);
    let mut seeds = Vec::new();
    for form in FORMS.iter().filter(|form| matches!(form, Form::Record(..))) {
        for _ in 0..3 {
            let length = numbers.below(200);
            let body = form
                .make_up(&numbers.bytes(length))
                .expect("a form that exists");
            let encoded = form.encode(&body).expect("what the version can carry");
            seeds.push([&[6], &encoded[..]].concat());
        }
    }
    control_seeds::<LeaderChangeMessage>(0, &mut numbers, &mut seeds);
    control_seeds::<SnapshotHeaderRecord>(1, &mut numbers, &mut seeds);
    control_seeds::<SnapshotFooterRecord>(2, &mut numbers, &mut seeds);
    control_seeds::<KRaftVersionRecord>(3, &mut numbers, &mut seeds);
    control_seeds::<VotersRecord>(4, &mut numbers, &mut seeds);
    seeds.extend((0..8).map(|kind| vec![5, 0, 0, 0, kind]));
    seeds
}
