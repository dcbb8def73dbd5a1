//! The pipeline over a log in memory: order, atomicity, what is answered when, and what every failure leaves behind.

mod snapshots;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use ringlog_engine::batch::batches;
use ringlog_net::messages::create_topics::CreateTopicsRequest;
use ringlog_net::messages::delete_topics::DeleteTopicsRequest;
use ringlog_net::metadata::{MetadataRecord, NoOpRecord, RemoveTopicRecord};
use ringlog_net::{ErrorCode, Str, Uuid};
use tokio::sync::Notify;

use super::keeper::{Keeper, ProposeError, Publisher, SnapshotPolicy};
use super::log::{LogFailure, MetadataLog};
use super::replay::{MetadataError, newest_snapshot, open_term, replay};
use super::snapshot::SnapshotId;
use crate::config::BrokerConfig;
use crate::controller::tests::{registration, topic};
use crate::controller::{Controller, Decision, Delta, Image};

/// A log in memory whose commits wait until they are let through, and that fails on demand.
#[derive(Default)]
struct Memory {
    batches: RefCell<Vec<(i64, i64, Bytes)>>,
    committed: Cell<i64>,
    held: Cell<bool>,
    changed: Notify,
    refuse: RefCell<VecDeque<Option<LogFailure>>>,
    lose_commits: Cell<bool>,
    bytes_between: Cell<Option<u64>>,
    snapshots: RefCell<BTreeMap<SnapshotId, Vec<u8>>>,
    /// What becomes of the next snapshots.
    keep: RefCell<VecDeque<Keep>>,
}

/// How the keeping of a snapshot ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// It is refused.
    Refused,
    /// The process ends once it is durable.
    Untrimmed,
}

/// What a start makes of a log.
async fn whole_replay(log: &MemoryLog) -> Result<Image, MetadataError> {
    let image = newest_snapshot(log).await?;
    replay(log, &image).await.map(|(image, _)| image)
}

#[derive(Clone, Default)]
struct MemoryLog(Rc<Memory>);

impl MemoryLog {
    fn hold(&self, held: bool) {
        self.0.held.set(held);
        self.0.changed.notify_waiters();
    }
}

impl MetadataLog for MemoryLog {
    fn start_offset(&self) -> i64 {
        let batches = self.0.batches.borrow();
        batches
            .first()
            .map_or_else(|| self.end_offset(), |(base, _, _)| *base)
    }

    fn end_offset(&self) -> i64 {
        let batches = self.0.batches.borrow();
        let snapshots = self.0.snapshots.borrow();
        let trimmed = snapshots.keys().last().map_or(0, |id| id.end_offset);
        batches.last().map_or(trimmed, |(_, next, _)| *next)
    }

    fn committed_offset(&self) -> i64 {
        self.0.committed.get()
    }

    async fn append(&self, batch: Bytes) -> Result<(), LogFailure> {
        tokio::task::yield_now().await;
        if let Some(Some(failure)) = self.0.refuse.borrow_mut().pop_front() {
            return Err(failure);
        }
        let header = batches(&batch).next().unwrap().unwrap().header;
        assert_eq!(
            header.base_offset,
            self.end_offset(),
            "batches continue the log"
        );
        self.0
            .batches
            .borrow_mut()
            .push((header.base_offset, header.next_offset(), batch));
        Ok(())
    }

    async fn committed(&self, next_offset: i64) -> Result<(), LogFailure> {
        loop {
            if self.0.lose_commits.get() {
                return Err(LogFailure::Lost("input/output error".into()));
            }
            if !self.0.held.get() {
                self.0.committed.set(self.end_offset());
                assert!(
                    self.end_offset() >= next_offset,
                    "what is waited for was appended"
                );
                return Ok(());
            }
            self.0.changed.notified().await;
        }
    }

    async fn read(&self, offset: i64) -> Result<Bytes, LogFailure> {
        let batches = self.0.batches.borrow();
        let found = batches.iter().filter(|(_, next, _)| *next > offset).take(2);
        Ok(Bytes::from(
            found
                .map(|(_, _, batch)| batch.to_vec())
                .collect::<Vec<_>>()
                .concat(),
        ))
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotId>, LogFailure> {
        Ok(self.0.snapshots.borrow().keys().copied().collect())
    }

    async fn read_snapshot(&self, id: SnapshotId) -> Result<Bytes, LogFailure> {
        Ok(Bytes::from(self.0.snapshots.borrow()[&id].clone()))
    }

    async fn keep_snapshot(&self, id: SnapshotId, content: Vec<u8>) -> Result<(), LogFailure> {
        tokio::task::yield_now().await;
        let keep = self.0.keep.borrow_mut().pop_front();
        if keep == Some(Keep::Refused) {
            return Err(LogFailure::Full("no space".into()));
        }
        assert!(
            id.end_offset <= self.0.committed.get(),
            "only what is committed"
        );
        self.0.snapshots.borrow_mut().insert(id, content);
        if keep.is_none() {
            self.0
                .snapshots
                .borrow_mut()
                .retain(|other, _| *other >= id);
            let mut batches = self.0.batches.borrow_mut();
            batches.retain(|(_, next, _)| *next > id.end_offset);
        }
        Ok(())
    }
}

type Publication = (Arc<Image>, Arc<Delta>);

/// Remembers what was published, and whether it had to stop.
#[derive(Clone, Default)]
struct Watcher {
    published: Rc<RefCell<Vec<Publication>>>,
    stopped: Rc<Cell<bool>>,
}

impl Publisher for Watcher {
    async fn publish(&self, image: Arc<Image>, delta: Arc<Delta>) {
        tokio::task::yield_now().await;
        self.published.borrow_mut().push((image, delta));
    }

    fn stop(&self, _reason: &str) {
        self.stopped.set(true);
    }
}

struct Node {
    keeper: Rc<Keeper<MemoryLog, Watcher>>,
    log: MemoryLog,
    watcher: Watcher,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Node {
    /// Opens over whatever the log has, as a start does.
    async fn start(log: MemoryLog, elect: bool) -> Self {
        let config = Arc::new(BrokerConfig::from_pairs([]).unwrap());
        let image = whole_replay(&log).await.unwrap();
        let mut state = log.end_offset() as u64;
        let random = Box::new(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            state.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (state >> 31)
        });
        let mut controller = Controller::new(Arc::new(image.clone()), config, random);
        let mut steps = VecDeque::from(["register", if elect { "elect" } else { "" }]);
        let image = open_term(&log, image, 1, 1000, |image| {
            controller.set_image(image.clone());
            match steps.pop_front() {
                Some("register") => [
                    controller.register(&registration(1)),
                    controller.bootstrap(),
                ]
                .concat(),
                Some("elect") => controller.elect_anew(1).concat(),
                _ => Vec::new(),
            }
        });
        let image = image.await.unwrap();
        controller.set_image(image.clone());
        let watcher = Watcher::default();
        let keeper = Keeper::new(
            log.clone(),
            watcher.clone(),
            controller,
            SnapshotPolicy::new(log.0.bytes_between.get().unwrap_or(u64::MAX), 0),
            Box::new(|| 1000),
        );
        let tasks = vec![
            tokio::task::spawn_local(keeper.clone().append_decisions()),
            tokio::task::spawn_local(keeper.clone().apply_commits()),
            tokio::task::spawn_local(keeper.clone().take_snapshots()),
        ];
        Self {
            keeper,
            log,
            watcher,
            tasks,
        }
    }

    /// The process is gone; what the log has stays.
    fn kill(self) -> MemoryLog {
        for task in self.tasks {
            task.abort();
        }
        self.log
    }

    async fn create(&self, name: &str) -> Result<ErrorCode, ProposeError> {
        let request = CreateTopicsRequest {
            topics: vec![topic(name, 2, 1)],
            ..Default::default()
        };
        let response = self
            .keeper
            .submit(|controller| controller.create_topics(&request))
            .await?;
        Ok(response.topics[0].error_code)
    }

    fn published_topics(&self) -> usize {
        self.watcher
            .published
            .borrow()
            .last()
            .map_or(0, |(image, _)| image.topic_count())
    }
}

/// Lets every task that can go on do so.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn an_answer_waits_for_commit_and_publication() {
    run(async {
        let node = Node::start(MemoryLog::default(), false).await;
        node.log.hold(true);
        let mut create = Box::pin(node.create("t"));
        assert!((&mut create).now_or_never().is_none());
        settle().await;
        assert!(create.as_mut().now_or_never().is_none());
        assert!(node.keeper.image().topic("t").is_none() && node.published_topics() == 0);
        node.log.hold(false);
        assert_eq!(create.await, Ok(ErrorCode::NONE));
        assert_eq!(node.published_topics(), 1);
        let (image, delta) = node.watcher.published.borrow().last().cloned().unwrap();
        assert_eq!(delta.created, [(image.topic("t").unwrap().id, 0..2)]);
    });
}

#[test]
fn of_two_that_want_one_name_one_gets_it_and_neither_answer_comes_early() {
    run(async {
        let node = Node::start(MemoryLog::default(), false).await;
        node.log.hold(true);
        let mut both = Box::pin(join(node.create("t"), node.create("t")));
        assert!((&mut both).now_or_never().is_none());
        settle().await;
        // The second decision writes nothing, yet it must not be told before the first is committed.
        assert!(both.as_mut().now_or_never().is_none());
        node.log.hold(false);
        assert_eq!(
            both.await,
            (Ok(ErrorCode::NONE), Ok(ErrorCode::TOPIC_ALREADY_EXISTS))
        );
    });
}

#[test]
fn many_at_once_are_pipelined_and_survive_a_kill() {
    run(async {
        let node = Node::start(MemoryLog::default(), false).await;
        node.log.hold(true);
        let names: Vec<String> = (0..200).map(|index| format!("t{index}")).collect();
        let mut all = Box::pin(join_all(names.iter().map(|name| node.create(name))));
        assert!((&mut all).now_or_never().is_none());
        for _ in 0..10 {
            settle().await;
        }
        assert!(
            node.log.end_offset() > 600,
            "appends do not wait for commits"
        );
        node.log.hold(false);
        assert!(
            all.await
                .iter()
                .all(|answer| *answer == Ok(ErrorCode::NONE))
        );
        assert!(
            node.watcher.published.borrow().len() <= 3,
            "commits that come together are published together"
        );
        let image = node.keeper.image();
        let epoch = image.epoch;
        let log = node.kill();
        assert_eq!(whole_replay(&log).await.unwrap(), *image);
        let node = Node::start(log, true).await;
        let image = node.keeper.image();
        assert_eq!((image.topic_count(), image.epoch), (200, epoch + 1));
        let partition = &image.topic("t7").unwrap().partitions[1];
        assert_eq!((partition.leader, partition.leader_epoch), (1, 1));
        assert_eq!(node.create("t7").await, Ok(ErrorCode::TOPIC_ALREADY_EXISTS));
    });
}

#[test]
fn a_log_cut_between_batches_replays_to_a_prefix() {
    run(async {
        let node = Node::start(MemoryLog::default(), false).await;
        for name in ["a", "b"] {
            assert_eq!(node.create(name).await, Ok(ErrorCode::NONE));
        }
        let request = DeleteTopicsRequest {
            topic_names: vec![Str::from("a")],
            ..Default::default()
        };
        node.keeper
            .submit(|controller| controller.delete_topics(&request))
            .await
            .unwrap();
        let log = node.kill();
        let mut seen = Vec::new();
        while log.end_offset() > 0 {
            let image = whole_replay(&log).await.unwrap();
            assert_eq!(image.offset, log.end_offset() - 1);
            let names: Vec<String> = image.topics().map(|topic| topic.name.to_string()).collect();
            assert!(
                image.topics().all(|topic| topic.partitions.len() == 2),
                "a topic is there whole or not at all"
            );
            seen.push(names.join(","));
            log.0.batches.borrow_mut().pop();
        }
        assert_eq!(seen, ["b", "a,b", "a", "", ""]);
    });
}

#[test]
fn a_full_log_refuses_and_what_rested_on_it_and_then_goes_on() {
    run(async {
        let node = Node::start(MemoryLog::default(), false).await;
        assert_eq!(node.create("before").await, Ok(ErrorCode::NONE));
        node.log
            .0
            .refuse
            .borrow_mut()
            .extend([None, Some(LogFailure::Full("no space".into()))]);
        let answers = join_all(["a", "b", "b"].map(|name| node.create(name))).await;
        assert_eq!(answers[0], Ok(ErrorCode::NONE));
        assert!(matches!(answers[1], Err(ProposeError::Full(_))));
        assert!(
            matches!(answers[2], Err(ProposeError::Full(_))),
            "it rested on a topic that is not there"
        );
        assert_eq!(node.create("b").await, Ok(ErrorCode::NONE));
        let image = node.keeper.image();
        assert_eq!(image.topic_count(), 3);
        assert_eq!(whole_replay(&node.kill()).await.unwrap(), *image);
    });
}

#[test]
fn a_lost_log_stops_the_broker_and_answers_everybody() {
    run(async {
        for in_commit in [false, true] {
            let node = Node::start(MemoryLog::default(), false).await;
            match in_commit {
                true => node.log.0.lose_commits.set(true),
                false => node
                    .log
                    .0
                    .refuse
                    .borrow_mut()
                    .push_back(Some(LogFailure::Lost("input/output error".into()))),
            }
            let answers = join_all(["a", "b", "c"].map(|name| node.create(name))).await;
            assert!(
                answers
                    .iter()
                    .all(|answer| matches!(answer, Err(ProposeError::Stopped(_)))),
                "{answers:?}"
            );
            assert!(node.watcher.stopped.get() && node.watcher.published.borrow().is_empty());
            assert!(matches!(
                node.create("d").await,
                Err(ProposeError::Stopped(_))
            ));
        }
    });
}

#[test]
fn pending_changes_are_bounded() {
    run(async {
        let node = Node::start(MemoryLog::default(), false).await;
        node.log.hold(true);
        let names: Vec<String> = (0..1500).map(|index| format!("t{index}")).collect();
        let mut all = Box::pin(join_all(names.iter().map(|name| node.create(name))));
        assert!((&mut all).now_or_never().is_none());
        node.log.hold(false);
        let answers = all.await;
        let busy = answers
            .iter()
            .filter(|answer| **answer == Err(ProposeError::Busy))
            .count();
        assert_eq!(busy, 1500 - 1024);
        assert_eq!(node.create("later").await, Ok(ErrorCode::NONE));
    });
}

#[test]
fn records_that_contradict_the_metadata_are_not_written() {
    run(async {
        let node = Node::start(MemoryLog::default(), false).await;
        let end = node.log.end_offset();
        let record = RemoveTopicRecord {
            topic_id: Uuid([3; 16]),
        };
        let records = vec![MetadataRecord::RemoveTopic(record)];
        let refused = node
            .keeper
            .submit(|_| Decision {
                records,
                response: (),
            })
            .await;
        assert!(matches!(refused, Err(ProposeError::Invalid(_))));
        let no_op = MetadataRecord::NoOp(NoOpRecord {});
        let no_op = node.keeper.submit(|_| Decision {
            records: vec![no_op],
            response: (),
        });
        no_op.await.unwrap();
        assert_eq!(node.log.end_offset(), end + 1);
    });
}
