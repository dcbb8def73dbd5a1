//! Transactions on the wire: what is committed is seen, what is aborted is not, offsets belong to it, old producers are fenced, and a crash takes nothing back.

use std::time::{Duration, Instant};

use ringlog_engine::batch::{Attributes, BatchBuilder};
use ringlog_net::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use ringlog_net::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic,
};
use ringlog_net::messages::delete_topics::DeleteTopicsRequest;
use ringlog_net::messages::end_txn::EndTxnRequest;
use ringlog_net::messages::fetch::FetchResponse;
use ringlog_net::messages::find_coordinator::FindCoordinatorRequest;
use ringlog_net::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_net::messages::list_transactions::ListTransactionsRequest;
use ringlog_net::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ringlog_net::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ErrorCode, Str};

use crate::support::{Broker, Client, batch, fetch_request, produce_request, records_of};

const FEW: &[&str] = &[
    "offsets.topic.num.partitions=4",
    "transaction.state.log.num.partitions=4",
    "group.initial.rebalance.delay.ms=0",
];

fn find(client: &mut Client, key: &str, key_type: i8) {
    let request = FindCoordinatorRequest {
        key: Str::from(key),
        key_type,
        ..Default::default()
    };
    let Response::FindCoordinator(found) = client.call(Request::from(request), 3) else {
        panic!("another response")
    };
    assert_eq!(found.error_code, ErrorCode::NONE);
}

fn init(client: &mut Client, id: &str, timeout_ms: i32) -> InitProducerIdResponse {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let request = InitProducerIdRequest {
            transactional_id: Some(Str::from(id)),
            transaction_timeout_ms: timeout_ms,
            ..Default::default()
        };
        let Response::InitProducerId(response) = client.call(Request::from(request), 5) else {
            panic!("another response")
        };
        let again = [
            ErrorCode::CONCURRENT_TRANSACTIONS,
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ];
        if !again.contains(&response.error_code) || Instant::now() > until {
            return *response;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn transactional(producer: &InitProducerIdResponse, sequence: i32, value: &[u8]) -> Vec<u8> {
    BatchBuilder::new()
        .producer(producer.producer_id, producer.producer_epoch, sequence)
        .attributes(Attributes::default().with_transactional(true))
        .record(now_ms(), None, Some(value))
        .build()
        .expect("a batch")
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_millis() as i64
}

/// Produces in the transaction, with a version that adds partitions in passing or one that does not.
fn produce(
    client: &mut Client,
    id: &str,
    partition: i32,
    batch: Vec<u8>,
    version: i16,
) -> ErrorCode {
    let Request::Produce(mut request) = produce_request("t", partition, -1, batch) else {
        panic!("another request")
    };
    request.transactional_id = Some(Str::from(id));
    match client.call(Request::Produce(request), version) {
        Response::Produce(response) => response.responses[0].partition_responses[0].error_code,
        other => panic!("{other:?}"),
    }
}

fn end(
    client: &mut Client,
    id: &str,
    producer: &mut InitProducerIdResponse,
    committed: bool,
) -> ErrorCode {
    let request = EndTxnRequest {
        transactional_id: Str::from(id),
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        committed,
    };
    match client.call(Request::from(request), 5) {
        Response::EndTxn(response) => {
            if response.error_code == ErrorCode::NONE {
                producer.producer_id = response.producer_id;
                producer.producer_epoch = response.producer_epoch;
            }
            response.error_code
        }
        other => panic!("{other:?}"),
    }
}

fn fetch(client: &mut Client, committed: bool) -> FetchResponse {
    let mut request = fetch_request("t", &[(0, 0)], Duration::ZERO);
    request.isolation_level = i8::from(committed);
    match client.call(Request::from(request), 11) {
        Response::Fetch(response) => *response,
        other => panic!("{other:?}"),
    }
}

/// What a consumer of committed records sees: it leaves out what the broker says was aborted.
fn committed(client: &mut Client) -> Vec<Vec<u8>> {
    let response = fetch(client, true);
    let data = &response.responses[0].partitions[0];
    let bytes = data.records.to_bytes();
    let aborted = data.aborted_transactions.clone().unwrap_or_default();
    let mut open: Vec<(i64, i64)> = aborted
        .iter()
        .map(|one| (one.producer_id, one.first_offset))
        .collect();
    let mut seen = Vec::new();
    for found in ringlog_engine::batch::batches(&bytes) {
        let found = found.expect("a batch");
        let header = found.header;
        if header.attributes.is_control() {
            open.retain(|(id, first)| *id != header.producer_id || *first > header.base_offset);
            continue;
        }
        let left_out = open
            .iter()
            .any(|(id, first)| *id == header.producer_id && *first <= header.base_offset);
        if !left_out {
            seen.extend(records_of(found.bytes).into_iter().map(|(_, value)| value));
        }
    }
    seen
}

fn until(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn committed_records_are_seen_and_aborted_ones_are_not_also_after_a_crash() {
    let mut broker = Broker::start(FEW);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find(&mut client, "x", 1);
    let mut producer = init(&mut client, "x", 60_000);
    assert_eq!(producer.error_code, ErrorCode::NONE);
    assert_eq!(
        produce(&mut client, "x", 0, transactional(&producer, 0, b"one"), 12),
        ErrorCode::NONE
    );
    // Open: nothing is stable, all of it is there.
    assert_eq!(committed(&mut client), Vec::<Vec<u8>>::new());
    let all = fetch(&mut client, false);
    assert_eq!(
        records_of(&all.responses[0].partitions[0].records.to_bytes()).len(),
        1
    );
    assert_eq!(all.responses[0].partitions[0].last_stable_offset, 0);
    assert_eq!(end(&mut client, "x", &mut producer, true), ErrorCode::NONE);
    until("the commit is seen", || {
        committed(&mut client) == [b"one".to_vec()]
    });
    assert_eq!(
        produce(&mut client, "x", 0, transactional(&producer, 0, b"two"), 12),
        ErrorCode::NONE
    );
    assert_eq!(end(&mut client, "x", &mut producer, false), ErrorCode::NONE);
    client.produce("t", 0, batch(&[b"plain"]));
    let expected = [b"one".to_vec(), b"plain".to_vec()];
    until("the abort is known", || committed(&mut client) == expected);
    assert_eq!(
        produce(
            &mut client,
            "x",
            0,
            transactional(&producer, 0, b"three"),
            12
        ),
        ErrorCode::NONE
    );
    broker.crash_and_restart();
    let mut client = broker.connect();
    assert_eq!(committed(&mut client), expected);
    // The coordinator remembers the open transaction.
    until("the transaction is committed", || {
        let error = end(&mut client, "x", &mut producer, true);
        assert!(
            [ErrorCode::NONE, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS].contains(&error),
            "{error}"
        );
        error == ErrorCode::NONE
    });
    let expected = [b"one".to_vec(), b"plain".to_vec(), b"three".to_vec()];
    until("what was open is committed", || {
        committed(&mut client) == expected
    });
}

#[test]
fn an_older_client_adds_partitions_first_and_without_that_is_refused() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find(&mut client, "x", 1);
    let mut producer = init(&mut client, "x", 60_000);
    let unverified = produce(&mut client, "x", 0, transactional(&producer, 0, b"a"), 11);
    assert!(unverified != ErrorCode::NONE, "not part of any transaction");
    let add = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: Str::from_static("x"),
        v3_and_below_producer_id: producer.producer_id,
        v3_and_below_producer_epoch: producer.producer_epoch,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic {
            name: Str::from_static("t"),
            partitions: vec![0],
        }],
        ..Default::default()
    };
    let Response::AddPartitionsToTxn(added) = client.call(Request::from(add), 3) else {
        panic!("another response")
    };
    let results = &added.results_by_topic_v3_and_below[0].results_by_partition;
    assert_eq!(results[0].partition_error_code, ErrorCode::NONE);
    assert_eq!(
        produce(&mut client, "x", 0, transactional(&producer, 0, b"a"), 11),
        ErrorCode::NONE
    );
    let request = EndTxnRequest {
        transactional_id: Str::from_static("x"),
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        committed: true,
    };
    let Response::EndTxn(ended) = client.call(Request::from(request), 3) else {
        panic!("another response")
    };
    assert_eq!(ended.error_code, ErrorCode::NONE);
    until("the commit is seen", || {
        committed(&mut client) == [b"a".to_vec()]
    });
    // A second instance fences the first.
    let second = init(&mut client, "x", 60_000);
    assert!(
        second.producer_epoch > producer.producer_epoch
            || second.producer_id != producer.producer_id
    );
    let fenced = end(&mut client, "x", &mut producer, true);
    assert!(
        [
            ErrorCode::PRODUCER_FENCED,
            ErrorCode::INVALID_PRODUCER_EPOCH
        ]
        .contains(&fenced),
        "{fenced}"
    );
}

#[test]
fn offsets_committed_in_a_transaction_count_once_it_is_committed() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find(&mut client, "x", 1);
    find(&mut client, "g", 0);
    let mut producer = init(&mut client, "x", 60_000);
    let fetched = |client: &mut Client, stable: bool| {
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: Str::from_static("g"),
                topics: Some(vec![OffsetFetchRequestTopics {
                    name: Str::from_static("t"),
                    partition_indexes: vec![0],
                    ..Default::default()
                }]),
                ..Default::default()
            }],
            require_stable: stable,
            ..Default::default()
        };
        match client.call(Request::from(request), 8) {
            Response::OffsetFetch(response) => {
                let one = &response.groups[0].topics[0].partitions[0];
                (one.error_code, one.committed_offset)
            }
            other => panic!("{other:?}"),
        }
    };
    let commit = |client: &mut Client, producer: &InitProducerIdResponse, offset, version| {
        let request = TxnOffsetCommitRequest {
            transactional_id: Str::from_static("x"),
            group_id: Str::from_static("g"),
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: Str::from_static("t"),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: offset,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        match client.call(Request::from(request), version) {
            Response::TxnOffsetCommit(response) => response.topics[0].partitions[0].error_code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(commit(&mut client, &producer, 7, 5), ErrorCode::NONE);
    assert_eq!(fetched(&mut client, false), (ErrorCode::NONE, -1));
    assert_eq!(
        fetched(&mut client, true).0,
        ErrorCode::UNSTABLE_OFFSET_COMMIT
    );
    assert_eq!(end(&mut client, "x", &mut producer, true), ErrorCode::NONE);
    until("the offset counts", || {
        fetched(&mut client, true) == (ErrorCode::NONE, 7)
    });
    assert_eq!(commit(&mut client, &producer, 9, 5), ErrorCode::NONE);
    assert_eq!(end(&mut client, "x", &mut producer, false), ErrorCode::NONE);
    until("the offset vanishes", || {
        fetched(&mut client, true) == (ErrorCode::NONE, 7)
    });
    // As clients did before: the group is added first.
    let add = AddOffsetsToTxnRequest {
        transactional_id: Str::from_static("x"),
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        group_id: Str::from_static("g"),
    };
    let Response::AddOffsetsToTxn(added) = client.call(Request::from(add), 3) else {
        panic!("another response")
    };
    assert_eq!(added.error_code, ErrorCode::NONE);
    assert_eq!(commit(&mut client, &producer, 11, 4), ErrorCode::NONE);
    assert_eq!(end(&mut client, "x", &mut producer, true), ErrorCode::NONE);
    until("the offset counts", || {
        fetched(&mut client, true) == (ErrorCode::NONE, 11)
    });
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find(&mut client, "x", 1);
    let mut producer = init(&mut client, "x", 500);
    assert_eq!(
        produce(
            &mut client,
            "x",
            0,
            transactional(&producer, 0, b"late"),
            12
        ),
        ErrorCode::NONE
    );
    let list = |client: &mut Client| {
        let request = ListTransactionsRequest {
            duration_filter: -1,
            transactional_id_pattern: Some(Str::from_static("x.*")),
            ..Default::default()
        };
        match client.call(Request::from(request), 2) {
            Response::ListTransactions(response) => {
                assert_eq!(response.error_code, ErrorCode::NONE);
                response.transaction_states[0].transaction_state.to_string()
            }
            other => panic!("{other:?}"),
        }
    };
    until("the abort", || list(&mut client) == "CompleteAbort");
    client.produce("t", 0, batch(&[b"plain"]));
    until("later records are stable", || {
        committed(&mut client) == [b"plain".to_vec()]
    });
    // Kafka takes an epoch that is one behind for a retry, and a commit of what was aborted for an impossible step.
    let refused = end(&mut client, "x", &mut producer, true);
    let expected = [
        ErrorCode::PRODUCER_FENCED,
        ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::INVALID_TXN_STATE,
    ];
    assert!(expected.contains(&refused), "{refused}");
    let late = produce(
        &mut client,
        "x",
        0,
        transactional(&producer, 1, b"later"),
        12,
    );
    assert!(late != ErrorCode::NONE);
    assert_eq!(committed(&mut client), [b"plain".to_vec()]);
}

#[test]
fn a_transaction_ends_though_its_topic_is_gone() {
    let broker = Broker::start(FEW);
    let mut client = broker.connect();
    client.create_topic("t", 2, &[]);
    find(&mut client, "id", 1);
    let mut producer = init(&mut client, "id", 60_000);
    for partition in 0..2 {
        let batch = transactional(&producer, 0, b"lost");
        let taken = produce(&mut client, "id", partition, batch, 12);
        assert_eq!(taken, ErrorCode::NONE);
    }
    let delete = DeleteTopicsRequest {
        topic_names: vec![Str::from_static("t")],
        timeout_ms: 10_000,
        ..Default::default()
    };
    client.call(Request::from(delete), 5);
    let ended = end(&mut client, "id", &mut producer, true);
    assert_eq!(ended, ErrorCode::NONE);
    // The next producer has to wait for the end.
    let next = init(&mut client, "id", 60_000);
    assert_eq!(next.error_code, ErrorCode::NONE);
}
