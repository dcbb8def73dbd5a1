//! `ringlog-bench`: measures any Kafka-compatible broker honestly.
//!
//! This file holds the command line; [`run`] runs one workload, and the modules under it say what they measure and how.

mod client;
mod companions;
mod compare;
mod consumer;
mod coordinator;
mod drive;
mod environment;
mod html;
mod latency;
mod probe;
mod producer;
mod results;
mod run;
mod schedule;
mod search;
mod series;
mod verify;
mod watch;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// An honest load generator for any Kafka-compatible broker.
#[derive(Parser)]
#[command(version, about)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run one or more workloads against a running broker
    Run(RunArgs),
    /// Find the highest rate whose 99th percentile stays within a limit
    Search(SearchArgs),
    /// Measure latency at several rates
    Sweep(SweepArgs),
    /// Compare brokers that this command starts and stops, in turns on this machine
    Compare(CompareArgs),
    /// Measure groups, committed offsets and transactions
    Coordinator(CoordinatorArgs),
    /// Measure what the disk, a bare send loop and servers that only answer can do on this machine
    Device(DeviceArgs),
}

#[derive(Args)]
struct CompareArgs {
    /// What to measure, and what is hoped
    #[arg(long, default_value = "bench/comparisons/single-broker.toml")]
    plan: PathBuf,
    /// A broker's description; give at least one. Goals are about the first, held against the second
    #[arg(long = "peer", required = true)]
    peers: Vec<PathBuf>,
    /// Rounds; every workload runs once per peer and round
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Only these workloads of the plan; "lifecycle" names the starting and crashing
    #[arg(long)]
    only: Vec<String>,
    /// Change a key of every workload, for example run.duration_s=5
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Replaces the peers' own warm-up, in seconds
    #[arg(long)]
    warmup_s: Option<f64>,
    /// Check every record
    #[arg(long)]
    verify: bool,
    /// What {root} means in the peers' commands
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Where the peers keep their data: on the disk that is to be measured
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// First port; each peer may use ten
    #[arg(long, default_value_t = 19092)]
    port: u16,
    /// Write everything as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report as Markdown to this file, instead of to standard output
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Write the report as one self-contained HTML page to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

/// What every command needs that runs one workload many times.
#[derive(Args)]
struct TrialArgs {
    /// Workload file, whose [producer] has a rate in records/s
    workload: PathBuf,
    /// Address of a broker
    #[arg(long, short, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// The broker's process id, to watch its CPU, memory and disk use
    #[arg(long)]
    pid: Option<u32>,
    /// Change a key of the workload, for example run.duration_s=5
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Check every record for loss, duplication, reordering and corruption
    #[arg(long)]
    verify: bool,
    /// Write everything as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report as Markdown to this file, instead of to standard output
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Write the report as one self-contained HTML page to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

#[derive(Args)]
struct SearchArgs {
    #[command(flatten)]
    trial: TrialArgs,
    /// The limit of the 99th percentile: end to end where the workload consumes, else of producing
    #[arg(long, value_parser = positive)]
    p99_ms: f64,
    /// How narrow the bracket must become: 0.05 is 5 %
    #[arg(long, default_value_t = 0.05, value_parser = positive)]
    precision: f64,
    /// No rate above this one is tried, records/s
    #[arg(long, default_value_t = 1e7, value_parser = positive)]
    rate_max: f64,
}

#[derive(Args)]
struct SweepArgs {
    #[command(flatten)]
    trial: TrialArgs,
    /// Rates in records/s, for example 1000,2000,5000
    #[arg(long, required = true, value_delimiter = ',', value_parser = positive)]
    rates: Vec<f64>,
}

/// A number above 0.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e8 => Ok(value),
        _ => Err("a number above 0 and up to 100000000 is needed".into()),
    }
}

#[derive(Args)]
struct CoordinatorArgs {
    #[command(subcommand)]
    mode: coordinator::Mode,
    /// Address of a broker that runs already
    #[arg(long, short, default_value = "127.0.0.1:9092", global = true)]
    bootstrap: String,
    /// That broker's process id, to watch its CPU and memory
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// A broker's description: it is started, and --bootstrap not used. Several take turns
    #[arg(long = "peer", global = true)]
    peers: Vec<PathBuf>,
    /// Runs on each broker
    #[arg(long, default_value_t = 1, global = true, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Replaces the peers' own warm-up, in seconds
    #[arg(long, global = true)]
    peer_warmup_s: Option<f64>,
    /// What {root} means in the peers' commands
    #[arg(long, default_value = ".", global = true)]
    root: PathBuf,
    /// Where the peers keep their data: on the disk that is to be measured
    #[arg(long, default_value = "target", global = true)]
    folder: PathBuf,
    /// First port; each peer may use ten
    #[arg(long, default_value_t = 19192, global = true)]
    port: u16,
    /// Write everything as JSON to this file
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    /// Write the report as Markdown to this file, instead of to standard output
    #[arg(long, global = true)]
    markdown: Option<PathBuf>,
}

#[derive(Args)]
struct DeviceArgs {
    /// A folder on the disk to measure
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Seconds per figure
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RunArgs {
    /// Workload files
    #[arg(required = true)]
    workloads: Vec<PathBuf>,
    /// Address of a broker
    #[arg(long, short, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// The broker's process id, to watch its CPU, memory and disk use
    #[arg(long)]
    pid: Option<u32>,
    /// Change a key of the workload, for example producer.rate=2000
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Check every record for loss, duplication, reordering and corruption
    #[arg(long)]
    verify: bool,
    /// Count the broker's system calls; needs --pid and a perf that may
    #[arg(long, requires = "pid")]
    syscalls: bool,
    /// Leave the topics that the run created
    #[arg(long)]
    keep_topics: bool,
    /// Write the results as JSON to this file (one object per workload, one per line where there are several)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the results as one self-contained HTML page to this file
    #[arg(long)]
    html: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
}

/// Nothing wrong.
const SUCCESS: u8 = 0;
/// A run failed, was incomplete, or verification found something.
const INCOMPLETE: u8 = 1;
/// The command, a workload or a file is wrong, or the broker could not be reached.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let status = match Command::parse().what {
        What::Run(args) => run_workloads(&args),
        What::Search(args) => {
            let question = search::Question::Highest {
                p99_ms: args.p99_ms,
                precision: args.precision,
                rate_max: args.rate_max,
            };
            try_rates(&args.trial, |workload, run, checkpoint| {
                search::search(workload, question, run, checkpoint)
            })
        }
        What::Sweep(args) => try_rates(&args.trial, |workload, run, checkpoint| {
            search::sweep(workload, &args.rates, run, checkpoint)
        }),
        What::Compare(args) => compare_brokers(args),
        What::Coordinator(args) => measure_coordinator(args),
        What::Device(args) => measure_device(&args),
    };
    ExitCode::from(status)
}

fn run_workloads(args: &RunArgs) -> u8 {
    if !writable(&[&args.json, &args.html]) {
        return REFUSED;
    }
    let mut status = SUCCESS;
    let mut json = String::new();
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for path in &args.workloads {
        let workload = match workload::Workload::load(path, &args.set) {
            Ok(workload) => workload,
            Err(error) => {
                eprintln!("{error}");
                return REFUSED;
            }
        };
        let options = run::RunOptions {
            bootstrap: args.bootstrap.clone(),
            pid: args.pid,
            verify: args.verify,
            syscalls: args.syscalls,
            keep_topics: args.keep_topics,
            progress: !args.quiet,
        };
        match run::run(&workload, &options) {
            Ok(outcome) => {
                println!("{outcome}");
                if !outcome.complete {
                    status = status.max(INCOMPLETE);
                }
                json.push_str(&outcome.json());
                json.push('\n');
                outcomes.push(outcome);
            }
            Err(error) => {
                eprintln!("{}: {error}", workload.name);
                failures.push(format!("{}: {error}", workload.name));
                status = REFUSED;
            }
        }
        if !keep(&args.json, || json.clone())
            || !keep(&args.html, || {
                html::run::html(&outcomes, &failures, &command_line())
            })
        {
            return REFUSED;
        }
    }
    status
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
    format!("ringlog-bench {}", words.collect::<Vec<_>>().join(" "))
}

/// Runs trials and reports them, after each one and at the end.
fn try_rates(
    args: &TrialArgs,
    try_them: impl FnOnce(
        &workload::Workload,
        search::RunOnce<'_>,
        &dyn Fn(&search::Trials),
    ) -> Result<search::Trials, search::SearchError>,
) -> u8 {
    let workload = match workload::Workload::load(&args.workload, &args.set) {
        Ok(workload) => workload,
        Err(error) => {
            eprintln!("{error}");
            return REFUSED;
        }
    };
    if !writable(&[&args.json, &args.markdown, &args.html]) {
        return REFUSED;
    }
    let options = run::RunOptions {
        bootstrap: args.bootstrap.clone(),
        pid: args.pid,
        verify: args.verify,
        syscalls: false,
        keep_topics: false,
        progress: false,
    };
    let write = |found: &search::Trials| {
        let json = keep(&args.json, || {
            serde_json::to_string_pretty(found).unwrap_or_default()
        });
        let markdown = keep(&args.markdown, || {
            search::report::markdown(found, &command_line())
        });
        let page = keep(&args.html, || html::search::html(found, &command_line()));
        json && markdown && page
    };
    let run = |workload: &_| run::run(workload, &options);
    let found = match try_them(&workload, &run, &|found| {
        write(found);
    }) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("{error}");
            return REFUSED;
        }
    };
    match &args.markdown {
        None => println!("{}", search::report::markdown(&found, &command_line())),
        Some(_) => println!("{}", found.answer()),
    }
    if !write(&found) {
        REFUSED
    } else if found.complete() {
        SUCCESS
    } else {
        INCOMPLETE
    }
}

fn compare_brokers(args: CompareArgs) -> u8 {
    let plan = match compare::plan::Plan::load(&args.plan, &args.only, &args.set) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("{error}");
            return REFUSED;
        }
    };
    let peers: Result<Vec<_>, _> = args
        .peers
        .iter()
        .map(|file| compare::peer::PeerSpec::load(file))
        .collect();
    let peers = match peers {
        Ok(peers) => peers,
        Err(error) => {
            eprintln!("{error}");
            return REFUSED;
        }
    };
    if !writable(&[&args.json, &args.markdown, &args.html]) {
        return REFUSED;
    }
    let options = compare::CompareOptions {
        plan,
        peers,
        rounds: args.rounds,
        root: args.root,
        folder: args.folder,
        port: args.port,
        verify: args.verify,
        warmup_s: args.warmup_s,
    };
    let (json, markdown, page) = (args.json, args.markdown, args.html);
    let write = |found: &compare::Comparison| {
        let json = keep(&json, || {
            serde_json::to_string_pretty(found).unwrap_or_default()
        });
        let markdown = keep(&markdown, || {
            compare::report::markdown(found, &command_line())
        });
        let page = keep(&page, || html::compare::html(found, &command_line()));
        json && markdown && page
    };
    match compare::compare(&options, &|found| {
        write(found);
    }) {
        Ok(found) => {
            if markdown.is_none() {
                println!("{}", compare::report::markdown(&found, &command_line()));
            }
            let failed = !found.problems.is_empty()
                || found.cells.iter().any(|cell| !cell.complete)
                || found.lives.iter().any(|life| !life.problems.is_empty());
            if !write(&found) {
                REFUSED
            } else if failed {
                INCOMPLETE
            } else {
                SUCCESS
            }
        }
        Err(error) => {
            eprintln!("{error}");
            REFUSED
        }
    }
}

fn measure_coordinator(args: CoordinatorArgs) -> u8 {
    let specs: Result<Vec<_>, _> = args
        .peers
        .iter()
        .map(|file| compare::peer::PeerSpec::load(file))
        .collect();
    let specs = match specs {
        Ok(specs) => specs,
        Err(error) => {
            eprintln!("{error}");
            return REFUSED;
        }
    };
    if !writable(&[&args.json, &args.markdown]) {
        return REFUSED;
    }
    let brokers = if specs.is_empty() {
        coordinator::rounds::Brokers::Running {
            bootstrap: args.bootstrap,
            pid: args.pid,
        }
    } else {
        coordinator::rounds::Brokers::Peers {
            specs,
            root: args.root,
            folder: args.folder,
            port: args.port,
            warmup_s: args.peer_warmup_s,
        }
    };
    let (json, markdown) = (args.json, args.markdown);
    let write = |found: &coordinator::rounds::Found| {
        let json = keep(&json, || {
            serde_json::to_string_pretty(found).unwrap_or_default()
        });
        json && keep(&markdown, || coordinator::report::text(found))
    };
    let rounds = usize::from(args.rounds);
    match coordinator::rounds::measure(&args.mode, &brokers, rounds, &|found| {
        write(found);
    }) {
        Ok(found) => {
            if markdown.is_none() {
                println!("{}", coordinator::report::text(&found));
            }
            if !write(&found) {
                REFUSED
            } else if found.complete() {
                SUCCESS
            } else {
                INCOMPLETE
            }
        }
        Err(error) => {
            eprintln!("{error}");
            REFUSED
        }
    }
}

/// Whether every file that was asked for can be opened, so that a long run does not end in a name that was mistyped. What is in them
/// stays until there is something to replace it.
fn writable(paths: &[&Option<PathBuf>]) -> bool {
    paths.iter().copied().flatten().all(|path| {
        let opened = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        if let Err(error) = &opened {
            eprintln!("cannot write results to {}: {error}", path.display());
        }
        opened.is_ok()
    })
}

/// Writes a result to the file that was asked for, if one was; false, with the reason said, where that failed.
fn keep(path: &Option<PathBuf>, text: impl FnOnce() -> String) -> bool {
    let Some(path) = path else { return true };
    let outcome = std::fs::write(path, text());
    if let Err(error) = &outcome {
        eprintln!("cannot write results to {}: {error}", path.display());
    }
    outcome.is_ok()
}

fn measure_device(args: &DeviceArgs) -> u8 {
    let patience = std::time::Duration::from_secs_f64(args.seconds.clamp(0.1, 600.0));
    let measured = probe::device(&args.folder, patience).and_then(|device| {
        let floor = probe::floor(&args.folder, patience)?;
        Ok((device, probe::send_loop()?, floor))
    });
    let (device, send, floor) = match measured {
        Ok(figures) => figures,
        Err(error) => {
            eprintln!(
                "cannot measure the disk under {}: {error}",
                args.folder.display()
            );
            return REFUSED;
        }
    };
    if args.json {
        let all = serde_json::json!({ "device": device, "send_loop": send, "floor": floor });
        println!("{all:#}");
        return SUCCESS;
    }
    for (what, summary) in [
        ("durable", &device.durable_4k),
        ("direct, not flushed", &device.direct_4k),
    ] {
        println!(
            "4 KiB writes, {what}: p50 {:.3}  p99 {:.3}  max {:.3} ms",
            summary.p50_ms, summary.p99_ms, summary.max_ms
        );
    }
    println!(
        "1 MiB writes, four at a time: durable {:.0} MB/s, not flushed {:.0} MB/s",
        device.durable_1m_mb_per_s, device.direct_1m_mb_per_s
    );
    println!(
        "bare send loop: {:.0} MB/s, {:.3} CPU s per GB at the sender",
        send.mb_per_s, send.sender_s_per_gb
    );
    for (what, server) in [
        ("at once", &floor.echo),
        ("after one durable write", &floor.durable),
    ] {
        println!(
            "produce-2000's requests answered {what} by a bare loop: p50 {:.3}  p99 {:.3}  max {:.3} ms, {:.1} CPU µs per request at the loop",
            server.latency.p50_ms,
            server.latency.p99_ms,
            server.latency.max_ms,
            server.us_per_request
        );
    }
    SUCCESS
}
