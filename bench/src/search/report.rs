//! Trials as Markdown.

use std::fmt::Write;

use super::{Question, Trials};
use crate::results::number;

/// The report. `command` is what gives it again.
pub fn markdown(found: &Trials, command: &str) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(found, command, &mut out);
    out
}

fn write(found: &Trials, command: &str, out: &mut String) -> std::fmt::Result {
    writeln!(out, "# {}\n\n{}\n", found.workload, found.answer())?;
    if let Question::Highest { precision, .. } = found.question {
        writeln!(
            out,
            "Rates were doubled or halved until one held and one did not, then the bracket was halved on a logarithmic scale down to {} %, and the highest rate that held was run again. Every trial is below, in order.\n",
            precision * 100.0
        )?;
    }
    writeln!(out, "```\n{command}\n```\n")?;
    writeln!(
        out,
        "| records/s | reached | p50 ms | p99 ms | p99.9 ms | max ms | broker cores | held | why |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for trial in &found.trials {
        let [p50, p99, p999, max] = trial.outcome.main_latency().map_or(
            ["–".to_string(), "–".into(), "–".into(), "–".into()],
            |summary| {
                [
                    summary.p50_ms,
                    summary.p99_ms,
                    summary.p999_ms,
                    summary.max_ms,
                ]
                .map(number)
            },
        );
        let broker = trial
            .outcome
            .observed
            .as_ref()
            .and_then(|seen| seen.broker.as_ref());
        writeln!(
            out,
            "| {:.0} | {} | {p50} | {p99} | {p999} | {max} | {} | {} | {} |",
            trial.rate,
            trial
                .outcome
                .producer
                .as_ref()
                .map_or("–".into(), |producer| format!(
                    "{:.0}",
                    producer.records_per_s
                )),
            broker.map_or("–".to_string(), |usage| number(usage.cores())),
            if trial.held { "yes" } else { "**no**" },
            trial.why.split_whitespace().collect::<Vec<_>>().join(" ")
        )?;
    }
    writeln!(out)?;
    let doubts = found.trials.iter().flat_map(|trial| {
        trial
            .outcome
            .doubts
            .iter()
            .map(move |doubt| (trial.rate, doubt))
    });
    for (rate, doubt) in doubts {
        writeln!(out, "- {rate:.0} records/s, doubtful: {doubt}")?;
    }
    for problem in &found.problems {
        writeln!(out, "- **problem**: {problem}")?;
    }
    Ok(())
}
