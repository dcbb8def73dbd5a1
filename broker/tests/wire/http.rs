//! The HTTP port as a person with a browser finds it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::support::{Broker, PATIENCE};

/// Status and text of a page.
fn page(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: broker\r\n\r\n").expect("sends");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer that ends");
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    (status.into(), text.into())
}

#[test]
fn the_first_page_lists_those_that_are_there() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = free.expect("a free port").port();
    let _broker = Broker::start(&[&format!("http.listener=127.0.0.1:{port}")]);
    let (status, first) = page(port, "/");
    assert_eq!(status, "200");
    let listed = first.lines().filter_map(|line| line.split(' ').next());
    let listed: Vec<&str> = listed.filter(|path| path.starts_with('/')).collect();
    assert_eq!(listed, ["/metrics", "/health/live", "/health/ready"]);
    for path in listed {
        let (status, text) = page(port, path);
        assert_eq!(status, "200", "{path}");
        assert!(!text.is_empty(), "{path}");
    }
    let (status, text) = page(port, "/nothing");
    assert_eq!(status, "404");
    assert!(text.contains("/ lists"), "{text}");
}
