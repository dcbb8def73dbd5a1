//! The thread of a shard: its runtime, its start and its stop.
//!
//! Start: every shard opens its engine by itself; when all have, the controller's shard opens the metadata and publishes the first image; when
//! every shard has applied it, connections are accepted. Stop: the connections of all shards end, and only then do the engines close, because until its
//! last connection is gone a shard may need any other.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use compio::driver::{DriverType, ProactorBuilder};
use compio::runtime::{Runtime, RuntimeBuilder};
use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable, Either, select};
use ringlog_engine::config::EngineConfig;
use ringlog_engine::disk::direct::DirectDisk;
use ringlog_engine::engine::Engine;
use ringlog_engine::environment::DirectEnvironment;

use super::exchange::{Incoming, ReplyTo};
use super::lane::Lane;
use super::message::{Reply, Request};
use super::settings::SettingsCache;
use super::{Common, Environment, Exchange, LocalImage, Shard};
use crate::connection::budget::Budget;
use crate::connection::signal::{Changed, Signal};
use crate::connection::{self, Connections, accept_loop};
use crate::controller::Image;
use crate::coordinator::Coordinators;
use crate::fetch_session::FetchSessions;
use crate::metadata::Metadata;
use crate::quota::Quotas;

/// How long connections may take to end when the broker stops.
const CONNECTIONS_END_WITHIN: Duration = Duration::from_secs(5);

/// Makes the runtime of a shard: io_uring with the flags that suit one thread, or polling where io_uring is blocked.
///
/// # Errors
/// When neither can be had.
pub fn build_runtime() -> io::Result<Runtime> {
    let mut proactor = ProactorBuilder::new();
    proactor
        .single_issuer(true)
        .defer_taskrun(true)
        .coop_taskrun(true)
        .taskrun_flag(true);
    proactor.driver_type(DriverType::IoUring);
    let built = RuntimeBuilder::new().with_proactor(proactor).build();
    match built {
        Ok(runtime) => Ok(runtime),
        Err(error) => {
            static SAID: std::sync::Once = std::sync::Once::new();
            SAID.call_once(|| {
                tracing::warn!(%error, "IO_URING IS NOT AVAILABLE: falling back to polling, which is several times slower. In a container, allow the system calls io_uring_setup, io_uring_enter and io_uring_register");
            });
            let mut proactor = ProactorBuilder::new();
            proactor.driver_type(DriverType::Poll);
            RuntimeBuilder::new().with_proactor(proactor).build()
        }
    }
}

/// Runs a task on this shard, supervised: a panic in it is logged and ends nothing else.
pub fn spawn(name: &'static str, task: impl Future<Output = ()> + 'static) {
    compio::runtime::spawn(contained(name, task).map(drop)).detach();
}

/// What a task gives, or nothing when it panicked, which is logged.
pub(crate) async fn contained<T>(name: &'static str, task: impl Future<Output = T>) -> Option<T> {
    match std::panic::AssertUnwindSafe(task).catch_unwind().await {
        Ok(output) => Some(output),
        Err(panic) => {
            complain(name, &*panic);
            None
        }
    }
}

/// Does something that waits for nothing; a panic in it is logged and ends nothing else.
fn contained_now(name: &'static str, work: impl FnOnce()) {
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        complain(name, &*panic);
    }
}

fn complain(name: &'static str, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(
        task = name,
        "a task panicked and has ended; this is a defect, please report it: {text}"
    );
}

/// Whether a task that a shard cannot do without may end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It has done its work when it ends.
    Normal,
    /// It ends only when the broker stops.
    WithTheBroker,
}

/// Runs a task that this shard cannot do without: when it panics, or ends before it may, the broker stops instead of waiting for it for ever.
pub(super) fn spawn_vital(
    shard: &Rc<Shard>,
    name: &'static str,
    ending: Ending,
    task: impl Future<Output = ()> + 'static,
) {
    let shard = shard.clone();
    compio::runtime::spawn(async move {
        let ended = contained(name, task).await;
        let early = ending == Ending::WithTheBroker && !shard.stop.is_raised();
        if ended.is_none() || early {
            shard.broken.raise();
            shard.fail(format!(
                "shard {}: the task `{name}` has ended, which it must not; the log above says how",
                shard.index
            ));
        }
    })
    .detach();
}

/// What a shard's thread is given.
pub struct ShardStart {
    /// Its number.
    pub index: usize,
    /// What all shards share.
    pub common: Arc<Common>,
    /// Its engine's settings.
    pub engine: EngineConfig,
    /// Where the process learns how far the shard is.
    pub reports: tokio::sync::mpsc::UnboundedSender<Report>,
}

/// How far a shard is.
#[derive(Debug)]
pub enum Report {
    /// Its engine is open; whether anything showed that the last stop was not clean.
    Opened {
        /// Not clean.
        unclean: bool,
    },
    /// Every shard has applied the first image (from the controller's shard).
    Ready,
    /// The broker cannot go on; the reason for the user. The shard still runs.
    Failed(String),
    /// No connection is left on this shard.
    Quiet {
        /// The shard.
        shard: usize,
    },
    /// The shard's thread ends: cleanly, or with the reason why not.
    Ended {
        /// The shard.
        shard: usize,
        /// How.
        result: Result<(), String>,
    },
}

/// Runs a shard until it is told to stop.
pub fn run(start: ShardStart) {
    let reports = start.reports.clone();
    let index = start.index;
    let runtime = match build_runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let result = Err(format!("shard {index}: no asynchronous runtime: {error}"));
            let shard = index;
            let _ = reports.send(Report::Ended { shard, result });
            return;
        }
    };
    let result = runtime.block_on(contained("shard", run_on_runtime(start)));
    let result = result
        .unwrap_or_else(|| Err("it panicked".to_string()))
        .map_err(|reason| format!("shard {index}: {reason}"));
    let shard = index;
    let _ = reports.send(Report::Ended { shard, result });
}

async fn run_on_runtime(start: ShardStart) -> Result<(), String> {
    let ShardStart {
        index,
        common,
        engine: engine_config,
        reports,
    } = start;
    let environment = DirectEnvironment::new(DirectDisk::new());
    let opened = Engine::open(environment.clone(), engine_config).await;
    let (engine, recovered) = opened.map_err(|error| error.to_string())?;
    let unclean = recovered.iter().any(|log| log.unclean);
    if unclean {
        let logs = recovered.len();
        tracing::info!(
            shard = index,
            logs,
            "the last stop was not clean: what the journal holds of these logs was put back"
        );
    }
    let shard = Rc::new(new_shard(
        index,
        common,
        environment,
        engine,
        reports.clone(),
    ));
    let _ = reports.send(Report::Opened { unclean });
    let receive = shard.exchange.clone().receive({
        let shard = shard.clone();
        move |from, call, incoming| handle(&shard, from, call, incoming)
    });
    spawn_vital(&shard, "mailbox", Ending::WithTheBroker, receive);
    spawn("idle connections", connection::sweep(shard.clone()));
    shard.let_expire();
    select(pin!(shard.stop.wait()), pin!(shard.broken.wait())).await;
    shard.stop.raise();
    shard.connections.stop(CONNECTIONS_END_WITHIN).await;
    // Shards that still have connections may ask; they are told that nobody is in charge.
    shard.coordinators.resign();
    let _ = reports.send(Report::Quiet { shard: index });
    match select(pin!(shard.close.wait()), pin!(shard.broken.wait())).await {
        Either::Left(_) => close(&shard).await,
        Either::Right(_) => Err(
            "it has lost a task that it needs, so its engine was left as after a crash".to_string(),
        ),
    }
}

/// Closes the engine once no shard has a connection left.
async fn close(shard: &Rc<Shard>) -> Result<(), String> {
    let rest = shard.rest_from_applying();
    if compio::time::timeout(CONNECTIONS_END_WITHIN, rest)
        .await
        .is_err()
    {
        return Err("the metadata could not be followed to the end, so the engine was left as after a crash".into());
    }
    let offline = shard.engine.metrics().logs_offline;
    let closed = shard.engine.shutdown_clean().await;
    closed.map_err(|error| error.to_string())?;
    match offline {
        0 => Ok(()),
        count => Err(format!(
            "{count} logs are offline, so the stop is not marked as clean; the log says why they are"
        )),
    }
}

fn new_shard(
    index: usize,
    common: Arc<Common>,
    environment: Environment,
    engine: Engine<Environment>,
    reports: Reports,
) -> Shard {
    let config = common.config.clone();
    let metrics = common.metrics[index].clone();
    let request_budget = Budget::new((config.request_memory_bytes / common.shards).max(1));
    let response_budget = Budget::new((config.response_memory_bytes / common.shards).max(1));
    metrics
        .response_bytes_max
        .set(response_budget.limit() as u64);
    metrics.request_bytes_max.set(request_budget.limit() as u64);
    Shard {
        index,
        shards: common.shards,
        controller_shard: common.controller_shard,
        engine,
        environment,
        exchange: Rc::new(Exchange::new(index, common.mailboxes.clone())),
        metrics,
        fetch_sessions: RefCell::new(FetchSessions::new(
            config.fetch_sessions_max.div_ceil(common.shards),
            index,
            common.shards,
        )),
        request_budget,
        response_budget,
        quotas: Quotas::default(),
        coordinators: Coordinators::default(),
        image: RefCell::new(Rc::new(LocalImage(Arc::new(Image::empty())))),
        metadata: OnceCell::new(),
        settings: SettingsCache::default(),
        changes: RefCell::new(VecDeque::new()),
        applying: Cell::new(false),
        producer_ids: RefCell::new(0..0),
        reports,
        cancellable: RefCell::new(BTreeMap::new()),
        lane: Lane::default(),
        connections: Connections::default(),
        stop: Signal::default(),
        close: Signal::default(),
        broken: Signal::default(),
        applied: Changed::default(),
        config,
        common,
    }
}

type Reports = tokio::sync::mpsc::UnboundedSender<Report>;

/// Starts what another thread asks for. Never waits: that would hold up the mailbox.
fn handle(shard: &Rc<Shard>, from: usize, call: Option<u32>, incoming: Incoming<Request>) {
    let request = match incoming {
        Incoming::Request(request) => request,
        Incoming::Cancel => {
            let handle = call.and_then(|call| shard.cancellable.borrow_mut().remove(&(from, call)));
            if let Some(handle) = handle {
                handle.abort();
            }
            return;
        }
    };
    let reply = shard.exchange.reply_to(from, call);
    match request {
        Request::Append(order) => shard.append_for(order, reply),
        Request::Job(job) => {
            let work = (job.run)(shard.clone());
            match call.filter(|_| job.cancellable) {
                Some(call) => spawn_cancellable(shard, (from, call), work, reply),
                None => spawn("job", async move { reply.answer(Reply::Job(work.await)) }),
            }
        }
        Request::Question(question) => contained_now("question", || question(shard, reply)),
        Request::Apply { image, delta } => shard.enqueue_change(image, delta, reply),
        Request::Connection(accepted) => {
            let shard = shard.clone();
            spawn("connection", async move {
                // One that was accepted just before the stop would be overlooked by it.
                match shard.stop.is_raised() {
                    false => connection::serve(shard, accepted).await,
                    true => shard.metrics.assigned.subtract_shared(1),
                }
            });
        }
        Request::Snapshot(done) => {
            shard.snapshot();
            // The asker may have given up waiting.
            let _ = done.send(());
        }
        Request::HighWatermarks(wanted, done) => {
            shard.metrics.lag.take_high_watermarks(shard, &wanted);
            let _ = done.send(());
        }
        Request::OpenMetadata => {
            let opener = shard.clone();
            spawn_vital(shard, "open metadata", Ending::Normal, async move {
                let shard = opener;
                let _ = shard.reports.send(match open_metadata(&shard).await {
                    Ok(()) => Report::Ready,
                    Err(reason) => Report::Failed(reason),
                });
            });
        }
        Request::Listen { listener, name } => listen(shard, listener, name),
        Request::Stop => shard.stop.raise(),
        Request::Close => shard.close.raise(),
    }
}

fn listen(shard: &Rc<Shard>, listener: TcpListener, name: Arc<str>) {
    spawn_vital(
        shard,
        "listener",
        Ending::WithTheBroker,
        accept_loop(shard.clone(), listener, name),
    );
}

fn spawn_cancellable(
    shard: &Rc<Shard>,
    key: (usize, u32),
    work: super::message::JobFuture,
    reply: ReplyTo<Request, Reply>,
) {
    let (handle, registration) = AbortHandle::new_pair();
    shard.cancellable.borrow_mut().insert(key, handle);
    let shard = shard.clone();
    spawn("job", async move {
        let result = Abortable::new(work, registration).await;
        shard.cancellable.borrow_mut().remove(&key);
        if let Ok(answer) = result {
            reply.answer(Reply::Job(answer));
        }
    });
}

async fn open_metadata(shard: &Rc<Shard>) -> Result<(), String> {
    let opened = Metadata::open(shard).await;
    let (metadata, image) =
        opened.map_err(|error| format!("the cluster metadata cannot be opened: {error}"))?;
    shard.set_metadata(metadata);
    shard.publish_first(image).await;
    Ok(())
}

impl Shard {
    /// Copies gauges into the counters that other threads read.
    fn snapshot(&self) {
        let engine = self.engine.metrics();
        let gauges = [
            (&self.metrics.journal_entries, engine.journal.entries),
            (&self.metrics.journal_items, engine.journal.items),
            (&self.metrics.journal_bytes, engine.journal.bytes),
            (&self.metrics.journal_live_bytes, engine.journal.live_bytes),
            (&self.metrics.journal_file_bytes, engine.journal.file_bytes),
            (&self.metrics.tail_cache_bytes, engine.tail_cache_bytes),
            (
                &self.metrics.tail_cache_bytes_max,
                engine.tail_cache_bytes_max,
            ),
            (
                &self.metrics.written_behind_bytes,
                engine.written_behind_bytes,
            ),
            (&self.metrics.cleaner_passes, engine.cleaner.passes),
            (
                &self.metrics.cleaner_replaced_bytes,
                engine.cleaner.replaced_bytes,
            ),
            (&self.metrics.cleaner_kept_bytes, engine.cleaner.kept_bytes),
            (
                &self.metrics.cleaner_uncleanable,
                engine.cleaner.uncleanable,
            ),
            (
                &self.metrics.cleaner_max_dirty_percent,
                engine.cleaner.max_dirty_percent,
            ),
            (&self.metrics.logs_offline, engine.logs_offline as u64),
            (&self.metrics.open_files, engine.open_files as u64),
            (
                &self.metrics.open_transaction_logs,
                engine.logs_with_open_transactions as u64,
            ),
            (
                &self.metrics.oldest_open_transaction_ms,
                u64::try_from(engine.oldest_open_transaction_ms).unwrap_or(0),
            ),
        ];
        for (gauge, value) in gauges {
            gauge.set(value);
        }
        let logs = self.engine.logs();
        self.metrics.logs.set(logs.len() as u64);
        self.metrics
            .log_bytes
            .set(logs.iter().map(|log| log.size_bytes()).sum());
        self.metrics
            .response_bytes
            .set(self.response_budget.held() as u64);
        self.metrics
            .request_bytes
            .set(self.request_budget.held() as u64);
        self.metrics
            .fetch_sessions
            .set(self.fetch_sessions.borrow().len() as u64);
        self.metrics.mailbox_waits.set(self.exchange.held_up());
        let (mut groups, mut members, mut offsets) = (0, 0, 0);
        for host in self.coordinators.groups() {
            let counts = host.look(|machine| machine.counts()).unwrap_or_default();
            groups += counts.groups as u64;
            members += counts.members as u64;
            offsets += counts.offsets as u64;
        }
        self.metrics.groups.set(groups);
        self.metrics.group_members.set(members);
        self.metrics.group_offsets.set(offsets);
        self.metrics.lag.take(self);
    }
}

#[cfg(test)]
mod tests {
    //! A panic stays in its task, and is not mistaken for an end in order.
    use super::*;

    #[test]
    fn a_panic_is_contained_and_told() {
        assert_eq!(contained("calm", async { 7 }).now_or_never(), Some(Some(7)));
        let panics = contained("wild", async { panic!("as the test wants") });
        assert_eq!(panics.now_or_never(), Some(None::<()>));
    }
}
