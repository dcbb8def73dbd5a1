//! Readers that hardly read: each asks for as much as a fetch gives, from the beginning, and takes it off its socket a little at a time.
//!
//! The broker is left with answers that nobody takes. Answers are counted and thrown away unread; only their size is looked at.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringlog_net::Str;
use ringlog_net::api::ApiKey;
use ringlog_net::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use serde::Serialize;

use crate::client::admin::TopicLayout;
use crate::client::wire;
use crate::workload::SlowReaders;

/// How often each socket is read from.
const READS_PER_S: u32 = 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What they did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SlowFigures {
    /// Readers that were connected.
    pub readers: u64,
    /// Whole answers taken.
    pub answers: u64,
    /// Bytes taken.
    pub bytes: u64,
    /// Readers whose connection broke.
    pub broken: u64,
    /// The first failure.
    pub first_failure: Option<String>,
}

/// One reader's fetch of everything that one broker leads.
pub(super) struct Request {
    address: SocketAddr,
    frame: Vec<Bytes>,
}

/// The same fetch for every reader, one per leader.
pub(super) fn requests(
    slow: &SlowReaders,
    layouts: &[TopicLayout],
    version: i16,
) -> Result<Vec<Request>, String> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for leader in layouts.iter().flat_map(|layout| &layout.partitions) {
        if !addresses.contains(&leader.address) {
            addresses.push(leader.address);
        }
    }
    let request = |address: SocketAddr| {
        let topics = layouts.iter().map(|layout| FetchTopic {
            topic: Str::from(layout.name.as_str()),
            partitions: layout
                .partitions
                .iter()
                .filter(|leader| leader.address == address)
                .map(|leader| FetchPartition {
                    partition: leader.partition,
                    partition_max_bytes: slow.max_bytes.cast_signed(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        });
        let body = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: slow.max_bytes.cast_signed(),
            session_epoch: -1,
            topics: topics.collect(),
            ..Default::default()
        };
        let frame =
            wire::encode(ApiKey::Fetch, version, 1, &body).map_err(|error| error.to_string())?;
        Ok(Request {
            address,
            frame: frame.into_iter().collect(),
        })
    };
    addresses.into_iter().map(request).collect()
}

struct Reader<'a> {
    stream: TcpStream,
    request: &'a Request,
    /// Bytes of the answer still to come; `None` before its size is known.
    left: Option<u64>,
    size: Vec<u8>,
}

impl Reader<'_> {
    fn open<'a>(request: &'a Request) -> std::io::Result<Reader<'a>> {
        let stream = TcpStream::connect_timeout(&request.address, CONNECT_TIMEOUT)?;
        let mut reader = Reader {
            stream,
            request,
            left: None,
            size: Vec::new(),
        };
        reader.ask()?;
        Ok(reader)
    }

    fn ask(&mut self) -> std::io::Result<()> {
        // A request is small and the last one was taken: writing it does not wait for long.
        self.stream.set_nonblocking(false)?;
        for piece in &self.request.frame {
            self.stream.write_all(piece)?;
        }
        self.stream.set_nonblocking(true)
    }

    /// Takes at most `most` bytes.
    fn sip(&mut self, most: usize, figures: &mut SlowFigures) -> std::io::Result<()> {
        let mut buffer = vec![0; most];
        let taken = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(taken) => taken,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        figures.bytes += taken as u64;
        let mut rest = &buffer[..taken];
        if self.left.is_none() {
            let (size, body) = rest.split_at(rest.len().min(4 - self.size.len()));
            self.size.extend_from_slice(size);
            rest = body;
            if let Ok(size) = <[u8; 4]>::try_from(self.size.as_slice()) {
                self.left = Some(u64::from(u32::from_be_bytes(size)));
                self.size.clear();
            }
        }
        if let Some(left) = &mut self.left {
            // One request is outstanding, so nothing follows the answer.
            *left = left.saturating_sub(rest.len() as u64);
            if *left == 0 {
                self.left = None;
                figures.answers += 1;
                self.ask()?;
            }
        }
        Ok(())
    }
}

pub(super) fn run(
    slow: &SlowReaders,
    requests: Result<Vec<Request>, String>,
    stop: &AtomicBool,
) -> SlowFigures {
    let mut figures = SlowFigures::default();
    let requests = match requests {
        Ok(requests) => requests,
        Err(error) => {
            figures.first_failure = Some(error);
            return figures;
        }
    };
    let mut readers = Vec::new();
    for _ in 0..slow.connections {
        for request in &requests {
            match Reader::open(request) {
                Ok(reader) => readers.push(reader),
                Err(error) => {
                    figures.broken += 1;
                    figures.first_failure.get_or_insert(error.to_string());
                }
            }
        }
    }
    figures.readers = readers.len() as u64;
    let most = (slow.bytes_per_s / u64::from(READS_PER_S)).max(1) as usize;
    while !stop.load(Ordering::Relaxed) {
        readers.retain_mut(|reader| match reader.sip(most, &mut figures) {
            Ok(()) => true,
            Err(error) => {
                figures.broken += 1;
                figures.first_failure.get_or_insert(error.to_string());
                false
            }
        });
        std::thread::sleep(Duration::from_secs(1) / READS_PER_S);
    }
    figures
}
