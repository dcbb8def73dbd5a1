//! `ringlog-perf`: compares two revisions of a broker or of a client on one machine, for people and for pipelines.
//!
//! This file holds the command line; [`ab`] says how it is done.

mod ab;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use ab::decision::Verdict;
use ab::figure::Kind;

/// Performance regressions, decided by a test and not by a look.
#[derive(Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Build two revisions, run them in turns, and say whether the second is worse
    ///
    /// Exit status: 0 no change or better, 1 worse, 2 cannot tell (too noisy or disturbed), 3 not measured or not written down (a run failed, a revision does not build).
    Ab(AbArgs),
    /// Compare a revision with itself many times, and count the answers; with --plant, with itself slowed on purpose
    ///
    /// Runs are short (0.3 s of warm-up, 0.7 s measured) unless --set says otherwise. Exit status: 0 as it must be, 1 called changed too often or a planted
    /// slow-down missed, 3 could not be measured.
    SelfCheck(SelfCheckArgs),
}

#[derive(Args)]
struct AbArgs {
    /// The revision that is there: anything git takes for a commit, or `.` for the working tree
    rev_a: String,
    /// The revision that may be worse
    rev_b: String,
    /// Rounds; every workload runs once per revision and round, and in as many rounds again where nothing could be told
    #[arg(long, default_value_t = ab::ROUNDS, value_parser = rounds)]
    rounds: usize,
    #[command(flatten)]
    how: HowArgs,
    /// Write everything as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report as Markdown to this file, instead of to standard output
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Args)]
struct SelfCheckArgs {
    /// The revision
    #[arg(default_value = "HEAD")]
    revision: String,
    /// Comparisons
    #[arg(long, default_value_t = 20)]
    times: usize,
    /// Rounds of each
    #[arg(long, default_value_t = SELF_CHECK_ROUNDS, value_parser = rounds)]
    rounds: usize,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args)]
struct HowArgs {
    /// What is built and run, if not Ringlog; see perf/OTHER-PROJECTS.md
    #[arg(long)]
    subject: Option<PathBuf>,
    /// Workload files of ringlog-bench, instead of the short ones that are shipped
    #[arg(long = "workload", value_name = "FILE")]
    workloads: Vec<PathBuf>,
    /// Only these workloads: ab-latency, ab-produce, ab-fetch, or names of --workload's files
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Change a key of every workload, for example run.duration_s=2
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A change of a figure (p50, p99, throughput, cpu, memory) that matters, for example cpu=5
    #[arg(long = "threshold", value_name = "FIGURE=PERCENT", value_parser = percent)]
    thresholds: Vec<(Kind, f64)>,
    /// A change that must not hide in noise, for example p99=100
    #[arg(long = "resolution", value_name = "FIGURE=PERCENT", value_parser = percent)]
    resolutions: Vec<(Kind, f64)>,
    /// The load generator, one for both revisions; by default the ringlog-bench beside this program
    #[arg(long)]
    generator: Option<PathBuf>,
    /// Where revisions are built and kept, and where brokers keep their data: on the disk that is to be measured
    #[arg(long, default_value = "target/ab")]
    folder: PathBuf,
    /// Seed of the coin that orders the runs; by default the time
    #[arg(long)]
    seed: Option<u64>,
    /// Judge by the figures alone, even where other work disturbed most rounds
    #[arg(long)]
    ignore_disturbance: bool,
    /// Leave it at that where nothing can be told, instead of measuring those workloads as long again
    #[arg(long)]
    once: bool,
    /// Slow the second revision's broker on purpose, by stopping and continuing it, to see whether that is found: 25 makes what it does take 25 % longer
    #[arg(long, value_name = "PERCENT", value_parser = planted)]
    plant: Option<f64>,
}

/// Rounds of each comparison of a self-check: what runs this short need.
const SELF_CHECK_ROUNDS: usize = 16;
/// What makes its runs short.
const SELF_CHECK_SET: [&str; 2] = ["run.warmup_s=0.3", "run.duration_s=0.7"];

/// No change, or better.
const GOOD: u8 = 0;
/// Worse.
const WORSE: u8 = 1;
/// Cannot tell.
const CANNOT_TELL: u8 = 2;
/// Not everything could be measured, or written down: no reason to let a change pass.
const NOT_MEASURED: u8 = 3;

fn rounds(text: &str) -> Result<usize, String> {
    let most = ab::signed_rank::PAIRS_MAX / ab::decision::LOOKS;
    match text.parse::<usize>() {
        Ok(rounds) if (1..=most).contains(&rounds) => Ok(rounds),
        _ => Err(format!("a whole number from 1 to {most} is needed")),
    }
}

/// `cpu=5`: a kind of figure and a part.
fn percent(text: &str) -> Result<(Kind, f64), String> {
    let kinds = || Kind::ALL.map(Kind::name).join(", ");
    let (name, value) = text
        .split_once('=')
        .ok_or("write FIGURE=PERCENT, for example cpu=5")?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.ok_or_else(|| format!("{name:?} is not one of {}", kinds()))?;
    match value.parse::<f64>() {
        Ok(percent) if (0.0..=1e4).contains(&percent) => Ok((kind, percent / 100.0)),
        _ => Err(format!("{value:?} is not a percentage from 0 to 10000")),
    }
}

/// A part by which to slow.
fn planted(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 900.0 => Ok(percent / 100.0),
        _ => Err("a percentage above 0 and up to 900 is needed".into()),
    }
}

fn main() -> ExitCode {
    ExitCode::from(match Command::parse().what {
        What::Ab(args) => compare(args),
        What::SelfCheck(args) => self_check(args),
    })
}

fn self_check(args: SelfCheckArgs) -> u8 {
    let mut how = args.how;
    let short = SELF_CHECK_SET.map(String::from).into_iter();
    how.set = short.chain(how.set).collect();
    let options = options(args.revision.clone(), args.revision, args.rounds, how);
    match ab::self_check::check(&options, args.times) {
        Ok(tally) => {
            println!("{tally}");
            match (tally.is_complete(), tally.sound()) {
                (false, _) => NOT_MEASURED,
                (true, true) => GOOD,
                (true, false) => WORSE,
            }
        }
        Err(error) => {
            eprintln!("ringlog-perf: {error}");
            NOT_MEASURED
        }
    }
}

fn options(a: String, b: String, rounds: usize, how: HowArgs) -> ab::Options {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join("ringlog-bench")));
    ab::Options {
        a,
        b,
        subject: how.subject,
        workloads: how.workloads,
        only: how.only,
        set: how.set,
        rounds,
        thresholds: how.thresholds,
        resolutions: how.resolutions,
        generator: how
            .generator
            .or(beside)
            .unwrap_or_else(|| "ringlog-bench".into()),
        folder: how.folder,
        seed: how.seed.unwrap_or(since_epoch.as_secs()),
        ignore_disturbance: how.ignore_disturbance,
        once: how.once,
        plant: how.plant,
    }
}

fn compare(args: AbArgs) -> u8 {
    let options = options(args.rev_a, args.rev_b, args.rounds, args.how);
    let (json, markdown) = (args.json, args.markdown);
    if ![&json, &markdown].into_iter().flatten().all(writable) {
        return NOT_MEASURED;
    }
    let write = |found: &ab::Comparison| {
        let json = keep(json.as_ref(), || {
            serde_json::to_string_pretty(found).unwrap_or_default()
        });
        keep(markdown.as_ref(), || {
            ab::report::markdown(found, &command_line())
        }) && json
    };
    let found = match ab::compare(&options, &|found| {
        write(found);
    }) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("ringlog-perf: {error}");
            return NOT_MEASURED;
        }
    };
    match &markdown {
        None => println!("{}", ab::report::markdown(&found, &command_line())),
        Some(_) => println!("{}", ab::report::headline(&found)),
    }
    let written = write(&found);
    match found.answer {
        Verdict::Worse => WORSE,
        _ if !written || !found.complete => NOT_MEASURED,
        Verdict::CannotTell => CANNOT_TELL,
        Verdict::Better | Verdict::NoChange => GOOD,
    }
}

/// The command line as given, for reports.
fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| {
        if word.contains(' ') {
            format!("{word:?}")
        } else {
            word
        }
    });
    format!("ringlog-perf {}", words.collect::<Vec<_>>().join(" "))
}

/// Whether a file can be opened, so that a long comparison does not end in a name that was mistyped.
fn writable(path: &PathBuf) -> bool {
    let opened = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    if let Err(error) = &opened {
        eprintln!("cannot write results to {}: {error}", path.display());
    }
    opened.is_ok()
}

/// Writes a result to the file that was asked for, if one was; false, with the reason said, where that failed.
fn keep(path: Option<&PathBuf>, text: impl FnOnce() -> String) -> bool {
    let Some(path) = path else { return true };
    let outcome = std::fs::write(path, text());
    if let Err(error) = &outcome {
        eprintln!("cannot write results to {}: {error}", path.display());
    }
    outcome.is_ok()
}
