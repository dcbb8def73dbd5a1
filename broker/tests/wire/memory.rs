//! Memory for requests: it is held for bytes that have come and for as long as they are needed, and no client can keep it from the others.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode, Str};

use crate::support::{Broker, Client, PATIENCE, batch, fetch_request, produce_request};

/// Longer than any test: who waits for it has failed.
const FOR_EVER: Duration = Duration::from_millis(i32::MAX as u64);

fn encoded(request: &Request, version: i16) -> Vec<u8> {
    let name = Str::from_static("test");
    request.encode(version, 1, Some(&name)).unwrap().concat()
}

fn assert_large_requests_pass(broker: &Broker) {
    let answer = broker
        .connect()
        .produce("t", 0, batch(&[&vec![1; 600_000]]));
    assert_eq!(answer.error_code, ErrorCode::NONE);
}

fn park(client: &mut Client, offset: i64) {
    let request = fetch_request("t", &[(0, offset)], FOR_EVER);
    client.send(&Request::Fetch(Box::new(request)), 12);
}

#[test]
fn what_is_only_claimed_holds_nothing() {
    let broker = Broker::start(&["shards=1", "memory.request.bytes=2097152"]);
    broker.connect().create_topic("t", 1, &[]);
    let mut claiming: Vec<Client> = (0..8).map(|_| broker.connect()).collect();
    for (at, client) in claiming.iter_mut().enumerate() {
        let mut size = 100_000_000i32;
        if at % 2 == 0 {
            // That it has sent one large request proves nothing for the next.
            let answer = client.produce("t", 0, batch(&[&vec![1; 600_000]]));
            assert_eq!(answer.error_code, ErrorCode::NONE);
            size = 1_100_000;
        }
        let claim = [&size.to_be_bytes()[..], &[0; 10]].concat();
        client.stream.write_all(&claim).unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_large_requests_pass(&broker);
}

#[test]
fn a_frame_that_trickles_is_cut_whatever_else_is_in_work() {
    // A frame has a twentieth of this time, and an idle connection all of it.
    let broker = Broker::start(&["connections.max.idle.ms=40000"]);
    broker.connect().create_topic("t", 1, &[]);
    let mut client = broker.connect();
    park(&mut client, 0);
    client
        .stream
        .write_all(&1_000_000i32.to_be_bytes())
        .unwrap();
    let pause = Some(Duration::from_millis(100));
    client.stream.set_read_timeout(pause).unwrap();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let sent = client.stream.write_all(&[0]);
        let heard = client.stream.read(&mut [0; 1]);
        if sent.is_err() || !matches!(&heard, Err(error) if error.kind() == ErrorKind::WouldBlock) {
            return;
        }
    }
    panic!("one byte every now and then keeps the frame alive");
}

#[test]
fn frames_that_have_come_in_part_do_not_wait_for_each_other() {
    let broker = Broker::start(&["shards=1", "memory.request.bytes=2097152"]);
    broker.connect().create_topic("t", 1, &[]);
    let bytes = encoded(&produce_request("t", 0, -1, batch(&[&vec![1; 900_000]])), 9);
    let (first, rest) = bytes.split_at(600_000);
    let mut clients: Vec<Client> = (0..8).map(|_| broker.connect()).collect();
    for client in &mut clients {
        client.stream.write_all(first).unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    for client in &mut clients {
        client.stream.write_all(rest).unwrap();
    }
    for client in &mut clients {
        let Response::Produce(response) = client.receive(ApiKey::Produce, 9, 1) else {
            panic!()
        };
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, ErrorCode::NONE);
    }
}

#[test]
fn what_is_appended_is_not_held_until_its_response_is_taken() {
    let broker = Broker::start(&[
        "shards=1",
        "memory.request.bytes=4194304",
        "socket.send.buffer.bytes=65536",
    ]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    for _ in 0..16 {
        client.produce("t", 0, batch(&[&vec![2; 900_000]]));
    }
    // The first response clogs the socket.
    let mut clogged = broker.connect();
    let mut request = fetch_request("t", &[(0, 0)], Duration::ZERO);
    request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    clogged.send(&Request::Fetch(Box::new(request)), 12);
    for _ in 0..12 {
        let produce = produce_request("t", 0, -1, batch(&[&vec![3; 500_000]]));
        clogged.send(&produce, 9);
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_large_requests_pass(&broker);
}

#[test]
fn responses_that_nobody_takes_are_bounded_together() {
    let broker = Broker::start(&[
        "shards=1",
        "memory.response.bytes=4194304",
        "memory.tail.cache.bytes=4194304",
        "socket.send.buffer.bytes=65536",
    ]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    for _ in 0..24 {
        client.produce("t", 0, batch(&[&vec![2; 900_000]]));
    }
    let before = broker.resident_bytes();
    // What is old is read from the file, into memory of each reader's own.
    let mut request = fetch_request("t", &[(0, 0)], Duration::ZERO);
    request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    let fetch = Request::Fetch(Box::new(request));
    let greedy: Vec<Client> = (0..60)
        .map(|_| {
            let mut greedy = broker.connect();
            for _ in 0..10 {
                greedy.send(&fetch, 12);
            }
            greedy
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for what nobody takes");
    drop(greedy);
}

#[test]
fn small_requests_that_pile_up_are_counted() {
    let broker = Broker::start(&["shards=1", "memory.request.bytes=4194304"]);
    broker.connect().create_topic("t", 1, &[]);
    assert_large_requests_pass(&broker);
    let before = broker.resident_bytes();
    let produce = encoded(&produce_request("t", 0, -1, batch(&[&vec![1; 30_000]])), 9);
    let mut clients: Vec<Client> = (0..40).map(|_| broker.connect()).collect();
    for client in &mut clients {
        park(client, 1);
        let patience = Some(Duration::from_millis(50));
        client.stream.set_write_timeout(patience).unwrap();
        // What is not read from it stays in its socket.
        let _ = (0..60).try_for_each(|_| client.stream.write_all(&produce));
    }
    std::thread::sleep(Duration::from_millis(200));
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for requests that wait");
    // Small requests of others are served all the same.
    let answer = broker.connect().produce("t", 0, batch(&[b"small"]));
    assert_eq!(answer.error_code, ErrorCode::NONE);
}
