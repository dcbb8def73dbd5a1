//! Makes a shard's logs follow the metadata image: creates, deletes and reconfigures, one image after the other.
//!
//! An image counts as applied, and is shown to handlers, once the logs it calls for exist; so whoever was told that a topic was created can
//! use it on any shard.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, MutexGuard, PoisonError};

use ringlog_engine::log::{TopicId, TopicPartition};
use ringlog_net::Uuid;

use super::exchange::ReplyTo;
use super::message::{Reply, Request};
use super::runtime::{Ending, spawn_vital};
use super::{LocalImage, Shard};
use crate::config;
use crate::controller::{Delta, Image};

/// An image that is to be applied, and who waits for that.
pub(super) struct Change {
    image: Arc<Image>,
    delta: Option<Arc<Delta>>,
    reply: ReplyTo<Request, Reply>,
}

impl Shard {
    /// Sends an image and what changed in it to every shard; resolves when all have applied it. Calls must be made in commit order.
    pub fn publish(
        self: &Rc<Self>,
        image: Arc<Image>,
        delta: Arc<Delta>,
    ) -> impl Future<Output = ()> + 'static {
        self.publish_change(image, Some(delta))
    }

    /// Sends the first image to every shard, which compares all its logs with it.
    pub(super) fn publish_first(
        self: &Rc<Self>,
        image: Arc<Image>,
    ) -> impl Future<Output = ()> + 'static {
        self.publish_change(image, None)
    }

    fn publish_change(
        self: &Rc<Self>,
        image: Arc<Image>,
        delta: Option<Arc<Delta>>,
    ) -> impl Future<Output = ()> + 'static {
        // Posted here and now, not when the future is first polled: the order of calls is the order of images.
        let request = || Request::Apply {
            image: image.clone(),
            delta: delta.clone(),
        };
        let pending: Vec<_> = (0..self.shards)
            .map(|shard| self.exchange.call_now(shard, request()))
            .collect();
        async move {
            for (shard, reply) in pending.into_iter().enumerate() {
                if reply.await.is_err() {
                    tracing::error!(shard, "a shard did not apply the new metadata image");
                }
            }
        }
    }

    /// Queues an image for application.
    pub(super) fn enqueue_change(
        self: &Rc<Self>,
        image: Arc<Image>,
        delta: Option<Arc<Delta>>,
        reply: ReplyTo<Request, Reply>,
    ) {
        self.changes.borrow_mut().push_back(Change {
            image,
            delta,
            reply,
        });
        if self.applying.replace(true) {
            return;
        }
        let shard = self.clone();
        spawn_vital(self, "apply metadata", Ending::Normal, async move {
            // The engine is about to list its logs for the last time: what is left is done by the next start.
            while !shard.close.is_raised() {
                let next = shard.changes.borrow_mut().pop_front();
                let Some(change) = next else { break };
                shard.apply(&change).await;
                shard.follow_coordinators(&change.image, change.delta.as_deref());
                *shard.image.borrow_mut() = Rc::new(LocalImage(change.image));
                change.reply.answer(Reply::Job(Box::new(())));
            }
            shard.changes.borrow_mut().clear();
            shard.applying.set(false);
            shard.applied.notify();
        });
    }

    /// Resolves when no image is being applied. Once [`Self::close`](Shard) is raised, none will be any more.
    pub(super) async fn rest_from_applying(&self) {
        self.applied
            .until(|| (!self.applying.get()).then_some(()))
            .await;
    }

    async fn apply(&self, change: &Change) {
        let Some(delta) = &change.delta else {
            return self.reconcile(&change.image).await;
        };
        self.delete_logs(delta).await;
        for (topic_id, partitions) in &delta.created {
            for partition in partitions.clone() {
                self.create_log(&change.image, *topic_id, partition).await;
            }
        }
        if delta.broker_configs_changed {
            for log in self.engine.logs() {
                let name = log.topic_partition().topic.clone();
                log.set_config(config::topic::log_config(
                    &self.config,
                    &change.image,
                    &name,
                ));
            }
        } else {
            for topic_id in &delta.configs_changed {
                self.reconfigure(&change.image, *topic_id);
            }
        }
        for (topic_id, partition) in &delta.partitions_changed {
            self.follow_epoch(&change.image, *topic_id, *partition);
        }
    }

    /// At the start: every partition of the image gets its log; a log that the image does not know is set aside.
    async fn reconcile(&self, image: &Image) {
        for log in self.engine.logs() {
            let id = Uuid(log.topic_id().0);
            let partition = log.topic_partition().partition;
            let known = image
                .topic_by_id(id)
                .is_some_and(|topic| (partition as usize) < topic.partitions.len());
            if !known && id != Uuid::METADATA_TOPIC {
                tracing::warn!(log = %log.topic_partition(), topic_id = %id, "the metadata does not know this log; its directory is set aside with the ending -stray");
                if let Err(error) = self.engine.set_aside(&TopicId(id.0), partition).await {
                    tracing::error!(log = %log.topic_partition(), %error, "a stray directory could not be set aside");
                }
            }
        }
        for topic in image.topics() {
            for partition in 0..topic.partitions.len() as i32 {
                self.create_log(image, topic.id, partition).await;
            }
        }
    }

    async fn create_log(&self, image: &Image, topic_id: Uuid, partition: i32) {
        if self.owner_of(topic_id, partition) != self.index {
            return;
        }
        let Some(topic) = image.topic_by_id(topic_id) else {
            return;
        };
        let Some(state) = topic.partitions.get(partition as usize) else {
            return;
        };
        if !state.replicas.contains(&self.node_id()) {
            return;
        }
        let name = TopicPartition::new(topic.name.as_str(), partition);
        let assigned = state
            .replicas
            .iter()
            .position(|replica| *replica == self.node_id())
            .and_then(|at| state.directories.get(at))
            .filter(|id| !is_reserved(id));
        let directory = assigned.and_then(|id| {
            self.log_dirs()
                .iter()
                .position(|directory| directory.directory_id == *id)
        });
        if let (Some(id), None, None) = (assigned, directory, self.log(topic_id, partition)) {
            // An empty log in another directory would stand for records that were acknowledged.
            tracing::error!(log = %name, directory_id = %id, "the partition is kept in a data directory that log.dirs does not name; it answers KAFKA_STORAGE_ERROR until that directory is back");
            return;
        }
        if self.left_behind().contains(&name) {
            tracing::error!(log = %name, "the files of a deleted topic of this name are still there; the new partition answers KAFKA_STORAGE_ERROR until the broker starts again, which sets them aside");
            return;
        }
        let log_config = config::topic::log_config(&self.config, image, &topic.name);
        match self
            .engine
            .create_log(name, TopicId(topic_id.0), log_config, directory)
            .await
        {
            Ok(log) => log.set_leader_epoch(state.leader_epoch),
            Err(error) => {
                let topic = &topic.name;
                tracing::error!(%topic, partition, %error, "the log could not be opened; its partition answers KAFKA_STORAGE_ERROR");
            }
        }
    }

    /// Removes the logs of deleted topics that are this shard's, with one wait for all of them.
    async fn delete_logs(&self, delta: &Delta) {
        let mut keys = Vec::new();
        let mut names = Vec::new();
        for (topic_id, name, partitions) in &delta.deleted {
            for partition in 0..*partitions {
                if self.owner_of(*topic_id, partition) == self.index {
                    keys.push((TopicId(topic_id.0), partition));
                    names.push(TopicPartition::new(name.as_str(), partition));
                }
            }
        }
        if keys.is_empty() {
            return;
        }
        if let Err(error) = self.engine.delete_logs(&keys).await {
            let first = names.first().map(ToString::to_string).unwrap_or_default();
            tracing::error!(logs = keys.len(), first, %error, "logs of deleted topics could not be removed; what is left will be set aside at the next start");
            self.left_behind().extend(names);
        }
    }

    fn left_behind(&self) -> MutexGuard<'_, BTreeSet<TopicPartition>> {
        let left_behind = self.common.left_behind.lock();
        left_behind.unwrap_or_else(PoisonError::into_inner)
    }

    fn reconfigure(&self, image: &Image, topic_id: Uuid) {
        let Some(topic) = image.topic_by_id(topic_id) else {
            return;
        };
        let log_config = config::topic::log_config(&self.config, image, &topic.name);
        for partition in 0..topic.partitions.len() as i32 {
            if let Some(log) = self.log(topic_id, partition) {
                log.set_config(log_config.clone());
            }
        }
    }

    fn follow_epoch(&self, image: &Image, topic_id: Uuid, partition: i32) {
        let epoch = image
            .topic_by_id(topic_id)
            .and_then(|topic| topic.partitions.get(partition as usize))
            .map(|state| state.leader_epoch);
        if let (Some(log), Some(epoch)) = (self.log(topic_id, partition), epoch) {
            log.set_leader_epoch(epoch);
        }
    }
}

/// Ids below 100 name no directory but say why there is none (KIP-858): not assigned, lost, migrating.
fn is_reserved(id: &Uuid) -> bool {
    u128::from_be_bytes(id.0) < 100
}
