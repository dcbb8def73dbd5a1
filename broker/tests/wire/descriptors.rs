//! A flood of connections with few descriptors: those that there is room for are served, partitions stay writable, nobody else's files suffer.

use std::net::TcpStream;

use ringlog_net::ErrorCode;
use ringlog_net::messages::api_versions::ApiVersionsRequest;

use crate::support::{Broker, batch};

#[test]
fn a_flood_of_connections_leaves_the_engine_its_files() {
    let broker = Broker::start_with_descriptors(320, &["log.segment.bytes=1048576"]);
    let mut client = broker.connect();
    client.create_topic("t", 100, &[]);
    // Far more than the descriptors; most are closed again, the rest stay.
    let flood: Vec<TcpStream> = (0..600)
        .filter_map(|_| TcpStream::connect(broker.address).ok())
        .collect();
    assert!(flood.len() > 320);
    for partition in 0..100 {
        let answer = client.produce("t", partition, batch(&[&[1; 1000]]));
        assert_eq!(answer.error_code, ErrorCode::NONE, "partition {partition}");
    }
    drop(flood);
    // Refused until the broker has noticed that the others are gone.
    let served = (0..1000).any(|_| {
        let mut late = broker.connect();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let mut probe = [0];
        late.stream.set_nonblocking(true).expect("non-blocking");
        let refused = matches!(late.stream.peek(&mut probe), Ok(0))
            || late
                .stream
                .peek(&mut probe)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        late.stream.set_nonblocking(false).expect("blocking");
        !refused && {
            late.call(ApiVersionsRequest::default(), 0);
            true
        }
    });
    assert!(served);
}
