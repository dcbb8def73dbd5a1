//! Every trial is listed, and ends are told apart: on outcomes that are made up, so that no machine's mood decides.

use super::*;
use crate::environment::Environment;
use crate::latency::Latencies;
use crate::results::ProducerFigures;

/// A run at the workload's rate that reached `reached` records/s with every latency at `latency_ms`.
fn outcome(workload: &Workload, reached: f64, latency_ms: u64, late_ms: u64) -> Outcome {
    let summary = |ms: u64| {
        let mut latencies = Latencies::new(0);
        latencies.record(1, ms * 1_000_000, 1000);
        latencies.summary()
    };
    let producer = ProducerFigures {
        closed_loop: false,
        records_per_s: reached,
        mb_per_s: 1.0,
        records: 1000,
        bytes: 1000,
        requests: 1000,
        batches: 1000,
        records_offered: 1000,
        records_acknowledged: 1000,
        records_unanswered: 0,
        records_never_offered: 0,
        errors: Default::default(),
        latency: summary(latency_ms),
        lateness: summary(late_ms),
        series: Vec::new(),
    };
    Outcome {
        producer: Some(producer),
        ..Outcome::new(workload, Environment::find(None))
    }
}

fn rate_of(workload: &Workload) -> f64 {
    own_rate(workload).unwrap()
}

/// From 100 records/s on, p99 of at most 10 ms, no more than 300 records/s.
fn searched(run: RunOnce<'_>) -> Trials {
    let workload = Workload::parse("name = 'a'\n[producer]\nrate = 100\n", "w.toml", &[]);
    let question = Question::Highest {
        p99_ms: 10.0,
        precision: 0.05,
        rate_max: 300.0,
    };
    search(&workload.unwrap(), question, run, &|_| {}).unwrap()
}

fn rates(found: &Trials) -> Vec<f64> {
    found.trials.iter().map(|trial| trial.rate).collect()
}

#[test]
fn a_search_lists_its_trials_and_holds_twice() {
    let found = searched(&|workload| Ok(outcome(workload, rate_of(workload), 5, 0)));
    assert_eq!(rates(&found), [100.0, 200.0, 300.0, 300.0]);
    assert!(found.trials.iter().all(|trial| trial.held));
    assert_eq!(found.ending, Some(Ending::Ceiling));
    assert_eq!(found.highest, Some(300.0));
    assert!(found.complete());
    let answer =
        "300 records/s held with a p99 of at most 10 ms, twice; no more than 300 was asked for.";
    assert_eq!(found.answer(), answer);
}

#[test]
fn a_search_closes_in_on_the_limit() {
    let slow_above = |workload: &Workload| {
        let rate = rate_of(workload);
        Ok(outcome(
            workload,
            rate,
            if rate > 120.0 { 50 } else { 5 },
            0,
        ))
    };
    let found = searched(&slow_above);
    assert_eq!(found.ending, Some(Ending::Found));
    let (low, high) = (found.highest.unwrap(), found.lowest_failed.unwrap());
    assert!(
        (100.0..=120.0).contains(&low) && high > 120.0,
        "{low} {high}"
    );
    let failed = found.trials.iter().find(|trial| !trial.held).unwrap();
    assert_eq!(failed.limit, Some(Limit::Broker));
    assert!(failed.why.contains("is above 10 ms"), "{}", failed.why);
}

#[test]
fn what_the_generator_cannot_make_is_not_the_brokers_limit() {
    let late_above = |workload: &Workload| {
        let rate = rate_of(workload);
        Ok(match rate > 250.0 {
            true => outcome(workload, rate / 2.0, 5, 500),
            false => outcome(workload, rate, 5, 0),
        })
    };
    let found = searched(&late_above);
    assert_eq!(found.ending, Some(Ending::Generator));
    assert!(!found.complete());
    assert!(
        found.answer().starts_with("At least 2"),
        "{}",
        found.answer()
    );
    // Latency that is mostly the generator's own delay is the generator's as well.
    let own_delay = searched(&|workload| Ok(outcome(workload, rate_of(workload), 50, 40)));
    assert!(
        own_delay
            .trials
            .iter()
            .all(|trial| trial.limit == Some(Limit::Generator))
    );
}

#[test]
fn a_run_that_breaks_ends_the_search_and_leaves_the_trials_before() {
    let dies_at_200 = |workload: &Workload| {
        let rate = rate_of(workload);
        let whole = outcome(workload, rate, 5, 0);
        let broken = rate >= 200.0;
        let problems = broken.then(|| "a connection to the broker broke".to_string());
        Ok(Outcome {
            broken,
            complete: !broken,
            problems: problems.into_iter().collect(),
            ..whole
        })
    };
    let found = searched(&dies_at_200);
    assert_eq!(rates(&found), [100.0, 200.0]);
    assert!(found.trials[0].held && !found.trials[1].held);
    assert_eq!((found.ending, found.highest), (None, Some(100.0)));
    assert!(!found.complete());
    assert_eq!(found.problems.len(), 1);
}
