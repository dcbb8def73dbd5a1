//! Opening the metadata on the controller's shard: the engine log, its replay, a new term, this broker's registration.

use std::ops::Range;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use ringlog_engine::config::LogConfig;
use ringlog_engine::environment::Environment as _;
use ringlog_engine::log::{TopicId, TopicPartition};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::engine_log::EngineLog;
use super::keeper::{Keeper, ProposeError, Publisher, SnapshotPolicy};
use super::replay::{MetadataError, newest_snapshot, open_term, replay};
use crate::controller::image::Endpoint;
use crate::controller::names::METADATA_TOPIC;
use crate::controller::{Controller, Decision, Delta, Image, Refusal, Registration};
use crate::shard::{Environment, Shard};

/// The key of how much log there may be after a snapshot before the next one is made.
const BYTES_BETWEEN_SNAPSHOTS: &str = "metadata.log.max.record.bytes.between.snapshots";
/// Segments of the metadata log: what a snapshot makes superfluous goes in such pieces.
const SEGMENT_BYTES: u64 = 32 << 20;

/// The metadata on this machine: an engine log below, the shards above.
pub type Metadata = Keeper<EngineLog<Environment>, Shards>;

/// The shards, as those who follow the metadata.
pub struct Shards {
    controller: Weak<Shard>,
}

impl Publisher for Shards {
    async fn publish(&self, image: Arc<Image>, delta: Arc<Delta>) {
        if let Some(shard) = self.controller.upgrade() {
            shard.publish(image, delta).await;
        }
    }

    fn stop(&self, reason: &str) {
        if let Some(shard) = self.controller.upgrade() {
            shard.fail(reason);
        }
    }
}

impl Metadata {
    /// Opens the metadata through this shard's engine: replays the log, opens a term, registers this broker and, after a stop that was not clean, bumps
    /// the leader epoch of every partition. The image has all of it, committed; it is published by the caller.
    ///
    /// # Errors
    /// The log cannot be read, does not fit together, or cannot be written; the broker must not start.
    pub async fn open(shard: &Rc<Shard>) -> Result<(Rc<Self>, Arc<Image>), MetadataError> {
        let name = TopicPartition::new(METADATA_TOPIC, 0);
        let id = TopicId(Uuid::METADATA_TOPIC.0);
        let log = shard
            .engine
            .create_log(name, id, log_config(), Some(0))
            .await;
        let log = log.map_err(|error| MetadataError::Open(error.to_string()))?;
        // Deleting topics makes room, so it must be possible when there is none.
        log.set_essential();
        let environment = shard.environment.clone();
        let directory = directory(shard, log.directory_index());
        let log = EngineLog::new(log, environment.clone(), directory);
        let image = newest_snapshot(&log).await?;
        let (image, replayed_bytes) = replay(&log, &image).await?;
        let topics = image.topic_count();

        let registration = registration(shard);
        let mut elect = shard.unclean_start();
        let random = {
            let environment = environment.clone();
            Box::new(move || environment.random())
        };
        let mut controller = Controller::new(Arc::new(image.clone()), shard.config.clone(), random);
        let mut registered = false;
        let mut elections = Vec::new().into_iter();
        let now = environment.wall_clock_ms();
        let image = open_term(&log, image, registration.node_id, now, |image| {
            controller.set_image(image.clone());
            if !registered {
                registered = true;
                let mut records = controller.register(&registration);
                records.extend(controller.bootstrap());
                return records;
            }
            if std::mem::take(&mut elect) {
                elections = controller.elect_anew(registration.node_id).into_iter();
            }
            elections.next().unwrap_or_default()
        })
        .await?;
        controller.set_image(image.clone());
        tracing::info!(
            offset = image.offset,
            term = image.epoch,
            topics,
            "the metadata is open"
        );

        let wall_clock_ms = {
            let environment = environment.clone();
            Box::new(move || environment.wall_clock_ms())
        };
        let shards = Shards {
            controller: Rc::downgrade(shard),
        };
        let bytes_between = shard.config.number(BYTES_BETWEEN_SNAPSHOTS);
        let snapshots = SnapshotPolicy::new(bytes_between.max(1) as u64, replayed_bytes);
        let keeper = Keeper::new(log, shards, controller, snapshots, wall_clock_ms);
        environment.spawn("append metadata", keeper.clone().append_decisions());
        environment.spawn("apply metadata commits", keeper.clone().apply_commits());
        environment.spawn("take metadata snapshots", keeper.clone().take_snapshots());
        Ok((keeper, image))
    }

    /// Producer ids that nobody was ever given, on disk before they are handed out.
    ///
    /// # Errors
    /// As [`Keeper::submit`], and [`ProposeError::Invalid`] when the ids are used up.
    pub async fn allocate_producer_ids(&self, count: i32) -> Result<Range<i64>, ProposeError> {
        let ids = self.submit(|controller| {
            let ids = controller.allocate_producer_ids(controller.node_id(), count);
            match ids {
                Ok(Decision { records, response }) => Decision {
                    records,
                    response: Ok(response),
                },
                Err(refusal) => Decision {
                    records: Vec::new(),
                    response: Err(refusal),
                },
            }
        });
        ids.await?
            .map_err(|refusal| ProposeError::Invalid(refusal.message))
    }
}

/// Where the log and its snapshots lie: a new one in the first data directory, and it stays where it is when they are listed in another order.
fn directory(shard: &Shard, index: usize) -> PathBuf {
    let there = shard.log_dirs().get(index);
    let there = there.map_or_else(PathBuf::new, |directory| directory.path.clone());
    there.join(format!("{METADATA_TOPIC}-0"))
}

/// Nothing of the metadata log goes by age or size: only what a snapshot has made superfluous does.
fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT_BYTES,
        retention_bytes: -1,
        retention_ms: -1,
        delete: false,
        ..LogConfig::default()
    }
}

fn registration(shard: &Shard) -> Registration {
    let random = || shard.environment.random().to_be_bytes();
    let mut incarnation = [0; 16];
    incarnation[..8].copy_from_slice(&random());
    incarnation[8..].copy_from_slice(&random());
    let endpoints = shard.advertised().iter();
    let rack = shard.config.get("broker.rack");
    Registration {
        node_id: shard.node_id(),
        incarnation: Uuid(incarnation),
        endpoints: endpoints
            .map(|listener| Endpoint {
                listener: Str::from(listener.name.as_ref()),
                host: Str::from(listener.host.as_str()),
                port: listener.port,
            })
            .collect(),
        rack: (!rack.is_empty()).then(|| Str::from(rack)),
        directories: shard
            .log_dirs()
            .iter()
            .map(|directory| directory.directory_id)
            .collect(),
    }
}

/// Has the controller decide, from any shard; answers once the decision is committed and every shard has followed it. Past `timeout_ms` (if
/// positive) it answers that it still goes on.
///
/// # Errors
/// The refusal that each part of the request is answered with.
pub async fn decide<R: Send + 'static>(
    shard: &Rc<Shard>,
    timeout_ms: i32,
    decide: impl FnOnce(&mut Controller) -> Decision<R> + Send + 'static,
) -> Result<R, Refusal> {
    let decided =
        shard.on_controller(move |shard| async move { shard.metadata().submit(decide).await });
    let decided = async {
        match decided.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(error.refusal()),
            Err(unavailable) => Err(Refusal::new(
                ErrorCode::NOT_CONTROLLER,
                unavailable.to_string(),
            )),
        }
    };
    let Some(timeout_ms) = u64::try_from(timeout_ms)
        .ok()
        .filter(|timeout_ms| *timeout_ms > 0)
    else {
        return decided.await;
    };
    let timeout = shard.environment.sleep(Duration::from_millis(timeout_ms));
    match select(pin!(decided), pin!(timeout)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => {
            let reason = format!("not done after {timeout_ms} ms; it goes on, and may yet succeed");
            Err(Refusal::new(ErrorCode::REQUEST_TIMED_OUT, reason))
        }
    }
}
