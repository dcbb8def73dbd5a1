//! Runs of one workload at several rates: the highest rate whose 99th percentile stays under a limit, and latency over given rates.
//!
//! [`bracket`] decides what is tried next and knows nothing of brokers; this file runs the trials and says what each means; [`report`]
//! tells it. A rate that the generator itself could not make is never taken for the broker's limit.

pub mod bracket;
pub mod report;

use serde::Serialize;

use crate::results::{Limit, Outcome};
use crate::run::RunError;
use crate::workload::{Rate, Workload};
use bracket::{Bracket, Ending, Step, Tried};

/// One run at one rate.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Records per second asked for.
    pub rate: f64,
    /// Whether it held: complete, made in full, and under the limit where there is one.
    pub held: bool,
    /// Who was the limit, where it did not hold.
    pub limit: Option<Limit>,
    /// Why it counts as it does.
    pub why: String,
    /// The whole outcome.
    pub outcome: Outcome,
}

/// What was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The highest rate with a 99th percentile of at most this many ms.
    Highest {
        /// The limit.
        p99_ms: f64,
        /// Ratio of the rates at the ends of the bracket, less one, at which the search is over.
        precision: f64,
        /// No rate above this one is tried.
        rate_max: f64,
    },
    /// Latency at given rates.
    Sweep,
}

/// All trials, and what they say.
#[derive(Clone, Debug, Serialize)]
pub struct Trials {
    /// The workload's name.
    pub workload: String,
    /// What was looked for.
    pub question: Question,
    /// Highest rate that held, and held again.
    pub highest: Option<f64>,
    /// Lowest rate that did not.
    pub lowest_failed: Option<f64>,
    /// How a search ended.
    pub ending: Option<Ending>,
    /// All trials in the order they were made.
    pub trials: Vec<Trial>,
    /// What could not be done.
    pub problems: Vec<String>,
}

/// Why nothing could be tried.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The workload has no rate to change.
    #[error(
        "{0}: rates are tried on an open loop: the workload needs a [producer] with a rate in records/s, not \"max\""
    )]
    NoRate(String),
    /// The first run gave nothing.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl Trials {
    fn new(workload: &Workload, question: Question) -> Trials {
        Trials {
            workload: workload.name.clone(),
            question,
            highest: None,
            lowest_failed: None,
            ending: None,
            trials: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Whether the question has its answer: every rate was made by the generator, nothing broke, and a search found its bracket.
    pub fn complete(&self) -> bool {
        let sound = self.trials.iter().all(|trial| !trial.outcome.broken);
        self.problems.is_empty()
            && sound
            && match self.question {
                Question::Sweep => self
                    .trials
                    .iter()
                    .all(|trial| trial.limit != Some(Limit::Generator)),
                Question::Highest { .. } => {
                    matches!(self.ending, Some(Ending::Found | Ending::Ceiling))
                }
            }
    }

    /// The answer in a sentence.
    pub fn answer(&self) -> String {
        let Question::Highest {
            p99_ms, rate_max, ..
        } = self.question
        else {
            return format!(
                "Latency of {} at {} rates.",
                self.workload,
                self.trials.len()
            );
        };
        let rate = |rate: Option<f64>| rate.map_or("?".to_string(), |rate| format!("{rate:.0}"));
        let (low, high) = (rate(self.highest), rate(self.lowest_failed));
        match self.ending {
            Some(Ending::Found) => format!(
                "{low} records/s held with a p99 of at most {p99_ms} ms, twice; {high} did not."
            ),
            Some(Ending::Ceiling) => format!(
                "{low} records/s held with a p99 of at most {p99_ms} ms, twice; no more than {rate_max:.0} was asked for."
            ),
            Some(Ending::Generator) => format!(
                "At least {low} records/s hold with a p99 of at most {p99_ms} ms; at {high} the generator is the limit, so the broker's is not known."
            ),
            Some(Ending::Nothing) => format!(
                "No rate held with a p99 of at most {p99_ms} ms; {high} was the lowest that was tried."
            ),
            Some(Ending::Trials) => format!(
                "Not settled within {} trials: {low} records/s held, {high} did not.",
                self.trials.len()
            ),
            None => format!("The search broke off: {low} records/s held, {high} did not."),
        }
    }
}

fn at_rate(workload: &Workload, rate: f64) -> Workload {
    let mut workload = workload.clone();
    if let Some(producer) = &mut workload.producer {
        producer.rate = Rate::PerSecond(rate);
    }
    workload
}

/// What the trial says, under a limit if there is one.
fn judged(rate: f64, outcome: Outcome, p99_limit_ms: Option<f64>) -> Trial {
    let late_p99_ms = outcome
        .producer
        .as_ref()
        .and_then(|producer| producer.lateness.as_ref())
        .map_or(0.0, |late| late.p99_ms);
    let p99_ms = outcome.main_latency().map(|summary| summary.p99_ms);
    let (limit, why) = if outcome.broken {
        (Some(Limit::Broker), outcome.problems.join("; "))
    } else if let Some(shortfall) = outcome.shortfall() {
        (Some(shortfall.limit), shortfall.to_string())
    } else if !outcome.complete {
        (Some(Limit::Broker), outcome.problems.join("; "))
    } else {
        match (p99_ms, p99_limit_ms) {
            (None, _) => (Some(Limit::Broker), "no latency was measured".into()),
            (Some(p99_ms), Some(limit_ms)) if p99_ms > limit_ms => {
                // Latency that is mostly the generator's own delay says nothing of the broker.
                let own = late_p99_ms > limit_ms / 2.0;
                let who = if own { Limit::Generator } else { Limit::Broker };
                let why = format!("p99 {p99_ms:.3} ms is above {limit_ms} ms");
                let late = format!(
                    "{why}, and the generator's own delay is part of it (p99 {late_p99_ms:.3} ms)"
                );
                (Some(who), if own { late } else { why })
            }
            (Some(p99_ms), Some(limit_ms)) => {
                (None, format!("p99 {p99_ms:.3} ms is within {limit_ms} ms"))
            }
            (Some(_), None) => (None, "made in full".into()),
        }
    };
    Trial {
        rate,
        held: limit.is_none(),
        limit,
        why,
        outcome,
    }
}

/// Runs a workload once.
pub type RunOnce<'a> = &'a dyn Fn(&Workload) -> Result<Outcome, RunError>;

/// Runs one trial; false where there is no use in going on.
fn attempt(
    found: &mut Trials,
    workload: &Workload,
    rate: f64,
    run: RunOnce<'_>,
) -> Result<bool, SearchError> {
    let p99_limit_ms = match found.question {
        Question::Highest { p99_ms, .. } => Some(p99_ms),
        Question::Sweep => None,
    };
    match run(&at_rate(workload, rate)) {
        Ok(outcome) => {
            let trial = judged(rate, outcome, p99_limit_ms);
            let word = if trial.held { "held" } else { "did not hold" };
            eprintln!("{rate:.0} records/s {word}: {}", trial.why);
            let broken = trial.outcome.broken;
            if broken {
                found
                    .problems
                    .push(format!("at {rate:.0} records/s: {}", trial.why));
            }
            found.trials.push(trial);
            Ok(!broken)
        }
        Err(error) if found.trials.is_empty() => Err(error.into()),
        Err(error) => {
            found
                .problems
                .push(format!("at {rate:.0} records/s: {error}"));
            Ok(false)
        }
    }
}

fn own_rate(workload: &Workload) -> Result<f64, SearchError> {
    match workload.producer.as_ref().map(|producer| producer.rate) {
        Some(Rate::PerSecond(rate)) => Ok(rate),
        _ => Err(SearchError::NoRate(workload.name.clone())),
    }
}

/// Looks for the highest rate under the limit, from the workload's own rate on. `checkpoint` sees the trials after each.
pub fn search(
    workload: &Workload,
    question: Question,
    run: RunOnce<'_>,
    checkpoint: &dyn Fn(&Trials),
) -> Result<Trials, SearchError> {
    let start = own_rate(workload)?;
    let mut found = Trials::new(workload, question);
    let (precision, rate_max) = match question {
        Question::Highest {
            precision,
            rate_max,
            ..
        } => (precision, rate_max),
        Question::Sweep => (0.0, f64::INFINITY),
    };
    let bracket = Bracket {
        start: start.min(rate_max),
        precision,
        rate_max,
    };
    loop {
        let tried: Vec<Tried> = found
            .trials
            .iter()
            .map(|trial| Tried {
                rate: trial.rate,
                held: trial.held,
                generator: trial.limit == Some(Limit::Generator),
            })
            .collect();
        found.highest = bracket::highest(&tried);
        found.lowest_failed = bracket::lowest_failed(&tried);
        match bracket.next(&tried) {
            Step::Over(ending) => {
                found.ending = Some(ending);
                checkpoint(&found);
                return Ok(found);
            }
            Step::Try(rate) => {
                let go_on = attempt(&mut found, workload, rate, run)?;
                checkpoint(&found);
                if !go_on {
                    return Ok(found);
                }
            }
        }
    }
}

/// Runs the workload at each of `rates`.
pub fn sweep(
    workload: &Workload,
    rates: &[f64],
    run: RunOnce<'_>,
    checkpoint: &dyn Fn(&Trials),
) -> Result<Trials, SearchError> {
    own_rate(workload)?;
    let mut found = Trials::new(workload, Question::Sweep);
    for &rate in rates {
        let go_on = attempt(&mut found, workload, rate, run)?;
        checkpoint(&found);
        if !go_on {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
