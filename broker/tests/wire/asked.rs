//! Requests that name partitions twice, or too many of them, or ask for much work: answered as Kafka does, and never at others' cost.

use std::io::Write;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, Compression};
use ringlog_engine::engine::shard_of;
use ringlog_engine::log::TopicId;
use ringlog_net::messages::api_versions::ApiVersionsRequest;
use ringlog_net::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use ringlog_net::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use ringlog_net::messages::find_coordinator::FindCoordinatorRequest;
use ringlog_net::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use ringlog_net::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode, Records, Str};

use crate::support::{Broker, Client, batch, idempotent_batch, page, produce_request};

fn data(index: i32, batch: Vec<u8>) -> PartitionProduceData {
    PartitionProduceData {
        index,
        records: Some(Records::from(Bytes::from(batch))),
    }
}

fn topic_data(partitions: Vec<PartitionProduceData>) -> TopicProduceData {
    TopicProduceData {
        name: Str::from_static("t"),
        partition_data: partitions,
        ..Default::default()
    }
}

#[test]
fn of_a_partition_produced_to_twice_in_one_request_the_last_batch_counts() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 2, &[]);
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![
            topic_data(vec![
                data(0, batch(&[b"first"])),
                data(1, batch(&[b"other"])),
                data(9, batch(&[b"nowhere"])),
            ]),
            topic_data(vec![data(0, batch(&[b"last"]))]),
        ],
        ..Default::default()
    };
    let Response::Produce(response) = client.call(Request::Produce(Box::new(request)), 9) else {
        panic!("another response")
    };
    let answers: Vec<Vec<(i32, ErrorCode)>> = response
        .responses
        .iter()
        .map(|topic| {
            let partitions = topic.partition_responses.iter();
            partitions.map(|one| (one.index, one.error_code)).collect()
        })
        .collect();
    let nowhere = (9, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let expected = [
        vec![(1, ErrorCode::NONE), nowhere],
        vec![(0, ErrorCode::NONE)],
    ];
    assert_eq!(answers, expected);
    assert_eq!(client.read_all("t", 0), [(0, b"last".to_vec())]);
    assert_eq!(client.read_all("t", 1), [(0, b"other".to_vec())]);
}

#[test]
fn a_partition_without_records_or_a_topic_without_an_id_is_told_so() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    let mut none = data(0, Vec::new());
    for version in [9, 13] {
        none.records = None;
        let request = ProduceRequest {
            acks: -1,
            topic_data: vec![topic_data(vec![none.clone()])],
            ..Default::default()
        };
        let request = Request::Produce(Box::new(request));
        let Response::Produce(response) = client.call(request, version) else {
            panic!("another response")
        };
        let expected = match version {
            9 => ErrorCode::INVALID_RECORD,
            _ => ErrorCode::UNKNOWN_TOPIC_ID,
        };
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, expected, "version {version}");
    }
}

#[test]
fn offsets_of_a_partition_named_twice_are_refused() {
    let broker = Broker::start(&["max.partitions.per.request=2"]);
    let mut client = broker.connect();
    client.create_topic("t", 2, &[]);
    client.create_topic("u", 1, &[]);
    let partition = |partition_index| ListOffsetsPartition {
        partition_index,
        current_leader_epoch: -1,
        timestamp: -1,
    };
    let topic = |name, partitions: &[i32]| ListOffsetsTopic {
        name: Str::from_static(name),
        partitions: partitions.iter().copied().map(partition).collect(),
    };
    let mut ask = |topics| {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics,
            ..Default::default()
        };
        let Response::ListOffsets(response) =
            client.call(Request::ListOffsets(Box::new(request)), 7)
        else {
            panic!("another response")
        };
        let topics = response.topics.iter();
        topics
            .flat_map(|topic| topic.partitions.iter().map(|one| one.error_code))
            .collect::<Vec<_>>()
    };
    let (fine, refused) = (ErrorCode::NONE, ErrorCode::INVALID_REQUEST);
    let twice = vec![topic("t", &[0, 1]), topic("t", &[0])];
    assert_eq!(ask(twice), [refused, fine, refused]);
    let too_many = vec![topic("t", &[0, 1]), topic("u", &[0])];
    assert_eq!(ask(too_many), [fine, fine, refused]);
}

#[test]
fn producers_of_a_partition_are_described_once_and_records_deleted_once() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    client.produce("t", 0, idempotent_batch(7, 0, 0, &[b"v"]));
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: Str::from_static("t"),
            partition_indexes: vec![0; 1000],
        }],
    };
    let Response::DescribeProducers(response) =
        client.call(Request::DescribeProducers(Box::new(request)), 0)
    else {
        panic!("another response")
    };
    let answers = &response.topics[0].partitions;
    assert_eq!(answers.len(), 1000);
    assert_eq!(answers[0].active_producers.len(), 1);
    for answer in &answers[1..] {
        assert_eq!(answer.error_code, ErrorCode::INVALID_REQUEST);
        assert!(answer.active_producers.is_empty());
    }
    let partition = |offset| DeleteRecordsPartition {
        partition_index: 0,
        offset,
    };
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: Str::from_static("t"),
            partitions: vec![partition(0), partition(1)],
        }],
        timeout_ms: 10_000,
    };
    let Response::DeleteRecords(response) =
        client.call(Request::DeleteRecords(Box::new(request)), 2)
    else {
        panic!("another response")
    };
    let answers = &response.topics[0].partitions;
    assert_eq!(
        (answers[0].error_code, answers[0].low_watermark),
        (ErrorCode::NONE, 0)
    );
    assert_eq!(answers[1].error_code, ErrorCode::INVALID_REQUEST);
}

/// A batch of a few kilobytes that decompresses to 60 MiB and is then refused: its record says that it is longer than it is.
fn bomb() -> Vec<u8> {
    let value = vec![0; 60 << 20];
    let mut batch = BatchBuilder::new()
        .compression(Compression::Zstd)
        .record(-2, None, Some(&value))
        .build()
        .expect("a batch");
    // Two records are promised, one is there.
    batch[23..27].copy_from_slice(&1_i32.to_be_bytes());
    batch[57..61].copy_from_slice(&2_i32.to_be_bytes());
    ringlog_engine::batch::seal(&mut batch);
    batch
}

/// Connections of which the first has sent many requests full of decompression, all of it for one shard, and the others have been answered since, one on
/// every shard.
fn greedy_among_others(
    broker: &Broker,
    topic: &'static str,
    shards: u32,
    requests: usize,
    batches: usize,
) -> Client {
    let (mut greedy, mut others) = (broker.connect(), Vec::new());
    // Connections go round.
    for _ in 0..shards {
        others.push(broker.connect());
    }
    for other in &mut others {
        other.call(ApiVersionsRequest::default(), 0);
    }
    let id = greedy.create_topic(topic, 64, &[]);
    let owned = |partition: &i32| shard_of(&TopicId(id.0), *partition, shards) == 0;
    let partitions: Vec<i32> = (0..64).filter(owned).take(batches).collect();
    assert_eq!(partitions.len(), batches);
    let bomb = bomb();
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: Str::from_static(topic),
            ..topic_data(
                partitions
                    .iter()
                    .map(|partition| data(*partition, bomb.clone()))
                    .collect(),
            )
        }],
        ..Default::default()
    };
    let request = Request::Produce(Box::new(request));
    let name = Str::from_static("greedy");
    let frame = request.encode(9, 1, Some(&name)).expect("encodes").concat();
    greedy
        .stream
        .write_all(&frame.repeat(requests))
        .expect("sends");
    // Several times, because the first may be answered before the work has begun.
    for _ in 0..3 {
        for other in &mut others {
            other.call(ApiVersionsRequest::default(), 0);
        }
    }
    greedy
}

/// Whoever asks may have all its answers at once, so that it cannot be seen from outside whether others could have been answered before: the broker counts how
/// often they had their turn.
fn others_have_their_turn(shards: u32, requests: usize, batches: usize) {
    let shards_override = format!("shards={shards}");
    let (broker, http) = Broker::start_with_http(&[shards_override.as_str()]);
    // Of two shards the second greedy connection is another's than the first, for each has `shards` others: for one the partitions are the other shard's.
    for topic in ["t", "u"] {
        let mut greedy = greedy_among_others(&broker, topic, shards, requests, batches);
        for _ in 0..requests {
            greedy.receive_frame().expect("an answer");
        }
    }
    let (_, metrics) = page(http, "/metrics");
    let name = "ringlog_append_pauses_total{shard=\"0\"} ";
    let pauses = metrics.lines().find_map(|line| line.strip_prefix(name));
    let pauses: f64 = pauses.expect("the metric").parse().expect("a number");
    // Each batch takes more than a slice of time, so that nearly every one waits for a pause.
    let all = 2 * requests * batches;
    assert!(pauses >= 0.75 * all as f64, "{pauses} of {all}");
}

#[test]
fn bombs_in_many_requests_let_others_have_their_turn() {
    others_have_their_turn(1, 50, 1);
}

#[test]
fn bombs_in_one_request_let_others_have_their_turn() {
    others_have_their_turn(1, 2, 60);
}

#[test]
fn bombs_from_another_shard_let_others_have_their_turn() {
    others_have_their_turn(2, 4, 24);
}

#[test]
fn appends_from_another_shard_begin_in_order_however_long_each_takes() {
    let broker = Broker::start(&[]);
    // From either shard, so that for one of the two the partition is the other's.
    let mut clients = [broker.connect(), broker.connect()];
    clients[0].create_topic("t", 8, &[]);
    let bomb = bomb();
    for (client, producer) in clients.iter_mut().zip([5, 6]) {
        // Requests of several batches, which pause, between requests of one, which would not have to.
        let mut sent = Vec::new();
        for round in 0..8_i32 {
            let mut partitions: Vec<_> = (0..7)
                .map(|partition| data(partition, bomb.clone()))
                .collect();
            let several = idempotent_batch(producer, 0, 2 * round, &[b"v"]);
            partitions.push(data(7, several));
            let request = ProduceRequest {
                acks: -1,
                timeout_ms: 10_000,
                topic_data: vec![topic_data(partitions)],
                ..Default::default()
            };
            sent.push(client.send(&Request::Produce(Box::new(request)), 9));
            let alone = idempotent_batch(producer, 0, 2 * round + 1, &[b"v"]);
            sent.push(client.send(&produce_request("t", 7, -1, alone), 9));
        }
        for id in sent {
            let Response::Produce(response) = client.receive(ApiKey::Produce, 9, id) else {
                panic!("another response")
            };
            let answer = response.responses[0].partition_responses.last();
            assert_eq!(answer.map(|one| one.error_code), Some(ErrorCode::NONE));
        }
    }
}

#[test]
fn coordinators_of_more_keys_than_anybody_has_are_not_looked_for() {
    const KEYS_MAX: usize = 10_000;
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    for asked in [1, KEYS_MAX, KEYS_MAX + 1, 3 * KEYS_MAX] {
        let keys = (0..asked).map(|number| Str::from(format!("g{number}")));
        let request = FindCoordinatorRequest {
            coordinator_keys: keys.collect(),
            ..Default::default()
        };
        let request = Request::FindCoordinator(Box::new(request));
        let Response::FindCoordinator(response) = client.call(request, 4) else {
            panic!("another response")
        };
        // Nobody waits for an answer that does not come.
        assert_eq!(response.coordinators.len(), asked);
        for (at, found) in response.coordinators.iter().enumerate() {
            assert_eq!(found.key.as_str(), format!("g{at}"));
            let expected = match at < KEYS_MAX {
                true => (ErrorCode::NONE, 1),
                false => (ErrorCode::INVALID_REQUEST, -1),
            };
            assert_eq!((found.error_code, found.node_id), expected, "{at}");
        }
    }
}
