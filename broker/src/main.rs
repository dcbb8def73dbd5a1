//! The `ringlog` binary: a Kafka-compatible broker. See `ARCHITECTURE.md` for the map.

mod authorizer;
mod cli;
mod config;
mod connection;
mod controller;
mod coordinator;
mod descriptors;
mod directories;
mod fetch_session;
mod handlers;
mod http;
mod lag;
mod metadata;
mod metrics;
mod process;
mod quota;
mod shard;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, LogFormat};
use config::BrokerConfig;
use config::check::{self, Verdict};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Config(cli::Config { check: None, .. }) => {
            print!("{}", config::reference::markdown());
            ExitCode::SUCCESS
        }
        Command::Config(cli::Config {
            check: Some(file),
            overrides,
        }) => checked(&file, &overrides),
        Command::Metrics => {
            print!("{}", metrics::ShardMetrics::markdown());
            ExitCode::SUCCESS
        }
        Command::Format(start) => {
            start_logging(start.log_format);
            told(process::configure(&start).and_then(|config| process::format(&config)))
        }
        Command::Start(start) => {
            start_logging(start.log_format);
            told(process::configure(&start).and_then(process::run))
        }
    }
}

/// Says what a broker would make of a configuration.
fn checked(file: &Path, overrides: &[(String, String)]) -> ExitCode {
    let pairs = match process::read_pairs(Some(file), overrides) {
        Ok(pairs) => pairs,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::FAILURE;
        }
    };
    let (text, verdict) = check::report(&BrokerConfig::from_pairs(pairs));
    print!("{text}");
    match verdict {
        Verdict::Good => ExitCode::SUCCESS,
        Verdict::Refused => ExitCode::FAILURE,
        Verdict::Unknown => ExitCode::from(3),
    }
}

fn told(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::FAILURE
        }
    }
}

/// Log lines go to standard error; `RINGLOG_LOG` filters them, by default `info`.
fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("RINGLOG_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
}
