//! A consumer as the histories know it: it speaks one of the two protocols, and knows what it reads from.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_net::codec::{Message as _, Reader, Writer};
use ringlog_net::coordinators::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, EmbeddedTopicPartitions,
};
use ringlog_net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use ringlog_net::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use ringlog_net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use ringlog_net::{Bytes, ErrorCode, Str};

use super::world::{self, Owned, Topics};
use crate::Token;
use crate::groups::consumer::TopicView as _;

/// How far a client of the classic protocol has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has to join.
    #[default]
    Outside,
    Joining(Token),
    /// It knows its generation, and has to ask for its assignment.
    Joined,
    Syncing(Token),
    Stable,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) process: usize,
    pub(super) is_classic: bool,
    /// Of the classic protocol: it reads on while it joins.
    pub(super) cooperates: bool,
    pub(super) instance_id: Option<Str>,
    pub(super) topics: Vec<Str>,
    pub(super) member_id: Str,
    /// Generation, or epoch.
    pub(super) generation: i32,
    pub(super) phase: Phase,
    /// What it reads from.
    pub(super) owned: Owned,
    /// What it is to read from, when it has given up the rest.
    pub(super) told: Option<Owned>,
    /// Of the consumer protocol: it cannot know what has become of its last heartbeat.
    pub(super) unsure: bool,
    /// It watches the topics, of which there were so many partitions when it joined.
    pub(super) leads: Option<i32>,
    /// It leads, and was told that the assignment is there already (KIP-814): it takes what it sees of the topics for what was assigned, as Java's
    /// `onLeaderElected` does, and misses what has grown while it was away.
    pub(super) excused: bool,
    /// Members and what they said, if it leads and is to assign.
    pub(super) led: Vec<(Str, Bytes)>,
    /// A classic group went on without it.
    pub(super) passed_by: bool,
}

impl Client {
    /// The process ends, and another one starts.
    pub(super) fn restart(&mut self) {
        self.process += 1;
        self.member_id = if self.is_classic {
            Str::default()
        } else {
            format!("c{}-{}", self.number, self.process).into()
        };
        self.forget();
    }

    /// Gives up everything, to join anew.
    pub(super) fn forget(&mut self) {
        self.generation = if self.is_classic { -1 } else { 0 };
        self.phase = Phase::Outside;
        self.owned.clear();
        self.told = None;
        self.unsure = false;
        self.led.clear();
        self.leads = None;
        self.excused = false;
        self.passed_by = false;
    }

    pub(super) fn join_request(&mut self) -> JoinGroupRequest {
        if !self.cooperates {
            self.owned.clear();
        }
        let protocol = if self.cooperates {
            "cooperative-sticky"
        } else {
            "range"
        };
        let metadata = world::subscription(&self.topics, &self.owned, self.generation);
        JoinGroupRequest {
            group_instance_id: self.instance_id.clone(),
            ..world::join(&self.member_id, protocol, metadata)
        }
    }

    pub(super) fn on_joined(&mut self, response: JoinGroupResponse, topics: &Topics) {
        self.phase = Phase::Outside;
        match response.error_code {
            ErrorCode::NONE => {
                self.member_id = response.member_id;
                self.generation = response.generation_id;
                self.phase = Phase::Joined;
                self.passed_by = false;
                let leads = response.leader == self.member_id;
                self.leads = leads.then_some(topics.red);
                self.excused = leads && response.skip_assignment;
                let assigns = leads && !response.skip_assignment;
                let members = response.members.into_iter().filter(|_| assigns);
                self.led = members
                    .map(|member| (member.member_id, member.metadata))
                    .collect();
            }
            ErrorCode::MEMBER_ID_REQUIRED => self.member_id = response.member_id,
            error => self.on_error(error),
        }
    }

    pub(super) fn sync_request(&self, topics: &Topics) -> SyncGroupRequest {
        SyncGroupRequest {
            group_id: "g".into(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: Some("consumer".into()),
            assignments: assign(&self.led, self.cooperates, topics),
            ..SyncGroupRequest::default()
        }
    }

    pub(super) fn on_synced(&mut self, error: ErrorCode, assignment: &Bytes) {
        if error.is_error() {
            return self.on_error(error);
        }
        let assigned = read_assignment(assignment);
        let gave_up = self.owned.difference(&assigned).next().is_some();
        self.owned = assigned;
        // What it gave up is told by joining again.
        self.phase = if gave_up {
            Phase::Outside
        } else {
            Phase::Stable
        };
    }

    /// What a consumer of the classic protocol makes of an error.
    pub(super) fn on_error(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::NONE => {}
            ErrorCode::REBALANCE_IN_PROGRESS => self.phase = Phase::Outside,
            // The coordinator is looked for, and found again. What was under way begins anew.
            ErrorCode::NOT_COORDINATOR | ErrorCode::INCONSISTENT_GROUP_PROTOCOL => {
                self.phase = Phase::Outside;
            }
            ErrorCode::ILLEGAL_GENERATION => {
                let id = std::mem::take(&mut self.member_id);
                self.forget();
                self.member_id = id;
            }
            ErrorCode::UNKNOWN_MEMBER_ID => {
                self.forget();
                self.member_id = Str::default();
            }
            // Fatal: somebody starts it again.
            ErrorCode::FENCED_INSTANCE_ID => self.restart(),
            other => panic!("{other}"),
        }
    }

    pub(super) fn beat_request(
        &self,
        topics: &Topics,
        full: bool,
    ) -> ConsumerGroupHeartbeatRequest {
        let mut owned: BTreeMap<Str, Vec<i32>> = BTreeMap::new();
        for (topic, number) in &self.owned {
            owned.entry(topic.clone()).or_default().push(*number);
        }
        let owned = owned
            .into_iter()
            .map(|(topic, partitions)| TopicPartitions {
                topic_id: topics.topic_by_name(&topic).expect("a topic").0,
                partitions,
            });
        // Only a heartbeat that says everything is told again what the lost answer told: an epoch that has come meanwhile brings no assignment along. So consumers
        // forget what they have said whenever a heartbeat fails (in Java: `resetHeartbeatState`).
        let full = full || self.unsure || self.generation == 0;
        ConsumerGroupHeartbeatRequest {
            group_id: "g".into(),
            member_id: self.member_id.clone(),
            member_epoch: self.generation,
            instance_id: self.instance_id.clone(),
            rebalance_timeout_ms: if full { 20_000 } else { -1 },
            subscribed_topic_names: full.then(|| self.topics.clone()),
            topic_partitions: (full || self.told.is_none()).then(|| owned.collect()),
            ..ConsumerGroupHeartbeatRequest::default()
        }
    }

    pub(super) fn on_beaten(&mut self, response: &ConsumerGroupHeartbeatResponse, topics: &Topics) {
        self.unsure = false;
        match response.error_code {
            ErrorCode::NONE => {
                self.generation = response.member_epoch;
                if let Some(assignment) = &response.assignment {
                    let told: Owned = assignment
                        .topic_partitions
                        .iter()
                        .flat_map(|topic| {
                            let name = topics.topic_name(&topic.topic_id).expect("a topic");
                            let numbers = topic.partitions.iter();
                            numbers.map(move |number| (name.clone(), *number))
                        })
                        .collect();
                    self.owned.extend(told.iter().cloned());
                    self.told = Some(told);
                }
            }
            ErrorCode::FENCED_MEMBER_EPOCH | ErrorCode::UNKNOWN_MEMBER_ID => self.forget(),
            // Also while the policy keeps it out, or when its group has become classic: it starts anew.
            ErrorCode::FENCED_INSTANCE_ID
            | ErrorCode::UNRELEASED_INSTANCE_ID
            | ErrorCode::GROUP_ID_NOT_FOUND => self.restart(),
            other => panic!("{other}: {:?}", response.error_message),
        }
    }

    /// A client of the consumer protocol gives up what it was told to.
    pub(super) fn revoke(&mut self) {
        if let Some(told) = self.told.take() {
            self.owned = told;
        }
    }
}

fn read_assignment(bytes: &Bytes) -> Owned {
    if bytes.is_empty() {
        return Owned::new();
    }
    let mut reader = Reader::new(bytes.clone());
    let version = reader.i16().expect("a version");
    let body = ConsumerProtocolAssignment::decode(&mut reader, version).expect("an assignment");
    reader.finish().expect("nothing else");
    let topics = body.assigned_partitions.into_iter();
    topics
        .flat_map(|topic| {
            let name = topic.topic.detached();
            let numbers = topic.partitions.into_iter();
            numbers.map(move |number| (name.clone(), number))
        })
        .collect()
}

/// What a leader makes of what the members say. One that cooperates takes nothing from a member that this still owns: the next generation does. (Java's leaders
/// do not believe members that come from older generations, which is theirs to answer for.)
fn assign(
    led: &[(Str, Bytes)],
    cooperates: bool,
    topics: &Topics,
) -> Vec<SyncGroupRequestAssignment> {
    let mut claims: BTreeMap<(Str, i32), (i32, Str)> = BTreeMap::new();
    let mut readers: BTreeMap<Str, BTreeSet<Str>> = BTreeMap::new();
    for (id, metadata) in led {
        let mut reader = Reader::new(metadata.clone());
        let version = reader.i16().expect("a version");
        let said = ConsumerProtocolSubscription::decode(&mut reader, version);
        let said = said.expect("a subscription");
        for topic in &said.topics {
            readers.entry(topic.clone()).or_default().insert(id.clone());
        }
        for topic in &said.owned_partitions {
            for number in &topic.partitions {
                let claim = (said.generation_id, id.clone());
                let known = claims
                    .entry((topic.topic.clone(), *number))
                    .or_insert(claim.clone());
                *known = claim.max(known.clone());
            }
        }
    }
    let mut assigned: BTreeMap<Str, BTreeMap<Str, Vec<i32>>> = BTreeMap::new();
    for (topic, readers) in &readers {
        let (_, count) = topics.topic_by_name(topic).expect("a topic");
        for (number, reader) in (0..count).zip(readers.iter().cycle()) {
            let claim = claims.get(&(topic.clone(), number));
            if cooperates && claim.is_some_and(|(_, owner)| owner != reader) {
                continue;
            }
            let of_reader = assigned.entry(reader.clone()).or_default();
            of_reader.entry(topic.clone()).or_default().push(number);
        }
    }
    led.iter()
        .map(|(id, _)| {
            let body = ConsumerProtocolAssignment {
                assigned_partitions: assigned
                    .remove(id)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(topic, partitions)| EmbeddedTopicPartitions { topic, partitions })
                    .collect(),
                user_data: None,
            };
            let mut writer = Writer::new();
            writer.i16(3);
            body.encode(&mut writer, 3).expect("short names");
            SyncGroupRequestAssignment {
                member_id: id.clone(),
                assignment: writer.into_bytes(),
            }
        })
        .collect()
}
