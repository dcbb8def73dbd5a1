//! Fetch on the wire: long polling, limits, sessions, topic ids, and finding offsets.

use std::time::{Duration, Instant};

use ringlog_net::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use ringlog_net::messages::fetch::{FetchRequest, FetchResponse, ForgottenTopic};
use ringlog_net::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode, Str};

use crate::support::{Broker, Client, batch, fetch_request, records_of};

#[test]
fn a_parked_fetch_is_woken_by_what_arrives() {
    let broker = Broker::start(&[]);
    let (mut consumer, mut producer) = (broker.connect(), broker.connect());
    consumer.create_topic("t", 4, &[]);
    for partition in 0..4 {
        // All four partitions are asked, on both shards; one of them gets something.
        let offsets: Vec<(i32, i64)> = (0..4).map(|p| (p, i64::from(p < partition))).collect();
        let request = fetch_request("t", &offsets, Duration::from_secs(15));
        let began = Instant::now();
        let id = consumer.send(&Request::Fetch(Box::new(request)), 12);
        std::thread::sleep(Duration::from_millis(50));
        producer.produce("t", partition, batch(&[b"news"]));
        let Response::Fetch(response) = consumer.receive(ApiKey::Fetch, 12, id) else {
            panic!()
        };
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "woken, not timed out"
        );
        let with_data: Vec<i32> = response.responses[0]
            .partitions
            .iter()
            .filter(|data| !data.records.is_empty())
            .map(|data| data.partition_index)
            .collect();
        assert_eq!(with_data, [partition]);
    }
}

#[test]
fn an_empty_fetch_waits_as_long_as_it_says() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    for wait in [0, 200] {
        let began = Instant::now();
        let response = client.fetch("t", 0, 0, Duration::from_millis(wait));
        let took = began.elapsed().as_millis() as u64;
        assert!(took >= wait && took < wait + 1500, "{took} ms for {wait}");
        let data = &response.responses[0].partitions[0];
        assert_eq!((data.error_code, data.high_watermark), (ErrorCode::NONE, 0));
        assert!(data.records.is_empty());
    }
}

#[test]
fn the_first_batch_comes_whatever_its_size_and_whole() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    let value = vec![5; 10_000];
    for _ in 0..3 {
        client.produce("t", 0, batch(&[&value, &value]));
    }
    let mut request = fetch_request("t", &[(0, 3)], Duration::ZERO);
    request.max_bytes = 1;
    request.topics[0].partitions[0].partition_max_bytes = 1;
    let response = fetch(&mut client, request, 12);
    let records = records_of(&response.responses[0].partitions[0].records.to_bytes());
    // The batch that holds offset 3 begins at 2.
    assert_eq!(
        records
            .iter()
            .map(|(offset, _)| *offset)
            .collect::<Vec<_>>(),
        [2, 3]
    );
}

#[test]
fn faults_are_named() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    client.produce("t", 0, batch(&[b"one"]));
    let error = |response: FetchResponse| response.responses[0].partitions[0].error_code;
    let long = Duration::from_secs(15);
    assert_eq!(
        error(client.fetch("t", 0, 7, long)),
        ErrorCode::OFFSET_OUT_OF_RANGE
    );
    assert_eq!(
        error(client.fetch("t", 5, 0, long)),
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    assert_eq!(
        error(client.fetch("nowhere", 0, 0, long)),
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    let mut fenced = fetch_request("t", &[(0, 0)], long);
    fenced.topics[0].partitions[0].current_leader_epoch = 99;
    assert_eq!(
        error(fetch(&mut client, fenced, 12)),
        ErrorCode::UNKNOWN_LEADER_EPOCH
    );
}

#[test]
fn a_session_answers_what_changed() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    let topic_id = client.create_topic("t", 3, &[]);
    let mut open = fetch_request("t", &[(0, 0), (1, 0), (2, 0)], Duration::ZERO);
    open.session_epoch = 0;
    open.topics[0].topic = Str::default();
    open.topics[0].topic_id = topic_id;
    let opened = fetch(&mut client, open.clone(), 16);
    assert!(opened.session_id != 0);
    assert_eq!(partitions(&opened), [0, 1, 2]);
    let next = |epoch: i32| FetchRequest {
        session_id: opened.session_id,
        session_epoch: epoch,
        topics: vec![],
        ..open.clone()
    };
    assert_eq!(partitions(&fetch(&mut client, next(1), 16)), [] as [i32; 0]);
    client.produce("t", 1, batch(&[b"new"]));
    let changed = fetch(&mut client, next(2), 16);
    assert_eq!(partitions(&changed), [1]);
    assert_eq!(changed.responses[0].topic_id, topic_id);
    let mut forget = next(3);
    forget.forgotten_topics_data = vec![ForgottenTopic {
        topic_id,
        partitions: vec![1],
        ..Default::default()
    }];
    assert_eq!(partitions(&fetch(&mut client, forget, 16)), [] as [i32; 0]);
    let wrong = fetch(&mut client, next(9), 16);
    assert_eq!(wrong.error_code, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    let by_name = fetch(&mut client, next(4), 12);
    assert_eq!(by_name.error_code, ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
    let mut other = broker.connect();
    let stolen = fetch(&mut other, next(4), 16);
    assert_eq!(stolen.error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
}

#[test]
fn one_connection_cannot_fill_the_session_cache() {
    let broker = Broker::start(&["shards=1", "max.incremental.fetch.session.cache.slots=4"]);
    let mut greedy = broker.connect();
    greedy.create_topic("t", 1, &[]);
    let mut open = fetch_request("t", &[(0, 0)], Duration::ZERO);
    open.session_epoch = 0;
    let ids: Vec<i32> = (0..8)
        .map(|_| fetch(&mut greedy, open.clone(), 12).session_id)
        .collect();
    let next = |session_id: i32| FetchRequest {
        session_id,
        session_epoch: 1,
        topics: vec![],
        ..open.clone()
    };
    let oldest = fetch(&mut greedy, next(ids[0]), 12);
    assert_eq!(oldest.error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    let newest = fetch(&mut greedy, next(ids[7]), 12);
    assert_eq!(newest.error_code, ErrorCode::NONE);
    let other = fetch(&mut broker.connect(), open.clone(), 12);
    assert!(other.session_id != 0, "there is room for others");
    // A name that no topic can have is answered, not remembered.
    open.topics[0].topic = Str::from("x".repeat(10_000));
    let unknown = fetch(&mut broker.connect(), open, 12);
    assert_eq!(unknown.session_id, 0);
}

#[test]
fn every_version_is_answered() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    let topic_id = client.create_topic("t", 1, &[]);
    client.produce("t", 0, batch(&[b"v"]));
    for version in 4..=18 {
        let mut request = fetch_request("t", &[(0, 0)], Duration::ZERO);
        if version >= 13 {
            request.topics[0].topic = Str::default();
            request.topics[0].topic_id = topic_id;
        }
        let response = fetch(&mut client, request, version);
        let records = records_of(&response.responses[0].partitions[0].records.to_bytes());
        assert_eq!(records, [(0, b"v".to_vec())], "version {version}");
    }
}

#[test]
fn offsets_are_found_and_records_deleted() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    for value in [b"a", b"b", b"c"] {
        client.produce("t", 0, batch(&[value]));
    }
    assert_eq!(offset_of(&mut client, -2), (ErrorCode::NONE, 0));
    assert_eq!(offset_of(&mut client, -1), (ErrorCode::NONE, 3));
    assert_eq!(offset_of(&mut client, 0), (ErrorCode::NONE, 0));
    assert_eq!(offset_of(&mut client, i64::MAX), (ErrorCode::NONE, -1));
    let partition = DeleteRecordsPartition {
        partition_index: 0,
        offset: 2,
    };
    let topic = DeleteRecordsTopic {
        name: Str::from("t"),
        partitions: vec![partition],
    };
    let request = DeleteRecordsRequest {
        topics: vec![topic],
        ..Default::default()
    };
    let Response::DeleteRecords(response) =
        client.call(Request::DeleteRecords(Box::new(request)), 2)
    else {
        panic!()
    };
    let answer = &response.topics[0].partitions[0];
    assert_eq!(
        (answer.error_code, answer.low_watermark),
        (ErrorCode::NONE, 2)
    );
    assert_eq!(offset_of(&mut client, -2), (ErrorCode::NONE, 2));
    let below = client.fetch("t", 0, 1, Duration::ZERO);
    assert_eq!(
        below.responses[0].partitions[0].error_code,
        ErrorCode::OFFSET_OUT_OF_RANGE
    );
}

fn offset_of(client: &mut Client, timestamp: i64) -> (ErrorCode, i64) {
    let partition = ListOffsetsPartition {
        timestamp,
        ..Default::default()
    };
    let topic = ListOffsetsTopic {
        name: Str::from("t"),
        partitions: vec![partition],
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let Response::ListOffsets(response) = client.call(Request::ListOffsets(Box::new(request)), 7)
    else {
        panic!()
    };
    let answer = &response.topics[0].partitions[0];
    (answer.error_code, answer.offset)
}

fn fetch(client: &mut Client, request: FetchRequest, version: i16) -> FetchResponse {
    let Response::Fetch(response) = client.call(Request::Fetch(Box::new(request)), version) else {
        panic!()
    };
    *response
}

fn partitions(response: &FetchResponse) -> Vec<i32> {
    let topics = response.responses.iter();
    topics
        .flat_map(|topic| topic.partitions.iter().map(|data| data.partition_index))
        .collect()
}
