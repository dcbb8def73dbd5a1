//! `million`: very many committed offsets, and how soon a broker that starts again answers for them.
//!
//! A broker is asked for the offset of one group in every partition of `__consumer_offsets`, on a connection of its own from the moment it is
//! started: the first answer with the right offset, and the moment all are right, which is when everything has been loaded.

use std::time::{Duration, Instant};

use ringlog_net::api::ApiKey;

use super::{CoordinatorError, Outcome, Target, bulk, commits};
use crate::client::admin::Admin;
use crate::client::coordination::KeyType;
use crate::compare::peer::Peer;

/// Partitions of `__consumer_offsets`, unless configured otherwise.
const OFFSETS_PARTITIONS: u32 = 50;
const PATIENCE: Duration = Duration::from_secs(180);
const ASK_EVERY: Duration = Duration::from_millis(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many offsets, and how the broker ends.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Million {
    /// Groups
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub groups: u32,
    /// Partitions that each has committed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// Stop the broker cleanly, start it and time it; needs --peer
    #[arg(long)]
    pub restart: bool,
    /// Kill the broker (-9), start it and time it; needs --peer
    #[arg(long)]
    pub crash: bool,
}

/// Commits them all. The groups' names are the target's, so that [`time_start`] finds them.
pub fn run(target: &Target, plan: &Million) -> Result<Outcome, CoordinatorError> {
    let mut admin = target.admin()?;
    let topic = target.name("million");
    target.create(&mut admin, &topic, plan.partitions as usize)?;
    let address = admin.coordinator(&group(target, 0), KeyType::Group)?;
    let version = admin.version(ApiKey::OffsetCommit, "OffsetCommit")?;
    let partitions = i32::try_from(plan.partitions).unwrap_or(i32::MAX);
    let seconds = bulk::commit_all(address, version, plan.groups as usize, |task| {
        commits::commit(
            &group(target, task as u32),
            &topic,
            0..partitions,
            offset(task as u32),
        )
    })?;
    let mut outcome = Outcome::default();
    let offsets = f64::from(plan.groups) * f64::from(plan.partitions);
    outcome.figure("offsets", offsets);
    outcome.figure("offsets_per_s", offsets / seconds);
    Ok(outcome)
}

fn group(target: &Target, number: u32) -> String {
    target.name(&format!("g{number}"))
}

fn offset(number: u32) -> i64 {
    i64::from(number) + 7
}

/// The partition of `__consumer_offsets` that a group is kept in: Java's hash of its name, without the sign, by their number.
fn partition_of(group: &str) -> u32 {
    let hash = group.encode_utf16().fold(0u32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(u32::from(unit))
    });
    (hash & 0x7fff_ffff) % OFFSETS_PARTITIONS
}

/// One group of each partition, as far as there are groups in it.
fn probes(target: &Target, groups: u32) -> Vec<u32> {
    let mut found = std::collections::BTreeMap::new();
    for number in 0..groups {
        if found.len() == OFFSETS_PARTITIONS as usize {
            break;
        }
        found
            .entry(partition_of(&group(target, number)))
            .or_insert(number);
    }
    found.into_values().collect()
}

/// Ends the peer as `crash` says, starts it, and adds the times to `outcome`, under names that begin with `prefix`.
pub fn time_start(
    peer: &mut Peer,
    target: &Target,
    plan: &Million,
    crash: bool,
    outcome: &mut Outcome,
) -> Result<(), CoordinatorError> {
    let names = if crash {
        [
            "crash_ready_s",
            "crash_first_offset_s",
            "crash_all_offsets_s",
        ]
    } else {
        [
            "restart_ready_s",
            "restart_first_offset_s",
            "restart_all_offsets_s",
        ]
    };
    if crash {
        peer.kill()?;
    } else {
        outcome.figure("stop_s", peer.stop()?.as_secs_f64());
    }
    let questions: Vec<(String, i64)> = probes(target, plan.groups)
        .into_iter()
        .map(|number| (group(target, number), offset(number)))
        .collect();
    let (address, topic) = (peer.address(), target.name("million"));
    let begun = Instant::now();
    let asking = std::thread::spawn(move || ask(&address, &topic, &questions, begun));
    let ready = peer.start();
    let answered = asking
        .join()
        .map_err(|_| CoordinatorError::TooSlow("the offsets after a start"))?;
    let ready = ready?.as_secs_f64();
    let (first, all) = answered?;
    for (name, value) in names.into_iter().zip([ready, first, all]) {
        outcome.figure(name, value);
    }
    Ok(())
}

/// Seconds from `begun` to the first right answer, and to the last.
fn ask(
    address: &str,
    topic: &str,
    questions: &[(String, i64)],
    begun: Instant,
) -> Result<(f64, f64), CoordinatorError> {
    let mut first = None;
    let mut at = 0;
    let mut connection: Option<Admin> = None;
    while at < questions.len() {
        if begun.elapsed() > PATIENCE {
            return Err(CoordinatorError::TooSlow("the offsets after a start"));
        }
        if connection.is_none() {
            connection = Admin::connect(address, CONNECT_TIMEOUT).ok();
        }
        let (name, expected) = &questions[at];
        let answer = connection
            .as_mut()
            .map(|admin| admin.committed(name, topic, 0));
        match answer {
            Some(Ok(Ok(found))) if found == *expected => {
                first.get_or_insert(begun.elapsed().as_secs_f64());
                at += 1;
                continue;
            }
            // What a loaded coordinator does not know is lost.
            Some(Ok(Ok(found))) => {
                return Err(CoordinatorError::Lost {
                    group: name.clone(),
                    found,
                    expected: *expected,
                });
            }
            Some(Ok(Err(code))) if !code.is_retriable() => {
                return Err(CoordinatorError::Refused {
                    what: "to tell an offset".into(),
                    code,
                });
            }
            Some(Ok(Err(_))) => {}
            // Not listening yet, or closing what came too early.
            Some(Err(_)) | None => connection = None,
        }
        std::thread::sleep(ASK_EVERY);
    }
    let all = begun.elapsed().as_secs_f64();
    Ok((first.unwrap_or(all), all))
}

#[cfg(test)]
mod tests {
    //! Groups are told apart by partition as Kafka does it.
    use super::*;

    #[test]
    fn partitions_of_groups_are_javas() {
        // "group".hashCode() is 98629247; "polygenelubricants".hashCode() is the smallest integer, whose absolute value is none.
        assert_eq!(partition_of("group"), 98_629_247 % 50);
        assert_eq!(partition_of("polygenelubricants"), 0);
        let target = Target::for_tests();
        let found = probes(&target, 10_000);
        assert_eq!(found.len(), 50);
        let mut partitions: Vec<u32> = found
            .iter()
            .map(|n| partition_of(&group(&target, *n)))
            .collect();
        partitions.sort_unstable();
        partitions.dedup();
        assert_eq!(partitions.len(), 50);
    }
}
