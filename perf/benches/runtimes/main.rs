//! The runtime comparison, by criterion: a compio shard and a glommio shard do the same request-response work over loopback, so that the choice of runtime can be measured
//! again by anybody. `cargo bench -p ringlog-perf --bench runtimes --features glommio`; without the feature only compio is there. For looking, not for deciding.
//!
//! A shard is one thread that serves [`CONNECTIONS`] connections. A request is its length (4 bytes, big endian) and that many bytes; the answer is 64 bytes that begin with
//! the request's CRC-32C: receive, frame, checksum, send, which is what a shard does around the engine. The client is one blocking thread: it writes to all connections, then reads from all.

mod compio_shard;
#[cfg(feature = "glommio")]
mod glommio_shard;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Connections, and so requests in flight.
const CONNECTIONS: usize = 16;
/// Bytes of an answer.
const ANSWER_BYTES: usize = 64;

/// The answer to a request.
fn answer(request: &[u8]) -> [u8; ANSWER_BYTES] {
    let mut answer = [0; ANSWER_BYTES];
    answer[..4].copy_from_slice(&crc_fast::crc32_iscsi(request).to_be_bytes());
    answer
}

/// Takes whole requests off the front of what was received and appends their answers to `answers`.
fn serve(received: &mut Vec<u8>, answers: &mut Vec<u8>) {
    let mut at = 0;
    while let Some((length, rest)) = received[at..].split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some(request) = rest.get(..length) else {
            break;
        };
        answers.extend_from_slice(&answer(request));
        at += 4 + length;
    }
    received.drain(..at);
}

struct Client {
    sockets: Vec<TcpStream>,
    request: Vec<u8>,
    expected: [u8; ANSWER_BYTES],
}

impl Client {
    fn connect(address: SocketAddr, bytes: usize) -> Client {
        let connect = |_| {
            let socket = TcpStream::connect(address).expect("connected");
            socket.set_nodelay(true).expect("no delay");
            socket
        };
        let body = vec![7; bytes];
        Client {
            sockets: (0..CONNECTIONS).map(connect).collect(),
            expected: answer(&body),
            request: [&(bytes as u32).to_be_bytes()[..], &body].concat(),
        }
    }

    /// One request on every connection, and its answer.
    fn round(&mut self) {
        for socket in &mut self.sockets {
            socket.write_all(&self.request).expect("sent");
        }
        for socket in &mut self.sockets {
            let mut answer = [0; ANSWER_BYTES];
            socket.read_exact(&mut answer).expect("answered");
            assert_eq!(answer, self.expected);
        }
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Starts a shard's thread and gives its address. The thread lives as long as the process.
type Start = fn() -> SocketAddr;

fn runtimes(criterion: &mut Criterion) {
    let shards: &[(&str, Start)] = &[
        ("compio, the broker's flags", || compio_shard::start(true)),
        ("compio, its defaults", || compio_shard::start(false)),
        #[cfg(feature = "glommio")]
        ("glommio", glommio_shard::start),
    ];
    for bytes in [100, 1024, 64 << 10] {
        let mut group = criterion.benchmark_group(format!("{CONNECTIONS} requests of {bytes} B"));
        group.throughput(Throughput::Elements(CONNECTIONS as u64));
        for (name, start) in shards {
            let mut client = Client::connect(start(), bytes);
            group.bench_function(*name, |b| b.iter(|| client.round()));
        }
        group.finish();
    }
}

criterion_group!(comparison, runtimes);
criterion_main!(comparison);
