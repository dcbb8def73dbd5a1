//! The figures of a comparison as its reports show them: each peer's spread, the ratio, and whether what was hoped holds.

use super::plan::{Goal, Metric};
use super::statistics::{Ratio, Spread, ratio, spread};
use super::{Cell, Comparison};
use crate::probe::{DeviceFigures, FloorFigures};
use crate::results::number;

/// A figure of every peer, and how the first compares with the second.
pub struct Row {
    /// The figure.
    pub metric: Metric,
    /// Each peer's.
    pub sides: Vec<Option<Spread>>,
    /// First to second.
    pub ratio: Option<Ratio>,
    /// The bound on the ratio that was hoped for.
    pub ratio_goal: Option<f64>,
    /// What was hoped, and whether it holds.
    pub verdict: Vec<Judgement>,
}

/// One bound of a goal.
pub struct Judgement {
    /// The bound in words.
    pub bound: String,
    /// Whether it holds; `None` where it could not be measured.
    pub holds: Option<bool>,
}

fn device_p50(found: &Comparison) -> Option<f64> {
    spread(
        &found
            .device
            .iter()
            .map(|device| device.durable_4k.p50_ms)
            .collect::<Vec<_>>(),
    )
    .map(|s| s.median)
}

fn send_cost(found: &Comparison) -> Option<Spread> {
    let costs = found.send_loop.iter().map(|send| send.sender_s_per_gb);
    spread(&costs.collect::<Vec<_>>())
}

/// What the machine itself does: what was measured, and its spread over the rounds.
pub fn machine_rows(found: &Comparison) -> Vec<(&'static str, Option<Spread>)> {
    let device = |pick: fn(&DeviceFigures) -> f64| {
        spread(&found.device.iter().map(pick).collect::<Vec<_>>())
    };
    let floor =
        |pick: fn(&FloorFigures) -> f64| spread(&found.floor.iter().map(pick).collect::<Vec<_>>());
    let rows = [
        (
            "4 KiB durable write (O_DIRECT, O_DSYNC), p50 ms",
            device(|d| d.durable_4k.p50_ms),
        ),
        ("the same, p99 ms", device(|d| d.durable_4k.p99_ms)),
        (
            "4 KiB direct write, not flushed, p50 ms",
            device(|d| d.direct_4k.p50_ms),
        ),
        (
            "1 MiB durable writes, four at a time, MB/s",
            device(|d| d.durable_1m_mb_per_s),
        ),
        (
            "1 MiB direct writes, four at a time, MB/s",
            device(|d| d.direct_1m_mb_per_s),
        ),
        (
            "bare send loop over loopback, sender's CPU s per GB",
            send_cost(found),
        ),
        (
            "produce-2000's requests answered at once by a bare loop, p50 ms",
            floor(|f| f.echo.latency.p50_ms),
        ),
        ("the same, p99 ms", floor(|f| f.echo.latency.p99_ms)),
        (
            "the same, the loop's CPU µs per request",
            floor(|f| f.echo.us_per_request),
        ),
        (
            "produce-2000's requests answered after one durable write by a bare loop, p50 ms",
            floor(|f| f.durable.latency.p50_ms),
        ),
        ("the same, p99 ms", floor(|f| f.durable.latency.p99_ms)),
        (
            "the same, the loop's CPU µs per request",
            floor(|f| f.durable.us_per_request),
        ),
    ];
    rows.into()
}

/// A metric's values of one peer, one per round in which it was measured without failing, with the round.
fn values(found: &Comparison, entry: usize, peer: usize, metric: Metric) -> Vec<(usize, f64)> {
    let of_cell = |cell: &Cell| Some((cell.round, *cell.metrics.get(&metric)?));
    let mine = found
        .cells
        .iter()
        .filter(|cell| cell.entry == entry && cell.peer == peer);
    mine.filter_map(of_cell).collect()
}

/// One figure of one workload.
pub fn row(found: &Comparison, entry: usize, metric: Metric, goal: Option<&Goal>) -> Row {
    let all: Vec<Vec<(usize, f64)>> = (0..found.peers.len())
        .map(|peer| values(found, entry, peer, metric))
        .collect();
    let plain = |side: &[(usize, f64)]| side.iter().map(|&(_, value)| value).collect::<Vec<f64>>();
    let sides: Vec<Option<Spread>> = all.iter().map(|side| spread(&plain(side))).collect();
    let ratio = match all.as_slice() {
        [subject, other, ..] => {
            let pairs: Vec<(f64, f64)> = subject
                .iter()
                .filter_map(|&(round, value)| {
                    Some((value, other.iter().find(|pair| pair.0 == round)?.1))
                })
                .collect();
            let (subject, other): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            ratio(&subject, &other)
        }
        _ => None,
    };
    let verdict = goal.map_or(Vec::new(), |goal| {
        judge(found, goal, sides.first().copied().flatten(), ratio)
    });
    Row {
        metric,
        sides,
        ratio,
        ratio_goal: goal.and_then(|goal| goal.ratio_at_most.or(goal.ratio_at_least)),
        verdict,
    }
}

/// What a report shows of one workload.
pub fn rows(found: &Comparison, entry: usize) -> Vec<Row> {
    let plan = &found.plan.entries[entry];
    let mut metrics = Metric::shown(&plan.workload);
    metrics.extend(
        plan.goals
            .iter()
            .map(|goal| goal.metric)
            .filter(|metric| !metrics.contains(metric))
            .collect::<Vec<_>>(),
    );
    let goal = |metric| plan.goals.iter().find(|goal| goal.metric == metric);
    metrics
        .into_iter()
        .map(|metric| row(found, entry, metric, goal(metric)))
        .collect()
}

/// Each bound of a goal, and whether it holds.
fn judge(
    found: &Comparison,
    goal: &Goal,
    subject: Option<Spread>,
    ratio: Option<Ratio>,
) -> Vec<Judgement> {
    let mut found_so = Vec::new();
    let mut judge = |bound: String, holds: Option<bool>| found_so.push(Judgement { bound, holds });
    let ratio = ratio.map(|ratio| ratio.median);
    let subject = subject.map(|side| side.median);
    if let Some(limit) = goal.ratio_at_most {
        judge(
            format!("≤ {} ×", number(limit)),
            ratio.map(|ratio| ratio <= limit),
        );
    }
    if let Some(limit) = goal.ratio_at_least {
        judge(
            format!("≥ {} ×", number(limit)),
            ratio.map(|ratio| ratio >= limit),
        );
    }
    if let Some(limit) = goal.at_most {
        judge(
            format!("≤ {}", number(limit)),
            subject.map(|value| value <= limit),
        );
    }
    if let Some(plus) = goal.device_plus_ms {
        let limit = device_p50(found).map(|device| device + plus);
        let holds = subject.zip(limit).map(|(value, limit)| value <= limit);
        judge(
            format!("≤ device + {plus} = {}", limit.map_or("?".into(), number)),
            holds,
        );
    }
    if let Some(times) = goal.send_loop_times {
        let limit = send_cost(found).map(|cost| cost.median * times);
        let holds = subject.zip(limit).map(|(value, limit)| value <= limit);
        judge(
            format!(
                "≤ {times} × send loop = {}",
                limit.map_or("?".into(), number)
            ),
            holds,
        );
    }
    found_so
}

/// What a report shows of the peers' lives.
pub fn life_rows(found: &Comparison) -> Vec<Row> {
    let Some(plan) = &found.plan.lifecycle else {
        return Vec::new();
    };
    let metrics = [
        Metric::ReadyMs,
        Metric::IdleRssMb,
        Metric::IdleCpuPercent,
        Metric::PartitionsRssMb,
        Metric::PartitionsCpuPercent,
        Metric::RecoveryMs,
        Metric::StopMs,
        Metric::LoadRecoveryMs,
        Metric::LoadRestartMs,
    ];
    let one = |metric: Metric| {
        let side = |life: &super::Life| {
            life.metrics
                .get(&metric)
                .and_then(|&value| spread(&[value]))
        };
        let sides: Vec<Option<Spread>> = found.lives.iter().map(side).collect();
        let ratio = match sides.as_slice() {
            [Some(subject), Some(other), ..] => ratio(&[subject.median], &[other.median]),
            _ => None,
        };
        let goal = plan.goal.iter().find(|goal| goal.metric == metric);
        let verdict = goal.map_or(Vec::new(), |goal| {
            judge(found, goal, sides.first().copied().flatten(), ratio)
        });
        Row {
            metric,
            sides,
            ratio,
            ratio_goal: goal.and_then(|goal| goal.ratio_at_most.or(goal.ratio_at_least)),
            verdict,
        }
    };
    let asked = |metric: &Metric| {
        let under_load = matches!(metric, Metric::LoadRecoveryMs | Metric::LoadRestartMs);
        !under_load || plan.load_rate.is_some()
    };
    metrics.into_iter().filter(asked).map(one).collect()
}
