//! The metadata log: its batches, its snapshots, and the image that their records make.
//!
//! A batch with a changed byte is refused, and one that reads is written and reads the same. Any records make an image or are
//! refused; an image is the same after its own records, and so is a snapshot that was read and written. A damaged snapshot is
//! refused or says what it said before.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ringlog_engine::batch::{BatchHeader, CHECKSUM_START, batches, seal};
use ringlog_net::arbitrary::{Body, Form, Numbers};
use ringlog_net::metadata::{
    ConfigRecord, FeatureLevelRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord,
    TopicRecord,
};
use ringlog_net::{Bytes, Str, Uuid};

use crate::controller::{Image, ImageBuilder};
use crate::programs::metadata::batch::{Content, decode, encode, encode_leader_change};
use crate::programs::metadata::snapshot::{SnapshotId, read, write};
use crate::{Choices, changed, memory};

/// In an input's first byte: give every batch its checksum and its place.
const SEALED: u8 = 1;
/// In an input's first byte: the rest are made-up records.
const MADE: u8 = 2;
/// In an input's first byte: the rest is the name of a file.
const NAME: u8 = 4;

const ID: SnapshotId = SnapshotId {
    end_offset: 100,
    epoch: 3,
};

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let [choice, change] = choices.take();
    let at = choices.below(usize::from(u16::MAX));
    if choice & NAME != 0 {
        name(choices.rest());
    } else if choice & MADE != 0 {
        made(choices);
    } else {
        let mut bytes = choices.rest().to_vec();
        if choice & SEALED != 0 {
            place_and_seal(&mut bytes);
        }
        log(&bytes, at, change);
        snapshot(&Bytes::from(bytes), at, change);
    }
}

fn name(bytes: &[u8]) {
    if let Ok(name) = std::str::from_utf8(bytes)
        && let Some(id) = SnapshotId::parse(name)
    {
        assert_eq!(id.file_name(), name);
    }
}

fn log(bytes: &[u8], at: usize, change: u8) {
    let mut builder = ImageBuilder::new(&Image::empty());
    for batch in batches(bytes) {
        let Ok(batch) = batch else {
            return;
        };
        let header = batch.header;
        // A record's value is copied, and becomes a record in memory.
        let limit = 64 * batch.bytes.len() * 4 + 4096;
        let Ok(content) = memory::within(limit, || decode(&batch)) else {
            return;
        };
        let at = CHECKSUM_START + at % (batch.bytes.len() - CHECKSUM_START);
        let damaged = changed(batch.bytes, at, change);
        if let Some(Ok(damaged)) = batches(&damaged).next() {
            assert!(decode(&damaged).is_err(), "byte {at} was changed");
        }
        let Content::Records(records) = content else {
            continue;
        };
        if !records.is_empty() {
            let written = encode(header.base_offset, header.leader_epoch, 5, &records)
                .expect("records that were read");
            let again = batches(&written)
                .next()
                .and_then(Result::ok)
                .expect("a batch that was written");
            let Ok(Content::Records(again)) = decode(&again) else {
                panic!("a batch that was written is not read");
            };
            // By their bytes: a number that is not equal to itself may be in there.
            let twice = encode(header.base_offset, header.leader_epoch, 5, &again);
            assert_eq!(twice.as_ref(), Ok(&written));
        }
        for (offset, record) in (header.base_offset..).zip(records) {
            if strays(builder.image(), &record)
                || builder
                    .batch(offset, header.leader_epoch, &[record])
                    .is_err()
            {
                return;
            }
        }
    }
    same_from_its_records(&builder.finish().0);
}

/// Whether a record configures a topic that does not exist: the controller never writes one, and an image's records leave it out.
fn strays(image: &Image, record: &MetadataRecord) -> bool {
    matches!(record, MetadataRecord::Config(config)
        if config.resource_type == 2 && image.topic(&config.resource_name).is_none())
}

/// Records of any kinds, one after the other.
fn made(mut choices: Choices<'_>) {
    let mut builder = ImageBuilder::new(&Image::empty());
    let mut offset = 0;
    while !choices.is_empty() {
        let [kind, length] = choices.take();
        let (key, versions) = MetadataRecord::KEYS[usize::from(kind) % MetadataRecord::KEYS.len()];
        let rest = choices.rest();
        let (seed, later) = rest.split_at(rest.len().min(usize::from(length)));
        choices = Choices::new(later);
        let Some(Body::Record(record)) = Form::Record(key, versions.high).make_up(seed) else {
            continue;
        };
        // The builder is of no use after a record that it refuses: try on a copy.
        let mut next = ImageBuilder::new(builder.image());
        if !strays(next.image(), &record) && next.batch(offset, 1, &[record]).is_ok() {
            builder = next;
            offset += 1;
        }
    }
    let image = builder.finish().0;
    same_from_its_records(&image);
    through_a_snapshot(&image);
}

fn same_from_its_records(image: &Image) {
    assert_eq!(&from_its_records(image), image);
}

fn from_its_records(image: &Image) -> Image {
    let records: Vec<MetadataRecord> = image.records().collect();
    let mut builder = ImageBuilder::new(&Image::empty());
    builder
        .batch(0, 1, &records)
        .expect("an image's own records");
    builder.skip_to(image.offset, image.epoch);
    builder.finish().0
}

fn through_a_snapshot(image: &Image) {
    let id = SnapshotId::of(image);
    let content = Bytes::from(ready(write(image, 5)).expect("an image"));
    assert_eq!(
        read(id, &content).expect("a snapshot that was written"),
        *image
    );
}

fn snapshot(content: &Bytes, at: usize, change: u8) {
    let Ok(image) = read(ID, content) else {
        return;
    };
    // Without configurations of topics that do not exist: see `strays`.
    through_a_snapshot(&from_its_records(&image));
    let at = at % content.len();
    if let Ok(found) = read(ID, &Bytes::from(changed(content, at, change))) {
        // Only a batch's leader epoch lies outside its checksum and place.
        assert_eq!(found, image, "byte {at} was changed");
    }
    assert!(read(ID, &content.slice(..at)).is_err(), "cut at byte {at}");
}

fn place_and_seal(bytes: &mut [u8]) {
    let (mut at, mut offset) = (0, 0_i64);
    while let Ok(header) = BatchHeader::parse(&bytes[at..])
        && let Some(batch) = bytes[at..].get_mut(..header.size())
    {
        batch[..8].copy_from_slice(&offset.to_be_bytes());
        seal(batch);
        at += header.size();
        offset += i64::from(header.last_offset_delta) + 1;
    }
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return value;
        }
    }
}

fn records() -> Vec<MetadataRecord> {
    let topic_id = Uuid([5; 16]);
    vec![
        MetadataRecord::from(FeatureLevelRecord {
            name: Str::from("metadata.version"),
            feature_level: 25,
        }),
        MetadataRecord::from(TopicRecord {
            name: Str::from("a.b"),
            topic_id,
        }),
        MetadataRecord::from(PartitionRecord {
            partition_id: 0,
            topic_id,
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            directories: vec![Uuid([6; 16])],
            ..PartitionRecord::default()
        }),
        MetadataRecord::from(ConfigRecord {
            resource_type: 2,
            resource_name: Str::from("a.b"),
            name: Str::from("retention.ms"),
            value: Some(Str::from("5")),
        }),
        MetadataRecord::from(ProducerIdsRecord {
            next_producer_id: 1000,
            ..ProducerIdsRecord::default()
        }),
    ]
}

/// A log and a snapshot, whole and in parts; file names; and what records are made of.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(10);
    let records = records();
    let mut builder = ImageBuilder::new(&Image::empty());
    builder.batch(0, 1, &records).expect("records that fit");
    let image = builder.finish().0;
    let leader = encode_leader_change(0, 1, 5, 1).expect("a control batch");
    let batch = encode(1, 1, 5, &records).expect("records");
    let content = ready(write(&image, 5)).expect("an image");
    let first = [SEALED, 3, 0, 40];
    let mut seeds = vec![
        [&first[..], &leader, &batch].concat(),
        [&first[..], &batch].concat(),
        [&first[..], &content].concat(),
        [&[NAME, 0, 0, 0], ID.file_name().as_bytes()].concat(),
    ];
    for record in &records {
        let one = encode(0, 1, 5, std::slice::from_ref(record)).expect("a record");
        seeds.push([&first[..], &one].concat());
    }
    for kind in 0..MetadataRecord::KEYS.len() as u8 {
        let seed = numbers.bytes(60);
        seeds.push([&[MADE, 3, 0, 40, kind, 60], &seed[..], &[kind, 60], &seed].concat());
    }
    seeds
}
