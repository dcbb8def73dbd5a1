//! Revisions of a repository: which commit a name means, its tree in a worktree of its own, and what was built from it, kept by commit.
//!
//! A commit that was built with the same commands is not built again. Only the [`KEPT_MAX`] revisions used last are kept: each takes as much of the disk
//! as a release build does. The repository's own working tree and index are never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::subject::{Places, Subject};

/// Revisions that stay built.
const KEPT_MAX: usize = 6;
/// Lines of a failed build that are shown.
const TAIL_LINES: usize = 30;
/// The working tree as it is now, as a revision.
pub const WORKING_TREE: &str = ".";

/// A revision as it was asked for, and the commit that it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Revision {
    /// As given.
    pub name: String,
    /// The commit's full hash.
    pub commit: String,
    /// First line of its message.
    pub subject: String,
}

/// Why there is nothing to measure.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// git does not know it.
    #[error("{name:?} is no revision of this repository: {reason}")]
    Unknown {
        /// The revision.
        name: String,
        /// What git said.
        reason: String,
    },
    /// Its tree could not be laid out.
    #[error("the tree of {name} cannot be laid out in {folder}: {reason}")]
    Tree {
        /// The revision.
        name: String,
        /// Where.
        folder: String,
        /// What git or the system said.
        reason: String,
    },
    /// It does not build.
    #[error("{revision} does not build: `{command}` {how}; the whole output is in {log}\n{tail}")]
    Build {
        /// The revision and its commit.
        revision: String,
        /// The command that failed.
        command: String,
        /// How.
        how: String,
        /// Where its output is.
        log: String,
        /// The end of it.
        tail: String,
    },
}

fn git(words: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("git cannot be run: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_string())
    }
}

impl Revision {
    /// What `name` means in the repository of the working folder: anything git takes for a commit, or `.` for the working tree with its
    /// changes to files that git knows.
    pub fn find(name: &str) -> Result<Revision, RevisionError> {
        let unknown = |reason: String| RevisionError::Unknown {
            name: name.into(),
            reason,
        };
        let commit = if name == WORKING_TREE {
            // An unnamed commit of the changes; nothing when there are none.
            let changed = git(&["stash", "create", "working tree"]).map_err(unknown)?;
            if changed.is_empty() {
                git(&["rev-parse", "HEAD"]).map_err(unknown)?
            } else {
                changed
            }
        } else {
            git(&[
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                &format!("{name}^{{commit}}"),
            ])
            .map_err(|reason| {
                unknown(if reason.is_empty() {
                    "git does not know it".into()
                } else {
                    reason
                })
            })?
        };
        let subject = git(&["log", "-1", "--format=%s", &commit]).map_err(unknown)?;
        Ok(Revision {
            name: name.into(),
            commit,
            subject,
        })
    }

    /// Its place under `folder`.
    fn home(&self, folder: &Path) -> PathBuf {
        folder.join(&self.commit[..self.commit.len().min(12)])
    }

    /// Lays out its tree under `folder` and builds it, unless that was done before; gives where both are.
    pub fn build(&self, subject: &Subject, folder: &Path) -> Result<Places, RevisionError> {
        let home = self.home(folder);
        let places = Places {
            source: home.join("source"),
            target: home.join("target"),
            ..Places::default()
        };
        let commands = format!("{:?}", subject.build);
        let stamp = home.join("built");
        if fs::read_to_string(&stamp).is_ok_and(|built| built == commands) && places.source.is_dir()
        {
            // Touched: it was used.
            let _ = fs::write(&stamp, &commands);
            eprintln!("{} ({:.12}): built before", self.name, self.commit);
            return Ok(places);
        }
        self.lay_out(&places)?;
        for command in &subject.build {
            self.run(command, &places, &home.join("build.log"))?;
        }
        fs::write(&stamp, &commands)
            .map_err(|error| self.tree_error(&places, error.to_string()))?;
        Ok(places)
    }

    fn tree_error(&self, places: &Places, reason: String) -> RevisionError {
        RevisionError::Tree {
            name: self.name.clone(),
            folder: places.source.display().to_string(),
            reason,
        }
    }

    fn lay_out(&self, places: &Places) -> Result<(), RevisionError> {
        let source = places.source.display().to_string();
        fs::create_dir_all(&places.target)
            .map_err(|error| self.tree_error(places, error.to_string()))?;
        let there = git(&["-C", &source, "rev-parse", "HEAD"]);
        if places.source.is_dir() && there.is_ok_and(|commit| commit == self.commit) {
            return Ok(());
        }
        // Nothing, or what an interrupted run left.
        let _ = fs::remove_dir_all(&places.source);
        // Forced: the folder may have been removed without git being told.
        git(&[
            "worktree",
            "add",
            "--quiet",
            "--force",
            "--detach",
            &source,
            &self.commit,
        ])
        .map(|_| ())
        .map_err(|reason| self.tree_error(places, reason))
    }

    fn run(&self, command: &[String], places: &Places, log: &Path) -> Result<(), RevisionError> {
        let words: Vec<String> = command.iter().map(|word| places.fill(word)).collect();
        eprintln!("{} ({:.12}): {}", self.name, self.commit, command.join(" "));
        let failed = |how: String| {
            let said = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            RevisionError::Build {
                revision: format!("{} ({:.12})", self.name, self.commit),
                command: command.join(" "),
                how,
                log: log.display().to_string(),
                tail: lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
            }
        };
        let status = fs::File::create(log).and_then(|out| {
            Command::new(&words[0])
                .args(&words[1..])
                .current_dir(&places.source)
                .env("CARGO_TARGET_DIR", &places.target)
                .stdin(Stdio::null())
                .stdout(out.try_clone()?)
                .stderr(out)
                .status()
        });
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(format!("ended with {status}"))),
            Err(error) => Err(failed(format!("cannot be run: {error}"))),
        }
    }
}

/// Removes all but the revisions used last; `in_use` always stay.
pub fn forget_old(folder: &Path, in_use: &[&Revision]) {
    let used: Vec<PathBuf> = in_use
        .iter()
        .map(|revision| revision.home(folder))
        .collect();
    let mut built: Vec<(SystemTime, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let used = fs::metadata(entry.path().join("built"))
                .ok()?
                .modified()
                .ok()?;
            Some((used, entry.path()))
        })
        .filter(|(_, home)| !used.contains(home))
        .collect();
    built.sort();
    let excess = (built.len() + used.len()).saturating_sub(KEPT_MAX);
    for (_, home) in built.into_iter().take(excess) {
        // What cannot be removed now is in the way of nobody, and tried again next time.
        let _ = git(&[
            "worktree",
            "remove",
            "--force",
            &home.join("source").display().to_string(),
        ]);
        let _ = fs::remove_dir_all(&home);
    }
}
