//! The process: reads the configuration, takes the directories, starts the shards, answers signals, and stops in order.
//!
//! Everything here runs on the control thread; the shards do the work.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringlog_engine::config::EngineConfig;
use ringlog_engine::disk::direct::DirectDisk;
use ringlog_engine::engine::prepare_directories;
use ringlog_engine::environment::DirectEnvironment;
use ringlog_net::Uuid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::config::{BrokerConfig, Listener, properties};
use crate::directories::{self, Possession};
use crate::http;
use crate::metrics::ShardMetrics;
use crate::shard::exchange::{Content, Envelope};
use crate::shard::mailbox::Mailbox;
use crate::shard::message::Request;
use crate::shard::runtime::{self, Report, ShardStart};
use crate::shard::{Common, owner_of};

/// Reads the file and the command line's values, which win.
///
/// # Errors
/// Words for the user.
pub fn configure(start: &crate::cli::Start) -> Result<BrokerConfig, String> {
    let mut pairs = Vec::new();
    if let Some(path) = &start.config {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!(
                "cannot read the configuration file {}: {error}",
                path.display()
            )
        })?;
        pairs = properties::parse(&text);
    }
    pairs.extend(start.overrides.iter().cloned());
    BrokerConfig::from_pairs(pairs).map_err(|error| error.to_string())
}

/// Runs a broker until it is told to stop.
///
/// # Errors
/// Words for the user: why it did not start, or why it could not go on.
pub fn run(config: BrokerConfig) -> Result<(), String> {
    let began = Instant::now();
    if !config.unknown_keys().is_empty() {
        tracing::warn!(
            keys = config.unknown_keys().join(", "),
            "configuration keys that are not known here were ignored"
        );
    }
    let descriptors = raise_descriptor_limit();
    let possession = directories::take(&config).map_err(|error| error.to_string())?;
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
        None => Err("not every shard stopped cleanly; the next start will recover".into()),
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

/// The shards as the control thread sees them.
struct Broker {
    common: Arc<Common>,
    threads: Vec<JoinHandle<()>>,
    reports: UnboundedReceiver<Report>,
    stopped: usize,
}

impl Broker {
    fn start(
        config: BrokerConfig,
        possession: &Possession,
        descriptors: u64,
        advertised: Vec<Listener>,
    ) -> Result<Self, String> {
        let shards = match config.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
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
            stopped: 0,
        })
    }

    fn tell(&self, shard: usize, request: Request) {
        let mut envelope = Envelope {
            from: shard,
            content: Content::Request {
                call: None,
                request,
            },
        };
        while let Err(back) = self.common.mailboxes[shard].push(envelope) {
            envelope = back;
            std::thread::yield_now();
        }
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
                Report::Failed(reason) => {
                    self.stopped += 1;
                    return Err(reason);
                }
                Report::Stopped => return Err("a shard stopped by itself".into()),
            }
        }
        Err("all shards have ended".into())
    }

    /// Resolves when a shard cannot go on.
    async fn failure(&mut self) -> String {
        match self.reports.recv().await {
            Some(Report::Failed(reason)) => {
                self.stopped += 1;
                reason
            }
            Some(report) => format!("a shard reported {report:?} out of turn"),
            None => "all shards have ended".into(),
        }
    }

    /// Stops the shards and waits for them; whether all stopped cleanly.
    async fn stop(mut self) -> bool {
        for shard in 0..self.common.shards {
            self.tell(shard, Request::Stop);
        }
        let mut clean = self.stopped == 0;
        while self.stopped < self.common.shards {
            match self.reports.recv().await {
                Some(Report::Stopped) => self.stopped += 1,
                Some(Report::Failed(reason)) => {
                    tracing::error!(reason, "a shard did not stop cleanly");
                    self.stopped += 1;
                    clean = false;
                }
                Some(Report::Opened { .. } | Report::Ready) => {}
                None => return false,
            }
        }
        for thread in self.threads {
            clean &= thread.join().is_ok();
        }
        clean
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

fn engine_config(common: &Common, shard: usize, descriptors: u64) -> EngineConfig {
    let config = &common.config;
    let shards = common.shards as u64;
    let milliseconds = |name| std::time::Duration::from_millis(config.number(name).max(0) as u64);
    EngineConfig {
        shard: shard as u32,
        shards: common.shards as u32,
        journal_dir: config.journal_dir.clone(),
        tail_cache_bytes: config.tail_cache_bytes / shards,
        // Half of the descriptors are for segments, the rest for connections and everything else.
        open_files_max: (descriptors / 2 / shards).clamp(64, 65_536) as usize,
        retention_check_interval: milliseconds("log.retention.check.interval.ms"),
        file_delete_delay: milliseconds("log.segment.delete.delay.ms"),
        producer_id_expiration_ms: config.number("producer.id.expiration.ms"),
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

/// Raises the limit of open files to what the system allows: each partition and connection needs some. Gives the limit that holds.
fn raise_descriptor_limit() -> u64 {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files (RLIMIT_NOFILE) could not be raised");
    }
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}
