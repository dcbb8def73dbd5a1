//! Transactions on the wire, as far as a partition goes: markers, what they fence, what read_committed consumers are told, and that no batch gets in without its coordinator's word.

use std::time::Duration;

use ringlog_engine::batch::{Attributes, BatchBuilder};
use ringlog_net::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use ringlog_net::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use ringlog_net::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ErrorCode, Str};

use crate::support::{Broker, Client, batch, fetch_request, idempotent_batch, produce_request};

/// A transactional batch of one record.
fn transactional(producer_id: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    BatchBuilder::new()
        .producer(producer_id, epoch, sequence)
        .attributes(Attributes::default().with_transactional(true))
        .record(0, None, Some(b"value"))
        .build()
        .expect("a batch")
}

/// Writes a marker to partitions of `t`; the answers in order.
fn mark(
    client: &mut Client,
    partitions: &[i32],
    (producer_epoch, coordinator_epoch): (i16, i32),
    version: i8,
) -> Vec<ErrorCode> {
    let topic = WritableTxnMarkerTopic {
        name: Str::from("t"),
        partition_indexes: partitions.to_vec(),
    };
    let marker = WritableTxnMarker {
        producer_id: 7,
        producer_epoch,
        transaction_result: false,
        topics: vec![topic],
        coordinator_epoch,
        transaction_version: version,
    };
    let request = WriteTxnMarkersRequest {
        markers: vec![marker],
    };
    let request = Request::WriteTxnMarkers(Box::new(request));
    let Response::WriteTxnMarkers(response) = client.call(request, 2) else {
        panic!()
    };
    assert_eq!(response.markers[0].producer_id, 7);
    let answers = response.markers[0].topics[0].partitions.iter();
    answers.map(|answer| answer.error_code).collect()
}

#[test]
fn markers_are_durable_and_fence() {
    let mut broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 3, &[]);
    let written = mark(&mut client, &[0, 1, 2, 3], (4, 6), 1);
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let none = ErrorCode::NONE;
    assert_eq!(written, [none, none, none, unknown]);
    broker.crash_and_restart();
    let mut client = broker.connect();
    // Again it does no harm; an old coordinator and an old epoch are refused; with version 2 as well.
    assert_eq!(mark(&mut client, &[0], (4, 6), 2), [none]);
    let fenced = ErrorCode::TRANSACTION_COORDINATOR_FENCED;
    assert_eq!(mark(&mut client, &[0], (5, 5), 2), [fenced]);
    let invalid = ErrorCode::INVALID_PRODUCER_EPOCH;
    assert_eq!(mark(&mut client, &[0], (3, 6), 1), [invalid]);
    let late = client.produce("t", 0, idempotent_batch(7, 3, 0, &[b"late"]));
    assert_eq!(late.error_code, invalid);
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: Str::from("t"),
            partition_indexes: vec![0],
        }],
    };
    let request = Request::DescribeProducers(Box::new(request));
    let Response::DescribeProducers(response) = client.call(request, 0) else {
        panic!()
    };
    let shown = &response.topics[0].partitions[0].active_producers[0];
    assert_eq!(
        (
            shown.producer_id,
            shown.producer_epoch,
            shown.coordinator_epoch,
            shown.current_txn_start_offset
        ),
        (7, 4, 6, -1)
    );
}

#[test]
fn read_committed_is_told_the_last_stable_offset() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    client.produce("t", 0, batch(&[b"a", b"b"]));
    assert_eq!(mark(&mut client, &[0], (0, 1), 1), [ErrorCode::NONE]);
    for isolation_level in [0, 1] {
        let mut request = fetch_request("t", &[(0, 0)], Duration::ZERO);
        request.isolation_level = isolation_level;
        let Response::Fetch(response) = client.call(Request::Fetch(Box::new(request)), 12) else {
            panic!()
        };
        let data = &response.responses[0].partitions[0];
        assert_eq!((data.high_watermark, data.last_stable_offset), (3, 3));
        let aborted = data.aborted_transactions.as_ref().map(Vec::len);
        assert_eq!(aborted, (isolation_level == 1).then_some(0));
        assert!(!data.records.is_empty());
        let latest = ListOffsetsRequest {
            replica_id: -1,
            isolation_level,
            topics: vec![ListOffsetsTopic {
                name: Str::from("t"),
                partitions: vec![ListOffsetsPartition {
                    partition_index: 0,
                    timestamp: -1,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        let request = Request::ListOffsets(Box::new(latest));
        let Response::ListOffsets(response) = client.call(request, 5) else {
            panic!()
        };
        assert_eq!(response.topics[0].partitions[0].offset, 3);
    }
}

#[test]
fn a_transactional_batch_needs_its_id_and_its_coordinators_word() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    let mut send = |transactional_id: Option<&str>, batch: Vec<u8>, version| {
        let Request::Produce(mut request) = produce_request("t", 0, -1, batch) else {
            panic!()
        };
        request.transactional_id = transactional_id.map(Str::from);
        let Response::Produce(response) = client.call(Request::Produce(request), version) else {
            panic!()
        };
        response.responses[0].partition_responses[0].error_code
    };
    let nobody = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    assert_eq!(send(None, transactional(7, 0, 0), 11), nobody);
    let plain = idempotent_batch(7, 0, 0, &[b"value"]);
    let not_of_it = ErrorCode::INVALID_TXN_STATE;
    assert_eq!(send(Some("tx"), plain, 11), not_of_it);
    // Nobody has begun this transaction: whatever its coordinator says, it is not yes.
    for version in [3, 9, 11, 12] {
        let error = send(Some("tx"), transactional(7, 0, 0), version);
        assert!(error.is_error(), "version {version}");
    }
    assert_eq!(client.read_all("t", 0).len(), 0);
}
