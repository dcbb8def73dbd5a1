//! Which brokers hold the replicas of a new partition.

use std::collections::BTreeSet;

use ringlog_net::metadata::PartitionRecord;
use ringlog_net::{ErrorCode, Uuid};

use super::Refusal;
use super::image::Image;

/// `leader_recovery_state`: the leader has all that was committed.
const RECOVERED: i8 = 0;

/// Spreads replicas over the brokers that serve: one after the other, from a start that the caller draws.
pub(super) struct Placement {
    brokers: Vec<i32>,
    start: usize,
}

impl Placement {
    /// Over the unfenced brokers of `image`, starting at one that `random` picks.
    pub(super) fn new(image: &Image, random: u64) -> Self {
        let brokers: Vec<i32> = image
            .brokers()
            .filter(|broker| !broker.fenced)
            .map(|broker| broker.id)
            .collect();
        let start = (random % brokers.len().max(1) as u64) as usize;
        Self { brokers, start }
    }

    /// Checks that so many replicas can be placed at all.
    pub(super) fn check(&self, replication_factor: i16) -> Result<(), Refusal> {
        let have = self.brokers.len();
        if usize::try_from(replication_factor).is_ok_and(|wanted| wanted >= 1 && wanted <= have) {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::INVALID_REPLICATION_FACTOR,
            format!(
                "replication factor {replication_factor} is not possible with {have} brokers in service"
            ),
        ))
    }

    /// The replicas of partition `index`, preferred leader first.
    pub(super) fn replicas(&self, index: usize, replication_factor: i16) -> Vec<i32> {
        let first = self.start + index;
        (0..replication_factor.max(0) as usize)
            .map(|step| self.brokers[(first + step) % self.brokers.len()])
            .collect()
    }
}

/// Checks replicas that a request asks for, each partition alike.
pub(super) fn check_manual(
    image: &Image,
    partition: usize,
    replicas: &[i32],
    expected: usize,
) -> Result<(), Refusal> {
    let refuse = |reason: String| Err(Refusal::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, reason));
    if replicas.is_empty() {
        return refuse(format!("partition {partition} is assigned to no broker"));
    }
    if replicas.len() != expected {
        return refuse(format!(
            "partition {partition} is assigned to {} brokers, the others to {expected}",
            replicas.len()
        ));
    }
    let mut seen = BTreeSet::new();
    for &broker in replicas {
        if !seen.insert(broker) {
            return refuse(format!(
                "partition {partition} is assigned to broker {broker} twice"
            ));
        }
        if image.broker(broker).is_none() {
            return refuse(format!(
                "partition {partition} is assigned to broker {broker}, which is not registered"
            ));
        }
    }
    Ok(())
}

/// The record of a new partition: led by the first of its replicas that serves, all that serve in sync.
pub(super) fn partition_record(
    image: &Image,
    topic_id: Uuid,
    partition_id: i32,
    replicas: Vec<i32>,
) -> Result<PartitionRecord, Refusal> {
    let serving = |broker: &i32| image.broker(*broker).is_some_and(|broker| !broker.fenced);
    let isr: Vec<i32> = replicas.iter().copied().filter(serving).collect();
    let Some(&leader) = isr.first() else {
        return Err(Refusal::new(
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            format!("all brokers that partition {partition_id} is assigned to are out of service"),
        ));
    };
    let directories = replicas
        .iter()
        .map(|&broker| directory(image, broker, topic_id, partition_id))
        .collect();
    Ok(PartitionRecord {
        partition_id,
        topic_id,
        replicas,
        isr,
        leader,
        leader_recovery_state: RECOVERED,
        leader_epoch: 0,
        partition_epoch: 0,
        directories,
        ..PartitionRecord::default()
    })
}

/// Where a broker keeps the replica, for good (KIP-858): partitions go round its data directories, from one that follows from the topic's id.
/// A broker that has told of no directories chooses by itself.
fn directory(image: &Image, broker: i32, topic_id: Uuid, partition: i32) -> Uuid {
    let directories = image
        .broker(broker)
        .map(|broker| broker.directories.as_slice())
        .unwrap_or_default();
    let start = topic_id
        .0
        .iter()
        .map(|byte| usize::from(*byte))
        .sum::<usize>();
    let turn = (start + partition.max(0) as usize) % directories.len().max(1);
    directories.get(turn).copied().unwrap_or(Uuid::ZERO)
}
