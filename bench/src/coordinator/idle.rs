//! `idle`: memory that groups cost which only remember an offset. The broker's resident memory is read before and after so many of them
//! were made, once the buffers that commits need are there.

use std::time::Duration;

use ringlog_net::api::ApiKey;

use super::{CoordinatorError, Outcome, Target, bulk, commits};
use crate::client::coordination::KeyType;
use crate::compare::statistics::median;
use crate::watch::Watch;

/// Groups that the commits before the first reading go round in.
const WARM_GROUPS: usize = 64;

/// How many groups.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Idle {
    /// Groups without members, each with one committed offset
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub groups: u32,
    /// Steps, each of as many groups; the figure is the median step's
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub steps: u32,
    /// Seconds of rest before memory is read
    #[arg(long, default_value_t = 5.0, value_parser = super::seconds)]
    pub rest_s: f64,
}

/// Runs it once against one broker, whose pid must be known.
pub fn run(target: &Target, plan: &Idle) -> Result<Outcome, CoordinatorError> {
    let mut admin = target.admin()?;
    let topic = target.name("idle");
    target.create(&mut admin, &topic, 1)?;
    let address = admin.coordinator(&target.name("warm-0"), KeyType::Group)?;
    let version = admin.version(ApiKey::OffsetCommit, "OffsetCommit")?;
    let count = plan.groups as usize;
    let one = |group: String, offset| commits::commit(&group, &topic, std::iter::once(0), offset);
    // As many commits as will follow, but of few groups: what is left of the growth is the groups'.
    bulk::commit_all(address, version, count, |task| {
        one(target.name(&format!("warm-{}", task % WARM_GROUPS)), 1)
    })?;
    let first = resident(target, plan.rest_s)?;
    let (mut before, mut growth, mut seconds) = (first, Vec::new(), 0.0);
    for step in 0..plan.steps {
        seconds += bulk::commit_all(address, version, count, |task| {
            one(target.name(&format!("idle-{step}-{task}")), 1)
        })?;
        let after = resident(target, plan.rest_s)?;
        growth.push((after as f64 - before as f64) / count as f64);
        before = after;
    }
    let groups = count as f64 * f64::from(plan.steps);
    let mut outcome = Outcome::default();
    outcome.figure(
        "rss_bytes_per_group_mean",
        (before as f64 - first as f64) / groups,
    );
    outcome.figure("rss_before_mb", first as f64 / 1e6);
    outcome.figure("rss_after_mb", before as f64 / 1e6);
    outcome.figure("groups_made_per_s", groups / seconds);
    for (name, step) in [
        ("rss_bytes_per_group_first_step", growth.first().copied()),
        ("rss_bytes_per_group_last_step", growth.last().copied()),
    ] {
        if let Some(step) = step {
            outcome.figure(name, step);
        }
    }
    if let Some(step) = median(&mut growth) {
        outcome.figure("rss_bytes_per_group", step);
    }
    target.drop_topic(&mut admin, &topic)?;
    Ok(outcome)
}

/// Resident bytes of the broker at the end of a rest.
fn resident(target: &Target, rest_s: f64) -> Result<u64, CoordinatorError> {
    let rest = Duration::from_secs_f64(rest_s);
    let watch = Watch::start(target.pid, Duration::ZERO, rest, false);
    std::thread::sleep(rest);
    let usage = watch.finish().and_then(|seen| seen.broker);
    let bytes = usage
        .map(|usage| usage.rss_bytes)
        .filter(|&bytes| bytes > 0);
    bytes.ok_or(CoordinatorError::NoPid)
}
