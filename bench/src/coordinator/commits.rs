//! `commits`: so many committers, each with its own connection, that commit again as soon as they are answered: a closed loop.
//!
//! A committer is a consumer without a group membership (generation −1), as one that assigns itself its partitions; what its commit costs the
//! broker, the record in `__consumer_offsets` and the answer, is what a member's costs.

use std::io;
use std::time::Duration;

use ringlog_net::api::ApiKey;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse,
};

use super::{CoordinatorError, Outcome, Target};
use crate::client::clock::Clock;
use crate::client::coordination::KeyType;
use crate::client::fleet::Fleet;
use crate::client::wire;
use crate::latency::Latencies;
use crate::watch::Watch;

/// How long an answer may be outstanding before the run is given up.
const PATIENCE_NS: u64 = 60_000_000_000;

/// How to commit.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Commits {
    /// Committers, each with its own connection
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub committers: u32,
    /// All commit to one group, each its own partition, instead of each to its own group
    #[arg(long)]
    pub one_group: bool,
    /// Seconds of load that are not measured
    #[arg(long, default_value_t = 5.0, value_parser = super::seconds)]
    pub warmup_s: f64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 20.0, value_parser = super::seconds)]
    pub duration_s: f64,
}

/// A commit of `offset` for each of `partitions`, by nobody in particular.
pub fn commit(
    group: &str,
    topic: &str,
    partitions: impl Iterator<Item = i32>,
    offset: i64,
) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: partitions
                .map(|partition_index| OffsetCommitRequestPartition {
                    partition_index,
                    committed_offset: offset,
                    committed_leader_epoch: -1,
                    committed_metadata: Some("".into()),
                })
                .collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The first error of an answer to a commit, and how many partitions it answers for.
pub fn first_error(version: i16, frame: bytes::Bytes) -> io::Result<(ErrorCode, usize)> {
    let response: OffsetCommitResponse = wire::decode(ApiKey::OffsetCommit, version, frame)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    let partitions = || response.topics.iter().flat_map(|topic| &topic.partitions);
    let error = partitions().find(|partition| partition.error_code.is_error());
    Ok((
        error.map_or(ErrorCode::NONE, |partition| partition.error_code),
        partitions().count(),
    ))
}

/// Runs it once against one broker.
pub fn run(target: &Target, plan: &Commits) -> Result<Outcome, CoordinatorError> {
    let mut admin = target.admin()?;
    let committers = plan.committers as usize;
    let topic = target.name("commits");
    target.create(&mut admin, &topic, committers)?;
    let groups: Vec<String> = (0..committers)
        .map(|index| {
            let index = if plan.one_group { 0 } else { index };
            target.name(&format!("committer-{index}"))
        })
        .collect();
    let address = admin.coordinator(&groups[0], KeyType::Group)?;
    let version = admin.version(ApiKey::OffsetCommit, "OffsetCommit")?;
    let mut fleet = Fleet::open(address, committers)?;
    let request = |committer: usize, offset: i64| {
        let partition = i32::try_from(committer).unwrap_or(0);
        commit(
            &groups[committer],
            &topic,
            std::iter::once(partition),
            offset,
        )
    };

    let clock = Clock::start();
    let begins = (plan.warmup_s * 1e9) as u64;
    let ends = begins + (plan.duration_s * 1e9) as u64;
    let watch = Watch::start(
        target.pid,
        Duration::from_secs_f64(plan.warmup_s),
        Duration::from_secs_f64(plan.duration_s),
        false,
    );
    let mut outcome = Outcome::default();
    let mut latencies = Latencies::new(begins);
    let mut sent = vec![0u64; committers];
    let mut offsets = vec![0i64; committers];
    for (committer, begun) in sent.iter_mut().enumerate() {
        *begun = clock.now();
        fleet.send(
            committer,
            ApiKey::OffsetCommit,
            version,
            &request(committer, 0),
        )?;
    }
    let (mut arrived, mut outstanding, mut commits) = (Vec::new(), committers, 0u64);
    while outstanding > 0 && clock.now() < ends + PATIENCE_NS {
        fleet.poll(Duration::from_millis(100), &mut arrived)?;
        for answer in arrived.drain(..) {
            let now = clock.now();
            let (committer, begun) = (answer.connection, sent[answer.connection]);
            let (error, partitions) = first_error(answer.version, answer.frame)?;
            let measured = now >= begins && now < ends;
            if error.is_error() || partitions != 1 {
                // Groups that are still being loaded are not what is measured; later it is an error like any other.
                if measured || !error.is_retriable() {
                    outcome.refused(error);
                }
            } else if measured {
                latencies.record(now, now - begun, 1);
                commits += 1;
            }
            if now >= ends {
                outstanding -= 1;
                continue;
            }
            offsets[committer] += 1;
            sent[committer] = now;
            let next = request(committer, offsets[committer]);
            fleet.send(committer, ApiKey::OffsetCommit, version, &next)?;
        }
    }
    if outstanding > 0 {
        outcome
            .problems
            .push(format!("{outstanding} commits were never answered"));
    }
    outcome.observed = watch.finish();
    outcome.figure("commits_per_s", commits as f64 / plan.duration_s);
    outcome.latency = latencies.summary();
    if let Some(summary) = &outcome.latency {
        let figures = [
            ("commit_p50_ms", summary.p50_ms),
            ("commit_p99_ms", summary.p99_ms),
            ("commit_p999_ms", summary.p999_ms),
            ("commit_max_ms", summary.max_ms),
        ];
        outcome.figures.extend(figures);
    }
    outcome.costs(commits, "broker_us_per_commit");
    target.drop_topic(&mut admin, &topic)?;
    Ok(outcome)
}
