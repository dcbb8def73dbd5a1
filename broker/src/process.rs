//! The process: reads the configuration, takes the directories, starts the shards, answers signals, and stops in order.
//!
//! Everything here runs on the control thread; the shards do the work.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringlog_engine::config::{CleanerMemory, EngineConfig};
use ringlog_engine::disk::direct::DirectDisk;
use ringlog_engine::engine::prepare_directories;
use ringlog_engine::environment::DirectEnvironment;
use ringlog_net::Uuid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::config::{BrokerConfig, Listener, check, properties};
use crate::descriptors::{self, Descriptors};
use crate::directories::{self, Possession, Unformatted};
use crate::http;
use crate::metrics::ShardMetrics;
use crate::shard::exchange::{Content, Envelope};
use crate::shard::mailbox::Mailbox;
use crate::shard::message::Request;
use crate::shard::runtime::{self, Report, ShardStart};
use crate::shard::{Common, owner_of};

/// The pairs of a file, then those of the command line, which win.
///
/// # Errors
/// Words for the user: why the file cannot be read.
pub fn read_pairs(
    file: Option<&Path>,
    overrides: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!(
                "cannot read the configuration file {}: {error}",
                path.display()
            )
        })?;
        pairs = properties::parse(&text);
    }
    pairs.extend(overrides.iter().cloned());
    Ok(pairs)
}

/// Reads and checks the configuration of a broker.
///
/// # Errors
/// Words for the user.
pub fn configure(start: &crate::cli::Start) -> Result<BrokerConfig, String> {
    let pairs = read_pairs(start.config.as_deref(), &start.overrides)?;
    BrokerConfig::from_pairs(pairs).map_err(|error| error.to_string())
}

/// Says which parts of the configuration do nothing.
fn tell_ignored(config: &BrokerConfig) {
    for keys in check::grouped(config, false) {
        tracing::info!("without meaning here: {keys}");
    }
    for keys in check::grouped(config, true) {
        tracing::warn!("not offered, so without effect: {keys}");
    }
    let unknown = &config.ignored().unknown;
    if !unknown.is_empty() {
        tracing::warn!(
            keys = unknown.join(", "),
            "configuration keys that are not known here were ignored"
        );
    }
    for listener in &config.controller_listeners {
        tracing::info!(%listener, "a listener for controllers is not opened: there are no others yet to talk to, and clients are not served there");
    }
}

/// Formats the data directories that are not, for a broker that others of them belong to.
///
/// # Errors
/// Words for the user: why they cannot be used.
pub fn format(config: &BrokerConfig) -> Result<(), String> {
    let taken =
        directories::take(config, Unformatted::Format).map_err(|error| error.to_string())?;
    for directory in &taken.log_dirs {
        tracing::info!(path = %directory.path.display(), directory_id = %directory.directory_id, cluster_id = taken.cluster_id, "this data directory is formatted");
    }
    Ok(())
}

/// Runs a broker until it is told to stop.
///
/// # Errors
/// Words for the user: why it did not start, or why it could not go on.
pub fn run(config: BrokerConfig) -> Result<(), String> {
    let began = Instant::now();
    tell_ignored(&config);
    let descriptors = descriptors::raise_limit();
    let possession =
        directories::take(&config, Unformatted::Refuse).map_err(|error| error.to_string())?;
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let control = control.map_err(|error| format!("no control thread: {error}"))?;
    control.block_on(run_on_control(config, possession, descriptors, began))
}

async fn run_on_control(
    config: BrokerConfig,
    possession: Possession,
    descriptors: u64,
    began: Instant,
) -> Result<(), String> {
    let (listeners, advertised) = bind(&config)?;
    let http_listener = match config.http_listener {
        Some(address) => Some(tokio::net::TcpListener::bind(address).await.map_err(|error| {
            format!("cannot listen on http.listener {address}: {error}; choose another, or set it to nothing")
        })?),
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut broker = Broker::start(config, &possession, descriptors, advertised)?;
    let ready = Arc::new(AtomicBool::new(false));
    if let Some(listener) = http_listener {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "HTTP");
        }
        let pages = http::Pages {
            common: broker.common.clone(),
            ready: ready.clone(),
        };
        tokio::spawn(async move {
            if let Err(error) = http::serve(listener, pages).await {
                tracing::error!(%error, "HTTP has ended");
            }
        });
    }
    let started = tokio::select! {
        started = broker.open() => started,
        _ = terminate.recv() => Err("stopped before it was ready".to_string()),
        _ = interrupt.recv() => Err("stopped before it was ready".to_string()),
    };
    if let Err(reason) = started {
        broker.stop().await;
        return Err(reason);
    }
    let told: Vec<String> = broker
        .common
        .advertised
        .iter()
        .map(Listener::to_string)
        .collect();
    for (listener, name) in listeners {
        broker.tell(0, Request::Listen { listener, name });
    }
    ready.store(true, Ordering::Release);
    announce(&told.join(","), began);
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = broker.failure() => Some(failure),
    };
    ready.store(false, Ordering::Release);
    tracing::info!("stopping");
    let clean = broker.stop().await;
    match failed {
        Some(reason) => Err(reason),
        None if clean => Ok(()),
        None => Err("not every shard stopped cleanly (see above); what was acknowledged is safe, and the next start reads it back from the journal".into()),
    }
}

/// The one line on standard output.
fn announce(listeners: &str, began: Instant) {
    let milliseconds = began.elapsed().as_millis();
    let mut out = std::io::stdout().lock();
    // Nobody may be listening to standard output; the broker serves all the same.
    let _ = writeln!(out, "ready {listeners} in {milliseconds} ms");
    let _ = out.flush();
    tracing::info!(listeners, milliseconds, "ready");
}

/// How far a shard is with stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Quiet,
    Ended,
}

/// The longest that connections may take to end; each shard cuts them off long before. Closing the engines has no limit: what they write is as much as there is.
const QUIET_PATIENCE: Duration = Duration::from_secs(60);
/// The longest wait for room in a shard's mailbox.
const MAILBOX_PATIENCE: Duration = Duration::from_secs(5);

/// The shards as the control thread sees them.
struct Broker {
    common: Arc<Common>,
    threads: Vec<JoinHandle<()>>,
    reports: UnboundedReceiver<Report>,
    stages: Vec<Stage>,
    clean: bool,
}

impl Broker {
    fn start(
        config: BrokerConfig,
        possession: &Possession,
        descriptors: u64,
        advertised: Vec<Listener>,
    ) -> Result<Self, String> {
        let shards = match config.shards {
            // One core is left to what else there is: the kernel's side of disks and network, and clients on the same machine.
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
            count => count,
        };
        let descriptors = Descriptors::share(descriptors, shards);
        let mailboxes = (0..shards)
            .map(|_| Mailbox::new(config.mailbox_slots, shards))
            .collect();
        let common = Arc::new(Common {
            shards,
            controller_shard: owner_of(Uuid::METADATA_TOPIC, 0, shards),
            cluster_id: possession.cluster_id.clone(),
            log_dirs: possession.log_dirs.clone(),
            advertised,
            mailboxes,
            unclean_start: AtomicBool::new(false),
            metrics: (0..shards)
                .map(|_| Arc::new(ShardMetrics::default()))
                .collect(),
            left_behind: Mutex::default(),
            cleaner_memory: CleanerMemory::new(
                config.number("log.cleaner.dedupe.buffer.size") as u64,
                shards,
            ),
            connections_max: descriptors.connections,
            config: Arc::new(config),
        });
        prepare(engine_config(&common, 0, descriptors))?;
        let (sender, reports) = tokio::sync::mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for index in 0..shards {
            let start = ShardStart {
                index,
                common: common.clone(),
                engine: engine_config(&common, index, descriptors),
                reports: sender.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("shard-{index}"));
            let thread = thread.spawn(move || runtime::run(start));
            threads.push(thread.map_err(|error| format!("cannot start a thread: {error}"))?);
        }
        Ok(Self {
            common,
            threads,
            reports,
            stages: vec![Stage::Running; shards],
            clean: true,
        })
    }

    /// Puts a request into a shard's mailbox; whether it is there. One that stays full belongs to a shard that does not run any more.
    fn tell(&self, shard: usize, request: Request) -> bool {
        let mut envelope = Envelope {
            from: shard,
            content: Content::Request {
                call: None,
                request,
            },
        };
        let began = Instant::now();
        while let Err(back) = self.common.mailboxes[shard].push(envelope) {
            if began.elapsed() > MAILBOX_PATIENCE {
                tracing::error!(shard, "a shard takes no messages any more");
                return false;
            }
            envelope = back;
            std::thread::sleep(Duration::from_micros(100));
        }
        true
    }

    /// Waits until every engine is open and the first image is applied everywhere.
    async fn open(&mut self) -> Result<(), String> {
        let mut opened = 0;
        while let Some(report) = self.reports.recv().await {
            match report {
                Report::Opened { unclean } => {
                    self.common
                        .unclean_start
                        .fetch_or(unclean, Ordering::AcqRel);
                    opened += 1;
                    if opened == self.common.shards {
                        self.tell(self.common.controller_shard, Request::OpenMetadata);
                    }
                }
                Report::Ready => return Ok(()),
                other => return Err(self.note(other)),
            }
        }
        Err("all shards have ended".into())
    }

    /// Resolves when a shard cannot go on.
    async fn failure(&mut self) -> String {
        match self.reports.recv().await {
            Some(report) => self.note(report),
            None => "all shards have ended".into(),
        }
    }

    /// Takes a report in that says how far a stop is; gives it in words.
    fn note(&mut self, report: Report) -> String {
        match report {
            Report::Failed(reason) => reason,
            Report::Quiet { shard } => {
                self.stages[shard] = self.stages[shard].max(Stage::Quiet);
                format!("shard {shard} has ended its connections by itself")
            }
            Report::Ended { shard, result } => {
                self.stages[shard] = Stage::Ended;
                self.clean &= result.is_ok();
                result
                    .err()
                    .unwrap_or_else(|| format!("shard {shard} stopped by itself"))
            }
            Report::Opened { .. } | Report::Ready => "a shard has started".into(),
        }
    }

    /// Stops the shards in two halves and waits for them; whether all stopped cleanly.
    ///
    /// Connections end on all of them before the first engine closes: until then any shard may be asked by any other.
    async fn stop(mut self) -> bool {
        let mut told = self.tell_all(Stage::Quiet, || Request::Stop);
        let quiet = tokio::time::timeout(QUIET_PATIENCE, self.reach(Stage::Quiet)).await;
        told &= quiet == Ok(true) && self.tell_all(Stage::Ended, || Request::Close);
        if !(told && self.reach(Stage::Ended).await) {
            tracing::error!("a shard does not answer any more; the process ends without it");
            return false;
        }
        for thread in self.threads {
            self.clean &= thread.join().is_ok();
        }
        self.clean
    }

    fn tell_all(&self, below: Stage, request: fn() -> Request) -> bool {
        let ask = |shard: usize| self.stages[shard] >= below || self.tell(shard, request());
        (0..self.common.shards)
            .map(ask)
            .fold(true, |all, one| all & one)
    }

    /// Waits until every shard is at least so far; false when no reports come any more.
    async fn reach(&mut self, stage: Stage) -> bool {
        while self.stages.iter().any(|at| *at < stage) {
            let Some(report) = self.reports.recv().await else {
                return false;
            };
            let failed = match &report {
                Report::Failed(_) => true,
                Report::Ended { result, .. } => result.is_err(),
                _ => false,
            };
            let words = self.note(report);
            if failed {
                tracing::error!("{words}");
            }
        }
        true
    }
}

/// Checks the directories' format once, before the shards open them.
fn prepare(config: EngineConfig) -> Result<(), String> {
    // The engine's disk needs a runtime of its kind on the thread that uses it.
    let prepared = std::thread::spawn(move || -> Result<(), String> {
        let runtime = runtime::build_runtime()
            .map_err(|error| format!("no asynchronous runtime: {error}"))?;
        runtime.block_on(async {
            let environment = DirectEnvironment::new(DirectDisk::new());
            prepare_directories(&environment, &config)
                .await
                .map(|_| ())
                .map_err(|error| error.to_string())
        })
    });
    prepared
        .join()
        .map_err(|_| "preparing the data directories failed; the log says how".to_string())?
}

fn engine_config(common: &Common, shard: usize, descriptors: Descriptors) -> EngineConfig {
    let config = &common.config;
    let shards = common.shards as u64;
    let milliseconds = |name| std::time::Duration::from_millis(config.number(name).max(0) as u64);
    EngineConfig {
        shard: shard as u32,
        shards: common.shards as u32,
        journal_dir: config.journal_dir.clone(),
        tail_cache_bytes: config.tail_cache_bytes / shards,
        open_files_max: descriptors.segments_per_shard,
        retention_check_interval: milliseconds("log.retention.check.interval.ms"),
        file_delete_delay: milliseconds("log.segment.delete.delay.ms"),
        producer_id_expiration_ms: config.number("producer.id.expiration.ms"),
        cleaner_enabled: config
            .get("log.cleaner.enable")
            .eq_ignore_ascii_case("true"),
        cleaner_memory: common.cleaner_memory.clone(),
        cleaner_io_buffer_bytes: config.number("log.cleaner.io.buffer.size") as usize
            / common.shards,
        cleaner_backoff: milliseconds("log.cleaner.backoff.ms"),
        cleaner_io_bytes_per_second: rate(
            config.get("log.cleaner.io.max.bytes.per.second"),
            shards,
        ),
        ..EngineConfig::new(
            common
                .log_dirs
                .iter()
                .map(|directory| directory.path.clone())
                .collect(),
        )
        .with_journal_bytes(config.journal_bytes_max / shards)
    }
}

/// A shard's share of a rate that is given as a number of any size; the largest whole number stands for none.
fn rate(text: &str, shards: u64) -> u64 {
    let all: f64 = text.trim().parse().unwrap_or(f64::MAX);
    // What does not fit becomes the largest number.
    (all / shards as f64) as u64
}

type Bound = (TcpListener, Arc<str>);

/// Binds the listeners; advertised ports of 0 become the ports really bound.
fn bind(config: &BrokerConfig) -> Result<(Vec<Bound>, Vec<Listener>), String> {
    let mut bound = Vec::new();
    let mut advertised = config.advertised.clone();
    for listener in &config.listeners {
        let failed = |error: std::io::Error| format!("cannot listen on {listener}: {error}");
        let mut addresses = (listener.bind_host(), listener.port)
            .to_socket_addrs()
            .map_err(failed)?;
        let address = addresses
            .next()
            .ok_or_else(|| format!("cannot listen on {listener}: no such host"))?;
        let socket = bind_patiently(address).map_err(failed)?;
        let port = socket.local_addr().map_err(failed)?.port();
        for told in advertised
            .iter_mut()
            .filter(|told| told.name == listener.name && told.port == 0)
        {
            told.port = port;
        }
        bound.push((socket, listener.name.clone()));
    }
    Ok((bound, advertised))
}

/// Longest wait for an address that is still in use.
const BIND_PATIENCE: Duration = Duration::from_secs(5);

/// Binds a listener. After a kill, the kernel closes what a ring still held a moment after the process is gone, the listening socket
/// among it; a restart must not fail for that.
fn bind_patiently(address: SocketAddr) -> std::io::Result<TcpListener> {
    let began = Instant::now();
    let mut told = false;
    loop {
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && began.elapsed() < BIND_PATIENCE =>
            {
                if !told && began.elapsed() > BIND_PATIENCE / 10 {
                    told = true;
                    tracing::warn!(%address, "the address is in use; trying again for {BIND_PATIENCE:?}");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}
