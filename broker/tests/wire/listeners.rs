//! Listeners for controllers, as in the file that Kafka 4 comes with: nobody is served there, and no client is told of them.

use std::io::ErrorKind;
use std::net::TcpListener;

use ringlog_net::messages::describe_cluster::DescribeClusterRequest;
use ringlog_net::request::{Request, Response};

use crate::support::Broker;

#[test]
fn a_listener_for_controllers_serves_no_clients() {
    // The test holds the port, so a broker that wanted it would not start.
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = held.local_addr().expect("bound").port();
    let broker = Broker::start(&[
        &format!("listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{port}"),
        &format!("advertised.listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{port}"),
        &format!("controller.quorum.bootstrap.servers=127.0.0.1:{port}"),
        "controller.listener.names=CONTROLLER",
        "inter.broker.listener.name=PLAINTEXT",
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
    ]);
    let mut client = broker.connect();
    let own = i32::from(broker.address.port());
    let request = Request::Metadata(Box::default());
    let Response::Metadata(metadata) = client.call(request, 12) else {
        panic!("another response")
    };
    let ports: Vec<i32> = metadata.brokers.iter().map(|broker| broker.port).collect();
    assert_eq!(ports, [own]);
    let request = Request::DescribeCluster(Box::new(DescribeClusterRequest {
        endpoint_type: 1,
        ..Default::default()
    }));
    let Response::DescribeCluster(cluster) = client.call(request, 1) else {
        panic!("another response")
    };
    let ports: Vec<i32> = cluster.brokers.iter().map(|broker| broker.port).collect();
    assert_eq!(ports, [own]);
    held.set_nonblocking(true).expect("set");
    assert_eq!(
        held.accept().map(drop).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}
