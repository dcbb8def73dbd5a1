//! The coordinator of the faulty broker: one classic group, committed offsets, one transactional id of the first version.
//!
//! It holds those it serves to the protocol: a member of an old generation is sent to join again, a transactional batch whose partition was not
//! added is refused.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Condvar, Mutex};

use ringlog_net::Bytes;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::*;
use ringlog_net::request::{Request, Response};

use super::Fault;

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    #[default]
    Preparing,
    Completing,
    Stable,
}

#[derive(Default)]
struct Group {
    ids: u32,
    known: BTreeSet<String>,
    joined: BTreeSet<String>,
    phase: Phase,
    generation: i32,
    /// Who is in the current generation; the first leads.
    members: Vec<String>,
    assignments: BTreeMap<String, Bytes>,
}

/// What the coordinator has seen and keeps.
#[derive(Default)]
pub struct Kept {
    /// Committed offsets by group, topic and partition.
    pub offsets: BTreeMap<(String, String, i32), i64>,
    /// Commits asked for.
    pub commits: u64,
    /// Transactions committed.
    pub transactions: u64,
    added: HashSet<(String, i32)>,
    group: Group,
}

/// The coordinator.
#[derive(Default)]
pub struct Coordinator {
    kept: Mutex<Kept>,
    changed: Condvar,
}

impl Coordinator {
    /// Looks at what is kept.
    pub fn look<T>(&self, at: impl FnOnce(&Kept) -> T) -> T {
        at(&self.kept.lock().unwrap())
    }

    /// How many are in the group.
    pub fn members(&self) -> usize {
        self.look(|kept| kept.group.known.len())
    }

    /// Whether a transactional batch may be appended.
    pub fn may_append(&self, topic: &str, partition: i32, batch: &[u8]) -> bool {
        let transactional = batch[22] & 0x10 != 0;
        self.look(|kept| transactional && kept.added.contains(&(topic.to_string(), partition)))
    }

    /// Answers what a coordinator is asked.
    pub fn answer(&self, request: Request, fault: Fault, port: i32) -> Option<Response> {
        Some(match request {
            Request::FindCoordinator(_) => {
                Response::FindCoordinator(Box::new(find_coordinator::FindCoordinatorResponse {
                    node_id: 1,
                    host: "127.0.0.1".into(),
                    port,
                    ..Default::default()
                }))
            }
            Request::OffsetCommit(request) => {
                Response::OffsetCommit(Box::new(self.commit(&request, fault)))
            }
            Request::JoinGroup(request) => Response::JoinGroup(Box::new(self.join(&request))),
            Request::SyncGroup(request) => Response::SyncGroup(Box::new(self.sync(&request))),
            Request::Heartbeat(request) => {
                let kept = self.kept.lock().unwrap();
                let current = kept.group.phase == Phase::Stable
                    && kept.group.generation == request.generation_id;
                Response::Heartbeat(Box::new(heartbeat::HeartbeatResponse {
                    error_code: if current {
                        ErrorCode::NONE
                    } else {
                        ErrorCode::REBALANCE_IN_PROGRESS
                    },
                    ..Default::default()
                }))
            }
            Request::LeaveGroup(request) => Response::LeaveGroup(Box::new(self.leave(&request))),
            Request::InitProducerId(_) => {
                Response::InitProducerId(Box::new(init_producer_id::InitProducerIdResponse {
                    producer_id: 7,
                    ..Default::default()
                }))
            }
            Request::AddPartitionsToTxn(request) => {
                let mut kept = self.kept.lock().unwrap();
                for topic in &request.v3_and_below_topics {
                    let added = topic.partitions.iter();
                    kept.added
                        .extend(added.map(|partition| (topic.name.to_string(), *partition)));
                }
                Response::AddPartitionsToTxn(Box::default())
            }
            Request::EndTxn(_) => {
                let mut kept = self.kept.lock().unwrap();
                kept.transactions += 1;
                kept.added.clear();
                Response::EndTxn(Box::default())
            }
            _ => return None,
        })
    }

    fn commit(
        &self,
        request: &offset_commit::OffsetCommitRequest,
        fault: Fault,
    ) -> offset_commit::OffsetCommitResponse {
        let mut kept = self.kept.lock().unwrap();
        kept.commits += 1;
        let code = match fault {
            Fault::Loading if kept.commits.is_multiple_of(3) => {
                ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            }
            Fault::Refuse if kept.commits.is_multiple_of(3) => {
                ErrorCode::GROUP_AUTHORIZATION_FAILED
            }
            _ => ErrorCode::NONE,
        };
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                if code.is_none() {
                    let key = (
                        request.group_id.to_string(),
                        topic.name.to_string(),
                        partition.partition_index,
                    );
                    kept.offsets.insert(key, partition.committed_offset);
                }
                offset_commit::OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: code,
                }
            });
            offset_commit::OffsetCommitResponseTopic {
                name: topic.name.clone(),
                partitions: partitions.collect(),
                ..Default::default()
            }
        });
        offset_commit::OffsetCommitResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    fn join(&self, request: &join_group::JoinGroupRequest) -> join_group::JoinGroupResponse {
        let mut kept = self.kept.lock().unwrap();
        let group = &mut kept.group;
        let id = request.member_id.to_string();
        if id.is_empty() {
            group.ids += 1;
            let id = format!("member-{}", group.ids);
            group.known.insert(id.clone());
            return join_group::JoinGroupResponse {
                error_code: ErrorCode::MEMBER_ID_REQUIRED,
                member_id: id.into(),
                ..Default::default()
            };
        }
        if group.phase != Phase::Preparing {
            group.phase = Phase::Preparing;
            group.joined.clear();
        }
        group.joined.insert(id.clone());
        let before = group.generation;
        if group.joined == group.known {
            group.generation += 1;
            group.members = group.joined.iter().cloned().collect();
            group.assignments.clear();
            group.phase = Phase::Completing;
        }
        self.changed.notify_all();
        kept = self
            .changed
            .wait_while(kept, |kept| kept.group.generation == before)
            .unwrap();
        let group = &kept.group;
        let leader = group.members[0].clone();
        let members = group.members.iter().filter(|_| leader == id);
        join_group::JoinGroupResponse {
            generation_id: group.generation,
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            leader: leader.clone().into(),
            member_id: id.clone().into(),
            members: members
                .map(|member| join_group::JoinGroupResponseMember {
                    member_id: member.into(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    fn sync(&self, request: &sync_group::SyncGroupRequest) -> sync_group::SyncGroupResponse {
        let again = sync_group::SyncGroupResponse {
            error_code: ErrorCode::REBALANCE_IN_PROGRESS,
            ..Default::default()
        };
        let mut kept = self.kept.lock().unwrap();
        let group = &mut kept.group;
        if group.phase == Phase::Preparing || group.generation != request.generation_id {
            return again;
        }
        if !request.assignments.is_empty() {
            let assignments = request.assignments.iter();
            group.assignments = assignments
                .map(|one| (one.member_id.to_string(), one.assignment.clone()))
                .collect();
            group.phase = Phase::Stable;
            self.changed.notify_all();
        }
        let waits = |kept: &mut Kept| {
            kept.group.phase == Phase::Completing && kept.group.generation == request.generation_id
        };
        kept = self.changed.wait_while(kept, waits).unwrap();
        let group = &kept.group;
        if group.phase != Phase::Stable || group.generation != request.generation_id {
            return again;
        }
        sync_group::SyncGroupResponse {
            assignment: group.assignments[request.member_id.as_str()].clone(),
            ..Default::default()
        }
    }

    fn leave(&self, request: &leave_group::LeaveGroupRequest) -> leave_group::LeaveGroupResponse {
        let mut kept = self.kept.lock().unwrap();
        let members = request.members.iter().map(|member| {
            let known = kept.group.known.remove(member.member_id.as_str());
            kept.group.joined.clear();
            kept.group.phase = Phase::Preparing;
            leave_group::MemberResponse {
                member_id: member.member_id.clone(),
                error_code: if known {
                    ErrorCode::NONE
                } else {
                    ErrorCode::UNKNOWN_MEMBER_ID
                },
                ..Default::default()
            }
        });
        leave_group::LeaveGroupResponse {
            members: members.collect(),
            ..Default::default()
        }
    }
}
