//! Pressure: shards that saturate each other's mailboxes both ways go on, and a client that does not read holds up nobody but itself.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode, Str};

use crate::support::{Broker, PATIENCE, batch, fetch_request, produce_request};

#[test]
fn shards_that_saturate_each_other_do_not_deadlock() {
    // Mailboxes so small that both are full all the time; every connection writes to partitions of both shards.
    let broker = Broker::start(&["shard.mailbox.slots=8"]);
    broker.connect().create_topic("t", 8, &[]);
    let address = broker.address;
    let workers: Vec<_> = (0..16)
        .map(|worker| {
            std::thread::spawn(move || {
                let mut client = crate::support::Client::connect(address);
                let mut sent = Vec::new();
                for round in 0..60 {
                    let partition = (worker + round) % 8;
                    sent.push((
                        client.send(&produce_request("t", partition, -1, batch(&[b"x"])), 9),
                        true,
                    ));
                    if round % 10 == 0 {
                        let all: Vec<(i32, i64)> = (0..8).map(|p| (p, 0)).collect();
                        let fetch = fetch_request("t", &all, Duration::from_millis(10));
                        sent.push((client.send(&Request::Fetch(Box::new(fetch)), 12), false));
                    }
                }
                let mut acknowledged = 0;
                for (id, produced) in sent {
                    if !produced {
                        client.receive(ApiKey::Fetch, 12, id);
                        continue;
                    }
                    let Response::Produce(response) = client.receive(ApiKey::Produce, 9, id) else {
                        panic!()
                    };
                    assert_eq!(
                        response.responses[0].partition_responses[0].error_code,
                        ErrorCode::NONE
                    );
                    acknowledged += 1;
                }
                acknowledged
            })
        })
        .collect();
    let acknowledged: usize = workers
        .into_iter()
        .map(|worker| worker.join().expect("no worker fails"))
        .sum();
    assert_eq!(acknowledged, 16 * 60);
    let mut client = broker.connect();
    let stored: usize = (0..8)
        .map(|partition| client.read_all("t", partition).len())
        .sum();
    assert_eq!(stored, acknowledged);
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    let value = vec![1; 900_000];
    for _ in 0..4 {
        client.produce("t", 0, batch(&[&value]));
    }
    let before = broker.resident_bytes();
    let mut greedy = broker.connect();
    greedy
        .stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let name = Str::from_static("greedy");
    let fetch = Request::Fetch(Box::new(fetch_request("t", &[(0, 0)], Duration::ZERO)));
    let bytes = fetch.encode(12, 1, Some(&name)).unwrap().concat();
    // It asks for far more than fits anywhere, until nobody takes its requests any longer.
    let began = Instant::now();
    let held_up = loop {
        match greedy.stream.write_all(&bytes) {
            Ok(()) if began.elapsed() > PATIENCE => break false,
            Ok(()) => {}
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                    "{error}"
                );
                break true;
            }
        }
    };
    assert!(held_up, "requests pile up somewhere");
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(
        grown < 48 << 20,
        "{grown} bytes for a client that does not read"
    );
    assert_eq!(
        client
            .produce("t", 0, batch(&[b"others are served"]))
            .error_code,
        ErrorCode::NONE
    );
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    let broker = Broker::start(&["connections.max.idle.ms=1500"]);
    let mut idle = broker.connect();
    let mut busy = broker.connect();
    busy.create_topic("t", 1, &[]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        busy.produce("t", 0, batch(&[b"busy"]));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(idle.receive_frame().is_none());
    busy.produce("t", 0, batch(&[b"still here"]));
}

#[test]
fn what_has_begun_is_answered_when_the_broker_stops() {
    let mut broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    let fetch = fetch_request("t", &[(0, 0)], Duration::from_secs(15));
    let parked = client.send(&Request::Fetch(Box::new(fetch)), 12);
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    assert_eq!(broker.terminate(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
    let Response::Fetch(response) = client.receive(ApiKey::Fetch, 12, parked) else {
        panic!()
    };
    assert_eq!(
        response.responses[0].partitions[0].error_code,
        ErrorCode::NONE
    );
    assert!(client.receive_frame().is_none());
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let broker = Broker::start(&["max.connections=3"]);
    let mut clients: Vec<_> = (0..3).map(|_| broker.connect()).collect();
    clients[0].create_topic("t", 1, &[]);
    assert!(broker.connect().receive_frame().is_none());
    drop(clients.pop());
    std::thread::sleep(Duration::from_millis(200));
    let mut next = broker.connect();
    assert_eq!(
        next.produce("t", 0, batch(&[b"room again"])).error_code,
        ErrorCode::NONE
    );
}
