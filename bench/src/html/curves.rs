//! What is drawn of runs: percentile curves, latency over time, throughput and the broker's CPU over time; one run, or several sides
//! with their rounds, the median in front and every round behind it.

use std::collections::BTreeMap;

use super::chart::{Axis, Chart, Line, Scale, largest, mean, scale_for, thinned};
use crate::compare::statistics::median;
use crate::latency::{Second, Summary};
use crate::results::Outcome;
use crate::series::FlowSecond;
use crate::watch::Moment;

/// One side of a chart: a peer, or a rate.
pub struct Side<'a> {
    /// Its name.
    pub name: String,
    /// Its runs.
    pub rounds: Vec<&'a Outcome>,
}

/// Points of one run.
type Points = Vec<(f64, f64)>;

fn seconds() -> Axis {
    Axis {
        label: "seconds into the measured window".into(),
        scale: Scale::Linear,
    }
}

/// The median over rounds at every x that most of them have, with the rounds behind it.
fn line(name: &str, colour: usize, mut rounds: Vec<Points>) -> Line {
    rounds.retain(|round| !round.is_empty());
    let points = match rounds.as_slice() {
        [one] => {
            let only = one.clone();
            rounds.clear();
            only
        }
        several => {
            // x as a whole number of billionths, so that equal places meet.
            let mut places: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
            for &(at, value) in several.iter().flatten() {
                places
                    .entry((at * 1e9).round() as i64)
                    .or_default()
                    .push(value);
            }
            let most = several.len().div_ceil(2);
            let kept = places
                .into_iter()
                .filter(|(_, values)| values.len() >= most);
            kept.filter_map(|(at, mut values)| Some((at as f64 / 1e9, median(&mut values)?)))
                .collect()
        }
    };
    Line {
        name: name.into(),
        colour,
        points,
        behind: rounds,
    }
}

fn lines(sides: &[Side<'_>], of: &dyn Fn(&Outcome) -> Points) -> Vec<Line> {
    let drawn = sides.iter().enumerate().map(|(colour, side)| {
        let rounds = side.rounds.iter().map(|outcome| of(outcome)).collect();
        line(&side.name, colour, rounds)
    });
    drawn.filter(|line| !line.points.is_empty()).collect()
}

fn latency_scale(lines: &[Line]) -> Scale {
    scale_for(
        lines
            .iter()
            .flat_map(|line| line.points.iter().map(|point| point.1)),
    )
}

/// Which latency a chart is about.
#[derive(Clone, Copy)]
enum Of {
    Produce,
    EndToEnd,
}

impl Of {
    fn summary(self, outcome: &Outcome) -> Option<&Summary> {
        match self {
            Of::Produce => outcome.producer.as_ref()?.latency.as_ref(),
            Of::EndToEnd => outcome.end_to_end.as_ref(),
        }
    }

    fn words(self, sides: &[Side<'_>]) -> (&'static str, &'static str) {
        let closed = sides.iter().flat_map(|side| &side.rounds).any(|outcome| {
            outcome
                .producer
                .as_ref()
                .is_some_and(|producer| producer.closed_loop)
        });
        match self {
            Of::Produce if closed => (
                "Batch round trip",
                "Closed loop: from when a batch was made to its acknowledgement. It says nothing about a service under a given load.",
            ),
            Of::Produce => (
                "Produce latency",
                "Open loop: from the moment a record was meant to be sent to its acknowledgement.",
            ),
            Of::EndToEnd => (
                "End-to-end latency",
                "From the moment a record was meant to be sent to its receipt by the consumer.",
            ),
        }
    }
}

fn rounds_words(sides: &[Side<'_>]) -> &'static str {
    if sides.iter().any(|side| side.rounds.len() > 1) {
        " The median over rounds, each round pale behind it."
    } else {
        ""
    }
}

/// Percentile curves on a scale of nines.
fn percentiles(of: Of, sides: &[Side<'_>]) -> Chart {
    let (what, how) = of.words(sides);
    let drawn = lines(sides, &|outcome| {
        of.summary(outcome)
            .map_or(Vec::new(), |summary| summary.curve.clone())
    });
    Chart {
        title: format!("{what} by percentile"),
        about: format!("{how}{}", rounds_words(sides)),
        x: Axis {
            label: "percentile, by nines".into(),
            scale: Scale::Nines,
        },
        y: Axis {
            label: "milliseconds".into(),
            scale: latency_scale(&drawn),
        },
        lines: drawn,
        mark: None,
    }
}

fn by_second(series: &[Second], pick: fn(&Second) -> f64) -> Points {
    thinned(
        series
            .iter()
            .map(|second| (second.at_s as f64, pick(second)))
            .collect(),
        largest,
    )
}

/// Latency second by second: three lines of a single run, the 99th percentile of several sides.
fn over_time(of: Of, sides: &[Side<'_>]) -> Chart {
    let (what, _) = of.words(sides);
    let (drawn, which) = match sides {
        [Side { rounds, .. }] if rounds.len() == 1 => {
            let series = of
                .summary(rounds[0])
                .map_or(&[][..], |summary| &summary.series);
            let lines = vec![
                line("median", 0, vec![by_second(series, |second| second.p50_ms)]),
                line(
                    "99th percentile",
                    1,
                    vec![by_second(series, |second| second.p99_ms)],
                ),
                line(
                    "largest",
                    4,
                    vec![by_second(series, |second| second.max_ms)],
                ),
            ];
            (lines, "Median, 99th percentile and largest")
        }
        _ => {
            let p99 = |outcome: &Outcome| {
                of.summary(outcome).map_or(Vec::new(), |summary| {
                    by_second(&summary.series, |second| second.p99_ms)
                })
            };
            (lines(sides, &p99), "99th percentile")
        }
    };
    Chart {
        title: format!("{what} over time"),
        about: format!(
            "{which} of each second, by when it ended; a gap is a second without any answer.{}",
            rounds_words(sides)
        ),
        x: seconds(),
        y: Axis {
            label: "milliseconds".into(),
            scale: latency_scale(&drawn),
        },
        lines: drawn,
        mark: None,
    }
}

fn flows(sides: &[Side<'_>]) -> Chart {
    let rate = |series: &[FlowSecond]| {
        thinned(
            series
                .iter()
                .map(|second| (second.at_s as f64, second.mb_per_s))
                .collect(),
            mean,
        )
    };
    let produced = |outcome: &Outcome| {
        outcome
            .producer
            .as_ref()
            .map_or(Vec::new(), |half| rate(&half.series))
    };
    let received = |outcome: &Outcome| {
        outcome
            .consumer
            .as_ref()
            .map_or(Vec::new(), |half| rate(&half.series))
    };
    let drawn = match sides {
        [Side { rounds, .. }] => {
            let both = [
                line(
                    "produced (bytes of values)",
                    0,
                    rounds.iter().map(|round| produced(round)).collect(),
                ),
                line(
                    "fetched (bytes of batches)",
                    2,
                    rounds.iter().map(|round| received(round)).collect(),
                ),
            ];
            both.into_iter()
                .filter(|line| !line.points.is_empty())
                .collect()
        }
        _ if sides
            .iter()
            .flat_map(|side| &side.rounds)
            .any(|outcome| outcome.producer.is_some()) =>
        {
            lines(sides, &produced)
        }
        _ => lines(sides, &received),
    };
    Chart {
        title: "Throughput over time".into(),
        about: format!(
            "What was acknowledged or received in each second.{}",
            rounds_words(sides)
        ),
        x: seconds(),
        y: Axis {
            label: "MB per second".into(),
            scale: Scale::Linear,
        },
        lines: drawn,
        mark: None,
    }
}

fn moments(outcome: &Outcome, pick: fn(&Moment) -> Option<f64>) -> Points {
    let series = outcome
        .observed
        .as_ref()
        .map_or(&[][..], |seen| &seen.series);
    // Moments are about a second apart; on whole seconds those of several rounds meet.
    let points = series
        .iter()
        .filter_map(|moment| Some((moment.at_s.round(), pick(moment)?)));
    thinned(points.collect(), mean)
}

fn cpu(sides: &[Side<'_>]) -> Chart {
    let broker = |outcome: &Outcome| moments(outcome, |moment| moment.broker_cores);
    let drawn = match sides {
        [Side { rounds, .. }] => {
            let generator = rounds
                .iter()
                .map(|round| moments(round, |moment| Some(moment.generator_cores)));
            let both = [
                line(
                    "broker",
                    0,
                    rounds.iter().map(|round| broker(round)).collect(),
                ),
                line("generator", 3, generator.collect()),
            ];
            both.into_iter()
                .filter(|line| !line.points.is_empty())
                .collect()
        }
        _ => lines(sides, &broker),
    };
    let about = if drawn.iter().any(|line| line.name == "generator") && drawn.len() == 1 {
        "The broker was not watched (no process id was given), so only the generator's own CPU is here."
    } else {
        "Cores kept busy, user and system together, about once a second."
    };
    Chart {
        title: "CPU over time".into(),
        about: format!("{about}{}", rounds_words(sides)),
        x: seconds(),
        y: Axis {
            label: "cores".into(),
            scale: Scale::Linear,
        },
        lines: drawn,
        mark: None,
    }
}

/// All charts of one workload. A chart without any points draws nothing.
pub fn charts(sides: &[Side<'_>]) -> Vec<Chart> {
    vec![
        percentiles(Of::EndToEnd, sides),
        over_time(Of::EndToEnd, sides),
        percentiles(Of::Produce, sides),
        over_time(Of::Produce, sides),
        flows(sides),
        cpu(sides),
    ]
}
