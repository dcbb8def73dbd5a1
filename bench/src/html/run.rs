//! Runs of workloads as a page: first whether they count, then the figures, the charts, and everything that made them.

use super::curves::{Side, charts};
use super::{Page, Tone, badge, escape};
use crate::latency::Summary;
use crate::results::{Outcome, number};

/// The report. `failures` are workloads that gave no outcome at all; `command` is what gives it again.
pub fn html(outcomes: &[Outcome], failures: &[String], command: &str) -> String {
    let title = match outcomes {
        [one] => one.name.clone(),
        _ => format!("{} workloads", outcomes.len() + failures.len()),
    };
    let lead = match outcomes {
        [one] => one.about.clone(),
        _ => "One after another against one broker.".into(),
    };
    let mut page = Page::new(&title, &lead);
    page.note(Tone::Bad, "Not measured", failures);
    for outcome in outcomes {
        page.section(&outcome.name, &state(outcome));
        if outcomes.len() > 1 {
            page.text(&outcome.about);
        }
        body(&mut page, outcome);
    }
    if let Some(outcome) = outcomes.first() {
        page.environment(&outcome.environment, &outcome.client, command);
    }
    page.finish()
}

/// Complete, doubtful or incomplete, in one word.
pub fn state(outcome: &Outcome) -> String {
    if !outcome.complete {
        badge(Tone::Bad, "incomplete")
    } else if !outcome.doubts.is_empty() {
        badge(Tone::Warn, "complete, doubtful")
    } else {
        badge(Tone::Good, "complete")
    }
}

fn body(page: &mut Page, outcome: &Outcome) {
    page.note(
        Tone::Bad,
        "Incomplete: what was measured until then is below",
        &outcome.problems,
    );
    page.note(Tone::Warn, "To be taken with care", &outcome.doubts);
    page.tiles(&tiles(outcome));
    let side = Side {
        name: outcome.name.clone(),
        rounds: vec![outcome],
    };
    page.charts(&charts(&[side]));
    latencies(page, outcome);
    companions(page, outcome);
    costs(page, outcome);
    verdict(page, outcome);
    page.details(
        "The workload as it was run",
        &serde_json::to_string_pretty(&outcome.workload).unwrap_or_default(),
    );
}

fn tiles(outcome: &Outcome) -> Vec<(String, String)> {
    let mut tiles = Vec::new();
    let mut tile = |value: String, what: &str| tiles.push((value, what.to_string()));
    if let Some(producer) = &outcome.producer {
        let kind = if producer.closed_loop {
            "records/s produced, as fast as possible"
        } else {
            "records/s produced, open loop"
        };
        tile(number(producer.records_per_s), kind);
        tile(format!("{} MB/s", number(producer.mb_per_s)), "produced");
    }
    if let Some(consumer) = &outcome.consumer {
        tile(format!("{} MB/s", number(consumer.mb_per_s)), "fetched");
    }
    let latency = outcome
        .end_to_end
        .as_ref()
        .map(|summary| (summary, "end to end"))
        .or_else(|| Some((outcome.producer.as_ref()?.latency.as_ref()?, "produce")));
    if let Some((summary, what)) = latency {
        tile(
            format!("{} ms", number(summary.p50_ms)),
            &format!("{what} median"),
        );
        tile(
            format!("{} ms", number(summary.p99_ms)),
            &format!("{what} 99th percentile"),
        );
    }
    if let Some(broker) = outcome
        .observed
        .as_ref()
        .and_then(|seen| seen.broker.as_ref())
    {
        tile(number(broker.cores()), "cores kept busy by the broker");
        tile(
            format!("{} MB", number(broker.rss_max_bytes as f64 / 1e6)),
            "broker memory, most",
        );
    }
    tiles
}

fn latencies(page: &mut Page, outcome: &Outcome) {
    let row = |what: &str, summary: &Summary| {
        let figures = [
            summary.mean_ms,
            summary.p50_ms,
            summary.p90_ms,
            summary.p99_ms,
            summary.p999_ms,
            summary.max_ms,
        ];
        let mut cells = vec![escape(what)];
        cells.extend(figures.map(number));
        cells.push(summary.count.to_string());
        cells
    };
    let mut rows = Vec::new();
    if let Some(summary) = &outcome.end_to_end {
        rows.push(row("end to end", summary));
    }
    if let Some(producer) = &outcome.producer {
        let what = if producer.closed_loop {
            "batch round trip (closed loop)"
        } else {
            "from the intended send time"
        };
        rows.extend(producer.latency.as_ref().map(|summary| row(what, summary)));
        rows.extend(
            producer
                .lateness
                .as_ref()
                .map(|summary| row("the generator's own delay", summary)),
        );
    }
    if let Some(latency) = outcome
        .churn
        .as_ref()
        .and_then(|churn| churn.latency.as_ref())
    {
        rows.push(row("a new connection's metadata", latency));
    }
    if !rows.is_empty() {
        page.push("<h3>Latency, milliseconds</h3>");
        page.table(
            "Latency",
            &[
                "what", "mean", "p50", "p90", "p99", "p99.9", "max", "samples",
            ],
            &rows,
        );
    }
}

/// What went on beside the load, in a sentence each.
fn companions(page: &mut Page, outcome: &Outcome) {
    if let Some(churn) = &outcome.churn {
        page.text(&format!(
            "Beside the load {} connections were opened, asked for metadata and closed; {} failed.",
            churn.opened, churn.failed
        ));
    }
    if let Some(slow) = &outcome.slow_readers {
        page.text(&format!(
            "Beside the load {} slow readers took {} MB in {} whole answers; {} broke.",
            slow.readers,
            number(slow.bytes as f64 / 1e6),
            slow.answers,
            slow.broken
        ));
    }
}

fn costs(page: &mut Page, outcome: &Outcome) {
    let Some(seen) = &outcome.observed else {
        page.text("CPU, memory and disk could not be watched.");
        return;
    };
    page.push("<h3>What it cost</h3>");
    let known = |value: Option<f64>| value.map_or("not known".to_string(), number);
    let count =
        |value: Option<u64>| value.map_or("not known".to_string(), |value| value.to_string());
    let mut heads = vec!["figure"];
    let mut who = Vec::new();
    if let Some(broker) = &seen.broker {
        heads.push("broker");
        who.push((broker, outcome.broker_us_per_record()));
    } else {
        page.text("The broker was not watched: no process id was given.");
    }
    heads.push("generator");
    // Seconds per 10⁶ records are microseconds per record.
    who.push((&seen.generator, outcome.generator_s_per_million()));
    let rows: Vec<Vec<String>> = [
        (
            "cores kept busy",
            who.iter().map(|one| number(one.0.cores())).collect(),
        ),
        (
            "CPU seconds, user",
            who.iter().map(|one| number(one.0.user_s)).collect(),
        ),
        (
            "CPU seconds, system",
            who.iter().map(|one| number(one.0.system_s)).collect(),
        ),
        (
            "CPU µs per record",
            who.iter().map(|one| known(one.1)).collect(),
        ),
        (
            "memory at the end, MB",
            who.iter()
                .map(|one| number(one.0.rss_bytes as f64 / 1e6))
                .collect(),
        ),
        (
            "memory, most, MB",
            who.iter()
                .map(|one| number(one.0.rss_max_bytes as f64 / 1e6))
                .collect(),
        ),
        (
            "written to disk, MB",
            who.iter()
                .map(|one| known(one.0.write_bytes.map(|bytes| bytes as f64 / 1e6)))
                .collect(),
        ),
        (
            "waits (voluntary switches)",
            who.iter()
                .map(|one| count(one.0.voluntary_switches))
                .collect(),
        ),
        (
            "preemptions",
            who.iter()
                .map(|one| count(one.0.involuntary_switches))
                .collect::<Vec<_>>(),
        ),
    ]
    .into_iter()
    .map(|(what, cells)| std::iter::once(escape(what)).chain(cells).collect())
    .collect();
    page.table("What it cost", &heads, &rows);
    page.text(&format!(
        "The machine was {} % idle, {} % of its CPU time was stolen by the hypervisor{}; {} MB reached its disks in {} writes with {} flushes.",
        number(seen.machine.idle * 100.0),
        number(seen.machine.steal * 100.0),
        seen.machine
            .other_cores
            .map_or(String::new(), |cores| format!(", other processes kept {} cores busy", number(cores))),
        number(seen.machine.disk_written_bytes as f64 / 1e6),
        seen.machine.disk_writes,
        seen.machine.disk_flushes
    ));
}

fn verdict(page: &mut Page, outcome: &Outcome) {
    let Some(verdict) = &outcome.verdict else {
        page.text("Records were not verified (--verify checks each one).");
        return;
    };
    let tone = if verdict.clean() {
        Tone::Good
    } else {
        Tone::Bad
    };
    let mut items = vec![format!(
        "{} records seen: {} lost, {} duplicated, {} reordered, {} corrupted",
        verdict.seen, verdict.lost, verdict.duplicated, verdict.reordered, verdict.corrupted
    )];
    items.extend(verdict.examples.iter().cloned());
    page.note(
        tone,
        if verdict.clean() {
            "Verified"
        } else {
            "Verification failed"
        },
        &items,
    );
}
