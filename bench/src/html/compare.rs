//! A comparison as a page: what was hoped and reached, ratios with their intervals, then each workload side by side.

use super::curves::{Side, charts};
use super::intervals::{Interval, intervals};
use super::{Page, Tone, badge, escape};
use crate::compare::Comparison;
use crate::compare::figures::{Row, life_rows, machine_rows, row, rows};
use crate::compare::statistics::{Ratio, Spread};
use crate::results::number;

/// The report. `command` is what gives it again.
pub fn html(found: &Comparison, command: &str) -> String {
    let names: Vec<&str> = found.peers.iter().map(|peer| peer.name.as_str()).collect();
    let mut page = Page::new(&names.join(" beside "), &format!("{}.", found.plan.about));
    summary(&mut page, found);
    goals(&mut page, found);
    machine(&mut page, found);
    lives(&mut page, found);
    for entry in 0..found.plan.entries.len() {
        workload(&mut page, found, entry);
    }
    page.environment(&found.environment, &found.client, command);
    page.finish()
}

fn all_rows(found: &Comparison) -> Vec<(String, Row)> {
    let mut all: Vec<(String, Row)> = Vec::new();
    for (index, entry) in found.plan.entries.iter().enumerate() {
        for goal in &entry.goals {
            all.push((
                entry.workload.name.clone(),
                row(found, index, goal.metric, Some(goal)),
            ));
        }
    }
    let lives = life_rows(found)
        .into_iter()
        .filter(|row| !row.verdict.is_empty());
    all.extend(lives.map(|row| ("one peer at a time".to_string(), row)));
    all
}

fn summary(page: &mut Page, found: &Comparison) {
    let all = all_rows(found);
    let holds = |wanted: Option<bool>| {
        let judged = all.iter().flat_map(|(_, row)| &row.verdict);
        judged.filter(|judgement| judgement.holds == wanted).count()
    };
    let complete = found.cells.iter().filter(|cell| cell.complete).count();
    let disturbed = found
        .cells
        .iter()
        .filter(|cell| cell.complete && !cell.remarks.is_empty())
        .count();
    let asked = found.plan.entries.len() * found.peers.len() * found.rounds;
    let mut tiles = Vec::new();
    if !all.is_empty() {
        tiles.push((
            format!(
                "{} of {}",
                holds(Some(true)),
                holds(Some(true)) + holds(Some(false)) + holds(None)
            ),
            "goals reached".to_string(),
        ));
        tiles.push((
            holds(Some(false)).to_string(),
            "goals not reached".to_string(),
        ));
        if holds(None) > 0 {
            tiles.push((holds(None).to_string(), "goals not measured".to_string()));
        }
    }
    tiles.push((
        format!("{complete} of {asked}"),
        "runs complete".to_string(),
    ));
    tiles.push((
        disturbed.to_string(),
        "of them doubtful or disturbed".to_string(),
    ));
    tiles.push((
        found.rounds.to_string(),
        "rounds, in turns A B B A".to_string(),
    ));
    page.tiles(&tiles);
    for peer in &found.peers {
        page.push(&format!(
            "<p><strong>{}</strong>: {}. Warm-up {} s.</p>",
            escape(&peer.name),
            escape(&peer.about),
            peer.warmup_s
        ));
    }
    if found.rounds < 3 {
        let rounds = match found.rounds {
            1 => "1 round has".to_string(),
            rounds => format!("{rounds} rounds have"),
        };
        let few = format!("{rounds} no interval that says much.");
        page.note(Tone::Warn, "To be taken with care", &[few]);
    }
    if found.cells.len() < asked {
        let missing = format!(
            "{} of {asked} runs were made; the comparison was not finished.",
            found.cells.len()
        );
        page.note(Tone::Bad, "Incomplete", &[missing]);
    }
    page.note(Tone::Bad, "What could not be done", &found.problems);
}

fn goals(page: &mut Page, found: &Comparison) {
    let all = all_rows(found);
    if !all.is_empty() {
        page.section("Goals", "");
        ratio_chart(page, &all, "Ratios of the goals");
        let labelled = all.iter().map(|(name, row)| {
            let label = format!(
                "{}<small>{}</small>",
                escape(row.metric.label()),
                escape(name)
            );
            (label, row)
        });
        peers_table(page, found, "goal", &labelled.collect::<Vec<_>>());
    }
}

fn ratio_chart(page: &mut Page, all: &[(String, Row)], title: &str) {
    let intervals_of: Vec<Interval> = all
        .iter()
        .filter_map(|(name, row)| {
            let ratio = row.ratio?;
            Some(Interval {
                label: match name.as_str() {
                    "" => row.metric.label().to_string(),
                    name => format!("{name}: {}", row.metric.label()),
                },
                middle: ratio.median,
                low: ratio.low,
                high: ratio.high,
                goal: row.ratio_goal,
            })
        })
        .filter(|one| one.low > 0.0 && one.high.is_finite())
        .collect();
    if intervals_of.is_empty() {
        return;
    }
    let id = page.figure_id();
    let about = "First peer to second: the dot is the median of the rounds' ratios, the bar its 95 % bootstrap interval, the upright stroke the bound that was hoped for.";
    page.push(&intervals(&id, title, about, &intervals_of));
}

fn side(side: Option<Spread>) -> String {
    match side {
        None => badge(Tone::Plain, "not measured"),
        Some(side) if side.count == 1 => number(side.median),
        Some(side) => format!(
            "{}<small>{} – {}</small>",
            number(side.median),
            number(side.low),
            number(side.high)
        ),
    }
}

fn ratio(ratio: Option<Ratio>) -> String {
    match ratio {
        None => "–".into(),
        Some(one) if one.count == 1 => format!("{} ×", number(one.median)),
        Some(several) => format!(
            "{} ×<small>[{}, {}]</small>",
            number(several.median),
            number(several.low),
            number(several.high)
        ),
    }
}

fn verdict(row: &Row) -> String {
    let verdict = row.verdict.iter().map(|judgement| {
        let word = match judgement.holds {
            Some(true) => badge(Tone::Good, "✓ reached"),
            Some(false) => badge(Tone::Bad, "✕ not reached"),
            None => badge(Tone::Plain, "not measured"),
        };
        format!(
            "<span class=\"verdict\">{} {word}</span>",
            escape(&judgement.bound)
        )
    });
    verdict.collect()
}

/// Rows with their labels, as HTML. Ratios are there where there is something to compare, and hopes where any were had.
fn peers_table(page: &mut Page, found: &Comparison, label: &str, rows: &[(String, &Row)]) {
    let compared = found.peers.len() > 1;
    let hoped = rows.iter().any(|(_, row)| !row.verdict.is_empty());
    let mut heads = vec![label];
    heads.extend(found.peers.iter().map(|peer| peer.name.as_str()));
    if compared {
        heads.push(if found.peers.len() > 2 {
            "ratio, first to second"
        } else {
            "ratio"
        });
    }
    if hoped {
        heads.push("hoped");
    }
    let cells = |(label, row): &(String, &Row)| {
        let mut cells = vec![label.clone()];
        cells.extend(row.sides.iter().map(|one| side(*one)));
        if compared {
            cells.push(ratio(row.ratio));
        }
        if hoped {
            cells.push(verdict(row));
        }
        cells
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    page.table(&format!("{label}, side by side"), &heads, &rows);
}

fn labelled(rows: &[Row]) -> Vec<(String, &Row)> {
    rows.iter()
        .map(|row| (escape(row.metric.label()), row))
        .collect()
}

fn machine(page: &mut Page, found: &Comparison) {
    if found.device.is_empty() {
        return;
    }
    page.section("The machine itself", "");
    page.text("Measured before each round of the same run: a latency means nothing without the device under it.");
    let rows = machine_rows(found).into_iter();
    let rows: Vec<Vec<String>> = rows
        .map(|(what, spread)| vec![escape(what), side(spread)])
        .collect();
    page.table(
        "The machine itself",
        &["what", "median and extremes"],
        &rows,
    );
}

fn lives(page: &mut Page, found: &Comparison) {
    let Some(plan) = &found.plan.lifecycle else {
        return;
    };
    page.section("Starting, idling, crashing", "");
    page.text(&format!(
        "Each peer alone on the machine; {} partitions, {} MB in them before kill -9. Ready after a crash means that the end offset of every partition is told. One life each.",
        plan.partitions,
        number(plan.bytes as f64 / 1e6)
    ));
    peers_table(page, found, "figure", &labelled(&life_rows(found)));
    for (life, peer) in found.lives.iter().zip(&found.peers) {
        let kept: Vec<String> = life
            .kept
            .iter()
            .map(|kept| {
                format!(
                    "{} records acknowledged before {}, {} there after it",
                    kept.acknowledged, kept.how, kept.found
                )
            })
            .collect();
        let lost = life.kept.iter().any(|kept| kept.found < kept.acknowledged);
        page.note(if lost { Tone::Bad } else { Tone::Good }, &peer.name, &kept);
        page.note(
            Tone::Bad,
            &format!("{}: what failed", peer.name),
            &life.problems,
        );
    }
}

fn workload(page: &mut Page, found: &Comparison, entry: usize) {
    let about = &found.plan.entries[entry].workload;
    let cells: Vec<_> = found
        .cells
        .iter()
        .filter(|cell| cell.entry == entry)
        .collect();
    let state = if cells.iter().any(|cell| !cell.complete) {
        badge(Tone::Bad, "incomplete")
    } else if cells.iter().any(|cell| !cell.remarks.is_empty()) {
        badge(Tone::Warn, "doubtful runs")
    } else {
        String::new()
    };
    page.section(&about.name, &state);
    page.text(&format!("{}.", about.about.trim_end_matches('.')));
    let remarks = |complete: bool| -> Vec<String> {
        let these = cells.iter().filter(|cell| cell.complete == complete);
        these
            .filter(|cell| !cell.remarks.is_empty() || !complete)
            .map(|cell| {
                let all: Vec<&str> = cell.remarks.iter().map(String::as_str).collect();
                format!(
                    "round {}, {}: {}",
                    cell.round,
                    found.peers[cell.peer].name,
                    all.join("; ")
                )
            })
            .collect()
    };
    page.note(Tone::Bad, "Incomplete runs", &remarks(false));
    page.note(Tone::Warn, "Runs to be taken with care", &remarks(true));
    let rows = rows(found, entry);
    peers_table(page, found, "figure", &labelled(&rows));
    let sides: Vec<Side<'_>> = found
        .peers
        .iter()
        .enumerate()
        .map(|(index, peer)| Side {
            name: peer.name.clone(),
            rounds: cells
                .iter()
                .filter(|cell| cell.peer == index)
                .filter_map(|cell| cell.outcome.as_deref())
                .collect(),
        })
        .collect();
    page.charts(&charts(&sides));
    let named: Vec<(String, Row)> = rows.into_iter().map(|row| (String::new(), row)).collect();
    ratio_chart(page, &named, "All ratios of this workload");
}

#[cfg(test)]
mod tests {
    //! A comparison that was cut short says so, and judges nothing that it did not measure.
    use std::path::Path;

    use super::*;
    use crate::compare::lifecycle::{Kept, Life};
    use crate::compare::peer::PeerSpec;
    use crate::compare::plan::Plan;
    use crate::environment::Environment;

    #[test]
    fn an_unfinished_comparison_is_shown_as_one() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let plan = here.join("comparisons/single-broker.toml");
        let peers = ["ringlog", "kafka"]
            .map(|name| PeerSpec::load(&here.join(format!("peers/{name}.toml"))).unwrap());
        let life = Life {
            kept: vec![Kept {
                how: "kill -9".into(),
                acknowledged: 10,
                found: 9,
            }],
            ..Default::default()
        };
        let found = Comparison {
            plan: Plan::load(&plan, &[], &[]).unwrap(),
            peers: peers.to_vec(),
            rounds: 1,
            environment: Environment::find(None),
            client: "client".into(),
            device: Vec::new(),
            send_loop: Vec::new(),
            floor: Vec::new(),
            lives: vec![life],
            cells: Vec::new(),
            problems: vec!["<b>no disk</b>".into()],
        };
        let html = html(&found, "ringlog-bench compare");
        assert!(html.contains("the comparison was not finished"));
        assert!(html.contains("goals not measured") && !html.contains("✓ reached"));
        assert!(html.contains("&lt;b&gt;no disk"));
        let lost = html
            .find("10 records acknowledged before kill -9, 9 there")
            .unwrap();
        assert!(html[..lost].ends_with("<ul><li>"));
        assert!(
            html[..lost].rfind("note bad").unwrap() > html[..lost].rfind("note good").unwrap_or(0)
        );
    }
}
