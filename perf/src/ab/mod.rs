//! `ringlog-perf ab`: two revisions, built and run in turns on this machine, and whether the second is worse.
//!
//! Every round of a workload runs it once on either revision, one right after the other; a coin decides which goes first. That, and a fresh process for each
//! run, is what lets the test assume nothing about the machine's noise (see [`decision`]). The rounds of one workload follow each other, behind a run that
//! does not count: what a machine has put away since a workload last ran, the first run, probably, fetches back. What was measured is written after every round,
//! so that an interrupted comparison leaves it. Workloads of which nothing can be told are measured as long again, once.

pub mod broker;
pub mod decision;
pub mod figure;
pub mod load;
pub mod plant;
pub mod random;
#[cfg(test)]
pub mod recorded;
pub mod report;
pub mod revision;
pub mod self_check;
pub mod signed_rank;
pub mod subject;
pub mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use decision::{Better, Judged, Limits, Verdict};
use figure::Kind;
use load::{Load, Run};
use random::Random;
use revision::{Revision, RevisionError};
use subject::{Places, Subject, SubjectError};
use workload::{Selected, WorkloadError};

/// Rounds unless the command line says otherwise.
pub const ROUNDS: usize = 12;
/// Failed runs after which nothing more is tried.
const FAILURES_MAX: usize = 3;

/// Figures that the answer's sentence names.
const NAMED_MAX: usize = 3;

/// What to compare, and how.
#[derive(Clone)]
pub struct Options {
    /// The revision that is there.
    pub a: String,
    /// The one that may be worse.
    pub b: String,
    /// The subject's file; Ringlog's own where absent.
    pub subject: Option<PathBuf>,
    /// Workload files; the shipped ones where empty.
    pub workloads: Vec<PathBuf>,
    /// Names of workloads to keep; all where empty.
    pub only: Vec<String>,
    /// Changes to every workload.
    pub set: Vec<String>,
    /// Rounds.
    pub rounds: usize,
    /// Thresholds that differ from the kind's own, in parts.
    pub thresholds: Vec<(Kind, f64)>,
    /// Resolutions that differ from the kind's own, in parts.
    pub resolutions: Vec<(Kind, f64)>,
    /// The load generator.
    pub generator: PathBuf,
    /// Where revisions are built and data is kept.
    pub folder: PathBuf,
    /// Seed of the coin.
    pub seed: u64,
    /// Whether disturbed rounds are no reason to doubt.
    pub ignore_disturbance: bool,
    /// By how many parts B is slowed on purpose.
    pub plant: Option<f64>,
    /// Whether what could not be told is left at that.
    pub once: bool,
}

/// Which revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The one that is there.
    A,
    /// The one that may be worse.
    B,
}

impl Side {
    fn tossed(coin: &mut Random) -> Side {
        if coin.coin() { Side::A } else { Side::B }
    }

    fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

/// A run, and which it was.
#[derive(Clone, Debug, Serialize)]
pub struct RunOf {
    /// From 1.
    pub round: usize,
    /// The workload, or the client.
    pub workload: String,
    /// The revision.
    pub side: Side,
    /// What it gave.
    #[serde(flatten)]
    pub run: Run,
}

/// A figure of both revisions.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The workload, or the client.
    pub workload: String,
    /// The figure.
    pub figure: String,
    /// How reports name it.
    pub label: String,
    /// Which way is good.
    pub better: Better,
    /// What was asked of it.
    pub limits: Limits,
    /// Median of A's runs.
    pub a: Option<f64>,
    /// Median of B's runs.
    pub b: Option<f64>,
    /// What is known.
    #[serde(flatten)]
    pub judged: Judged,
}

/// Everything a comparison found.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was compared.
    pub subject: String,
    /// The revision that is there.
    pub a: Revision,
    /// The one that may be worse.
    pub b: Revision,
    /// What it comes to.
    pub answer: Verdict,
    /// Why that, in a sentence.
    pub reason: String,
    /// Whether every run was made and went well.
    pub complete: bool,
    /// What failed.
    pub problems: Vec<String>,
    /// Rounds asked for.
    pub rounds: usize,
    /// Workloads that were doubtful at first, and were measured as long again.
    pub again: Vec<String>,
    /// Whether every workload has had its rounds: before, nothing is decided.
    #[serde(skip)]
    pub whole: bool,
    /// The workload that other work disturbed in the largest part of its rounds: in how many, of how many.
    pub most_disturbed: Option<(String, usize, usize)>,
    /// Seed of the coin.
    pub seed: u64,
    /// By how many parts B was slowed on purpose.
    pub planted: Option<f64>,
    /// The figures.
    pub figures: Vec<Compared>,
    /// All runs, in the order they were made.
    pub runs: Vec<RunOf>,
    /// Where it ran.
    pub environment: Option<Value>,
}

/// Why a comparison could not begin.
#[derive(Debug, thiserror::Error)]
pub enum AbError {
    /// The subject's file.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// A revision.
    #[error(transparent)]
    Revision(#[from] RevisionError),
    /// A workload.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The folder for builds and data.
    #[error("cannot use {folder} for builds and data: {source}")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing that can be slowed.
    #[error("--plant slows the subject's broker, and it has none")]
    NoBroker,
    /// No generator.
    #[error(
        "the load generator is not at {0}: `cargo build --release -p ringlog-bench` makes it, --generator says where it is"
    )]
    Generator(String),
}

/// Compares. `checkpoint` sees the comparison after every round.
pub fn compare(options: &Options, checkpoint: &dyn Fn(&Comparison)) -> Result<Comparison, AbError> {
    let subject = Subject::load(options.subject.as_deref())?;
    if options.plant.is_some() && subject.broker.is_none() {
        return Err(AbError::NoBroker);
    }
    let (a, b) = (Revision::find(&options.a)?, Revision::find(&options.b)?);
    let folder_error = |source| AbError::Folder {
        folder: options.folder.display().to_string(),
        source,
    };
    fs::create_dir_all(&options.folder).map_err(folder_error)?;
    let folder = options.folder.canonicalize().map_err(folder_error)?;
    let scratch = folder.join(format!("run-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(folder_error)?;
    let loads = loads(options, &subject, &scratch)?;
    let built = (a.build(&subject, &folder)?, b.build(&subject, &folder)?);
    revision::forget_old(&folder, &[&a, &b]);
    let mut found = Comparison {
        subject: subject.name.clone(),
        a,
        b,
        answer: Verdict::CannotTell,
        reason: String::new(),
        complete: false,
        problems: Vec::new(),
        rounds: options.rounds,
        again: Vec::new(),
        whole: false,
        most_disturbed: None,
        seed: options.seed,
        planted: options.plant,
        figures: Vec::new(),
        runs: Vec::new(),
        environment: None,
    };
    measure(
        options,
        &subject,
        &loads,
        (&built.0, &built.1),
        &scratch,
        &mut found,
        checkpoint,
    );
    conclude(&mut found, options, &subject);
    checkpoint(&found);
    if found.complete {
        // A failed comparison leaves the last outputs to be read.
        let _ = fs::remove_dir_all(&scratch);
    }
    Ok(found)
}

fn loads(
    options: &Options,
    subject: &Subject,
    scratch: &Path,
) -> Result<Vec<(String, Load)>, AbError> {
    if let Some(client) = &subject.client {
        return Ok(vec![("client".into(), Load::Client(client.clone()))]);
    }
    let program = options.generator.canonicalize();
    let program =
        program.map_err(|_| AbError::Generator(options.generator.display().to_string()))?;
    let selected = workload::select(&options.workloads, &options.only, scratch)?;
    let load = |Selected { name, file }| {
        let load = Load::Bench {
            program: program.clone(),
            workload: file,
            set: options.set.clone(),
        };
        (name, load)
    };
    Ok(selected.into_iter().map(load).collect())
}

fn measure(
    options: &Options,
    subject: &Subject,
    loads: &[(String, Load)],
    built: (&Places, &Places),
    scratch: &Path,
    found: &mut Comparison,
    checkpoint: &dyn Fn(&Comparison),
) {
    let mut coin = Random::new(options.seed);
    let run = |load, side| {
        let built = if side == Side::A { built.0 } else { built.1 };
        let plant = options.plant.filter(|_| side == Side::B);
        load::run(subject, built, load, plant, scratch)
    };
    let mut wanted: Vec<&(String, Load)> = loads.iter().collect();
    let looks = if options.once { 1 } else { decision::LOOKS };
    for look in 0..looks {
        found.whole = false;
        for (name, load) in wanted {
            // The first run after another workload pays, probably, for what the machine has put away meanwhile.
            let side = Side::tossed(&mut coin);
            let ahead = run(load, side);
            if !noted(
                found,
                &ahead,
                &format!("ahead of the rounds, {name}, {side:?}"),
            ) {
                return;
            }
            for round in (1..=options.rounds).map(|round| look * options.rounds + round) {
                let first = Side::tossed(&mut coin);
                for side in [first, first.other()] {
                    let mut run = run(load, side);
                    found.environment = run.environment.take().or(found.environment.take());
                    let rounds = (look + 1) * options.rounds;
                    eprintln!("{}", line(round, rounds, name, side, &run));
                    let goes_on = noted(found, &run, &format!("round {round}, {name}, {side:?}"));
                    found.runs.push(RunOf {
                        round,
                        workload: name.clone(),
                        side,
                        run,
                    });
                    if !goes_on {
                        return;
                    }
                }
                conclude(found, options, subject);
                checkpoint(found);
            }
        }
        found.whole = true;
        conclude(found, options, subject);
        let needed = decision::rounds_needed(found.figures.len());
        if options.rounds * looks < needed {
            eprintln!(
                "{} rounds can show nothing about so many figures: at least {} are needed (--rounds)",
                options.rounds,
                needed.div_ceil(looks)
            );
            return;
        }
        if look + 1 == looks || found.answer != Verdict::CannotTell || !found.complete {
            return;
        }
        wanted = loads
            .iter()
            .filter(|(name, _)| is_doubtful(found, options, name))
            .collect();
        found.again = wanted.iter().map(|(name, _)| name.clone()).collect();
        eprintln!(
            "cannot tell so far: as long again {}",
            found.again.join(", ")
        );
    }
}

/// Notes what failed in a run; whether it is worth going on.
fn noted(found: &mut Comparison, run: &Run, which: &str) -> bool {
    if !run.complete {
        let why = run.remarks.first();
        let why = why.map_or("it was incomplete", String::as_str);
        found.problems.push(format!("{which}: {why}"));
    }
    let failures = found.problems.len();
    if failures >= FAILURES_MAX {
        found
            .problems
            .push(format!("given up after {failures} failed runs"));
    }
    failures < FAILURES_MAX
}

/// Whether nothing can be told of a figure of a workload, or other work disturbed most of its rounds.
fn is_doubtful(found: &Comparison, options: &Options, workload: &str) -> bool {
    let mut figures = found.figures.iter();
    let untold = figures
        .any(|figure| figure.workload == workload && figure.judged.verdict == Verdict::CannotTell);
    let (disturbed, rounds) = rounds_disturbed(found, workload);
    untold || !options.ignore_disturbance && disturbed * 2 > rounds
}

/// Rounds of a workload in which something else disturbed the machine, and all its rounds.
fn rounds_disturbed(found: &Comparison, workload: &str) -> (usize, usize) {
    let mut rounds: BTreeMap<usize, bool> = BTreeMap::new();
    for of in found.runs.iter().filter(|of| of.workload == workload) {
        *rounds.entry(of.round).or_default() |= of.run.disturbed;
    }
    let disturbed = rounds.values().filter(|disturbed| **disturbed).count();
    (disturbed, rounds.len())
}

fn line(round: usize, rounds: usize, workload: &str, side: Side, run: &Run) -> String {
    let figures: Vec<String> = run
        .figures
        .iter()
        .map(|(name, value)| format!("{name} {}", report::number(*value)))
        .collect();
    let state = match (run.complete, run.disturbed) {
        (false, _) => "  INCOMPLETE",
        (true, true) => "  disturbed",
        (true, false) => "",
    };
    format!(
        "round {round} of {rounds}  {workload}  {side:?}  {}{state}",
        figures.join("  ")
    )
}

/// All figures that any complete run had, with their pairs: rounds in which both revisions have the figure.
fn figures(found: &Comparison, options: &Options, subject: &Subject) -> Vec<Compared> {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut values: BTreeMap<(&str, &str, usize, bool), f64> = BTreeMap::new();
    for of in found.runs.iter().filter(|of| of.run.complete) {
        for (name, value) in &of.run.figures {
            if !names
                .iter()
                .any(|(workload, figure)| *workload == of.workload && figure == name)
            {
                names.push((of.workload.clone(), name.clone()));
            }
            values.insert((&of.workload, name, of.round, of.side == Side::A), *value);
        }
    }
    let count = names.len();
    let compared = |(workload, figure): (String, String)| {
        let value = |round, a| {
            values
                .get(&(workload.as_str(), figure.as_str(), round, a))
                .copied()
        };
        let rounds = 1..=found.rounds * decision::LOOKS;
        let pairs: Vec<(f64, f64)> = rounds
            .clone()
            .filter_map(|round| Some((value(round, true)?, value(round, false)?)))
            .collect();
        let (label, better, limits) = asked(&figure, options, subject);
        Compared {
            label,
            better,
            limits,
            a: median(
                rounds
                    .clone()
                    .filter_map(|round| value(round, true))
                    .collect(),
            ),
            b: median(rounds.filter_map(|round| value(round, false)).collect()),
            judged: decision::judge(&pairs, better, limits, count),
            workload,
            figure,
        }
    };
    names.into_iter().map(compared).collect()
}

/// What is asked of a figure: a kind's own limits, the command line's, or the subject's.
fn asked(figure: &str, options: &Options, subject: &Subject) -> (String, Better, Limits) {
    if let Some(spec) = subject
        .client
        .as_ref()
        .and_then(|client| client.figures.get(figure))
    {
        return (figure.into(), spec.better, spec.limits());
    }
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == figure)
        .unwrap_or(Kind::Cpu);
    let given = |list: &[(Kind, f64)]| {
        list.iter()
            .rev()
            .find(|(of, _)| *of == kind)
            .map(|(_, value)| *value)
    };
    let own = kind.limits();
    let limits = Limits {
        threshold: given(&options.thresholds).unwrap_or(own.threshold),
        resolution: given(&options.resolutions).unwrap_or(own.resolution),
    };
    (kind.label().into(), kind.better(), limits)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Judges what there is so far, and says what it comes to.
fn conclude(found: &mut Comparison, options: &Options, subject: &Subject) {
    found.figures = figures(found, options, subject);
    found.complete = found.whole && found.problems.is_empty();
    let mut workloads: Vec<&str> = found.runs.iter().map(|of| of.workload.as_str()).collect();
    workloads.dedup();
    found.most_disturbed = workloads
        .into_iter()
        .map(|name| (name, rounds_disturbed(found, name)))
        .filter(|(_, (disturbed, _))| *disturbed > 0)
        .max_by_key(|(_, (disturbed, rounds))| disturbed * 1000 / rounds)
        .map(|(name, (disturbed, rounds))| (name.to_string(), disturbed, rounds));
    found.answer = decision::answer(found.figures.iter().map(|figure| figure.judged.verdict));
    let named = |verdict: Verdict| {
        let such = found
            .figures
            .iter()
            .filter(|figure| figure.judged.verdict == verdict);
        let names: Vec<String> = such
            .map(|figure| format!("{} of {}", figure.label, figure.workload))
            .collect();
        let more = names.len().saturating_sub(NAMED_MAX);
        let shown = names[..names.len() - more].join(", ");
        if more == 0 {
            shown
        } else {
            format!("{shown} and {more} more")
        }
    };
    found.reason = match found.answer {
        Verdict::Worse => format!("worse: {}", named(Verdict::Worse)),
        Verdict::CannotTell if found.figures.is_empty() => "nothing was measured".into(),
        Verdict::CannotTell => format!(
            "too noisy, or too few rounds: {}",
            named(Verdict::CannotTell)
        ),
        Verdict::Better => format!("better: {}", named(Verdict::Better)),
        Verdict::NoChange => "no figure moved so far that it matters".into(),
    };
    // Looks at figures of a part are none of those that share the error.
    if found.answer == Verdict::Worse && found.whole {
        return;
    }
    if !found.complete {
        found.answer = Verdict::CannotTell;
        found.reason = "incomplete: not every run was made and went well".into();
    } else if let Some((name, disturbed, rounds)) = &found.most_disturbed
        && disturbed * 2 > *rounds
        && !options.ignore_disturbance
        && found.answer != Verdict::CannotTell
    {
        found.answer = Verdict::CannotTell;
        found.reason = format!(
            "something else disturbed the machine in {disturbed} of {rounds} rounds of {name}; without that it would be: {}",
            found.reason
        );
    }
}
