//! A comparison as Markdown: short enough for a pull request, with what a doubter needs below it.

use std::fmt::Write;

use super::decision::{Better, ERROR_MAX, Verdict};
use super::{Compared, Comparison};

/// Problems and remarks shown; the rest is in the JSON.
const REMARKS_MAX: usize = 10;

/// Three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A ratio as a change in percent.
fn change(ratio: f64) -> String {
    format!("{:+.1} %", (ratio - 1.0) * 100.0)
}

/// The answer in a line.
pub fn headline(found: &Comparison) -> String {
    let answer = match found.answer {
        Verdict::Worse => "**worse**",
        Verdict::CannotTell => "**cannot tell**",
        Verdict::Better => "**better**",
        Verdict::NoChange => "**no change**",
    };
    let incomplete = if found.complete { "" } else { " (INCOMPLETE)" };
    format!("{answer}{incomplete}: {}", found.reason)
}

fn row(compared: &Compared) -> String {
    let value = |side: Option<f64>| side.map_or("–".into(), number);
    let judged = &compared.judged;
    let interval = match (judged.low, judged.high) {
        (Some(low), Some(high)) => format!("{} … {}", change(low), change(high)),
        _ => format!("{} pairs are too few", judged.pairs),
    };
    let verdict = match judged.verdict {
        Verdict::NoChange => judged.verdict.words().to_string(),
        other => format!("**{}**", other.words()),
    };
    format!(
        "| {} | {}{} | {} | {} | {} | {interval} | {:.0} % / {:.0} % | {verdict} |",
        cell(&compared.workload),
        cell(&compared.label),
        if compared.better == Better::Higher {
            " ↑"
        } else {
            ""
        },
        value(compared.a),
        value(compared.b),
        judged.ratio.map_or("–".into(), change),
        compared.limits.threshold * 100.0,
        compared.limits.resolution * 100.0,
    )
}

/// Text that cannot end a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The whole report. `command` is what makes it again.
pub fn markdown(found: &Comparison, command: &str) -> String {
    let mut out = String::new();
    // Writing to a String never fails.
    let _ = write(&mut out, found, command);
    out
}

fn write(out: &mut String, found: &Comparison, command: &str) -> std::fmt::Result {
    writeln!(out, "### {}: {}\n", found.subject, headline(found))?;
    for (side, revision) in [("A", &found.a), ("B", &found.b)] {
        writeln!(
            out,
            "- {side}: `{}` ({:.12}) {}",
            revision.name,
            revision.commit,
            cell(&revision.subject)
        )?;
    }
    if let Some(by) = found.planted {
        writeln!(
            out,
            "- B's broker was **slowed on purpose**: what it does took {:.0} % longer.",
            by * 100.0
        )?;
    } else if found.a.commit == found.b.commit {
        writeln!(out, "- Both are the same commit: what differs is noise.")?;
    }
    writeln!(out)?;
    if !found.figures.is_empty() {
        writeln!(
            out,
            "| workload | figure | A | B | B against A | interval | matters from / must not hide | verdict |"
        )?;
        writeln!(out, "|---|---|---:|---:|---:|---:|---:|---|")?;
        for figure in &found.figures {
            writeln!(out, "{}", row(figure))?;
        }
        writeln!(out)?;
    }
    let shown = |list: &mut dyn Iterator<Item = String>, out: &mut String| -> std::fmt::Result {
        for text in list.take(REMARKS_MAX) {
            writeln!(out, "- {}", text.lines().collect::<Vec<_>>().join("\n  "))?;
        }
        Ok(())
    };
    if !found.problems.is_empty() {
        writeln!(out, "What failed:\n")?;
        shown(&mut found.problems.iter().cloned(), out)?;
        writeln!(out)?;
    }
    if let Some((name, disturbed, rounds)) = &found.most_disturbed {
        writeln!(
            out,
            "Something else disturbed the machine, most of all in {disturbed} of {rounds} rounds of {name}. First:\n"
        )?;
        let mut remarks = found
            .runs
            .iter()
            .filter(|of| of.run.disturbed)
            .flat_map(|of| {
                let of_round = move |remark: &String| {
                    format!(
                        "round {}, {}, {:?}: {remark}",
                        of.round, of.workload, of.side
                    )
                };
                of.run
                    .remarks
                    .iter()
                    .filter(|remark| super::figure::is_disturbance(remark))
                    .map(of_round)
            });
        shown(&mut remarks, out)?;
        writeln!(out)?;
    }
    writeln!(out, "<details><summary>How this was decided</summary>\n")?;
    writeln!(
        out,
        "{} rounds of each workload asked for{}, seed {}. Workload by workload, behind a run that does not count, every round makes one run on either revision, in an order that a coin decides, each on a fresh process and fresh data. \
         Per figure, the logarithms of the rounds' ratios give a Hodges–Lehmann estimate and the interval of Wilcoxon's signed-rank test, at a level at which all {} \
         intervals, looked at twice at most, hold together with a chance of at least {:.0} % (Bonferroni). *Worse* or *better*: the interval excludes no change, and the estimate reaches the first \
         limit. *Cannot tell*: neither, and the interval reaches beyond the second limit. Figures marked ↑ are better when higher; their limits are on the ratio turned over. \
         A and B are medians of runs.\n",
        found.rounds,
        match found.again.join(", ") {
            again if again.is_empty() => String::new(),
            again => format!(", as many again of what was doubtful then ({again})"),
        },
        found.seed,
        found.figures.len(),
        (1.0 - ERROR_MAX) * 100.0
    )?;
    if let Some(environment) = &found.environment {
        let text = |key: &str| {
            environment
                .get(key)
                .map(|value| {
                    value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_string)
                })
                .unwrap_or_default()
        };
        writeln!(
            out,
            "{}, {} processors ({}), {}.\n",
            text("kernel"),
            text("cpus"),
            text("cpu"),
            text("disk")
        )?;
    }
    writeln!(out, "`{command}`\n\n</details>")
}

#[cfg(test)]
mod tests {
    //! A report says the answer first, every figure once, and what failed.
    use super::*;
    use crate::ab::decision::{Judged, Limits};
    use crate::ab::load::Run;
    use crate::ab::revision::Revision;
    use crate::ab::{RunOf, Side};

    fn comparison() -> Comparison {
        let revision = |name: &str, commit: &str| Revision {
            name: name.into(),
            commit: commit.repeat(40),
            subject: "A | B".into(),
        };
        Comparison {
            subject: "it".into(),
            a: revision("main", "1"),
            b: revision("HEAD", "2"),
            answer: Verdict::Worse,
            reason: "worse: MB/s of fast".into(),
            complete: false,
            problems: vec!["round 2, fast, B: the broker died\nit said".into()],
            rounds: 12,
            again: vec!["slow".into()],
            whole: false,
            most_disturbed: Some(("fast".into(), 1, 12)),
            planted: None,
            seed: 7,
            figures: vec![Compared {
                workload: "fast".into(),
                figure: "throughput".into(),
                label: "MB/s".into(),
                better: Better::Higher,
                limits: Limits {
                    threshold: 0.1,
                    resolution: 0.25,
                },
                a: Some(1000.0),
                b: Some(800.0),
                judged: Judged {
                    verdict: Verdict::Worse,
                    pairs: 12,
                    ratio: Some(0.8),
                    low: Some(0.75),
                    high: Some(0.85),
                },
            }],
            runs: vec![RunOf {
                round: 1,
                workload: "fast".into(),
                side: Side::A,
                run: Run {
                    disturbed: true,
                    remarks: vec!["disturbed: others".into()],
                    ..Run::default()
                },
            }],
            environment: None,
        }
    }

    #[test]
    fn a_report_says_it_all() {
        let text = markdown(&comparison(), "ringlog-perf ab main HEAD");
        assert!(
            text.starts_with("### it: **worse** (INCOMPLETE): worse: MB/s of fast\n"),
            "{text}"
        );
        assert!(text.contains("| fast | MB/s ↑ | 1000 | 800 | -20.0 % | -25.0 % … -15.0 % | 10 % / 25 % | **worse** |"), "{text}");
        for part in [
            "A \\| B",
            "- round 2, fast, B: the broker died\n  it said",
            "most of all in 1 of 12 rounds of fast",
            "round 1, fast, A: disturbed: others",
            "12 rounds of each workload asked for, as many again of what was doubtful then (slow)",
            "`ringlog-perf ab main HEAD`",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn too_few_pairs_are_said() {
        let mut found = comparison();
        found.figures[0].judged = Judged {
            verdict: Verdict::CannotTell,
            pairs: 2,
            ratio: None,
            low: None,
            high: None,
        };
        assert!(markdown(&found, "").contains("| – | 2 pairs are too few |"));
    }
}
