//! `ringlog-bench`: measures any Kafka-compatible broker honestly.
//!
//! This file holds the command line; [`run`] runs one workload, and the modules under it say what they measure and how.

mod client;
mod consumer;
mod drive;
mod environment;
mod latency;
mod producer;
mod results;
mod run;
mod schedule;
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
    /// Leave the topics that the run created
    #[arg(long)]
    keep_topics: bool,
    /// Write the results as JSON to this file (one object per workload, one per line where there are several)
    #[arg(long)]
    json: Option<PathBuf>,
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
    };
    ExitCode::from(status)
}

fn run_workloads(args: &RunArgs) -> u8 {
    let mut status = SUCCESS;
    let mut json = String::new();
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
            }
            Err(error) => {
                eprintln!("{}: {error}", workload.name);
                status = REFUSED;
            }
        }
        if let Some(path) = &args.json
            && let Err(error) = std::fs::write(path, &json)
        {
            eprintln!("cannot write results to {}: {error}", path.display());
            return REFUSED;
        }
    }
    status
}
