//! Produce on the wire: order under pipelining, acknowledgement modes, idempotence, topic ids, and the errors that clients are owed.

use bytes::Bytes;
use ringlog_net::messages::init_producer_id::InitProducerIdRequest;
use ringlog_net::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode, Records, Str, Uuid};

use crate::support::{Broker, Client, batch, idempotent_batch, produce_request};

#[test]
fn pipelined_requests_keep_their_order() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    // More partitions than shards, so that requests take both ways.
    client.create_topic("t", 3, &[]);
    let sent: Vec<(i32, i32, Vec<u8>)> = (0..300)
        .map(|number: i32| {
            let value = number.to_be_bytes().to_vec();
            let id = client.send(&produce_request("t", number % 3, 1, batch(&[&value])), 9);
            (id, number % 3, value)
        })
        .collect();
    let mut next = [0; 3];
    for (id, partition, _) in &sent {
        let Response::Produce(response) = client.receive(ApiKey::Produce, 9, *id) else {
            panic!()
        };
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(
            (answer.error_code, answer.base_offset),
            (ErrorCode::NONE, next[*partition as usize])
        );
        next[*partition as usize] += 1;
    }
    for partition in 0..3 {
        let expected: Vec<&Vec<u8>> = sent
            .iter()
            .filter(|(_, p, _)| *p == partition)
            .map(|(_, _, value)| value)
            .collect();
        let found = client.read_all("t", partition);
        assert!(found.iter().map(|(_, value)| value).eq(expected));
    }
}

#[test]
fn every_version_is_answered() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    let topic_id = client.create_topic("t", 1, &[]);
    for (offset, version) in (3..=13).enumerate() {
        let Request::Produce(mut request) = produce_request("t", 0, -1, batch(&[b"v"])) else {
            panic!()
        };
        if version >= 13 {
            request.topic_data[0].name = Str::default();
            request.topic_data[0].topic_id = topic_id;
        }
        let Response::Produce(response) = client.call(Request::Produce(request), version) else {
            panic!()
        };
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(
            (answer.error_code, answer.base_offset),
            (ErrorCode::NONE, offset as i64),
            "version {version}"
        );
    }
}

#[test]
fn without_acknowledgement_there_is_no_response() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    for _ in 0..5 {
        client.send(&produce_request("t", 0, 0, batch(&[b"quiet"])), 9);
    }
    // The next response is to the next request that gets one, and finds what was sent before.
    assert_eq!(client.produce("t", 0, batch(&[b"loud"])).base_offset, 5);
    assert_eq!(client.read_all("t", 0).len(), 6);
    // The only way to report a failure is to close.
    client.send(&produce_request("unknown", 0, 0, batch(&[b"lost"])), 9);
    assert!(client.receive_frame().is_none());
}

#[test]
fn a_retried_batch_is_stored_once() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    let (id, epoch) = producer_id(&mut client);
    let (other, _) = producer_id(&mut client);
    assert_ne!(id, other);
    let batches: Vec<Vec<u8>> = (0..3)
        .map(|number| idempotent_batch(id, epoch, number * 2, &[b"x", b"y"]))
        .collect();
    for (number, batch) in batches.iter().enumerate() {
        assert_eq!(
            client.produce("t", 0, batch.clone()).base_offset,
            number as i64 * 2
        );
    }
    for (number, batch) in batches.iter().enumerate() {
        let answer = client.produce("t", 0, batch.clone());
        assert_eq!(
            (answer.error_code, answer.base_offset),
            (ErrorCode::NONE, number as i64 * 2)
        );
    }
    let older = client.produce("t", 0, idempotent_batch(id, epoch - 1, 6, &[b"z"]));
    assert!(older.error_code.is_error());
    assert_eq!(client.read_all("t", 0).len(), 6);
}

fn producer_id(client: &mut Client) -> (i64, i16) {
    let request = InitProducerIdRequest {
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    let Response::InitProducerId(response) =
        client.call(Request::InitProducerId(Box::new(request)), 4)
    else {
        panic!()
    };
    assert_eq!(response.error_code, ErrorCode::NONE);
    (response.producer_id, response.producer_epoch)
}

#[test]
fn faults_are_named() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[("max.message.bytes", "1000")]);
    let good = batch(&[b"value"]);
    let mut rotten = good.clone();
    *rotten.last_mut().unwrap() ^= 1;
    let mut truncated = good.clone();
    truncated.truncate(30);
    let mut two = good.clone();
    two.extend(&good);
    let large = batch(&[&[7; 2000]]);
    let cases: [(&str, Vec<u8>, ErrorCode); 5] = [
        ("checksum", rotten, ErrorCode::CORRUPT_MESSAGE),
        ("truncated", truncated, ErrorCode::CORRUPT_MESSAGE),
        ("empty", vec![], ErrorCode::INVALID_RECORD),
        ("two batches", two, ErrorCode::INVALID_RECORD),
        ("large", large, ErrorCode::MESSAGE_TOO_LARGE),
    ];
    for (name, bytes, expected) in cases {
        let answer = client.produce("t", 0, bytes);
        assert_eq!(
            (answer.error_code, answer.base_offset),
            (expected, -1),
            "{name}"
        );
        assert!(answer.error_message.is_some(), "{name}");
    }
    assert_eq!(
        client.produce("t", 1, good.clone()).error_code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    assert_eq!(
        client.produce("t", -1, good.clone()).error_code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    assert_eq!(
        client.produce("nowhere", 0, good.clone()).error_code,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    let answers = [
        ask(
            &mut client,
            ProduceRequest {
                acks: 2,
                ..request(&good)
            },
            9,
        ),
        ask(
            &mut client,
            ProduceRequest {
                transactional_id: Some(Str::from("tx")),
                ..request(&good)
            },
            9,
        ),
        ask(&mut client, by_id(&good, Uuid([9; 16])), 13),
    ];
    let expected = [
        ErrorCode::INVALID_REQUIRED_ACKS,
        ErrorCode::INVALID_TXN_STATE,
        ErrorCode::UNKNOWN_TOPIC_ID,
    ];
    assert_eq!(answers, expected);
    assert_eq!(client.read_all("t", 0).len(), 0);
}

#[test]
fn acks_all_wants_enough_replicas_in_sync() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[("min.insync.replicas", "2")]);
    let refused = client.produce("t", 0, batch(&[b"v"]));
    assert_eq!(refused.error_code, ErrorCode::NOT_ENOUGH_REPLICAS);
    let id = client.send(&produce_request("t", 0, 1, batch(&[b"v"])), 9);
    let Response::Produce(response) = client.receive(ApiKey::Produce, 9, id) else {
        panic!()
    };
    assert_eq!(
        response.responses[0].partition_responses[0].error_code,
        ErrorCode::NONE
    );
}

fn request(batch: &[u8]) -> ProduceRequest {
    let data = PartitionProduceData {
        index: 0,
        records: Some(Records::from(Bytes::copy_from_slice(batch))),
    };
    let topic = TopicProduceData {
        name: Str::from("t"),
        partition_data: vec![data],
        ..Default::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![topic],
        ..Default::default()
    }
}

fn by_id(batch: &[u8], id: Uuid) -> ProduceRequest {
    let mut request = request(batch);
    request.topic_data[0].name = Str::default();
    request.topic_data[0].topic_id = id;
    request
}

fn ask(client: &mut Client, request: ProduceRequest, version: i16) -> ErrorCode {
    let Response::Produce(response) = client.call(Request::Produce(Box::new(request)), version)
    else {
        panic!()
    };
    response.responses[0].partition_responses[0].error_code
}
