//! A shard: one thread that owns partitions, connections, an io_uring ring and memory outright.
//!
//! [`Shard`] is what everything on that thread shares (by `Rc`, so never across threads). Shards reach each other only through
//! [`exchange`]; what they say is in [`message`]. [`runtime`] starts the thread, [`apply`] makes the logs follow the
//! metadata image, [`append`] and [`read`] are the data path at the owner of a partition.

pub mod append;
pub mod apply;
mod begun;
pub mod exchange;
pub mod lane;
pub mod mailbox;
pub mod markers;
pub mod message;
pub mod read;
pub mod runtime;
pub mod settings;

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::AbortHandle;
use ringlog_engine::config::CleanerMemory;
use ringlog_engine::engine::{Engine, shard_of};
use ringlog_engine::environment::DirectEnvironment;
use ringlog_engine::log::{TopicId, TopicPartition};
use ringlog_net::{ErrorCode, Uuid};

use exchange::ReplyTo;
pub use exchange::ShardUnavailable;
use message::{Job, Question, Reply, Request};

use crate::config::{BrokerConfig, Listener};
use crate::connection::Connections;
use crate::connection::budget::Budget;
use crate::connection::signal::{Changed, Signal};
use crate::controller::image::Image;
use crate::coordinator::Coordinators;
use crate::fetch_session::FetchSessions;
use crate::metadata::Metadata;
use crate::metrics::ShardMetrics;
use crate::quota::Quotas;

/// The engine's environment on a real machine.
pub type Environment = DirectEnvironment;
/// A partition's log.
pub type Log = ringlog_engine::log::Log<Environment>;
/// A shard's end of the traffic between shards.
pub type Exchange = exchange::Exchange<Request, Reply>;
/// All shards' mailboxes.
pub type Mailboxes = exchange::Mailboxes<Request, Reply>;

/// A data directory and its id (KIP-858).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// Where it is.
    pub path: PathBuf,
    /// The id in its `meta.properties`.
    pub directory_id: Uuid,
}

/// What all shards of the process share; next to nothing of it changes.
pub struct Common {
    /// The static configuration.
    pub config: Arc<BrokerConfig>,
    /// How many shards there are.
    pub shards: usize,
    /// The shard that owns the metadata log.
    pub controller_shard: usize,
    /// The id in `meta.properties`.
    pub cluster_id: String,
    /// The data directories.
    pub log_dirs: Vec<LogDir>,
    /// What clients are told to connect to, with the ports really bound.
    pub advertised: Vec<Listener>,
    /// The mailboxes.
    pub mailboxes: Mailboxes,
    /// Set before the metadata is opened when any shard found that the last stop was not clean.
    pub unclean_start: AtomicBool,
    /// Each shard's counters.
    pub metrics: Vec<Arc<ShardMetrics>>,
    /// Most connections that there are descriptors for.
    pub connections_max: u64,
    /// Partitions of deleted topics whose directories could not be removed: the next topic of that name, on whichever shard, must not find their
    /// files. Looked at only when logs are made and removed.
    pub left_behind: Mutex<BTreeSet<TopicPartition>>,
    /// What all shards' compaction may note keys in.
    pub cleaner_memory: CleanerMemory,
}

/// An image with a count of references of this thread's own, so that shards do not contend for the shared one.
pub struct LocalImage(Arc<Image>);

impl Deref for LocalImage {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.0
    }
}

/// The shard that owns a partition.
pub fn owner_of(topic_id: Uuid, partition: i32, shards: usize) -> usize {
    shard_of(&TopicId(topic_id.0), partition, shards as u32) as usize
}

/// One shard's state; lives on its thread.
pub struct Shard {
    /// This shard's number.
    pub index: usize,
    /// How many shards there are.
    pub shards: usize,
    /// The shard that owns the metadata log.
    pub controller_shard: usize,
    /// The static configuration.
    pub config: Arc<BrokerConfig>,
    /// The storage engine of this shard.
    pub engine: Engine<Environment>,
    /// Clocks and tasks.
    pub environment: Environment,
    /// What the shards of the process share.
    pub common: Arc<Common>,
    /// This shard's end of the traffic between shards.
    pub exchange: Rc<Exchange>,
    /// This shard's counters.
    pub metrics: Arc<ShardMetrics>,
    /// Fetch sessions of this shard's connections.
    pub fetch_sessions: RefCell<FetchSessions>,
    /// Memory for requests.
    pub request_budget: Rc<Budget>,
    /// Memory for what fetches are answered with.
    pub response_budget: Rc<Budget>,
    /// The quota hook.
    pub quotas: Quotas,
    /// The coordinators whose partitions are here.
    pub coordinators: Coordinators,
    image: RefCell<Rc<LocalImage>>,
    metadata: OnceCell<Rc<Metadata>>,
    settings: settings::SettingsCache,
    changes: RefCell<VecDeque<apply::Change>>,
    applying: Cell<bool>,
    producer_ids: RefCell<Range<i64>>,
    reports: tokio::sync::mpsc::UnboundedSender<runtime::Report>,
    cancellable: RefCell<BTreeMap<(usize, u32), AbortHandle>>,
    lane: lane::Lane,
    /// Connections open on this shard.
    pub(crate) connections: Connections,
    /// Raised when the broker stops: connections end.
    pub(crate) stop: Signal,
    /// Raised when no shard has connections any more: the engine closes, and logs are neither made nor removed.
    pub(crate) close: Signal,
    /// Raised when a task that this shard cannot do without has ended.
    pub(crate) broken: Signal,
    /// Something that [`apply`] does has ended.
    pub(crate) applied: Changed,
}

impl Shard {
    /// The metadata image that this shard has applied.
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().0.clone()
    }

    /// As [`Self::image`], for this thread only: no count that other shards share is touched.
    pub fn local_image(&self) -> Rc<LocalImage> {
        self.image.borrow().clone()
    }

    /// Looks something up in the image without taking a reference to all of it.
    pub fn with_image<R>(&self, look: impl FnOnce(&Image) -> R) -> R {
        look(&self.image.borrow())
    }

    /// This broker's number.
    pub fn node_id(&self) -> i32 {
        self.config.node_id
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &str {
        &self.common.cluster_id
    }

    /// The data directories.
    pub fn log_dirs(&self) -> &[LogDir] {
        &self.common.log_dirs
    }

    /// What clients are told to connect to.
    pub fn advertised(&self) -> &[Listener] {
        &self.common.advertised
    }

    /// Whether the last stop was not clean; leader epochs must then be bumped.
    pub fn unclean_start(&self) -> bool {
        self.common.unclean_start.load(Ordering::Acquire)
    }

    /// The log of a partition that this shard owns.
    pub fn log(&self, topic_id: Uuid, partition: i32) -> Option<Rc<Log>> {
        self.engine.log(&TopicId(topic_id.0), partition)
    }

    /// The error for a partition of this shard that has no log: its topic is being deleted, or it could not be opened.
    pub fn missing_log(&self) -> ErrorCode {
        match self.applying.get() {
            true => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            false => ErrorCode::KAFKA_STORAGE_ERROR,
        }
    }

    /// The shard that owns a partition.
    pub fn owner_of(&self, topic_id: Uuid, partition: i32) -> usize {
        owner_of(topic_id, partition, self.shards)
    }

    /// The metadata log's keeper.
    ///
    /// # Panics
    /// On any shard but the controller's: go there with [`Self::on_controller`].
    pub fn metadata(&self) -> Rc<Metadata> {
        self.metadata
            .get()
            .cloned()
            .expect("metadata lives on the controller's shard, and only once it is open")
    }

    pub(crate) fn set_metadata(&self, metadata: Rc<Metadata>) {
        // A second call would be a bug of the start sequence; the first stays.
        let _ = self.metadata.set(metadata);
    }

    /// Runs `job` on shard `index`: at once when it is this one, else there.
    ///
    /// # Errors
    /// [`ShardUnavailable`] when the task over there ended without an answer.
    pub async fn on_shard<R, F, Work>(
        self: &Rc<Self>,
        index: usize,
        job: Work,
    ) -> Result<R, ShardUnavailable>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
        Work: FnOnce(Rc<Shard>) -> F + Send + 'static,
    {
        if index == self.index {
            return Ok(job(self.clone()).await);
        }
        let pending = self
            .exchange
            .call(index, Request::Job(boxed(job, false)))
            .await;
        unboxed(pending.await?)
    }

    /// As [`Self::on_shard`], and the job is dropped over there when the caller loses interest.
    ///
    /// # Errors
    /// As [`Self::on_shard`].
    pub async fn on_shard_while_wanted<R, F, Work>(
        self: &Rc<Self>,
        index: usize,
        job: Work,
    ) -> Result<R, ShardUnavailable>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
        Work: FnOnce(Rc<Shard>) -> F + Send + 'static,
    {
        if index == self.index {
            return Ok(job(self.clone()).await);
        }
        let pending = self
            .exchange
            .call(index, Request::Job(boxed(job, true)))
            .await
            .cancel_on_drop();
        unboxed(pending.await?)
    }

    /// Asks another shard: `question` runs there at once, waits for nothing, and hands on the duty to answer.
    ///
    /// # Errors
    /// [`ShardUnavailable`] when the duty was dropped.
    pub async fn ask<R: Send + 'static>(
        self: &Rc<Self>,
        index: usize,
        question: impl FnOnce(&Rc<Shard>, AnswerTo<R>) + Send + 'static,
    ) -> Result<R, ShardUnavailable> {
        let question: Question = Box::new(|shard, reply| {
            let answer = PhantomData;
            question(shard, AnswerTo { reply, answer });
        });
        let pending = self.exchange.call(index, Request::Question(question)).await;
        unboxed(pending.await?)
    }

    /// Runs `job` where the metadata lives.
    ///
    /// # Errors
    /// As [`Self::on_shard`].
    pub async fn on_controller<R, F, Work>(
        self: &Rc<Self>,
        job: Work,
    ) -> Result<R, ShardUnavailable>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
        Work: FnOnce(Rc<Shard>) -> F + Send + 'static,
    {
        self.on_shard(self.controller_shard, job).await
    }

    /// Stops the broker: it cannot go on. The reason is what the user is told.
    pub fn fail(&self, reason: impl Into<String>) {
        // Without a receiver the process is stopping already.
        let _ = self.reports.send(runtime::Report::Failed(reason.into()));
    }

    /// A producer id that nobody ever had.
    ///
    /// # Errors
    /// A text when the metadata log did not take the record that reserves a block of ids.
    pub async fn next_producer_id(self: &Rc<Self>) -> Result<i64, String> {
        const BLOCK: i32 = 1000;
        loop {
            if let Some(id) = self.producer_ids.borrow_mut().next() {
                return Ok(id);
            }
            let block = self
                .on_controller(|shard| async move {
                    let metadata = shard.metadata();
                    metadata
                        .allocate_producer_ids(BLOCK)
                        .await
                        .map_err(|error| error.to_string())
                })
                .await
                .map_err(|error| error.to_string())??;
            *self.producer_ids.borrow_mut() = block;
        }
    }
}

/// The duty to answer a question with an `R`.
pub struct AnswerTo<R> {
    reply: ReplyTo<Request, Reply>,
    answer: PhantomData<R>,
}

impl<R: Send + 'static> AnswerTo<R> {
    /// Answers.
    pub fn give(self, answer: R) {
        self.reply.answer(Reply::Job(Box::new(answer)));
    }
}

fn boxed<R, F, Work>(job: Work, cancellable: bool) -> Job
where
    R: Send + 'static,
    F: Future<Output = R> + 'static,
    Work: FnOnce(Rc<Shard>) -> F + Send + 'static,
{
    let run = move |shard: Rc<Shard>| -> message::JobFuture {
        Box::pin(async move { Box::new(job(shard).await) as Box<dyn Any + Send> })
    };
    Job {
        run: Box::new(run),
        cancellable,
    }
}

fn unboxed<R: 'static>(reply: Reply) -> Result<R, ShardUnavailable> {
    match reply {
        Reply::Job(answer) => answer
            .downcast()
            .map(|answer| *answer)
            .map_err(|_| ShardUnavailable),
        Reply::Appended(_) => Err(ShardUnavailable),
    }
}
