//! What no broker can beat here: the generator's own load of `produce-2000`, against a server that does nothing but answer, and against one that makes what
//! came durable first.
//!
//! Requests, connection, rate and clock are those of the workload; the server is one thread that blocks in `read`, so what it shows is the price of two
//! wake-ups, of loopback and of the device, and nothing of a broker. The durable one commits in groups as simply as can be: all that arrived during a
//! write is in the next one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use ringlog_net::messages::produce::{
    PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use ringlog_net::request::Response;
use serde::Serialize;

use super::{ALIGN, Aligned, SMALL_FILE_BYTES, open, thread_cpu_ns, with_file};
use crate::client::admin::{PartitionLeader, TopicLayout};
use crate::client::clock::Clock;
use crate::client::poller::Poller;
use crate::drive::Drive;
use crate::latency::{Latencies, Summary};
use crate::producer::{ProducerLoad, ProducerSetup};
use crate::schedule::Schedule;
use crate::workload::{Producer, Rate, Workload};

const WORKLOAD: &str = include_str!("../../workloads/produce-2000.toml");
const TOPIC: &str = "floor";
/// Version of Produce that is spoken: the newest in which topics have names.
const VERSION: i16 = 12;
/// Load before anything is measured.
const WARMUP: Duration = Duration::from_millis(500);
/// Patience for the last answers.
const DRAIN: Duration = Duration::from_secs(5);
const INPUT_BYTES: usize = 1 << 20;
/// Of a request: its size, key and version come before its correlation id.
const REQUEST_ID: std::ops::Range<usize> = 8..12;
/// Of an answer: only its size does.
const ANSWER_ID: std::ops::Range<usize> = 4..8;

/// What a server costs that only answers, and one that only writes and answers.
#[derive(Clone, Debug, Serialize)]
pub struct FloorFigures {
    /// Answers at once.
    pub echo: ServerFigures,
    /// Answers after an O_DIRECT | O_DSYNC write, over blocks already written.
    pub durable: ServerFigures,
}

/// One bare server under the load.
#[derive(Clone, Debug, Serialize)]
pub struct ServerFigures {
    /// From when a request was due to its answer.
    pub latency: Summary,
    /// CPU microseconds of the server's thread per request.
    pub us_per_request: f64,
}

/// Measures both servers, `window` each; the durable one writes under `folder`, and leaves no file behind.
pub fn floor(folder: &Path, window: Duration) -> io::Result<FloorFigures> {
    Ok(FloorFigures {
        echo: server(None, window)?,
        durable: with_file(folder, |path| server(Some(Medium::prepare(path)?), window))?,
    })
}

fn server(medium: Option<Medium>, window: Duration) -> io::Result<ServerFigures> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let answer = answer()?;
    let thread = std::thread::spawn(move || serve(&listener, &answer, medium));
    let driven = drive(address, window);
    if driven.is_err() {
        // It may not have come to a connection, which the other thread waits for.
        drop(std::net::TcpStream::connect(address));
    }
    let served = thread
        .join()
        .map_err(|_| io::Error::other("the answering thread failed"))??;
    Ok(ServerFigures {
        latency: driven?,
        us_per_request: served.cpu_ns as f64 / 1e3 / served.requests.max(1) as f64,
    })
}

/// The load, as a run of the workload would make it.
fn drive(address: SocketAddr, window: Duration) -> io::Result<Summary> {
    let (config, rate) = load()?;
    let clock = Clock::start();
    let poller = Poller::new()?;
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let begin = clock.now() + nanos(WARMUP);
    let window = (begin, begin + nanos(window));
    let leader = PartitionLeader {
        partition: 0,
        address,
    };
    let layouts = [TopicLayout {
        name: TOPIC.into(),
        partitions: vec![leader],
    }];
    let setup = ProducerSetup {
        clock,
        layouts: &layouts,
        version: VERSION,
        identities: Vec::new(),
        token_base: 0,
        run: 0,
        stamp: None,
        window,
    };
    let producer = ProducerLoad::open(&config, setup, &poller)?;
    let mut drive = Drive {
        clock,
        poller,
        producer: Some(producer),
        consumer: None,
        verifier: None,
        schedule: Some(Schedule::new(clock.now(), rate, config.arrival, 1, 0)),
        window,
        drain: DRAIN,
        records_max: None,
        await_consumer: false,
        lateness: Latencies::new(begin),
        never_offered: 0,
        problems: Vec::new(),
        broken: false,
    };
    drive.run(&mut |_, _, _| {});
    if let Some(problem) = drive.problems.pop() {
        return Err(io::Error::other(problem));
    }
    let latencies = drive.producer.map(|load| load.tally.latencies);
    latencies
        .and_then(Latencies::summary)
        .ok_or_else(|| io::Error::other("nothing was answered"))
}

fn load() -> io::Result<(Producer, f64)> {
    let workload = Workload::parse(WORKLOAD, "produce-2000.toml", &[]).map_err(io::Error::other)?;
    match workload.producer {
        Some(producer) => match producer.rate {
            Rate::PerSecond(rate) => Ok((producer, rate)),
            Rate::Max => Err(io::Error::other("the workload has no rate")),
        },
        None => Err(io::Error::other("the workload produces nothing")),
    }
}

/// The frame that acknowledges a batch.
fn answer() -> io::Result<Vec<u8>> {
    let topic = TopicProduceResponse {
        name: TOPIC.into(),
        partition_responses: vec![PartitionProduceResponse::default()],
        ..Default::default()
    };
    let body = ProduceResponse {
        responses: vec![topic],
        ..Default::default()
    };
    let frame = Response::Produce(Box::new(body)).encode(VERSION, 0);
    Ok(frame.map_err(io::Error::other)?.concat())
}

/// A file that was written once, and the buffer it is written from.
struct Medium {
    file: File,
    staging: Aligned,
    at: usize,
}

impl Medium {
    fn prepare(path: &Path) -> io::Result<Medium> {
        let staging = Aligned::new(INPUT_BYTES);
        let prepare = open(path, false)?;
        for at in (0..SMALL_FILE_BYTES).step_by(INPUT_BYTES) {
            prepare.write_all_at(staging.get(), at as u64)?;
        }
        prepare.sync_all()?;
        Ok(Medium {
            file: open(path, true)?,
            staging,
            at: 0,
        })
    }

    /// Makes `bytes`, at most [`INPUT_BYTES`], durable in the next whole blocks.
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.staging.get_mut()[..bytes.len()].copy_from_slice(bytes);
        let len = bytes.len().next_multiple_of(ALIGN);
        if self.at + len > SMALL_FILE_BYTES {
            self.at = 0;
        }
        let blocks = &self.staging.get()[..len];
        self.file.write_all_at(blocks, self.at as u64)?;
        self.at += len;
        Ok(())
    }
}

#[derive(Default)]
struct Served {
    requests: u64,
    cpu_ns: u64,
}

/// Answers one connection until it ends.
fn serve(listener: &TcpListener, answer: &[u8], mut medium: Option<Medium>) -> io::Result<Served> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let (mut input, mut filled, mut output) = (vec![0; INPUT_BYTES], 0, Vec::new());
    let mut served = Served::default();
    let begun = thread_cpu_ns()?;
    loop {
        let got = stream.read(&mut input[filled..])?;
        if got == 0 {
            served.cpu_ns = thread_cpu_ns()? - begun;
            return Ok(served);
        }
        filled += got;
        let whole = answers(&input[..filled], answer, &mut output);
        if whole == 0 {
            continue;
        }
        if let Some(medium) = &mut medium {
            medium.keep(&input[..whole])?;
        }
        stream.write_all(&output)?;
        served.requests += (output.len() / answer.len()) as u64;
        output.clear();
        input.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

/// Adds to `output` an answer to every whole request in `input`, and gives the bytes that these take.
fn answers(input: &[u8], answer: &[u8], output: &mut Vec<u8>) -> usize {
    let mut at = 0;
    while let Some((size, _)) = input[at..].split_first_chunk::<4>() {
        let end = at + size.len() + u32::from_be_bytes(*size) as usize;
        let Some(id) = input
            .get(at..end)
            .and_then(|request| request.get(REQUEST_ID))
        else {
            break;
        };
        let start = output.len();
        output.extend_from_slice(answer);
        output[start..][ANSWER_ID].copy_from_slice(id);
        at = end;
    }
    at
}

#[cfg(test)]
mod tests {
    //! Every request is answered in order and by its own id, and is in the file before that; no file stays.
    use super::*;
    use ringlog_net::Bytes;
    use ringlog_net::api::ApiKey;
    use ringlog_net::messages::produce::ProduceRequest;
    use std::net::TcpStream;

    use crate::client::wire;

    fn request(id: i32) -> Vec<u8> {
        let body = ProduceRequest::default();
        let frame = wire::encode(ApiKey::Produce, VERSION, id, &body);
        frame.unwrap().concat()
    }

    #[test]
    fn whole_requests_are_answered_by_their_ids() {
        let frames: Vec<u8> = [7, 8, 9].map(request).concat();
        let one = frames.len() / 3;
        let answer = answer().unwrap();
        let mut output = Vec::new();
        assert_eq!(answers(&frames[..3], &answer, &mut output), 0);
        assert_eq!(answers(&frames[..one - 1], &answer, &mut output), 0);
        assert!(output.is_empty());
        assert_eq!(
            answers(&frames[..3 * one - 1], &answer, &mut output),
            2 * one
        );
        let ids: Vec<&[u8]> = output
            .chunks(answer.len())
            .map(|frame| &frame[ANSWER_ID])
            .collect();
        assert_eq!(ids, [7i32.to_be_bytes(), 8i32.to_be_bytes()]);
        let frame = Bytes::copy_from_slice(&output[4..answer.len()]);
        let decoded: ProduceResponse = wire::decode(ApiKey::Produce, VERSION, frame).unwrap();
        assert_eq!(decoded.responses[0].name.as_str(), TOPIC);
        assert_eq!(decoded.responses[0].partition_responses[0].index, 0);
    }

    #[test]
    fn what_is_answered_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("medium");
        let medium = Medium::prepare(&path).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let answer = answer().unwrap();
        let mut got = vec![0; answer.len()];
        let thread = std::thread::spawn(move || serve(&listener, &answer, Some(medium)));
        for (number, id) in [3, 4].into_iter().enumerate() {
            let sent = request(id);
            client.write_all(&sent).unwrap();
            client.read_exact(&mut got).unwrap();
            let written = std::fs::read(&path).unwrap();
            assert_eq!(&written[number * ALIGN..][..sent.len()], sent);
        }
        drop(client);
        assert_eq!(thread.join().unwrap().unwrap().requests, 2);
    }

    #[test]
    fn a_medium_begins_again_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("medium");
        let mut medium = Medium::prepare(&path).unwrap();
        medium.at = SMALL_FILE_BYTES - ALIGN;
        medium.keep(&[1; ALIGN]).unwrap();
        medium.keep(&[2; ALIGN + 1]).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written.len(), SMALL_FILE_BYTES);
        assert_eq!(
            (written[written.len() - 1], written[0], written[ALIGN]),
            (1, 2, 2)
        );
    }

    #[test]
    fn both_servers_answer_the_whole_load() {
        let folder = tempfile::tempdir().unwrap();
        let figures = floor(folder.path(), Duration::from_millis(200)).unwrap();
        for server in [&figures.echo, &figures.durable] {
            // 2,000 a second, all of them answered, however long that took.
            assert_eq!(server.latency.count, 400);
            assert!(server.us_per_request > 0.0);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
