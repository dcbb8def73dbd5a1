//! `transactions`: what transactions cost a producer. The same producer with and without them, in turns (A B B A), on one topic each time.

use std::time::Duration;

use super::producer::{Load, Producer};
use super::{CoordinatorError, Outcome, Target};
use crate::compare::statistics::{median, ratio};
use crate::watch::Watch;

/// How to produce. Batches are always full, so a linger never comes into play.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Transactions {
    /// Length of a transaction, in milliseconds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub transaction_ms: u32,
    /// Partitions
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub partitions: u32,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    pub record_bytes: u32,
    /// Bytes of a batch; Java's producer has 16384
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(128..=1_000_000))]
    pub batch_bytes: u32,
    /// Pairs: each is one run with transactions and one without
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub pairs: u32,
    /// Seconds of each run that are not measured
    #[arg(long, default_value_t = 2.0, value_parser = super::seconds)]
    pub warmup_s: f64,
    /// Seconds of each run that are measured
    #[arg(long, default_value_t = 10.0, value_parser = super::seconds)]
    pub duration_s: f64,
}

/// Runs all pairs against one broker.
pub fn run(target: &Target, plan: &Transactions) -> Result<Outcome, CoordinatorError> {
    let mut admin = target.admin()?;
    let mut outcome = Outcome::default();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let (mut rates, mut p50, mut p99, mut again) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let (mut first_p50, mut first_p99) = (Vec::new(), Vec::new());
    let watch = Watch::start(target.pid, Duration::ZERO, Duration::MAX, false);
    for pair in 0..plan.pairs {
        // A B, then B A.
        for turn in 0..2 {
            let transactional = (turn == 0) == (pair % 2 == 0);
            let topic = target.name(&format!("transactions-{pair}-{turn}"));
            target.create(&mut admin, &topic, plan.partitions as usize)?;
            let id = target.name("transactional-id");
            let load = Load {
                topic: &topic,
                partitions: plan.partitions as usize,
                record_bytes: plan.record_bytes as usize,
                batch_bytes: plan.batch_bytes as usize,
                transactions: transactional
                    .then_some((id.as_str(), u64::from(plan.transaction_ms) * 1_000_000)),
            };
            let producer = Producer::open(&mut admin, load)?;
            let produced = producer.run(plan.warmup_s, plan.duration_s)?;
            let mb_per_s = produced.bytes as f64 / 1e6 / plan.duration_s;
            if transactional {
                with.push(mb_per_s);
                rates.push(produced.transactions as f64 / plan.duration_s);
                if let Some(summary) = produced.firsts.summary() {
                    first_p50.push(summary.p50_ms);
                    first_p99.push(summary.p99_ms);
                }
                if let Some(summary) = produced.commits.summary() {
                    p50.push(summary.p50_ms);
                    p99.push(summary.p99_ms);
                    outcome.latency = Some(summary);
                }
            } else {
                without.push(mb_per_s);
            }
            for (code, count) in produced.errors {
                *outcome.sent_again.entry(code).or_default() += count;
            }
            again += produced.batches_again + produced.calls_again;
            target.drop_topic(&mut admin, &topic)?;
            // A deleted topic goes before the next run, and what a page cache still holds is written by whoever caused it.
            rustix::fs::sync();
        }
    }
    outcome.observed = watch.finish();
    for (name, values) in [
        ("transactional_mb_per_s", &mut with.clone()),
        ("idempotent_mb_per_s", &mut without.clone()),
        ("transactions_per_s", &mut rates),
        ("commit_p50_ms", &mut p50),
        ("commit_p99_ms", &mut p99),
        ("first_batch_p50_ms", &mut first_p50),
        ("first_batch_p99_ms", &mut first_p99),
    ] {
        if let Some(value) = median(values) {
            outcome.figure(name, value);
        }
    }
    match ratio(&with, &without) {
        Some(share) => {
            outcome.figure("transactional_share", share.median);
            outcome.figure("transactional_share_low", share.low);
            outcome.figure("transactional_share_high", share.high);
        }
        None => outcome
            .problems
            .push("nothing was written without transactions".into()),
    }
    outcome.figure("sent_again", again as f64);
    Ok(outcome)
}
