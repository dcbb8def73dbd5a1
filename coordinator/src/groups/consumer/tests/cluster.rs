//! A group, its log, the topics it sees, and a clock: what the tests drive.

use std::collections::{BTreeMap, HashSet};

use ringlog_net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use crate::command::{Caller, Commands, Now, Token};
use crate::groups::consumer::assignment::Partitions;
use crate::groups::consumer::{Change, ConsumerGroup, ConsumerGroupConfig, TopicView};
use crate::record::Record;

/// Topics by name.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    pub by_name: BTreeMap<Str, (Uuid, i32)>,
    pub made: u128,
    pub version: u64,
}

impl TopicView for Topics {
    fn topic_by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        self.by_name.get(name).copied()
    }

    fn topic_name(&self, id: &Uuid) -> Option<Str> {
        let mut all = self.by_name.iter();
        all.find(|(_, (of, _))| of == id)
            .map(|(name, _)| name.clone())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.by_name.keys().map(Str::as_str))
    }

    fn version(&self) -> u64 {
        self.version
    }
}

pub struct Cluster {
    pub group: ConsumerGroup,
    pub log: Vec<Record>,
    pub topics: Topics,
    pub config: ConsumerGroupConfig,
    pub now: Now,
    /// The version of requests.
    pub version: i16,
    tokens: u64,
}

impl Cluster {
    pub fn new(topics: &[(&str, i32)]) -> Cluster {
        let mut cluster = Cluster {
            group: ConsumerGroup::new("g".into()),
            log: Vec::new(),
            topics: Topics::default(),
            config: ConsumerGroupConfig {
                assignment_interval_ms: 0,
                ..ConsumerGroupConfig::default()
            },
            now: Now {
                monotonic_ms: 1_000,
                wall_ms: 1_700_000_000_000,
            },
            version: 1,
            tokens: 0,
        };
        for (name, partitions) in topics {
            cluster.set_topic(name, *partitions);
        }
        cluster
    }

    /// Makes a topic, or gives it more partitions.
    pub fn set_topic(&mut self, name: &str, partitions: i32) {
        self.topics.made += 1;
        let id = Uuid(self.topics.made.to_be_bytes());
        let topic = self.topics.by_name.entry(name.into()).or_insert((id, 0));
        topic.1 = partitions;
        self.topics.version += 1;
        self.tell(name);
    }

    pub fn delete_topic(&mut self, name: &str) {
        self.topics.by_name.remove(name);
        self.topics.version += 1;
        self.tell(name);
    }

    /// The group hears that a topic has changed.
    fn tell(&mut self, name: &str) {
        let news = (name.into(), self.topics.by_name.contains_key(name));
        self.group.on_metadata([&news], self.topics.version);
    }

    pub fn id_of(&self, name: &str) -> Uuid {
        self.topics.by_name[name].0
    }

    /// Sends a heartbeat; it is answered exactly once.
    pub fn send(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        self.tokens += 1;
        let caller = Caller {
            token: Token(self.tokens),
            now: self.now,
            version: self.version,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            fresh_id: Uuid(u128::from(self.tokens).to_be_bytes()),
        };
        let mut out: Commands<ConsumerGroupHeartbeatResponse> = Commands::default();
        self.group
            .heartbeat(&caller, request, &self.config, &self.topics, &mut out);
        let (token, response) = out.replies.pop().expect("an answer");
        assert_eq!((token, out.replies.len()), (caller.token, 0));
        if response.error_code.is_error() {
            assert!(
                out.records.is_empty(),
                "refused, and yet something was written"
            );
        }
        self.log.extend(out.records);
        response
    }

    /// Lets time pass, and timers run out.
    pub fn advance(&mut self, ms: u32) {
        self.now.monotonic_ms += u64::from(ms);
        self.now.wall_ms += i64::from(ms);
        while self
            .group
            .next_deadline()
            .is_some_and(|deadline| deadline <= self.now.monotonic_ms)
        {
            let expired = self.group.expired(self.now, &self.config);
            self.group.fence(&expired, &self.topics, &mut self.log);
        }
    }

    /// Loads the group anew from its log; what is loaded is what was.
    pub fn restart(&mut self) {
        let all = replayed(&self.log);
        assert_same(&all, &self.group);
        assert_same(&replayed(&compacted(&self.log)), &self.group);
        self.group = all;
        self.group.loaded(self.now, &self.config);
    }
}

fn replayed(log: &[Record]) -> ConsumerGroup {
    let mut group = ConsumerGroup::new("g".into());
    for record in log {
        let (id, change) = Change::read(&record.key, record.value.as_ref())
            .unwrap()
            .unwrap();
        assert_eq!(id, "g");
        assert_eq!(change.record(&id), *record);
        group.replay(change);
    }
    group
}

/// What the cleaner leaves: of each key the last record, and no tombstone.
pub(in crate::groups) fn compacted(log: &[Record]) -> Vec<Record> {
    let mut seen = HashSet::new();
    let last = log.iter().rev().filter(|record| seen.insert(&record.key));
    let mut kept: Vec<Record> = last
        .filter(|record| record.value.is_some())
        .cloned()
        .collect();
    kept.reverse();
    kept
}

/// Everything but timers and caches.
pub(in crate::groups) fn assert_same(left: &ConsumerGroup, right: &ConsumerGroup) {
    assert_eq!(
        (
            left.epoch,
            left.metadata_hash,
            left.target_epoch,
            left.target_timestamp_ms
        ),
        (
            right.epoch,
            right.metadata_hash,
            right.target_epoch,
            right.target_timestamp_ms
        )
    );
    assert_eq!(left.members, right.members);
    assert_eq!(left.target, right.target);
    assert_eq!(left.expressions, right.expressions);
    assert_eq!(left.static_members, right.static_members);
    assert_eq!(left.owners, right.owners);
    assert_eq!(left.named_topics, right.named_topics);
    assert_eq!(left.expression_members, right.expression_members);
    assert_eq!(left.classic_count, right.classic_count);
    assert_eq!(left.classic_protocols, right.classic_protocols);
}

/// A first heartbeat.
pub fn join(id: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: id.into(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(topics.iter().map(|name| Str::from(*name)).collect()),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// A later one, that says nothing new.
pub fn beat(id: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: id.into(),
        member_epoch: epoch,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// A later one, that says what is owned.
pub fn owning(id: &str, epoch: i32, owned: &Partitions) -> ConsumerGroupHeartbeatRequest {
    let topics = owned.iter().map(|(topic_id, partitions)| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.iter().copied().collect(),
    });
    ConsumerGroupHeartbeatRequest {
        topic_partitions: Some(topics.collect()),
        ..beat(id, epoch)
    }
}

/// What a response says is assigned.
pub fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<Partitions> {
    assert_eq!(
        response.error_code,
        ErrorCode::NONE,
        "{:?}",
        response.error_message
    );
    let assignment = response.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter();
    Some(
        topics
            .map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect()))
            .collect(),
    )
}
