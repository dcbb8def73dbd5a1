//! Consumer groups: the machine behind `__consumer_offsets`, and the way to it from any shard.

use std::rc::Rc;

use futures_util::FutureExt;
use ringlog_coordinator::groups::consumer::{
    Assignor, ConsumerGroupConfig, MigrationPolicy, TopicView,
};
use ringlog_coordinator::groups::{GroupConfig, GroupCoordinator, GroupReply};
use ringlog_coordinator::{Caller, Commands, Now};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::Coordinators;
use super::host::{Asker, Host};
use super::machine::{Machine, Output, Replayed, Unreplayed};
use super::topics::Internal;
use crate::authorizer::{Operation, ResourceType};
use crate::config::{BrokerConfig, split_list};
use crate::controller::Image;
use crate::handlers::RequestContext;
use crate::shard::Shard;

/// Bytes of all members of one coordinator.
const MEMBERS_BYTES_MAX: usize = 64 << 20;

/// The topics of an image, as groups see them. Of who asks only those are matched with expressions that it may describe; what a group reads is the same whoever asks.
pub struct Topics<'a> {
    image: &'a Image,
    may_describe: &'a dyn Fn(&str) -> bool,
}

impl<'a> Topics<'a> {
    /// All of them, for nobody in particular.
    pub fn all(image: &'a Image) -> Self {
        let may_describe = &|_: &str| true;
        Self {
            image,
            may_describe,
        }
    }
}

impl TopicView for Topics<'_> {
    fn topic_by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        let topic = self.image.topic(name)?;
        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        Some((topic.id, count))
    }

    fn topic_name(&self, id: &Uuid) -> Option<Str> {
        self.image.topic_by_id(*id).map(|topic| topic.name.clone())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        let names = self.image.topics().map(|topic| topic.name.as_str());
        Box::new(names.filter(|name| (self.may_describe)(name)))
    }

    fn version(&self) -> u64 {
        u64::try_from(self.image.offset).unwrap_or(0)
    }
}

/// A group's events bring about nothing beyond records and answers.
#[derive(Debug)]
pub enum NoEffect {}

impl Machine for GroupCoordinator {
    type Reply = GroupReply;
    type Effect = NoEffect;

    fn replay(&mut self, entry: Replayed) -> Result<(), Unreplayed> {
        match entry {
            Replayed::Record {
                producer,
                key,
                value,
            } => self
                .replay(producer, key, value)
                // Kafka reads on, too: one group's record does not stand in the way of all others.
                .map_err(|error| Unreplayed::Foreign(error.to_string())),
            Replayed::Marker {
                producer_id,
                committed,
            } => {
                self.on_transaction_marker(producer_id, committed);
                Ok(())
            }
        }
    }

    fn loaded(&mut self, now: Now, output: &mut Output<Self>) {
        self.loaded(now, &mut output.commands);
    }

    fn on_timeout(&mut self, now: Now, shard: &Shard, output: &mut Output<Self>) {
        let image = shard.local_image();
        self.on_timeout(now, &Topics::all(&image), &mut output.commands);
    }

    fn next_deadline(&self) -> Option<u64> {
        self.next_deadline()
    }

    fn resign(&mut self, output: &mut Output<Self>) {
        self.resign(&mut output.commands);
    }

    fn perform(_: &Rc<Host<Self>>, effect: NoEffect) {
        match effect {}
    }
}

/// The settings of group coordinators.
pub(super) fn config(config: &BrokerConfig) -> GroupConfig {
    let int = |name| i32::try_from(config.number(name)).unwrap_or(i32::MAX);
    let assignors = split_list(config.get("group.consumer.assignors"));
    let consumer = ConsumerGroupConfig {
        session_timeout_ms: int("group.consumer.session.timeout.ms"),
        heartbeat_interval_ms: int("group.consumer.heartbeat.interval.ms"),
        max_size: int("group.consumer.max.size"),
        assignors: assignors.filter_map(Assignor::named).collect(),
        migration_policy: MigrationPolicy::named(config.get("group.consumer.migration.policy")),
        assignment_interval_ms: int("group.consumer.assignment.interval.ms"),
        regex_refresh_interval_ms: int("group.consumer.regex.refresh.interval.ms"),
        ..ConsumerGroupConfig::default()
    };
    GroupConfig {
        min_session_timeout_ms: int("group.min.session.timeout.ms"),
        max_session_timeout_ms: int("group.max.session.timeout.ms"),
        initial_rebalance_delay_ms: int("group.initial.rebalance.delay.ms"),
        max_size: int("group.max.size"),
        offset_metadata_max_bytes: int("offset.metadata.max.bytes"),
        offsets_retention_minutes: int("offsets.retention.minutes"),
        consumer,
        members_bytes_max: MEMBERS_BYTES_MAX,
        ..GroupConfig::default()
    }
}

impl RequestContext {
    /// Who asks, for a coordinator.
    pub fn asker(&self) -> Asker {
        Asker {
            version: self.version,
            client_id: self
                .client_id
                .as_ref()
                .map(Str::detached)
                .unwrap_or_default(),
            client_host: self.connection.host.clone(),
        }
    }

    /// Hands a request to the coordinator of a group and waits for its answer, or until the client has gone.
    ///
    /// # Errors
    /// Why there is no coordinator here that could answer.
    pub async fn ask_group(
        &self,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, &Caller, &mut Commands<GroupReply>) + Send + 'static,
    ) -> Result<GroupReply, ErrorCode> {
        self.ask_group_about(group_id, |machine, caller, _, output| {
            call(machine, caller, output)
        })
        .await
    }

    /// As [`Self::ask_group`], for a request that is answered as soon as what it writes is durable: where the coordinator lives no task waits for that, and nothing is taken back when the client
    /// goes.
    ///
    /// # Errors
    /// As [`Self::ask_group`].
    pub async fn ask_group_briefly(
        &self,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, &Caller, &mut Commands<GroupReply>) + Send + 'static,
    ) -> Result<GroupReply, ErrorCode> {
        let kept = self.shard.kept(Internal::ConsumerOffsets, group_id)?;
        let (asker, partition) = (self.asker(), kept.partition);
        let call = move |machine: &mut GroupCoordinator,
                         caller: &Caller,
                         output: &mut Output<GroupCoordinator>| {
            call(machine, caller, &mut output.commands);
        };
        let owner = kept.located.shard;
        if owner == self.shard.index {
            let host = self.shard.coordinators.group(partition)?;
            return self.until_gone(host.call(asker, call).map(Ok)).await;
        }
        let asked = self.shard.ask(owner, move |shard, answer| {
            match shard.coordinators.group(partition) {
                Ok(host) => host.call_then(asker, call, |reply| answer.give(reply)),
                Err(error) => answer.give(Err(error)),
            }
        });
        self.until_gone(asked).await
    }

    /// As [`Self::ask_group`], for a request that needs to know what topics there are.
    ///
    /// # Errors
    /// As [`Self::ask_group`].
    pub async fn ask_group_about(
        &self,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, &Caller, &Topics<'_>, &mut Commands<GroupReply>)
        + Send
        + 'static,
    ) -> Result<GroupReply, ErrorCode> {
        let kept = self.shard.kept(Internal::ConsumerOffsets, group_id)?;
        let asker = self.asker();
        let subject = self.subject();
        let partition = kept.partition;
        let asked = self.shard.on_shard_while_wanted(
            kept.located.shard,
            move |shard: Rc<Shard>| async move {
                let host = shard.coordinators.group(partition)?;
                let image = shard.local_image();
                let call = move |machine: &mut GroupCoordinator,
                                 caller: &Caller,
                                 output: &mut Output<GroupCoordinator>| {
                    let may_describe =
                        |topic: &str| subject.may(Operation::Describe, ResourceType::Topic, topic);
                    let topics = Topics {
                        image: &image,
                        may_describe: &may_describe,
                    };
                    call(machine, caller, &topics, &mut output.commands);
                };
                host.call(asker, call).await
            },
        );
        self.until_gone(asked).await
    }
}

impl Coordinators {
    /// The coordinator that keeps its state in this partition, if it is one of `__consumer_offsets`.
    pub fn group_at(&self, topic_id: Uuid, partition: i32) -> Option<Rc<Host<GroupCoordinator>>> {
        let groups = self.groups.borrow();
        let host = groups.get(&partition)?;
        (host.place().topic_id == topic_id).then(|| host.clone())
    }

    /// The coordinator of a partition of `__consumer_offsets`.
    ///
    /// # Errors
    /// NOT_COORDINATOR when it is not here.
    pub fn group(&self, partition: i32) -> Result<Rc<Host<GroupCoordinator>>, ErrorCode> {
        let groups = self.groups.borrow();
        groups
            .get(&partition)
            .cloned()
            .ok_or(ErrorCode::NOT_COORDINATOR)
    }
}

#[cfg(test)]
mod tests {
    //! What is not to be seen is not matched, and makes no difference otherwise.
    use super::*;
    use crate::controller::ImageBuilder;
    use ringlog_net::metadata::{MetadataRecord, TopicRecord};

    #[test]
    fn expressions_match_what_the_asker_may_describe() {
        let mut builder = ImageBuilder::new(&Image::default());
        let topics = ["open", "secret"].into_iter().zip(1..);
        let records = topics.map(|(name, number)| {
            MetadataRecord::Topic(TopicRecord {
                name: Str::from(name),
                topic_id: Uuid([number; 16]),
            })
        });
        let records: Vec<MetadataRecord> = records.collect();
        builder.batch(1, 1, &records).expect("two topics");
        let image = builder.image();
        let topics = Topics {
            image,
            may_describe: &|name| name != "secret",
        };
        assert_eq!(topics.names().collect::<Vec<_>>(), ["open"]);
        let secret = Uuid([2; 16]);
        assert_eq!(topics.topic_by_name("secret"), Some((secret, 0)));
        assert_eq!(topics.topic_name(&secret).as_deref(), Some("secret"));
        assert_eq!(Topics::all(image).names().count(), 2);
    }
}
