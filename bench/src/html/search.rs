//! A search or a sweep as a page: the answer, latency over rates, every trial, and the best one in full.

use super::chart::{Axis, Chart, Line, Mark, Scale, scale_for};
use super::curves::{Side, charts};
use super::{Page, Tone, badge, escape};
use crate::latency::Summary;
use crate::results::number;
use crate::search::{Question, Trial, Trials};

/// Trials whose curves are drawn over one another at most: as many as there are colours.
const SIDES_MAX: usize = 6;

/// The report. `command` is what gives it again.
pub fn html(found: &Trials, command: &str) -> String {
    let title = match found.question {
        Question::Highest { p99_ms, .. } => {
            format!("{}: highest rate within {p99_ms} ms", found.workload)
        }
        Question::Sweep => format!("{}: latency over rates", found.workload),
    };
    let mut page = Page::new(&title, &found.answer());
    page.note(Tone::Bad, "What could not be done", &found.problems);
    if !found.complete() && found.problems.is_empty() {
        let plain = vec!["The generator, and not the broker, was the limit of at least one rate, or no rate held: see the trials.".to_string()];
        page.note(Tone::Warn, "Not a full answer", &plain);
    }
    page.section("Latency over rates", "");
    page.push("<div class=\"charts\">");
    let chart = over_rates(found).html(&page.figure_id());
    page.push(&chart.replacen(
        "<figure class=\"chart\"",
        "<figure class=\"chart whole\"",
        1,
    ));
    page.push("</div>");
    trials(&mut page, found);
    match found.question {
        Question::Highest { .. } => {
            let best = found
                .trials
                .iter()
                .rev()
                .find(|trial| Some(trial.rate) == found.highest);
            if let Some(best) = best {
                page.section(
                    &format!("At {:.0} records/s, the highest that held", best.rate),
                    "",
                );
                page.charts(&charts(&sides(std::slice::from_ref(best))));
            }
        }
        Question::Sweep => {
            page.section("Side by side", "");
            if found.trials.len() > SIDES_MAX {
                page.text(&format!(
                    "Of {} rates, {SIDES_MAX} are drawn.",
                    found.trials.len()
                ));
            }
            page.charts(&charts(&sides(&found.trials)));
        }
    }
    if let Some(first) = found.trials.first() {
        page.environment(&first.outcome.environment, &first.outcome.client, command);
    }
    page.finish()
}

/// At most [`SIDES_MAX`] trials, evenly chosen, first and last among them.
fn sides(trials: &[Trial]) -> Vec<Side<'_>> {
    let count = trials.len().min(SIDES_MAX);
    let chosen = (0..count).map(|index| match count {
        1 => &trials[0],
        _ => &trials[index * (trials.len() - 1) / (count - 1)],
    });
    chosen
        .map(|trial| Side {
            name: format!("{:.0} records/s", trial.rate),
            rounds: vec![&trial.outcome],
        })
        .collect()
}

fn over_rates(found: &Trials) -> Chart {
    let mut sorted: Vec<&Trial> = found.trials.iter().collect();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let line = |name: &str, colour: usize, pick: fn(&Summary) -> f64| Line {
        name: name.into(),
        colour,
        points: sorted
            .iter()
            .filter_map(|trial| Some((trial.rate, pick(trial.outcome.main_latency()?))))
            .collect(),
        behind: Vec::new(),
    };
    let lines = vec![
        line("median", 0, |summary| summary.p50_ms),
        line("99th percentile", 1, |summary| summary.p99_ms),
        line("99.9th percentile", 3, |summary| summary.p999_ms),
    ];
    let scale = |pick: fn(&(f64, f64)) -> f64| {
        scale_for(lines.iter().flat_map(|line| line.points.iter().map(pick)))
    };
    Chart {
        title: "Latency at each rate that was tried".into(),
        about: "From the moment a record was meant to be sent, to its acknowledgement, or to its receipt where the workload consumes.".into(),
        x: Axis {
            label: "records per second".into(),
            scale: scale(|point| point.0),
        },
        y: Axis {
            label: "milliseconds".into(),
            scale: match found.question {
                Question::Highest { .. } => Scale::Log,
                Question::Sweep => scale(|point| point.1),
            },
        },
        lines,
        mark: match found.question {
            Question::Highest { p99_ms, .. } => Some(Mark {
                value: p99_ms,
                label: format!("limit of the 99th percentile: {p99_ms} ms"),
            }),
            Question::Sweep => None,
        },
    }
}

fn trials(page: &mut Page, found: &Trials) {
    page.section("Every trial, in order", "");
    if let Question::Highest { precision, .. } = found.question {
        page.text(&format!(
            "Rates were doubled or halved until one held and one did not; the bracket was then halved on a logarithmic scale down to {} %, and the highest rate that held was run again.",
            precision * 100.0
        ));
    }
    let rows: Vec<Vec<String>> = found
        .trials
        .iter()
        .map(|trial| {
            let outcome = &trial.outcome;
            let latency = |pick: fn(&Summary) -> f64| {
                outcome
                    .main_latency()
                    .map_or(String::new(), |summary| number(pick(summary)))
            };
            let broker = outcome
                .observed
                .as_ref()
                .and_then(|seen| seen.broker.as_ref());
            let state = if trial.held {
                badge(Tone::Good, "✓ held")
            } else {
                badge(Tone::Bad, "✕ did not hold")
            };
            let doubtful = if outcome.doubts.is_empty() {
                String::new()
            } else {
                format!(" {}", badge(Tone::Warn, "doubtful"))
            };
            vec![
                format!("{:.0}", trial.rate),
                outcome.producer.as_ref().map_or(String::new(), |producer| {
                    format!("{:.0}", producer.records_per_s)
                }),
                latency(|summary| summary.p50_ms),
                latency(|summary| summary.p99_ms),
                latency(|summary| summary.p999_ms),
                latency(|summary| summary.max_ms),
                broker.map_or(String::new(), |usage| number(usage.cores())),
                format!(
                    "{state}{doubtful}<span class=\"why\">{}</span>",
                    escape(&trial.why)
                ),
            ]
        })
        .collect();
    let heads = [
        "records/s",
        "reached",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "broker cores",
        "verdict",
    ];
    page.table("Every trial", &heads, &rows);
    let doubts: Vec<String> = found
        .trials
        .iter()
        .flat_map(|trial| {
            trial
                .outcome
                .doubts
                .iter()
                .map(|doubt| format!("{:.0} records/s: {doubt}", trial.rate))
        })
        .collect();
    page.note(Tone::Warn, "To be taken with care", &doubts);
}
