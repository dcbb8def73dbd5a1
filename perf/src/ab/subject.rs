//! What is compared: a file that says how a revision is built, and how it is run. `subjects/ringlog.toml` is the one used unless another is given.
//!
//! Commands are lists of words, run without a shell, in which `{source}` is the revision's checked-out tree, `{target}` a folder to build into,
//! `{data}` a fresh folder, `{port}` and `{port+1}` free ports and `{bootstrap}` the broker's address.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::decision::{Better, Limits};

const RINGLOG: &str = include_str!("../../subjects/ringlog.toml");

/// A subject.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name in reports.
    pub name: String,
    /// Commands that build a revision, in order, run in its tree; none where nothing is built.
    #[serde(default)]
    pub build: Vec<Vec<String>>,
    /// The broker that is loaded. Its words decide whether it is part of what is compared (`{target}`, `{source}`) or the same for both.
    pub broker: Option<BrokerSpec>,
    /// A load of the subject's own; absent: `ringlog-bench` loads the broker.
    pub client: Option<ClientSpec>,
}

/// How a broker is run.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSpec {
    /// Starts it.
    pub start: Vec<String>,
    /// Stops it cleanly; a SIGTERM where absent.
    pub stop: Option<Vec<String>>,
    /// Where `start` leaves the broker's pid. Absent: the started process is the broker.
    pub pid_file: Option<String>,
}

/// A load that measures itself.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSpec {
    /// Runs it; the last line it prints is a JSON object of its figures, `{"records_per_s": 51234.5}`.
    pub measure: Vec<String>,
    /// Figures that are judged, and how; others are ignored.
    pub figures: BTreeMap<String, FigureSpec>,
}

/// A figure of such a load.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FigureSpec {
    /// Which way is good.
    pub better: Better,
    /// Percent of change that matter.
    #[serde(default = "ten")]
    pub threshold: f64,
    /// Percent that must not hide in noise.
    #[serde(default = "fifty")]
    pub resolution: f64,
}

fn ten() -> f64 {
    10.0
}

fn fifty() -> f64 {
    50.0
}

impl FigureSpec {
    /// As the decision takes them.
    pub fn limits(self) -> Limits {
        Limits {
            threshold: self.threshold / 100.0,
            resolution: self.resolution / 100.0,
        }
    }
}

/// Why a subject was refused.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct SubjectError {
    file: String,
    reason: String,
}

impl Subject {
    /// Reads a subject's file, or takes Ringlog's.
    pub fn load(path: Option<&Path>) -> Result<Subject, SubjectError> {
        let Some(path) = path else {
            return Self::parse(RINGLOG, "subjects/ringlog.toml");
        };
        let file = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| SubjectError {
            file: file.clone(),
            reason: error.to_string(),
        })?;
        Self::parse(&text, &file)
    }

    fn parse(text: &str, file: &str) -> Result<Subject, SubjectError> {
        let error = |reason: String| SubjectError {
            file: file.into(),
            reason,
        };
        let subject: Subject = toml::from_str(text)
            .map_err(|wrong| error(wrong.to_string().trim_end().to_string()))?;
        if subject.build.iter().any(Vec::is_empty) {
            return Err(error("build: a command has no words".into()));
        }
        match (&subject.broker, &subject.client) {
            (None, None) => return Err(error("a [broker], a [client] or both are needed".into())),
            (Some(broker), _) if broker.start.is_empty() => {
                return Err(error("broker.start: a command is needed".into()));
            }
            (_, Some(client)) if client.measure.is_empty() => {
                return Err(error("client.measure: a command is needed".into()));
            }
            (_, Some(client)) if client.figures.is_empty() => {
                return Err(error(
                    "client.figures: at least one figure is needed".into(),
                ));
            }
            (_, Some(client)) => {
                let wrong = |figure: &FigureSpec| {
                    !(figure.threshold >= 0.0
                        && figure.resolution > figure.threshold
                        && figure.resolution <= 1e4)
                };
                if let Some((name, _)) = client.figures.iter().find(|(_, figure)| wrong(figure)) {
                    return Err(error(format!(
                        "client.figures.{name}: a threshold of 0 or more and a resolution above it, up to 10000, are needed"
                    )));
                }
            }
            _ => {}
        }
        Ok(subject)
    }
}

/// What the placeholders of a command stand for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The revision's tree.
    pub source: PathBuf,
    /// Where it is built.
    pub target: PathBuf,
    /// A fresh folder.
    pub data: PathBuf,
    /// A free port, with the next one.
    pub port: u16,
}

impl Places {
    /// `text` with its placeholders filled.
    pub fn fill(&self, text: &str) -> String {
        text.replace("{source}", &self.source.display().to_string())
            .replace("{target}", &self.target.display().to_string())
            .replace("{data}", &self.data.display().to_string())
            .replace("{bootstrap}", &format!("127.0.0.1:{}", self.port))
            .replace("{port+1}", &self.port.saturating_add(1).to_string())
            .replace("{port}", &self.port.to_string())
    }
}

#[cfg(test)]
mod tests {
    //! Shipped subjects are accepted, wrong ones refused with their reason, placeholders filled.
    use super::*;

    #[test]
    fn shipped_subjects_are_accepted() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("subjects");
        let files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(files.len() >= 2);
        for file in files {
            Subject::load(Some(&file)).unwrap();
        }
        assert!(Subject::load(None).unwrap().client.is_none());
    }

    #[test]
    fn wrong_subjects_say_why() {
        let refusal = |text: &str| Subject::parse(text, "s.toml").unwrap_err().to_string();
        assert!(refusal("name = 'a'\n").starts_with("s.toml: a [broker], a [client]"));
        assert!(refusal("name = 'a'\n[broker]\nstrat = ['x']\n").contains("line 3"));
        assert!(refusal("name = 'a'\n[broker]\nstart = []\n").contains("broker.start"));
        assert!(refusal("name = 'a'\nbuild = [[]]\n[broker]\nstart = ['x']\n").contains("build"));
        assert!(
            refusal("name = 'a'\n[client]\nmeasure = ['x']\nfigures = {}\n")
                .contains("client.figures")
        );
        let limits = "name = 'a'\n[client]\nmeasure = ['x']\n[client.figures.rate]\nbetter = 'higher'\nthreshold = 60\n";
        assert!(refusal(limits).contains("client.figures.rate"));
    }

    #[test]
    fn placeholders_are_filled() {
        let places = Places {
            source: "s".into(),
            target: "t".into(),
            data: "d".into(),
            port: 9000,
        };
        assert_eq!(
            places.fill("{source} {target}/x {data} {port} {port+1} {bootstrap} {other}"),
            "s t/x d 9000 9001 127.0.0.1:9000 {other}"
        );
    }
}
