//! Random histories: clients that join, sync, commit, leave, retry and fall silent, coordinators that come and go, and time that passes.
//!
//! Held against a model: every request is answered once; what is committed can be fetched, the later commit winning, by this coordinator and by one that
//! reads the log; a coordinator that reads the log has the group that was last stored; the assignment of one generation comes from one leader, and no two
//! members get the same part of it; and when everybody falls silent, nothing is left waiting.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use ringlog_net::messages::join_group::JoinGroupRequest;
use ringlog_net::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use ringlog_net::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ringlog_net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use ringlog_net::messages::txn_offset_commit::TxnOffsetCommitRequest;
use ringlog_net::{ErrorCode, Str, Uuid};

use super::harness::{self, Host, commit, join, protocol, subscription, txn_commit};
use crate::Token;
use crate::groups::{GroupConfig, GroupCoordinator, GroupReply};

const GROUPS: [&str; 2] = ["g", "h"];
const CLIENTS_PER_GROUP: usize = 4;
const PARTITIONS: i32 = 3;
const PRODUCERS: i64 = 3;

#[derive(Clone, Debug)]
enum Action {
    Join {
        client: Index,
        version: i16,
        forgets_id: bool,
        offer: u8,
    },
    Sync {
        client: Index,
        is_stale: bool,
    },
    Heartbeat(Index),
    Leave(Index),
    Commit {
        client: Index,
        is_outside: bool,
        partition: i32,
        offset: i64,
    },
    TxnCommit {
        client: Index,
        is_outside: bool,
        producer: i64,
        partition: i32,
        offset: i64,
    },
    Marker {
        producer: i64,
        committed: bool,
    },
    /// All clients of a group do what makes it stable.
    Settle(Index),
    Wait(u64),
    Expire,
    DeleteGroup(Index),
    DeleteOffset(Index, i32),
    DeleteTopic,
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    let index = any::<Index>;
    prop_oneof![
        12 => (index(), prop_oneof![3 => Just(9i16), 1 => 0..10i16], prop::bool::weighted(0.15), 0..4u8).prop_map(
            |(client, version, forgets_id, offer)| Action::Join { client, version, forgets_id, offer }
        ),
        12 => (index(), prop::bool::weighted(0.1))
            .prop_map(|(client, is_stale)| Action::Sync { client, is_stale }),
        4 => index().prop_map(Action::Settle),
        5 => index().prop_map(Action::Heartbeat),
        2 => index().prop_map(Action::Leave),
        5 => (index(), any::<bool>(), 0..PARTITIONS, 0..100i64).prop_map(
            |(client, is_outside, partition, offset)| Action::Commit { client, is_outside, partition, offset }
        ),
        3 => (index(), any::<bool>(), 0..PRODUCERS, 0..PARTITIONS, 0..100i64).prop_map(
            |(client, is_outside, producer, partition, offset)| Action::TxnCommit {
                client, is_outside, producer, partition, offset
            }
        ),
        2 => (0..PRODUCERS, any::<bool>())
            .prop_map(|(producer, committed)| Action::Marker { producer, committed }),
        6 => prop_oneof![0..100u64, 2_000..4_000u64, 5_000..11_000u64, 30_000..70_000u64]
            .prop_map(Action::Wait),
        1 => Just(Action::Expire),
        1 => index().prop_map(Action::DeleteGroup),
        1 => (index(), 0..PARTITIONS).prop_map(|(group, partition)| Action::DeleteOffset(group, partition)),
        1 => Just(Action::DeleteTopic),
        1 => Just(Action::Restart),
    ]
}

/// What a client knows.
#[derive(Debug, Default)]
struct Client {
    group: &'static str,
    instance_id: Option<Str>,
    id: Str,
    generation: i32,
    /// The members, if it leads.
    members: Vec<Str>,
}

/// A request that is not yet answered.
#[derive(Clone, Debug)]
enum Asked {
    Join,
    Sync { generation: i32 },
}

/// What is committed for a partition: when, and the offset.
type Commits = BTreeMap<(&'static str, i32), (usize, i64)>;

struct Model {
    host: Host,
    clients: Vec<Client>,
    asked: Vec<(Token, usize, Asked)>,
    /// How many commits there were.
    sequence: usize,
    committed: Commits,
    pending: BTreeMap<i64, Commits>,
    /// Which leader's assignment a generation got: group, its incarnation, generation.
    leaders: BTreeMap<(&'static str, u32, i32), String>,
    /// Which client got a part of it.
    parts: BTreeMap<(&'static str, u32, i32, String), usize>,
}

impl Model {
    fn new() -> Self {
        let clients = (0..GROUPS.len() * CLIENTS_PER_GROUP).map(|index| Client {
            group: GROUPS[index / CLIENTS_PER_GROUP],
            instance_id: (index % 2 == 1).then(|| Str::from(format!("instance-{index}"))),
            ..Client::default()
        });
        Self {
            host: Host::with(GroupConfig {
                max_size: 3,
                ..GroupConfig::default()
            }),
            clients: clients.collect(),
            asked: Vec::new(),
            sequence: 0,
            committed: Commits::new(),
            pending: BTreeMap::new(),
            leaders: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Join {
                client,
                version,
                forgets_id,
                offer,
            } => self.join(
                client.index(self.clients.len()),
                *version,
                *forgets_id,
                *offer,
            ),
            Action::Sync { client, is_stale } => {
                self.sync(client.index(self.clients.len()), *is_stale);
            }
            Action::Heartbeat(client) => {
                let client = client.get(&self.clients);
                self.host
                    .heartbeat(client.group, &client.id, client.generation);
            }
            Action::Leave(client) => self.leave(client.index(self.clients.len())),
            Action::Commit {
                client,
                is_outside,
                partition,
                offset,
            } => {
                let client = client.get(&self.clients);
                let (member_id, generation) = client.identity(*is_outside);
                let group = client.group;
                let request = commit(group, &member_id, generation, "t", *partition, *offset);
                if self.host.commit_as(9, request) == ErrorCode::NONE {
                    self.sequence += 1;
                    let committed = (self.sequence, *offset);
                    self.committed.insert((group, *partition), committed);
                }
            }
            Action::TxnCommit {
                client,
                is_outside,
                producer,
                partition,
                offset,
            } => {
                let client = client.get(&self.clients);
                let (member_id, generation_id) = client.identity(*is_outside);
                let group = client.group;
                let request = TxnOffsetCommitRequest {
                    member_id,
                    generation_id,
                    ..txn_commit(group, *producer, "t", *partition, *offset)
                };
                if self.host.txn_commit(request) == ErrorCode::NONE {
                    self.sequence += 1;
                    let committed = (self.sequence, *offset);
                    let pending = self.pending.entry(*producer).or_default();
                    pending.insert((group, *partition), committed);
                }
            }
            Action::Marker {
                producer,
                committed,
            } => {
                self.host.marker(*producer, *committed);
                let pending = self.pending.remove(producer).unwrap_or_default();
                for (key, commit) in pending.into_iter().filter(|_| *committed) {
                    let place = self.committed.entry(key).or_insert(commit);
                    *place = commit.max(*place);
                }
            }
            Action::Settle(group) => self.settle(GROUPS[group.index(GROUPS.len())]),
            Action::Wait(after_ms) => self.host.advance(*after_ms),
            Action::Expire => {
                let now = self.host.now;
                self.host
                    .event(|coordinator, out| coordinator.expire(now, out));
            }
            Action::DeleteGroup(group) => {
                let group = *group.get(&GROUPS);
                let call = GroupCoordinator::delete_group;
                let token = self.host.call(2, Str::from(group), call);
                let GroupReply::DeletedGroup(reply) = self.host.reply(token) else {
                    panic!("a DeleteGroups");
                };
                if reply.error_code == ErrorCode::NONE {
                    self.forget(|(owner, _)| *owner == group);
                }
            }
            Action::DeleteOffset(group, partition) => {
                self.delete_offset(GROUPS[group.index(GROUPS.len())], *partition);
            }
            Action::DeleteTopic => {
                let now = self.host.now;
                self.host.event(|coordinator, out| {
                    coordinator.on_topic_deleted("t", Uuid::ZERO, now, out)
                });
                self.forget(|_| true);
            }
            Action::Restart => self.host.restart(),
        }
        self.harvest();
        self.compare();
    }

    fn join(&mut self, index: usize, version: i16, forgets_id: bool, offer: u8) {
        let client = &mut self.clients[index];
        if forgets_id {
            client.id = Str::default();
        }
        let metadata = subscription(if offer & 1 == 0 { "t" } else { "u" });
        let mut protocols = vec![
            protocol("range", metadata.clone()),
            protocol("sticky", metadata),
        ];
        if offer & 2 != 0 {
            protocols.swap(0, 1);
        }
        let request = JoinGroupRequest {
            group_instance_id: client.instance_id.clone().filter(|_| version >= 5),
            rebalance_timeout_ms: 20_000 + 10_000 * (index as i32 % 3),
            protocols,
            ..join(client.group, &client.id)
        };
        let token = self.host.join_request(version, request);
        self.asked.push((token, index, Asked::Join));
    }

    fn settle(&mut self, group: &str) {
        let clients: Vec<usize> = (0..self.clients.len())
            .filter(|index| self.clients[*index].group == group)
            .collect();
        // Once for an id, and once to join.
        for _ in 0..2 {
            for index in &clients {
                self.join(*index, 9, false, 0);
            }
            self.harvest();
        }
        self.host.advance(7_000);
        self.harvest();
        for index in &clients {
            self.sync(*index, false);
        }
    }

    fn sync(&mut self, index: usize, is_stale: bool) {
        let client = &self.clients[index];
        let generation = client.generation - i32::from(is_stale);
        let tag = self.asked.len() + self.host.log.len() * 1_000;
        let request = SyncGroupRequest {
            group_id: client.group.into(),
            generation_id: generation,
            member_id: client.id.clone(),
            assignments: client
                .members
                .iter()
                .map(|member| SyncGroupRequestAssignment {
                    member_id: member.clone(),
                    assignment: format!("{index}.{tag}/{member}").into_bytes().into(),
                })
                .collect(),
            ..SyncGroupRequest::default()
        };
        let token = self.host.call(5, request, harness::sync_group);
        self.asked.push((token, index, Asked::Sync { generation }));
    }

    fn leave(&mut self, index: usize) {
        let client = &self.clients[index];
        let request = LeaveGroupRequest {
            group_id: client.group.into(),
            members: vec![MemberIdentity {
                // An administrator knows a static member by its name.
                member_id: match client.instance_id {
                    Some(_) => Str::default(),
                    None => client.id.clone(),
                },
                group_instance_id: client.instance_id.clone(),
                reason: None,
            }],
            ..LeaveGroupRequest::default()
        };
        self.host.call(5, request, harness::leave_group);
    }

    fn delete_offset(&mut self, group: &str, partition: i32) {
        let request = OffsetDeleteRequest {
            group_id: group.into(),
            topics: vec![OffsetDeleteRequestTopic {
                name: "t".into(),
                partitions: vec![OffsetDeleteRequestPartition {
                    partition_index: partition,
                }],
            }],
        };
        let token = self.host.call(0, request, GroupCoordinator::offset_delete);
        let GroupReply::OffsetDelete(reply) = self.host.reply(token) else {
            panic!("an OffsetDelete");
        };
        let is_deleted = reply.error_code == ErrorCode::NONE
            && reply.topics[0].partitions[0].error_code == ErrorCode::NONE;
        if is_deleted {
            self.forget(|(owner, index)| *owner == group && *index == partition);
        }
    }

    /// Offsets are deleted, and those that wait for a transaction with them.
    fn forget(&mut self, is_deleted: impl Fn(&(&'static str, i32)) -> bool) {
        self.committed.retain(|key, _| !is_deleted(key));
        for pending in self.pending.values_mut() {
            pending.retain(|key, _| !is_deleted(key));
        }
    }

    /// Clients read their answers.
    fn harvest(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        for (token, index, what) in asked {
            match (self.host.answer(token).cloned(), what) {
                (None, what) => self.asked.push((token, index, what)),
                (Some(GroupReply::JoinGroup(reply)), Asked::Join) => {
                    let client = &mut self.clients[index];
                    match reply.error_code {
                        ErrorCode::NONE => {
                            client.id = reply.member_id;
                            client.generation = reply.generation_id;
                            let members = reply.members.into_iter();
                            client.members = if reply.skip_assignment {
                                Vec::new()
                            } else {
                                members.map(|member| member.member_id).collect()
                            };
                        }
                        ErrorCode::MEMBER_ID_REQUIRED => client.id = reply.member_id,
                        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID => {
                            client.id = Str::default();
                        }
                        _ => {}
                    }
                }
                (Some(GroupReply::SyncGroup(reply)), Asked::Sync { generation }) => {
                    if reply.error_code == ErrorCode::NONE && !reply.assignment.is_empty() {
                        let text = String::from_utf8(reply.assignment.to_vec());
                        self.note_assignment(index, generation, &text.expect("our own text"));
                    }
                }
                (Some(other), what) => panic!("{other:?} to {what:?}"),
            }
        }
    }

    fn note_assignment(&mut self, index: usize, generation: i32, assignment: &str) {
        let group = self.clients[index].group;
        let incarnation = self.host.incarnations.get(group).copied().unwrap_or(0);
        let (leader, part) = assignment.split_once('/').expect("our own form");
        let key = (group, incarnation, generation);
        let known = self.leaders.entry(key).or_insert_with(|| leader.to_owned());
        assert_eq!(known, leader, "one generation has one leader");
        let key = (group, incarnation, generation, part.to_owned());
        let holder = *self.parts.entry(key).or_insert(index);
        assert_eq!(holder, index, "one part has one holder");
    }

    /// Holds the coordinator, and one that reads the log, against the model.
    fn compare(&mut self) {
        let expected: Vec<(String, i32, i64)> = self
            .committed
            .iter()
            .map(|((group, partition), (_, offset))| ((*group).to_owned(), *partition, *offset))
            .collect();
        let loaded = self.host.loaded();
        for coordinator in [&self.host.coordinator, &loaded] {
            let offsets = coordinator.committed_offsets();
            let offsets: Vec<(String, i32, i64)> = offsets
                .map(|(group, _, partition, offset)| (group.to_string(), partition, offset))
                .collect();
            assert_eq!(offsets, expected);
            let pending: usize = self.pending.values().map(BTreeMap::len).sum();
            assert_eq!(coordinator.counts().pending_offsets, pending);
        }
        for group in GROUPS {
            if !self.host.coordinator.groups.contains_key(group) {
                assert!(!loaded.groups.contains_key(group), "it is gone");
                continue;
            }
            let loaded = loaded
                .groups
                .get(group)
                .and_then(|group| group.as_classic());
            let loaded = loaded.map(|group| group.durable().expect("what is stored is settled"));
            match (self.host.durable.get(group), loaded) {
                (Some(durable), Some(loaded)) => assert_eq!(loaded, *durable),
                // Made by a commit that is deleted again: nothing tells of it.
                (Some(durable), None) => assert!(durable.is_trivial(), "{durable:?}"),
                // Its first members are joining.
                (None, loaded) => assert!(loaded.is_some_and(|group| group.is_trivial())),
            }
        }
    }
}

impl Client {
    /// Who commits, and of which generation.
    fn identity(&self, is_outside: bool) -> (Str, i32) {
        if is_outside {
            (Str::default(), -1)
        } else {
            (self.id.clone(), self.generation)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn histories_keep_their_promises(actions in prop::collection::vec(action(), 1..120)) {
        let mut model = Model::new();
        for action in &actions {
            model.act(action);
        }
        // Everybody falls silent.
        model.act(&Action::Wait(400_000));
        prop_assert_eq!(model.host.waiting(), 0, "nothing waits forever");
        prop_assert_eq!(model.host.coordinator.next_deadline(), None);
        let counts = model.host.coordinator.counts();
        prop_assert_eq!((counts.members, counts.member_bytes), (0, 0));
        prop_assert_eq!(counts.groups, counts.empty);
        model.act(&Action::Restart);
    }
}
