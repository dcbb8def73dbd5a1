//! Prints what was found: a table of medians and extremes per broker, ratios of the first to each other, and all that went wrong.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::rounds::{Found, Run};

/// One run in a line.
pub fn line(run: &Run, broker: &str) -> String {
    let mut line = format!("round {} {broker}:", run.round);
    if let Some(outcome) = &run.outcome {
        for (name, value) in &outcome.figures {
            let _ = write!(line, " {name} {}", number(*value));
        }
        for problem in &outcome.problems {
            let _ = write!(line, " ({problem})");
        }
    }
    if let Some(failed) = &run.failed {
        let _ = write!(line, " failed: {failed}");
    }
    line
}

/// The whole as Markdown.
pub fn text(found: &Found) -> String {
    let mut text = format!("# {}\n\n", found.mode.name());
    let settings = serde_json::to_string(&found.mode).unwrap_or_default();
    let _ = writeln!(text, "Settings: `{settings}`\n");
    if found.mode.name() == "commits" {
        text.push_str("A closed loop: each committer commits again once it is answered.\n\n");
    }
    let mut head = "| figure |".to_string();
    let mut rule = "|---|".to_string();
    for (index, broker) in found.brokers.iter().enumerate() {
        let _ = write!(head, " {broker} |");
        rule.push_str("---|");
        if index > 0 {
            let _ = write!(head, " {} / {broker} |", found.brokers[0]);
            rule.push_str("---|");
        }
    }
    let _ = writeln!(text, "{head}\n{rule}");
    let names: BTreeSet<&str> = found
        .runs
        .iter()
        .filter_map(|run| run.outcome.as_ref())
        .flat_map(|outcome| outcome.figures.keys().copied())
        .collect();
    for name in names {
        let _ = write!(text, "| {name} |");
        for index in 0..found.brokers.len() {
            let cell = found
                .spread(index, name)
                .map_or_else(String::new, |spread| {
                    if spread.count == 1 {
                        number(spread.median)
                    } else {
                        format!(
                            "{} ({}–{})",
                            number(spread.median),
                            number(spread.low),
                            number(spread.high)
                        )
                    }
                });
            let _ = write!(text, " {cell} |");
            if index > 0 {
                let ratio = found.ratio(index, name).map_or_else(String::new, |ratio| {
                    format!("{:.2} [{:.2}, {:.2}]", ratio.median, ratio.low, ratio.high)
                });
                let _ = write!(text, " {ratio} |");
            }
        }
        text.push('\n');
    }
    let wrong: Vec<String> = found
        .runs
        .iter()
        .flat_map(|run| {
            let broker = &found.brokers[run.peer];
            let at = format!("round {}, {broker}", run.round);
            let outcome = run.outcome.iter();
            let problems = outcome.clone().flat_map(|outcome| outcome.problems.clone());
            let errors = outcome.flat_map(|outcome| {
                let errors = outcome.errors.iter();
                errors.map(|(code, count)| format!("{count} × {code}"))
            });
            let all = problems.chain(errors).chain(run.failed.clone());
            all.map(move |what| format!("- {at}: {what}"))
                .collect::<Vec<_>>()
        })
        .collect();
    if !wrong.is_empty() {
        let _ = write!(text, "\nIncomplete:\n\n{}\n", wrong.join("\n"));
    }
    text
}

/// Four digits that say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
