//! What an outcome is worth: what went wrong makes it incomplete, what disturbed it makes it doubtful.

use crate::results::{ConsumerFigures, Outcome};
use crate::verify::Verdict;
use crate::watch::Observed;

/// Lateness of the generator's own that makes a run doubtful.
const LATE_P99_MS: f64 = 1.0;
/// Stolen CPU that makes a run doubtful.
const STEAL_MAX: f64 = 0.02;
/// Seconds of standing still that make a run doubtful.
const STOOD_STILL_MAX_S: f64 = 0.25;
/// Share of the window for which a control group may be held back.
const THROTTLED_MAX: f64 = 0.01;
/// Cores busy with something else that make a run doubtful.
const OTHERS_MAX: f64 = 0.15;
/// Cores from which on the generator's one thread is full.
const CORE_FULL: f64 = 0.95;

/// Decides whether the run counts, and what makes it doubtful.
pub fn judge(outcome: &mut Outcome) {
    producer(outcome);
    if let Some(consumer) = &outcome.consumer {
        outcome.problems.extend(consumer_problems(consumer));
    }
    companions(outcome);
    if let Some(seen) = &outcome.observed {
        outcome.doubts.extend(disturbances(seen));
        let closed_loop = outcome
            .producer
            .as_ref()
            .is_some_and(|load| load.closed_loop);
        if closed_loop && seen.generator.cores() > CORE_FULL {
            let full = "the generator's core was full: the broker may be able to do more";
            outcome.doubts.push(full.into());
        }
    }
    if let Some(verdict) = outcome.verdict.as_ref().filter(|verdict| !verdict.clean()) {
        outcome.broken = true;
        outcome.problems.push(unclean(verdict));
    }
    outcome.complete = outcome.problems.is_empty();
}

fn producer(outcome: &mut Outcome) {
    let Some(producer) = &outcome.producer else {
        return;
    };
    if producer.records_unanswered + producer.records_never_offered > 0 {
        outcome.problems.push(format!(
            "{} records were never answered and {} never sent",
            producer.records_unanswered, producer.records_never_offered
        ));
    }
    for (error, records) in &producer.errors {
        outcome
            .problems
            .push(format!("{records} records were refused with {error}"));
    }
    if let Some(late) = producer
        .lateness
        .as_ref()
        .filter(|late| late.p99_ms > LATE_P99_MS)
    {
        outcome.doubts.push(format!(
            "the generator itself was late (p99 {:.2} ms): it, or the processor it shares with the broker, is part of the latency",
            late.p99_ms
        ));
    }
    if let Some(shortfall) = outcome.shortfall() {
        outcome.doubts.push(shortfall.to_string());
    }
}

fn consumer_problems(consumer: &ConsumerFigures) -> Vec<String> {
    let errors = consumer.errors.iter();
    let mut problems: Vec<String> = errors
        .map(|(error, times)| format!("fetches were answered {times} times with {error}"))
        .collect();
    if consumer.damaged_batches > 0 {
        problems.push(format!(
            "{} fetched batches were damaged",
            consumer.damaged_batches
        ));
    }
    problems
}

fn companions(outcome: &mut Outcome) {
    if let Some(churn) = outcome.churn.as_ref().filter(|churn| churn.failed > 0) {
        outcome.problems.push(format!(
            "{} of {} connections that came and went failed, the first with: {}",
            churn.failed,
            churn.failed + churn.opened,
            churn.first_failure.as_deref().unwrap_or("?")
        ));
    }
    if let Some(slow) = &outcome.slow_readers
        && let Some(failure) = &slow.first_failure
    {
        outcome.problems.push(format!(
            "{} slow readers broke, the first with: {failure}",
            slow.broken
        ));
    }
}

fn disturbances(seen: &Observed) -> Vec<String> {
    let mut doubts = Vec::new();
    if seen.machine.steal > STEAL_MAX {
        doubts.push(format!(
            "disturbed: {:.1} % of the CPU time was stolen",
            seen.machine.steal * 100.0
        ));
    }
    if seen.machine.stood_still_s > STOOD_STILL_MAX_S {
        doubts.push(format!(
            "disturbed: the machine stood still for {:.1} s (a thread that only sleeps was that late)",
            seen.machine.stood_still_s
        ));
    }
    for (who, usage) in [
        ("broker", seen.broker.as_ref()),
        ("generator", Some(&seen.generator)),
    ] {
        if let Some(usage) = usage
            && let Some(held) = usage.throttled
            && held.seconds > usage.seconds * THROTTLED_MAX
        {
            doubts.push(format!(
                "disturbed: the {who}'s control group was held back by its CPU limit {} times, for {:.2} s",
                held.times, held.seconds
            ));
        }
    }
    if let Some(others) = seen.machine.other_cores.filter(|&cores| cores > OTHERS_MAX) {
        doubts.push(format!(
            "disturbed: other processes kept {others:.2} cores busy"
        ));
    }
    doubts
}

fn unclean(verdict: &Verdict) -> String {
    format!(
        "verification failed: {} lost, {} duplicated, {} reordered, {} corrupted",
        verdict.lost, verdict.duplicated, verdict.reordered, verdict.corrupted
    )
}

#[cfg(test)]
mod tests {
    //! What is missing makes a run incomplete, what disturbs it makes it doubtful, and a quiet whole one is neither.
    use std::collections::BTreeMap;

    use super::*;
    use crate::environment::Environment;
    use crate::results::ProducerFigures;
    use crate::watch::{MachineUsage, Throttling, Usage};
    use crate::workload::Workload;

    fn outcome() -> Outcome {
        let text = "name = 'a'\n[producer]\nrate = 'max'\n";
        let workload = Workload::parse(text, "w.toml", &[]).unwrap();
        Outcome::new(&workload, Environment::find(None))
    }

    fn producer() -> ProducerFigures {
        ProducerFigures {
            closed_loop: true,
            records_per_s: 10.0,
            mb_per_s: 1.0,
            records: 100,
            bytes: 1000,
            requests: 10,
            batches: 10,
            records_offered: 100,
            records_acknowledged: 100,
            records_unanswered: 0,
            records_never_offered: 0,
            errors: BTreeMap::new(),
            latency: None,
            lateness: None,
            series: Vec::new(),
        }
    }

    fn observed(generator_cores: f64) -> Observed {
        Observed {
            broker: None,
            generator: Usage {
                seconds: 10.0,
                exact_cpu_s: Some(generator_cores * 10.0),
                user_s: 0.0,
                system_s: 0.0,
                rss_bytes: 0,
                rss_max_bytes: 0,
                read_bytes: None,
                write_bytes: None,
                read_calls: None,
                write_calls: None,
                voluntary_switches: None,
                involuntary_switches: None,
                syscalls: None,
                throttled: None,
                threads: 1,
            },
            machine: MachineUsage {
                steal: 0.0,
                idle: 0.5,
                other_cores: None,
                stood_still_s: 0.0,
                disk_written_bytes: 0,
                disk_read_bytes: 0,
                disk_writes: 0,
                disk_flushes: 0,
            },
            syscalls_refused: None,
            series: Vec::new(),
        }
    }

    fn judged(mut outcome: Outcome) -> Outcome {
        judge(&mut outcome);
        outcome
    }

    #[test]
    fn a_quiet_whole_run_counts() {
        let judged = judged(Outcome {
            producer: Some(producer()),
            observed: Some(observed(0.5)),
            verdict: Some(Verdict::default()),
            ..outcome()
        });
        assert!(judged.complete && !judged.broken);
        assert!(judged.problems.is_empty() && judged.doubts.is_empty());
    }

    #[test]
    fn what_is_missing_makes_a_run_incomplete() {
        let missing = judged(Outcome {
            producer: Some(ProducerFigures {
                records_unanswered: 1,
                errors: [("NOT_LEADER".to_string(), 3)].into(),
                ..producer()
            }),
            ..outcome()
        });
        assert!(!missing.complete && !missing.broken);
        assert_eq!(missing.problems.len(), 2, "{:?}", missing.problems);
        let lost = judged(Outcome {
            verdict: Some(Verdict {
                lost: 1,
                ..Verdict::default()
            }),
            ..outcome()
        });
        assert!(!lost.complete && lost.broken);
        assert!(lost.problems[0].contains("1 lost"), "{:?}", lost.problems);
    }

    #[test]
    fn what_disturbs_a_run_makes_it_doubtful() {
        let mut seen = observed(0.96);
        seen.machine = MachineUsage {
            steal: STEAL_MAX * 1.1,
            stood_still_s: STOOD_STILL_MAX_S * 1.1,
            other_cores: Some(OTHERS_MAX * 1.1),
            ..seen.machine
        };
        seen.generator.throttled = Some(Throttling {
            times: 1,
            seconds: 0.2,
        });
        let doubtful = judged(Outcome {
            producer: Some(producer()),
            observed: Some(seen),
            ..outcome()
        });
        assert!(doubtful.complete);
        for word in [
            "stolen",
            "stood still",
            "generator's control group",
            "other processes",
            "core was full",
        ] {
            let told = doubtful.doubts.iter().any(|doubt| doubt.contains(word));
            assert!(told, "{word}: {:?}", doubtful.doubts);
        }
        assert_eq!(doubtful.doubts.len(), 5);
    }
}
