//! A comparison as Markdown: what was asked, what was found, what was not reached, what was doubtful.

use std::fmt::Write;

use super::plan::{Goal, Metric};
use super::statistics::{Ratio, Spread, ratio, spread};
use super::{Cell, Comparison};

/// A figure of every peer, and how the first compares with the second.
struct Row {
    metric: Metric,
    sides: Vec<Option<Spread>>,
    ratio: Option<Ratio>,
    verdict: String,
}

/// The report. `command` is what gives it again.
pub fn markdown(found: &Comparison, command: &str) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(found, command, &mut out);
    out
}

fn write(found: &Comparison, command: &str, out: &mut String) -> std::fmt::Result {
    writeln!(out, "# {}: {}\n", found.plan.name, peers_line(found))?;
    writeln!(out, "{}.\n", found.plan.about)?;
    writeln!(out, "Made by:\n\n```\n{command}\n```\n")?;
    writeln!(out, "- Client of record: {}.", found.client)?;
    for peer in &found.peers {
        writeln!(
            out,
            "- **{}**: {}. Warm-up {} s.",
            peer.name, peer.about, peer.warmup_s
        )?;
    }
    let place = &found.environment;
    writeln!(
        out,
        "- Machine: {}, {} × {}, {:.0} GB memory, {}. Client and broker share it.",
        place.kernel,
        place.cpus,
        place.cpu,
        place.memory_bytes as f64 / 1e9,
        place.disk
    )?;
    writeln!(
        out,
        "- {} rounds, in turns (A B B A); a cell is the median over rounds, with the extremes behind it; a ratio is the median of the rounds' ratios with its 95 % bootstrap interval.",
        found.rounds
    )?;
    writeln!(
        out,
        "- Open-loop latency runs from the intended send time of each record. Memory in 10⁶ bytes.\n"
    )?;
    probes(found, out)?;
    goals(found, out)?;
    lives(found, out)?;
    for (index, entry) in found.plan.entries.iter().enumerate() {
        writeln!(
            out,
            "## {}\n\n{}.\n",
            entry.workload.name, entry.workload.about
        )?;
        table(found, &rows(found, index), out)?;
        remarks(found, index, out)?;
    }
    if !found.problems.is_empty() {
        writeln!(out, "## What could not be done\n")?;
        for problem in &found.problems {
            writeln!(out, "- {}", one_line(problem))?;
        }
    }
    Ok(())
}

fn peers_line(found: &Comparison) -> String {
    let names: Vec<&str> = found.peers.iter().map(|peer| peer.name.as_str()).collect();
    names.join(" beside ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Three significant digits, without a trail of zeros.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn ranged(side: Option<Spread>) -> String {
    match side {
        None => "not measured".into(),
        Some(side) if side.count == 1 => number(side.median),
        Some(side) => format!(
            "{} ({}–{})",
            number(side.median),
            number(side.low),
            number(side.high)
        ),
    }
}

fn ratio_text(ratio: Option<Ratio>) -> String {
    match ratio {
        None => String::new(),
        Some(one) if one.count == 1 => number(one.median),
        Some(r) => format!(
            "{} [{}, {}]",
            number(r.median),
            number(r.low),
            number(r.high)
        ),
    }
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

fn send_cost(found: &Comparison) -> Option<f64> {
    spread(
        &found
            .send_loop
            .iter()
            .map(|send| send.sender_s_per_gb)
            .collect::<Vec<_>>(),
    )
    .map(|s| s.median)
}

fn probes(found: &Comparison, out: &mut String) -> std::fmt::Result {
    let of = |pick: &dyn Fn(&crate::probe::DeviceFigures) -> f64| {
        ranged(spread(&found.device.iter().map(pick).collect::<Vec<_>>()))
    };
    if !found.device.is_empty() {
        writeln!(out, "## The machine itself, measured in the same run\n")?;
        writeln!(out, "| what | |\n|---|---|")?;
        writeln!(
            out,
            "| 4 KiB durable write (O_DIRECT, O_DSYNC), p50 ms | {} |",
            of(&|d| d.durable_4k.p50_ms)
        )?;
        writeln!(
            out,
            "| the same, p99 ms | {} |",
            of(&|d| d.durable_4k.p99_ms)
        )?;
        writeln!(
            out,
            "| 4 KiB direct write, not flushed, p50 ms | {} |",
            of(&|d| d.direct_4k.p50_ms)
        )?;
        writeln!(
            out,
            "| 1 MiB durable writes, four at a time, MB/s | {} |",
            of(&|d| d.durable_1m_mb_per_s)
        )?;
        writeln!(
            out,
            "| 1 MiB direct writes, four at a time, MB/s | {} |",
            of(&|d| d.direct_1m_mb_per_s)
        )?;
        let sends: Vec<f64> = found
            .send_loop
            .iter()
            .map(|send| send.sender_s_per_gb)
            .collect();
        writeln!(
            out,
            "| bare send loop over loopback, sender's CPU s per GB | {} |\n",
            ranged(spread(&sends))
        )?;
    }
    Ok(())
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

fn row(found: &Comparison, entry: usize, metric: Metric, goal: Option<&Goal>) -> Row {
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
    let verdict = goal.map_or(String::new(), |goal| {
        verdict(found, goal, sides.first().copied().flatten(), ratio)
    });
    Row {
        metric,
        sides,
        ratio,
        verdict,
    }
}

fn rows(found: &Comparison, entry: usize) -> Vec<Row> {
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

/// Each bound of a goal in words, and whether it holds.
fn verdict(
    found: &Comparison,
    goal: &Goal,
    subject: Option<Spread>,
    ratio: Option<Ratio>,
) -> String {
    let mut parts = Vec::new();
    let mut judge = |text: String, holds: Option<bool>| {
        let word = match holds {
            Some(true) => "reached",
            Some(false) => "**not reached**",
            None => "not measured",
        };
        parts.push(format!("{text}: {word}"));
    };
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
        let limit = send_cost(found).map(|cost| cost * times);
        let holds = subject.zip(limit).map(|(value, limit)| value <= limit);
        judge(
            format!(
                "≤ {times} × send loop = {}",
                limit.map_or("?".into(), number)
            ),
            holds,
        );
    }
    parts.join("; ")
}

fn header(found: &Comparison, first: &str, out: &mut String) -> std::fmt::Result {
    let names: Vec<&str> = found.peers.iter().map(|peer| peer.name.as_str()).collect();
    writeln!(out, "| {first} | {} | ratio | goal |", names.join(" | "))?;
    writeln!(out, "|{}", "---|".repeat(names.len() + 3))
}

fn table(found: &Comparison, rows: &[Row], out: &mut String) -> std::fmt::Result {
    header(found, "figure", out)?;
    for row in rows {
        write_row(row.metric.label(), row, out)?;
    }
    writeln!(out)
}

fn write_row(label: &str, row: &Row, out: &mut String) -> std::fmt::Result {
    let sides: Vec<String> = row.sides.iter().map(|side| ranged(*side)).collect();
    writeln!(
        out,
        "| {label} | {} | {} | {} |",
        sides.join(" | "),
        ratio_text(row.ratio),
        row.verdict
    )
}

fn goals(found: &Comparison, out: &mut String) -> std::fmt::Result {
    if found
        .plan
        .entries
        .iter()
        .all(|entry| entry.goals.is_empty())
    {
        return Ok(());
    }
    writeln!(out, "## Goals\n")?;
    header(found, "what", out)?;
    for (index, entry) in found.plan.entries.iter().enumerate() {
        for goal in &entry.goals {
            let row = row(found, index, goal.metric, Some(goal));
            write_row(
                &format!("{}: {}", entry.workload.name, goal.metric.label()),
                &row,
                out,
            )?;
        }
    }
    for row in life_rows(found)
        .iter()
        .filter(|row| !row.verdict.is_empty())
    {
        write_row(row.metric.label(), row, out)?;
    }
    writeln!(out)
}

fn life_rows(found: &Comparison) -> Vec<Row> {
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
        let verdict = goal.map_or(String::new(), |goal| {
            verdict(found, goal, sides.first().copied().flatten(), ratio)
        });
        Row {
            metric,
            sides,
            ratio,
            verdict,
        }
    };
    metrics.into_iter().map(one).collect()
}

fn lives(found: &Comparison, out: &mut String) -> std::fmt::Result {
    let Some(plan) = &found.plan.lifecycle else {
        return Ok(());
    };
    writeln!(out, "## Starting, idling, crashing\n")?;
    writeln!(
        out,
        "Alone on the machine; {} partitions, {} bytes in them before kill -9. Ready after a crash means: the end offset of every partition is told. One life each.\n",
        plan.partitions, plan.bytes
    )?;
    table(found, &life_rows(found), out)?;
    for (life, peer) in found.lives.iter().zip(&found.peers) {
        if let Some((before, after)) = life.kept {
            writeln!(
                out,
                "- {}: {before} records acknowledged before kill -9, {after} there after it.",
                peer.name
            )?;
        }
        for problem in &life.problems {
            writeln!(out, "- {}: {}", peer.name, one_line(problem))?;
        }
    }
    writeln!(out)
}

fn remarks(found: &Comparison, entry: usize, out: &mut String) -> std::fmt::Result {
    let mut any = false;
    for cell in found.cells.iter().filter(|cell| cell.entry == entry) {
        for remark in &cell.remarks {
            writeln!(
                out,
                "- round {}, {}: {}",
                cell.round,
                found.peers[cell.peer].name,
                one_line(remark)
            )?;
            any = true;
        }
    }
    if any { writeln!(out) } else { Ok(()) }
}
