//! Bytes that no client should send: the connection ends, everybody else is served, memory stays where it was.

use std::io::Write;
use std::time::Duration;

use ringlog_net::messages::api_versions::ApiVersionsRequest;
use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode, Str};

use crate::support::{Broker, Client, batch, fetch_request, produce_request};

/// A small generator of numbers (xorshift), so that a failure repeats.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn assert_served(broker: &Broker, topic: &str) {
    let mut client = broker.connect();
    let answer = client.produce(topic, 0, batch(&[b"others are served"]));
    assert_eq!(answer.error_code, ErrorCode::NONE);
    assert!(!client.read_all(topic, 0).is_empty());
}

#[test]
fn bad_frames_end_their_connection_only() {
    let broker = Broker::start(&["socket.request.max.bytes=1048576"]);
    broker.connect().create_topic("t", 1, &[]);
    let frames: [(&str, Vec<u8>); 8] = [
        ("negative size", (-1i32).to_be_bytes().to_vec()),
        ("size over the limit", (1i32 << 30).to_be_bytes().to_vec()),
        ("no header", vec![0, 0, 0, 1, 0]),
        ("empty frame", vec![0, 0, 0, 0]),
        (
            "unknown API",
            vec![0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0, 0],
        ),
        (
            "unknown version",
            vec![0, 0, 0, 10, 0, 0, 0x7f, 0xff, 0, 0, 0, 1, 0, 0],
        ),
        (
            "body cut short",
            vec![0, 0, 0, 11, 0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 1],
        ),
        (
            "TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
    ];
    for (name, bytes) in frames {
        let mut client = broker.connect();
        client.stream.write_all(&bytes).unwrap();
        assert!(client.receive_frame().is_none(), "{name}");
    }
    assert_served(&broker, "t");
}

#[test]
fn requests_with_single_bytes_changed_never_stop_the_broker() {
    let broker = Broker::start(&[]);
    broker.connect().create_topic("t", 2, &[]);
    let name = Str::from_static("fuzz");
    let requests = [
        (
            produce_request("t", 0, -1, batch(&[b"value", b"another"])),
            9,
        ),
        (
            Request::Fetch(Box::new(fetch_request(
                "t",
                &[(0, 0), (1, 0)],
                Duration::ZERO,
            ))),
            12,
        ),
        (Request::ApiVersions(Box::default()), 3),
    ];
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for (request, version) in &requests {
        let good = request.encode(*version, 7, Some(&name)).unwrap().concat();
        for _ in 0..60 {
            let mut bytes = good.clone();
            let at = 4 + numbers.next() as usize % (bytes.len() - 4);
            bytes[at] = numbers.next() as u8;
            let mut client = broker.connect();
            client.stream.write_all(&bytes).unwrap();
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Either an answer or the end; never silence.
            while client.receive_frame().is_some() {}
        }
    }
    assert_served(&broker, "t");
}

#[test]
fn random_bytes_never_stop_the_broker() {
    let broker = Broker::start(&[]);
    broker.connect().create_topic("t", 1, &[]);
    let mut numbers = Numbers(42);
    for _ in 0..100 {
        let length = 4 + numbers.next() as usize % 200;
        let mut bytes: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
        let size = (length as u32 - 4).to_be_bytes();
        bytes[..4].copy_from_slice(&size);
        let mut client = broker.connect();
        client.stream.write_all(&bytes).unwrap();
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        while client.receive_frame().is_some() {}
    }
    assert_served(&broker, "t");
}

#[test]
fn claims_without_bytes_take_no_memory() {
    let broker = Broker::start(&[]);
    broker.connect().create_topic("t", 1, &[]);
    assert_served(&broker, "t");
    let before = broker.resident_bytes();
    let mut idle: Vec<Client> = Vec::new();
    for _ in 0..200 {
        let mut client = broker.connect();
        // 100 MB announced, ten bytes sent.
        client
            .stream
            .write_all(&100_000_000i32.to_be_bytes())
            .unwrap();
        client.stream.write_all(&[0, 0, 0, 9, 0, 0]).unwrap();
        idle.push(client);
    }
    assert_served(&broker, "t");
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for 200 half-open requests");
    drop(idle);
}

#[test]
fn an_unknown_version_of_api_versions_is_told_the_range() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client
        .stream
        .write_all(&[0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0])
        .unwrap();
    let Response::ApiVersions(response) = client.receive(ApiKey::ApiVersions, 0, 5) else {
        panic!()
    };
    assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION);
    assert_eq!(response.api_keys.len(), 1);
    assert_eq!(
        (
            response.api_keys[0].api_key,
            response.api_keys[0].max_version
        ),
        (18, 4)
    );
    let Response::ApiVersions(response) = client.call(Request::ApiVersions(named()), 4) else {
        panic!()
    };
    assert_eq!(response.error_code, ErrorCode::NONE);
    let produce = response
        .api_keys
        .iter()
        .find(|api| api.api_key == 0)
        .unwrap();
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
}

fn named() -> Box<ApiVersionsRequest> {
    Box::new(ApiVersionsRequest {
        client_software_name: Str::from("wire-test"),
        client_software_version: Str::from("1.0"),
    })
}

#[test]
fn what_came_before_a_bad_request_is_answered() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 2, &[]);
    let name = Str::from_static("test");
    let encoded = |request: Request, version| request.encode(version, 7, Some(&name)).unwrap();
    let refused = encoded(produce_request("nowhere", 0, 0, batch(&[b"lost"])), 9);
    let endings: [(&str, Vec<u8>); 4] = [
        (
            "body cut short",
            vec![0, 0, 0, 11, 0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 1],
        ),
        (
            "unknown version",
            vec![0, 0, 0, 10, 0, 0, 0x7f, 0xff, 0, 0, 0, 1, 0, 0],
        ),
        ("negative size", (-1i32).to_be_bytes().to_vec()),
        ("acks=0, refused", refused.concat()),
    ];
    for (ending, last) in endings {
        let mut client = broker.connect();
        let mut bytes = Vec::new();
        for partition in [0, 1, 0] {
            let produce = produce_request("t", partition, -1, batch(&[b"durable"]));
            bytes.extend(encoded(produce, 9).concat());
        }
        bytes.extend(last);
        client.stream.write_all(&bytes).unwrap();
        for _ in 0..3 {
            let Some(frame) = client.receive_frame() else {
                panic!("{ending}: a durable produce was not answered");
            };
            let (_, response) = Response::decode_frame(ApiKey::Produce, 9, frame).unwrap();
            let Response::Produce(response) = response else {
                panic!()
            };
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!(answer.error_code, ErrorCode::NONE, "{ending}");
        }
        assert!(client.receive_frame().is_none(), "{ending}");
    }
}
