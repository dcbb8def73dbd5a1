//! Long polling: a fetch that may not be answered yet waits without reading over and over, without keeping memory from others, and for
//! nothing that cannot come.

use std::time::Duration;

use ringlog_net::messages::fetch::{FetchRequest, FetchResponse};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode};

use crate::support::{Broker, Client, batch, fetch_request, records_of};

/// Longer than any test: who waits for it has failed.
const FOR_EVER: Duration = Duration::from_millis(i32::MAX as u64);

fn fetch(client: &mut Client, request: FetchRequest) -> FetchResponse {
    let Response::Fetch(response) = client.call(Request::Fetch(Box::new(request)), 12) else {
        panic!()
    };
    *response
}

fn offsets(response: &FetchResponse) -> Vec<i64> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    partitions
        .flat_map(|data| records_of(&data.records.to_bytes()))
        .map(|(offset, _)| offset)
        .collect()
}

#[test]
fn what_is_beyond_the_limits_is_not_waited_for() {
    let broker = Broker::start(&["shards=1"]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    for _ in 0..2 {
        client.produce("t", 0, batch(&[b"value"]));
    }
    // The second batch never fits, however long one waits.
    let mut request = fetch_request("t", &[(0, 0)], FOR_EVER);
    request.min_bytes = 1_000_000;
    request.topics[0].partitions[0].partition_max_bytes = 1;
    assert_eq!(offsets(&fetch(&mut client, request.clone())), [0]);
    // Nor does anything after the first partition's batch.
    request.topics[0].partitions[0].partition_max_bytes = 1 << 20;
    request.max_bytes = 1;
    request.min_bytes = 1 << 20;
    assert_eq!(offsets(&fetch(&mut client, request)), [0]);
    let others = broker.connect().produce("t", 0, batch(&[b"others"]));
    assert_eq!(others.error_code, ErrorCode::NONE);
}

#[test]
fn a_fetch_reads_on_where_a_segment_ends() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[("segment.bytes", "1048576")]);
    let value = vec![7; 400_000];
    for _ in 0..8 {
        assert_eq!(
            client.produce("t", 0, batch(&[&value])).error_code,
            ErrorCode::NONE
        );
    }
    let mut request = fetch_request("t", &[(0, 0)], FOR_EVER);
    request.min_bytes = 3_000_000;
    request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    assert_eq!(
        offsets(&fetch(&mut client, request)),
        (0..8).collect::<Vec<i64>>()
    );
}

#[test]
fn what_trickles_in_is_gathered_until_it_is_enough() {
    let broker = Broker::start(&[]);
    let (mut consumer, mut producer) = (broker.connect(), broker.connect());
    consumer.create_topic("t", 4, &[]);
    let one = batch(&[b"a drop"]);
    let mut request = fetch_request("t", &[(0, 0), (1, 0), (2, 0), (3, 0)], FOR_EVER);
    request.min_bytes = 12 * one.len() as i32;
    let id = consumer.send(&Request::Fetch(Box::new(request)), 12);
    for _ in 0..3 {
        for partition in 0..4 {
            producer.produce("t", partition, one.clone());
        }
    }
    let Response::Fetch(response) = consumer.receive(ApiKey::Fetch, 12, id) else {
        panic!()
    };
    assert_eq!(offsets(&response), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn the_wait_ends_with_what_there_is() {
    let mut broker = Broker::start(&[]);
    let (mut consumer, mut producer) = (broker.connect(), broker.connect());
    consumer.create_topic("t", 2, &[]);
    producer.produce("t", 0, batch(&[b"there"]));
    let mut request = fetch_request("t", &[(0, 0), (1, 0)], FOR_EVER);
    request.min_bytes = 1 << 20;
    let id = consumer.send(&Request::Fetch(Box::new(request)), 12);
    std::thread::sleep(Duration::from_millis(100));
    producer.produce("t", 0, batch(&[b"more"]));
    // What ends it is that the broker stops: it is read from before its connections are gone.
    assert_eq!(broker.terminate(), Some(0));
    let Response::Fetch(response) = consumer.receive(ApiKey::Fetch, 12, id) else {
        panic!()
    };
    assert_eq!(offsets(&response), [0, 1]);
}

#[test]
fn consumers_that_wait_keep_no_memory_from_each_other() {
    // Each asks for far more than there is for all of them.
    let broker = Broker::start(&["shards=1", "memory.response.bytes=2097152"]);
    let mut producer = broker.connect();
    producer.create_topic("t", 1, &[]);
    let mut waiting: Vec<(Client, i32)> = (0..8)
        .map(|_| {
            let mut consumer = broker.connect();
            let request = fetch_request("t", &[(0, 0)], FOR_EVER);
            let id = consumer.send(&Request::Fetch(Box::new(request)), 12);
            (consumer, id)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    producer.produce("t", 0, batch(&[b"news"]));
    for (consumer, id) in &mut waiting {
        let Response::Fetch(response) = consumer.receive(ApiKey::Fetch, 12, *id) else {
            panic!()
        };
        // Nobody was sent away with nothing, to ask again at once.
        assert_eq!(offsets(&response), [0]);
    }
}

#[test]
fn responses_that_nobody_takes_leave_others_served() {
    // Who holds what others wait for is given a small part of this time; else it would be far longer than the test's patience.
    let broker = Broker::start(&[
        "shards=1",
        "memory.response.bytes=4194304",
        "connections.max.idle.ms=40000",
    ]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    let value = vec![3; 900_000];
    for _ in 0..8 {
        client.produce("t", 0, batch(&[&value]));
    }
    // Each clogs its socket with more than the kernel takes, and holds what is left.
    let greedy: Vec<Client> = (0..4)
        .map(|_| {
            let mut greedy = broker.connect();
            let mut request = fetch_request("t", &[(0, 0)], Duration::ZERO);
            request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
            for _ in 0..12 {
                greedy.send(&Request::Fetch(Box::new(request.clone())), 12);
            }
            greedy
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let response = fetch(&mut client, fetch_request("t", &[(0, 0)], FOR_EVER));
    assert_eq!(offsets(&response)[..1], [0]);
    drop(greedy);
}
