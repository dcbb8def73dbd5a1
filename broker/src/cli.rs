//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A Kafka-compatible broker that acknowledges only what is on disk.
#[derive(Debug, Parser)]
#[command(name = "ringlog", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker until SIGTERM or SIGINT.
    Start(Start),
    /// Format the data directories of a configuration that are new beside formatted ones. A broker whose directories are all new does that by itself.
    Format(Start),
    /// Print every configuration key as a Markdown table; with --check: what a broker would make of a file.
    Config(Config),
    /// Print every metric that /metrics gives as a Markdown table.
    Metrics,
}

/// Arguments of `start` and `format`.
#[derive(Debug, Args)]
pub struct Start {
    /// A file of Kafka's server.properties form.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A configuration value that wins over the file; may be given several times.
    #[arg(long = "override", value_name = "KEY=VALUE", value_parser = pair)]
    pub overrides: Vec<(String, String)>,
    /// How log lines look; by default plain text.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct Config {
    /// Check a file of Kafka's server.properties form: what would be used, what would do nothing, what is unknown. Nothing is started or
    /// written. Exit status 0: a broker would start with it; 1: it would not; 3: it would, and ignore keys that are unknown.
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
    /// A configuration value that wins over the file; may be given several times.
    #[arg(long = "override", value_name = "KEY=VALUE", value_parser = pair, requires = "check")]
    pub overrides: Vec<(String, String)>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line each for people; coloured on a terminal.
    Text,
    /// One JSON object each.
    Json,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().into(), value.trim().into()))
        }
        _ => Err("expected KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    //! The documented forms parse.
    use super::*;

    #[test]
    fn start_takes_a_file_and_overrides() {
        let cli = Cli::try_parse_from([
            "ringlog",
            "start",
            "--config",
            "f",
            "--override",
            "a=b=c",
            "--override",
            "d=",
        ]);
        let Ok(Cli {
            command: Command::Start(start),
        }) = cli
        else {
            panic!("{cli:?}")
        };
        assert_eq!(start.config, Some(PathBuf::from("f")));
        assert_eq!(
            start.overrides,
            [("a".into(), "b=c".into()), ("d".into(), String::new())]
        );
        assert!(Cli::try_parse_from(["ringlog", "start", "--override", "nothing"]).is_err());
    }
}
