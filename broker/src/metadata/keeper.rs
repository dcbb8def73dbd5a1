//! Propose, commit, apply: the three steps of a change of the metadata, pipelined.
//!
//! A *decision* is made at once against the newest image, committed or not, so that of two concurrent requests for one name only one can win. Its
//! records become one batch; batches are appended in the order of their decisions without waiting for each other, committed by the log, folded into the
//! committed image, and published to every shard. Only then is the request answered. Even a decision that changes nothing waits for those before it:
//! an answer never rests on something that may yet be lost. Single-threaded; all queues are bounded.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_net::ErrorCode;
use ringlog_net::metadata::MetadataRecord;
use tokio::sync::{Notify, oneshot};

use super::batch;
use super::log::{LogFailure, MetadataLog};
use super::snapshot::{self, SnapshotId};
use super::together::together;
use crate::controller::{Controller, Decision, Delta, Image, ImageBuilder, Refusal};

/// Most decisions between being made and being answered.
const PENDING_MAX: usize = 1024;
/// Largest batch, in bytes.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Where committed images go.
pub trait Publisher: 'static {
    /// Hands an image to every shard. Resolves when each has made its logs follow. Called in commit order, one call at a time.
    fn publish(&self, image: Arc<Image>, delta: Arc<Delta>) -> impl Future<Output = ()>;

    /// The metadata log failed: the process must stop, and start again from what is on disk.
    fn stop(&self, reason: &str);
}

/// Why a change of the metadata was not made, or not known to be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Too much is under way.
    #[error("{PENDING_MAX} changes of the metadata are under way; try again later")]
    Busy,
    /// The change is too large for one batch.
    #[error(
        "the change takes {size} bytes of metadata, at most {BATCH_BYTES_MAX} are possible; make it in parts"
    )]
    TooLarge {
        /// What it would take.
        size: usize,
    },
    /// No space on the disk of the metadata log.
    #[error("the metadata log has no space: {0}")]
    Full(String),
    /// The records cannot be written in the log's form.
    #[error("{0}")]
    Invalid(String),
    /// The metadata log failed; the broker stops.
    #[error("{0}; the broker stops")]
    Stopped(Arc<str>),
}

impl ProposeError {
    /// The code that a client is answered with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Busy => ErrorCode::THROTTLING_QUOTA_EXCEEDED,
            Self::TooLarge { .. } => ErrorCode::POLICY_VIOLATION,
            Self::Full(_) => ErrorCode::KAFKA_STORAGE_ERROR,
            Self::Invalid(_) => ErrorCode::INVALID_REQUEST,
            Self::Stopped(_) => ErrorCode::NOT_CONTROLLER,
        }
    }

    /// As a refusal that a handler answers with.
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.code(), self.to_string())
    }
}

/// A decision on its way.
struct Proposal {
    base_offset: i64,
    records: Vec<MetadataRecord>,
    /// Absent where nothing changes.
    batch: Option<Bytes>,
    /// The image once it is applied.
    after: Arc<Image>,
    done: oneshot::Sender<Result<(), ProposeError>>,
}

impl Proposal {
    fn next_offset(&self) -> i64 {
        self.base_offset + self.records.len() as i64
    }

    fn finish(self, outcome: Result<(), ProposeError>) {
        // The requester may have gone; what was decided stands all the same.
        let _ = self.done.send(outcome);
    }
}

#[derive(Default)]
struct Queues {
    /// Decided, not yet appended.
    decided: VecDeque<Proposal>,
    /// Appended, not yet committed and applied.
    appended: VecDeque<Proposal>,
}

/// Keeps the metadata: the only way to change it.
pub struct Keeper<L, P> {
    log: L,
    publisher: P,
    epoch: i32,
    wall_clock_ms: Box<dyn Fn() -> i64>,
    controller: RefCell<Controller>,
    queues: RefCell<Queues>,
    pending: Cell<usize>,
    decided: Notify,
    appended: Notify,
    committed: RefCell<Arc<Image>>,
    failure: RefCell<Option<Arc<str>>>,
    snapshots: SnapshotPolicy,
    snapshot_due: Notify,
}

/// When a snapshot is made.
#[derive(Clone, Debug)]
pub struct SnapshotPolicy {
    /// Bytes of log since the last one that make the next one due.
    pub bytes_between: u64,
    /// Bytes of log since the last one.
    pub bytes_since: Cell<u64>,
}

impl SnapshotPolicy {
    /// `bytes_since` bytes lie after the last one already.
    pub fn new(bytes_between: u64, bytes_since: u64) -> Self {
        Self {
            bytes_between,
            bytes_since: Cell::new(bytes_since),
        }
    }

    fn is_due(&self) -> bool {
        self.bytes_since.get() >= self.bytes_between
    }
}

/// Stops the broker when the task that holds it panics: half a pipeline must not look like a slow one.
struct StopOnPanic<L: MetadataLog, P: Publisher>(Rc<Keeper<L, P>>);

impl<L: MetadataLog, P: Publisher> Drop for StopOnPanic<L, P> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .fail("a task of the metadata has panicked; please report it");
        }
    }
}

impl<L: MetadataLog, P: Publisher> Keeper<L, P> {
    /// Goes on from the controller's image, all of which is committed, in the term of its last record. [`Self::append_decisions`], [`Self::apply_commits`]
    /// and [`Self::take_snapshots`] must be spawned.
    pub fn new(
        log: L,
        publisher: P,
        controller: Controller,
        snapshots: SnapshotPolicy,
        wall_clock_ms: Box<dyn Fn() -> i64>,
    ) -> Rc<Self> {
        let epoch = controller.image().epoch;
        let committed = RefCell::new(controller.image().clone());
        Rc::new(Self {
            log,
            publisher,
            epoch,
            wall_clock_ms,
            controller: RefCell::new(controller),
            queues: RefCell::default(),
            pending: Cell::new(0),
            decided: Notify::new(),
            appended: Notify::new(),
            committed,
            failure: RefCell::new(None),
            snapshots,
            snapshot_due: Notify::new(),
        })
    }

    /// The committed image.
    pub fn image(&self) -> Arc<Image> {
        self.committed.borrow().clone()
    }

    /// Decides, and answers once the decision is committed and every shard has followed it.
    ///
    /// # Errors
    /// See [`ProposeError`]; [`ProposeError::Invalid`] when the records contradict the metadata. Only after [`ProposeError::Stopped`] may the change have been made.
    pub async fn submit<R>(
        &self,
        decide: impl FnOnce(&mut Controller) -> Decision<R>,
    ) -> Result<R, ProposeError> {
        let (response, done) = self.decide(decide)?;
        done.await.unwrap_or_else(|_| Err(self.stopped()))?;
        Ok(response)
    }

    fn stopped(&self) -> ProposeError {
        let reason = self.failure.borrow().clone();
        ProposeError::Stopped(reason.unwrap_or_else(|| Arc::from("the metadata log was closed")))
    }

    fn decide<R>(
        &self,
        decide: impl FnOnce(&mut Controller) -> Decision<R>,
    ) -> Result<(R, oneshot::Receiver<Result<(), ProposeError>>), ProposeError> {
        if self.failure.borrow().is_some() {
            return Err(self.stopped());
        }
        if self.pending.get() >= PENDING_MAX {
            return Err(ProposeError::Busy);
        }
        let mut controller = self.controller.borrow_mut();
        let Decision { records, response } = decide(&mut controller);
        let base_offset = controller.image().offset + 1;
        let (batch, after) = if records.is_empty() {
            (None, controller.image().clone())
        } else {
            let batch = batch::encode(base_offset, self.epoch, (self.wall_clock_ms)(), &records)
                .map_err(|error| ProposeError::Invalid(error.to_string()))?;
            if batch.len() > BATCH_BYTES_MAX {
                return Err(ProposeError::TooLarge { size: batch.len() });
            }
            let mut builder = ImageBuilder::new(controller.image());
            builder
                .batch(base_offset, self.epoch, &records)
                .map_err(|error| ProposeError::Invalid(error.to_string()))?;
            (Some(batch), Arc::new(builder.finish().0))
        };
        controller.set_image(after.clone());
        let (done, receiver) = oneshot::channel();
        self.pending.set(self.pending.get() + 1);
        let proposal = Proposal {
            base_offset,
            records,
            batch,
            after,
            done,
        };
        self.queues.borrow_mut().decided.push_back(proposal);
        self.decided.notify_one();
        Ok((response, receiver))
    }

    /// Appends what is decided, in order, for as long as the log lives.
    pub async fn append_decisions(self: Rc<Self>) {
        let _guard = StopOnPanic(self.clone());
        while self.failure.borrow().is_none() {
            let Some(proposal) = self.pop_decided() else {
                self.decided.notified().await;
                continue;
            };
            let appended = match &proposal.batch {
                Some(batch) => self.log.append(batch.clone()).await,
                None => Ok(()),
            };
            if self.failure.borrow().is_some() {
                // The other half of the pipeline found the log lost meanwhile.
                return proposal.finish(Err(self.stopped()));
            }
            match appended {
                Ok(()) => {
                    self.queues.borrow_mut().appended.push_back(proposal);
                    self.appended.notify_one();
                }
                Err(LogFailure::Full(reason)) => self.refuse(proposal, &ProposeError::Full(reason)),
                Err(LogFailure::TooLarge(_)) => {
                    let size = proposal.batch.as_ref().map_or(0, Bytes::len);
                    self.refuse(proposal, &ProposeError::TooLarge { size });
                }
                Err(LogFailure::Lost(reason)) => {
                    self.queues.borrow_mut().decided.push_front(proposal);
                    return self.fail(&reason);
                }
            }
        }
    }

    fn pop_decided(&self) -> Option<Proposal> {
        self.queues.borrow_mut().decided.pop_front()
    }

    /// Takes a decision back that the log did not take, and with it those that were made upon it.
    fn refuse(&self, proposal: Proposal, error: &ProposeError) {
        let mut queues = self.queues.borrow_mut();
        let last = queues
            .appended
            .back()
            .map(|proposal| proposal.after.clone());
        self.controller
            .borrow_mut()
            .set_image(last.unwrap_or_else(|| self.image()));
        let followers: Vec<Proposal> = queues.decided.drain(..).collect();
        drop(queues);
        tracing::warn!(%error, also = followers.len(), "a change of the metadata was not made");
        for refused in std::iter::once(proposal).chain(followers) {
            self.pending.set(self.pending.get() - 1);
            refused.finish(Err(error.clone()));
        }
    }

    /// Applies and publishes what the log commits, in order, for as long as the log lives.
    pub async fn apply_commits(self: Rc<Self>) {
        let _guard = StopOnPanic(self.clone());
        while self.failure.borrow().is_none() {
            let next = self
                .queues
                .borrow()
                .appended
                .front()
                .map(Proposal::next_offset);
            let Some(next) = next else {
                self.appended.notified().await;
                continue;
            };
            if let Err(error) = self.log.committed(next).await {
                return self.fail(&error.to_string());
            }
            let committed = self.pop_committed(next);
            let mut builder = ImageBuilder::new(&self.committed.borrow());
            for proposal in &committed {
                if let Err(error) =
                    builder.batch(proposal.base_offset, self.epoch, &proposal.records)
                {
                    // Decided against this very state: only a bug of ours can bring us here, and going on would make it worse.
                    return self.fail(&format!("a committed record does not fit: {error}"));
                }
            }
            let (image, delta) = builder.finish();
            debug_assert_eq!(
                Some(image.offset),
                committed.last().map(|proposal| proposal.after.offset)
            );
            let image = Arc::new(image);
            *self.committed.borrow_mut() = image.clone();
            if committed.iter().any(|proposal| proposal.batch.is_some()) {
                self.publisher.publish(image, Arc::new(delta)).await;
            }
            self.count_bytes(&committed);
            for proposal in committed {
                self.pending.set(self.pending.get() - 1);
                proposal.finish(Ok(()));
            }
        }
    }

    fn count_bytes(&self, committed: &[Proposal]) {
        let batches = committed
            .iter()
            .filter_map(|proposal| proposal.batch.as_ref());
        let bytes: u64 = batches.map(|batch| batch.len() as u64).sum();
        let since = &self.snapshots.bytes_since;
        since.set(since.get() + bytes);
        if self.snapshots.is_due() {
            self.snapshot_due.notify_one();
        }
    }

    /// Makes a snapshot whenever enough was committed since the last one, and lets go of the log before it. One that cannot be kept is tried again later: the
    /// log is all that is needed.
    pub async fn take_snapshots(self: Rc<Self>) {
        let _guard = StopOnPanic(self.clone());
        while self.failure.borrow().is_none() {
            if !self.snapshots.is_due() {
                self.snapshot_due.notified().await;
                continue;
            }
            self.snapshots.bytes_since.set(0);
            let image = self.image();
            let content = match snapshot::write(&image, (self.wall_clock_ms)()).await {
                Ok(content) => content,
                Err(error) => return self.fail(&error.to_string()),
            };
            let (id, bytes) = (SnapshotId::of(&image), content.len());
            match self.log.keep_snapshot(id, content).await {
                Ok(()) => tracing::info!(
                    end_offset = id.end_offset,
                    bytes,
                    "took a snapshot of the metadata"
                ),
                Err(error) => {
                    tracing::warn!(%error, "a snapshot of the metadata could not be kept; the log goes on growing until the next try");
                }
            }
        }
    }

    /// What is committed of what was appended and may be published at once: at least the first, which ends before `next`.
    fn pop_committed(&self, next: i64) -> Vec<Proposal> {
        let committed = self.log.committed_offset().max(next);
        let mut queues = self.queues.borrow_mut();
        let batches = queues
            .appended
            .iter()
            .take_while(|proposal| proposal.next_offset() <= committed)
            .map(|proposal| proposal.records.as_slice());
        let count = together(&self.committed.borrow(), batches);
        queues.appended.drain(..count).collect()
    }

    fn fail(&self, reason: &str) {
        let reason: Arc<str> = Arc::from(reason);
        tracing::error!(%reason, "the metadata log failed; the broker stops");
        *self.failure.borrow_mut() = Some(reason.clone());
        let mut queues = self.queues.borrow_mut();
        let mut lost: Vec<Proposal> = queues.appended.drain(..).collect();
        lost.extend(queues.decided.drain(..));
        drop(queues);
        self.decided.notify_one();
        self.appended.notify_one();
        self.snapshot_due.notify_one();
        for proposal in lost {
            proposal.finish(Err(ProposeError::Stopped(reason.clone())));
        }
        self.publisher.stop(&reason);
    }
}
