//! A broker process and a blocking client for tests.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringlog_engine::batch::BatchBuilder;
use ringlog_net::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringlog_net::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog_net::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, ErrorCode, Records, Str, Uuid};

/// Calls an API and unwraps its response.
macro_rules! ask {
    ($client:expr, $api:ident, $request:expr, $version:expr) => {
        match $client.call(
            ringlog_net::request::Request::$api(Box::new($request)),
            $version,
        ) {
            ringlog_net::request::Response::$api(response) => *response,
            other => panic!("{other:?}"),
        }
    };
}
pub(crate) use ask;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running broker; killed when dropped.
pub struct Broker {
    child: Child,
    pub address: SocketAddr,
    directory: PathBuf,
    overrides: Vec<String>,
    descriptors: Option<u32>,
    _temporary: Option<tempfile::TempDir>,
}

impl Broker {
    /// Starts a broker whose HTTP port is the second.
    pub fn start_with_http(overrides: &[&str]) -> (Self, u16) {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let http = format!("http.listener=127.0.0.1:{port}");
        let overrides: Vec<&str> = overrides.iter().copied().chain([http.as_str()]).collect();
        (Self::start(&overrides), port)
    }

    /// Starts a broker in a new directory.
    pub fn start(overrides: &[&str]) -> Self {
        Self::start_in_new_directory(overrides, None)
    }

    /// As [`Self::start`], with so many file descriptors.
    pub fn start_with_descriptors(descriptors: u32, overrides: &[&str]) -> Self {
        Self::start_in_new_directory(overrides, Some(descriptors))
    }

    fn start_in_new_directory(overrides: &[&str], descriptors: Option<u32>) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let directory = temporary.path().to_path_buf();
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let (child, address) = launch(&directory, &overrides, descriptors);
        Self {
            child,
            address,
            directory,
            overrides,
            descriptors,
            _temporary: Some(temporary),
        }
    }

    /// The command that would start another broker on the same directory.
    pub fn rival(&self) -> Command {
        command(&self.directory, &self.overrides, self.descriptors)
    }

    /// Kills the process as a crash would, and starts it again.
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    /// Kills the process as a crash would.
    pub fn crash(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Asks the process to stop and gives its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal_to_stop();
        self.wait_for_end()
    }

    /// Asks the process to stop.
    pub fn signal_to_stop(&self) {
        let signalled = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(signalled.expect("kill").success());
    }

    /// Waits for the process and gives its exit code.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the broker did not end");
    }

    /// Starts again with another configuration.
    pub fn restart_with(&mut self, overrides: &[&str]) {
        self.overrides = overrides.iter().map(ToString::to_string).collect();
        self.restart();
    }

    /// Starts again with another configuration, after something was done with the command that starts it.
    pub fn restart_after(&mut self, overrides: &[&str], first: impl FnOnce(&mut Command)) {
        self.overrides = overrides.iter().map(ToString::to_string).collect();
        first(&mut self.rival());
        self.restart();
    }

    /// Starts again after [`Self::terminate`].
    pub fn restart(&mut self) {
        (self.child, self.address) = launch(&self.directory, &self.overrides, self.descriptors);
    }

    /// A connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Where a partition's files are.
    pub fn log_directory(&self, partition: &str) -> PathBuf {
        self.directory.join("data").join(partition)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("procfs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        line.split_whitespace()
            .nth(1)
            .expect("a number")
            .parse::<u64>()
            .expect("a number")
            * 1024
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(directory: &std::path::Path, overrides: &[String], descriptors: Option<u32>) -> Command {
    let binary = env!("CARGO_BIN_EXE_ringlog");
    let mut command = match descriptors {
        None => Command::new(binary),
        Some(descriptors) => {
            let mut shell = Command::new("sh");
            let limited = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
            shell.args(["-c", &limited, binary]);
            shell
        }
    };
    command.arg("start").env("RINGLOG_LOG", "error");
    let fixed = [
        "listeners=PLAINTEXT://127.0.0.1:0".to_string(),
        "http.listener=".to_string(),
        "shards=2".to_string(),
        "journal.bytes.max=67108864".to_string(),
        format!("log.dirs={}", directory.join("data").display()),
    ];
    for pair in fixed.iter().chain(overrides) {
        command.args(["--override", pair]);
    }
    command
}

fn launch(
    directory: &std::path::Path,
    overrides: &[String],
    descriptors: Option<u32>,
) -> (Child, SocketAddr) {
    let mut child = command(directory, overrides, descriptors)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let stdout = child.stdout.take().expect("piped");
    let (sender, line) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = line
        .recv_timeout(PATIENCE)
        .expect("the broker says that it is ready");
    let address = line
        .strip_prefix("ready PLAINTEXT://")
        .and_then(|rest| rest.split_whitespace().next());
    let address = address.unwrap_or_else(|| panic!("no ready line but {line:?}"));
    (child, address.parse().expect("an address"))
}

/// Status and text of a page.
pub fn page(port: u16, path: &str) -> (String, String) {
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

/// A connection that waits for each byte with a limit.
pub struct Client {
    pub stream: TcpStream,
    next_correlation: i32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self {
            stream,
            next_correlation: 1,
        }
    }

    /// Sends a request and returns its correlation id.
    pub fn send(&mut self, request: &Request, version: i16) -> i32 {
        let id = self.next_correlation;
        self.next_correlation += 1;
        let name = Str::from_static("test");
        let pieces = request.encode(version, id, Some(&name)).expect("encodes");
        self.stream.write_all(&pieces.concat()).expect("sends");
        id
    }

    /// Receives the next response, which must be to this request.
    pub fn receive(&mut self, api_key: ApiKey, version: i16, correlation_id: i32) -> Response {
        let frame = self.receive_frame().expect("a response");
        let (id, response) = Response::decode_frame(api_key, version, frame).expect("decodes");
        assert_eq!(
            id, correlation_id,
            "responses come in the order of requests"
        );
        response
    }

    /// The next frame; none when the broker has closed the connection.
    pub fn receive_frame(&mut self) -> Option<Bytes> {
        let mut size = [0; 4];
        if let Err(error) = self.stream.read_exact(&mut size) {
            let closed = [
                ErrorKind::UnexpectedEof,
                ErrorKind::ConnectionReset,
                ErrorKind::BrokenPipe,
            ];
            assert!(closed.contains(&error.kind()), "{error}");
            return None;
        }
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.stream
            .read_exact(&mut frame)
            .expect("the rest of the frame");
        Some(Bytes::from(frame))
    }

    pub fn call(&mut self, request: impl Into<Request>, version: i16) -> Response {
        let request = request.into();
        let id = self.send(&request, version);
        self.receive(request.api_key(), version, id)
    }

    /// Creates a topic and gives its id.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: Str::from(*name),
            value: Some(Str::from(*value)),
        };
        let topic = CreatableTopic {
            name: Str::from(name),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let Response::CreateTopics(response) =
            self.call(Request::CreateTopics(Box::new(request)), 7)
        else {
            panic!("another response")
        };
        assert_eq!(
            response.topics[0].error_code,
            ErrorCode::NONE,
            "{:?}",
            response.topics[0].error_message
        );
        response.topics[0].topic_id
    }

    /// Produces one batch with acks=all and gives the partition's answer.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Vec<u8>,
    ) -> PartitionProduceResponse {
        let Response::Produce(response) =
            self.call(produce_request(topic, partition, -1, batch), 9)
        else {
            panic!("another response")
        };
        response.responses[0].partition_responses[0].clone()
    }

    /// Fetches one partition by name without a session.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        wait: Duration,
    ) -> FetchResponse {
        let request = fetch_request(topic, &[(partition, offset)], wait);
        let Response::Fetch(response) = self.call(Request::Fetch(Box::new(request)), 12) else {
            panic!("another response")
        };
        *response
    }

    /// All records of a partition, as (offset, value).
    pub fn read_all(&mut self, topic: &str, partition: i32) -> Vec<(i64, Vec<u8>)> {
        let mut records = Vec::new();
        loop {
            let next = records
                .last()
                .map_or(0, |(offset, _): &(i64, _)| offset + 1);
            let response = self.fetch(topic, partition, next, Duration::ZERO);
            let data = &response.responses[0].partitions[0];
            assert_eq!(data.error_code, ErrorCode::NONE);
            let before = records.len();
            records.extend(
                records_of(&data.records.to_bytes())
                    .into_iter()
                    .filter(|(offset, _)| *offset >= next),
            );
            if records.len() == before {
                assert_eq!(next, data.high_watermark);
                return records;
            }
        }
    }
}

/// A produce request for one partition.
pub fn produce_request(topic: &str, partition: i32, acks: i16, batch: Vec<u8>) -> Request {
    let data = PartitionProduceData {
        index: partition,
        records: Some(Records::from(Bytes::from(batch))),
    };
    let topic = TopicProduceData {
        name: Str::from(topic),
        partition_data: vec![data],
        ..Default::default()
    };
    let request = ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![topic],
        ..Default::default()
    };
    Request::Produce(Box::new(request))
}

/// A fetch of partitions at offsets.
pub fn fetch_request(topic: &str, partitions: &[(i32, i64)], wait: Duration) -> FetchRequest {
    let partition = |&(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = FetchTopic {
        topic: Str::from(topic),
        partitions: partitions.iter().map(partition).collect(),
        ..Default::default()
    };
    FetchRequest {
        max_wait_ms: wait.as_millis() as i32,
        min_bytes: 1,
        max_bytes: 50 << 20,
        topics: vec![topic],
        session_epoch: -1,
        ..Default::default()
    }
}

/// A batch of these values.
pub fn batch(values: &[&[u8]]) -> Vec<u8> {
    builder(values).build().expect("a batch")
}

/// A batch of these values from an idempotent producer.
pub fn idempotent_batch(producer_id: i64, epoch: i16, sequence: i32, values: &[&[u8]]) -> Vec<u8> {
    builder(values)
        .producer(producer_id, epoch, sequence)
        .build()
        .expect("a batch")
}

fn builder(values: &[&[u8]]) -> BatchBuilder {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let record = |builder: BatchBuilder, value: &&[u8]| {
        builder.record(now.as_millis() as i64, None, Some(value))
    };
    values.iter().fold(BatchBuilder::new(), record)
}

/// The records of some batches, as (offset, value).
pub fn records_of(bytes: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let mut found = Vec::new();
    for batch in ringlog_engine::batch::batches(bytes) {
        let batch = batch.expect("a whole batch");
        assert!(batch.checksum_matches());
        for record in
            ringlog_engine::batch::Records::new(batch.payload(), batch.header.record_count)
        {
            let record = record.expect("a record");
            let offset = batch.header.base_offset + i64::from(record.offset_delta);
            found.push((offset, record.value.unwrap_or_default().to_vec()));
        }
    }
    found
}
