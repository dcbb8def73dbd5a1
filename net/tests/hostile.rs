//! No bytes, however wrong, make a decoder panic or take more memory than a small multiple of what arrived; and bytes that
//! are right cost no more than they should: decoding Produce allocates per partition, encoding Fetch copies no payload.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringlog_net::arbitrary::{Body, Form, Numbers};
use ringlog_net::codec::{DecodeError, Message, Reader, Writer};
use ringlog_net::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use ringlog_net::messages::metadata::MetadataRequest;
use ringlog_net::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_net::request::Response;
use ringlog_net::{ApiKey, Bytes, Records, Str};

/// Counts what each thread holds and asks for.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // While a thread ends its counters are gone; nothing is measured then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
    if change > 0 {
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
    }
}

// SAFETY: every call is handed on to the system's allocator as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises about `layout` are passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from `alloc` above, and so from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a call returned, the most memory it held at once beyond what was there, and how often it allocated.
fn measured<T>(call: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = HELD.get();
    PEAK.set(before);
    CALLS.set(0);
    let value = call();
    (value, (PEAK.get() - before) as usize, CALLS.get())
}

/// The promise of `codec::Reader`, and 2 KiB for the message's own struct.
fn memory_max(arrived: usize) -> usize {
    4 * arrived + (64 * arrived).min(4 << 20) + (2 << 10)
}

fn decode_within_bounds(form: Form, bytes: &[u8]) -> Result<Body, DecodeError> {
    let bytes = Bytes::copy_from_slice(bytes);
    let arrived = bytes.len();
    let (result, peak, _) = measured(|| form.decode(bytes));
    assert!(
        peak <= memory_max(arrived),
        "{form:?}: {arrived} bytes arrived, {peak} were taken"
    );
    result
}

fn valid(form: Form, numbers: &mut Numbers) -> Vec<u8> {
    let length = numbers.below(400);
    let body = form
        .make_up(&numbers.bytes(length))
        .expect("a form that exists");
    form.encode(&body)
        .expect("what the version can carry")
        .to_vec()
}

#[test]
fn truncated_anywhere() {
    let mut numbers = Numbers::new(1);
    for form in Form::all() {
        let whole = valid(form, &mut numbers);
        for length in 0..whole.len() {
            let result = decode_within_bounds(form, &whole[..length]);
            assert!(
                result.is_err(),
                "{form:?} from {length} of {} bytes",
                whole.len()
            );
        }
    }
}

#[test]
fn huge_and_negative_lengths_anywhere() {
    let lengths: [&[u8]; 5] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff],
        &[0x80, 0x00, 0x00, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x00, 0x01, 0x00, 0x00],
    ];
    let mut numbers = Numbers::new(2);
    for form in Form::all() {
        let whole = valid(form, &mut numbers);
        for position in 0..whole.len() {
            for length in lengths {
                let mut bytes = whole.clone();
                let end = whole.len().min(position + length.len());
                bytes.splice(position..end, length.iter().copied());
                let _ = decode_within_bounds(form, &bytes);
            }
        }
    }
}

#[test]
fn random_bytes() {
    let mut numbers = Numbers::new(3);
    for form in Form::all() {
        for _ in 0..50 {
            let length = numbers.below(300);
            let bytes = numbers.bytes(length);
            let _ = decode_within_bounds(form, &bytes);
        }
    }
}

/// Megabytes of the tiniest elements there are: each takes far more memory than it took on the wire.
#[test]
fn arrays_that_blow_up() {
    let elements = 2_000_000_u32;
    let mut writer = Writer::new();
    writer.uvarint(elements + 1);
    let mut bytes = writer.into_bytes().to_vec();
    // The least a topic of Metadata version 9 can be: an empty name and no tags.
    for _ in 0..elements {
        bytes.extend_from_slice(&[1, 0]);
    }
    bytes.extend_from_slice(&[0, 0, 0, 0]);
    let result = decode_within_bounds(Form::Request(ApiKey::Metadata, 9), &bytes);
    assert!(
        matches!(result, Err(DecodeError::TooMuchMemory { .. })),
        "{:?}",
        result.err()
    );
}

/// A client that asks for very many topics by name is not mistaken for an attack.
#[test]
fn many_short_names_are_no_attack() {
    let names = (0..50_000).map(|number| format!("topic{number}"));
    let request = MetadataRequest {
        topics: Some(
            names
                .map(
                    |name| ringlog_net::messages::metadata::MetadataRequestTopic {
                        name: Some(Str::from(name)),
                        ..Default::default()
                    },
                )
                .collect(),
        ),
        ..MetadataRequest::default()
    };
    for version in [1, 9, 13] {
        let mut writer = Writer::new();
        request
            .encode(&mut writer, version)
            .expect("names that every version has");
        let bytes = writer.into_bytes();
        let result = decode_within_bounds(Form::Request(ApiKey::Metadata, version), &bytes);
        assert!(result.is_ok(), "{:?}", result.err());
    }
}

fn produce(topics: usize, partitions: usize, records_bytes: usize) -> Bytes {
    let records = Records::from(Bytes::from(vec![7; records_bytes]));
    let partition = |index| PartitionProduceData {
        index,
        records: Some(records.clone()),
    };
    let topic = |_| TopicProduceData {
        name: Str::from("topic"),
        partition_data: (0..partitions as i32).map(partition).collect(),
        ..TopicProduceData::default()
    };
    let request = ProduceRequest {
        topic_data: (0..topics).map(topic).collect(),
        ..ProduceRequest::default()
    };
    let mut writer = Writer::new();
    request.encode(&mut writer, 12).expect("a plain request");
    writer.into_bytes()
}

#[test]
fn produce_is_decoded_in_place() {
    for (topics, partitions, records_bytes) in [(1, 1, 100), (1, 1, 10 << 20), (5, 40, 30_000)] {
        let frame = produce(topics, partitions, records_bytes);
        let range = frame.as_ptr_range();
        let mut reader = Reader::new(frame.clone());
        let (request, peak, allocations) =
            measured(|| ProduceRequest::decode(&mut reader, 12).expect("a valid request"));
        // One list of topics, and one of partitions in each.
        assert_eq!(allocations, 1 + topics);
        assert!(peak <= topics * (100 + partitions * 60), "{peak} bytes");
        for partition in request
            .topic_data
            .iter()
            .flat_map(|topic| &topic.partition_data)
        {
            let records = partition.records.as_ref().expect("records");
            assert_eq!(records.len(), records_bytes);
            assert!(
                records
                    .pieces()
                    .iter()
                    .all(|piece| range.contains(&piece.as_ptr()))
            );
        }
    }
}

#[test]
fn fetch_responses_copy_no_payload() {
    let pieces: Vec<Bytes> = (0..3)
        .map(|piece| Bytes::from(vec![piece; 1 << 20]))
        .collect();
    let partition = |partition_index| PartitionData {
        partition_index,
        records: Records::from(pieces.clone()),
        ..PartitionData::default()
    };
    let response = Response::from(FetchResponse {
        responses: vec![FetchableTopicResponse {
            partitions: (0..10).map(partition).collect(),
            ..FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    });
    let (frame, peak, allocations) = measured(|| response.encode(16, 5).expect("a response"));
    assert!(peak < 8 << 10, "{peak} bytes");
    assert!(allocations < 12, "{allocations} allocations");
    // Before each partition's payload its own fields, after the last one the rest.
    assert_eq!(frame.len(), 10 * (1 + pieces.len()) + 1);
    assert_eq!(frame[1].as_ptr(), pieces[0].as_ptr());
    let size: usize = frame.iter().map(Bytes::len).sum();
    assert_eq!(frame[0][..4], (size as i32 - 4).to_be_bytes());
    let content = Bytes::from(frame.concat()).slice(4..);
    assert_eq!(
        Response::decode_frame(ApiKey::Fetch, 16, content),
        Ok((5, response))
    );
}
