//! A comparison as Markdown: what was asked, what was found, what was not reached, what was doubtful.

use std::fmt::Write;

use super::Comparison;
use super::figures::{Judgement, Row, life_rows, machine_rows, row, rows};
use super::statistics::{Ratio, Spread};
use crate::results::number;

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

fn probes(found: &Comparison, out: &mut String) -> std::fmt::Result {
    if found.device.is_empty() {
        return Ok(());
    }
    writeln!(out, "## The machine itself, measured in the same run\n")?;
    writeln!(out, "| what | |\n|---|---|")?;
    for (what, side) in machine_rows(found) {
        writeln!(out, "| {what} | {} |", ranged(side))?;
    }
    writeln!(out)
}

fn verdict_text(verdict: &[Judgement]) -> String {
    let one = |judgement: &Judgement| {
        let word = match judgement.holds {
            Some(true) => "reached",
            Some(false) => "**not reached**",
            None => "not measured",
        };
        format!("{}: {word}", judgement.bound)
    };
    verdict.iter().map(one).collect::<Vec<_>>().join("; ")
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
        verdict_text(&row.verdict)
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
        for kept in &life.kept {
            writeln!(
                out,
                "- {}: {} records acknowledged before {}, {} there after it.",
                peer.name, kept.acknowledged, kept.how, kept.found
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
