//! Brokers that a comparison can start, stop and kill: how each is described in a file, and how it is run.
//!
//! A peer's file gives commands with the placeholders `{root}` (where the comparison was started), `{port}`, `{port+1}` and
//! `{data}` (a fresh folder). The broker is the started process itself, or the one whose pid a `pid_file` names. A peer that
//! is dropped is killed, so that a failed comparison leaves none behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::client::admin::Admin;
use crate::watch;

/// How often a starting broker is asked whether it is ready.
const READY_EVERY: Duration = Duration::from_millis(2);
const READY_TIMEOUT: Duration = Duration::from_secs(180);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A peer as its file describes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSpec {
    /// Name in reports.
    pub name: String,
    /// What it is and how it is set up, in a sentence.
    pub about: String,
    /// Command that starts it.
    pub start: Vec<String>,
    /// Command that stops it cleanly; a SIGTERM where absent.
    pub stop: Option<Vec<String>>,
    /// Where the start command leaves the broker's pid. Absent: the started process is the broker.
    pub pid_file: Option<String>,
    /// Seconds of load before anything is measured, for brokers that compile as they run.
    #[serde(default)]
    pub warmup_s: f64,
    /// Topic configuration that this peer needs for the comparison to be what it says.
    #[serde(default)]
    pub topic_configs: BTreeMap<String, String>,
}

/// Why a peer could not be run.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The file is wrong.
    #[error("{file}: {reason}")]
    Spec {
        /// The file.
        file: String,
        /// What is wrong, with line and key.
        reason: String,
    },
    /// A command could not be run.
    #[error("{peer}: cannot run {command}: {source}")]
    Command {
        /// The peer.
        peer: String,
        /// The command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// It never answered.
    #[error("{peer} did not become ready within {waited:?}; its output is in {log}:\n{tail}")]
    NotReady {
        /// The peer.
        peer: String,
        /// How long it was given.
        waited: Duration,
        /// Where its output went.
        log: String,
        /// The output's end.
        tail: String,
    },
    /// It did not stop.
    #[error("{peer} (pid {pid}) did not stop within {STOP_TIMEOUT:?}")]
    NotStopped {
        /// The peer.
        peer: String,
        /// Its pid.
        pid: u32,
    },
}

impl PeerSpec {
    /// Reads a peer's file.
    pub fn load(path: &Path) -> Result<PeerSpec, PeerError> {
        let error = |reason: String| PeerError::Spec {
            file: path.display().to_string(),
            reason,
        };
        let text = fs::read_to_string(path).map_err(|source| error(source.to_string()))?;
        let spec: PeerSpec = toml::from_str(&text).map_err(|source| error(source.to_string()))?;
        if spec.start.is_empty() {
            return Err(error("start: a command is needed".into()));
        }
        Ok(spec)
    }
}

/// A peer with its folder and port, running or not.
pub struct Peer {
    /// Its description.
    pub spec: PeerSpec,
    root: PathBuf,
    data: PathBuf,
    port: u16,
    child: Option<Child>,
    pid: Option<u32>,
}

impl Peer {
    /// A peer that keeps its data under `folder` and listens on `port` (and may use the two after it).
    pub fn new(spec: PeerSpec, root: &Path, folder: &Path, port: u16) -> Peer {
        Peer {
            spec,
            root: root.to_path_buf(),
            data: folder.to_path_buf(),
            port,
            child: None,
            pid: None,
        }
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The broker's pid, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    fn filled(&self, text: &str) -> String {
        text.replace("{root}", &self.root.display().to_string())
            .replace("{data}", &self.data.display().to_string())
            .replace("{port}", &self.port.to_string())
            .replace("{port+1}", &(self.port + 1).to_string())
            .replace("{port+2}", &(self.port + 2).to_string())
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    fn command(&self, words: &[String]) -> io::Result<Command> {
        let filled: Vec<String> = words.iter().map(|word| self.filled(word)).collect();
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&filled[0]);
        command
            .args(&filled[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    fn failed(&self, words: &[String], source: io::Error) -> PeerError {
        PeerError::Command {
            peer: self.spec.name.clone(),
            command: words.join(" "),
            source,
        }
    }

    /// Starts it and waits until it answers Metadata; gives the time that took.
    pub fn start(&mut self) -> Result<Duration, PeerError> {
        let words = self.spec.start.clone();
        let begun = Instant::now();
        let spawned = fs::create_dir_all(&self.data)
            .and_then(|()| self.command(&words))
            .and_then(|mut command| command.spawn());
        self.child = Some(spawned.map_err(|source| self.failed(&words, source))?);
        let ready = self.await_ready(begun)?;
        self.find_pid()?;
        Ok(ready)
    }

    fn await_ready(&mut self, begun: Instant) -> Result<Duration, PeerError> {
        loop {
            let answered = Admin::connect(&self.address(), Duration::from_secs(2));
            if answered
                .and_then(|mut admin| admin.brokers())
                .is_ok_and(|brokers| brokers > 0)
            {
                return Ok(begun.elapsed());
            }
            let exited = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            let failed =
                exited.is_some_and(|status| !status.success() || self.spec.pid_file.is_none());
            if failed || begun.elapsed() > READY_TIMEOUT {
                let text = fs::read_to_string(self.log()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                return Err(PeerError::NotReady {
                    peer: self.spec.name.clone(),
                    waited: begun.elapsed(),
                    log: self.log().display().to_string(),
                    tail: lines[lines.len().saturating_sub(15)..].join("\n"),
                });
            }
            std::thread::sleep(READY_EVERY);
        }
    }

    fn find_pid(&mut self) -> Result<(), PeerError> {
        let Some(pid_file) = self.spec.pid_file.clone() else {
            self.pid = self.child.as_ref().map(Child::id);
            return Ok(());
        };
        if let Some(mut starter) = self.child.take() {
            let status = starter
                .wait()
                .map_err(|source| self.failed(&self.spec.start, source))?;
            if !status.success() {
                let source = io::Error::other(format!("it ended with {status}"));
                return Err(self.failed(&self.spec.start, source));
            }
        }
        let file = self.filled(&pid_file);
        let text = fs::read_to_string(&file)
            .map_err(|source| self.failed(std::slice::from_ref(&file), source))?;
        self.pid = text.trim().parse().ok();
        if self.pid.is_none() {
            return Err(self.failed(&[file], io::Error::other("no pid in it")));
        }
        Ok(())
    }

    /// Stops it cleanly; gives the time that took.
    pub fn stop(&mut self) -> Result<Duration, PeerError> {
        let begun = Instant::now();
        let Some(pid) = self.pid else {
            return Ok(Duration::ZERO);
        };
        match self.spec.stop.clone() {
            Some(words) => {
                let done = self
                    .command(&words)
                    .and_then(|mut command| command.status());
                done.map_err(|source| self.failed(&words, source))?;
            }
            None => signal(pid, Signal::TERM),
        }
        self.await_end(pid)?;
        Ok(begun.elapsed())
    }

    /// Kills it without warning, as a crash would.
    pub fn kill(&mut self) -> Result<(), PeerError> {
        let Some(pid) = self.pid else { return Ok(()) };
        for member in watch::family(pid) {
            signal(member, Signal::KILL);
        }
        self.await_end(pid)?;
        if let Some(pid_file) = &self.spec.pid_file {
            // The start command would take a left-over pid for a running broker.
            let _ = fs::remove_file(self.filled(pid_file));
        }
        Ok(())
    }

    fn await_end(&mut self, pid: u32) -> Result<(), PeerError> {
        let begun = Instant::now();
        while watch::alive(pid) {
            if begun.elapsed() > STOP_TIMEOUT {
                return Err(PeerError::NotStopped {
                    peer: self.spec.name.clone(),
                    pid,
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(mut child) = self.child.take() {
            // Reaped only so that no zombie stays; how it ended was ours to decide.
            let _ = child.wait();
        }
        self.pid = None;
        Ok(())
    }

    /// Removes its data. It must not run.
    pub fn wipe(&self) {
        // A folder that is not there is as good as removed; one that stays is seen by the next start.
        let _ = fs::remove_dir_all(&self.data);
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended in between, which is what was wanted.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.kill().is_err() {
            eprintln!("{} could not be ended", self.spec.name);
        }
        if let Some(child) = &mut self.child {
            // A start command that hangs.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    //! Shipped peers are accepted; a peer that never answers is reported with its output and not left behind.
    use super::*;

    #[test]
    fn shipped_peers_are_accepted() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(
            files
                .iter()
                .filter_map(|file| PeerSpec::load(file).ok())
                .count()
                >= 3
        );
        for file in files {
            PeerSpec::load(&file).unwrap();
        }
    }

    #[test]
    fn a_peer_that_fails_says_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let spec = PeerSpec {
            name: "broken".into(),
            about: String::new(),
            start: ["sh", "-c", "echo no such option on {port}; exit 3"]
                .map(String::from)
                .to_vec(),
            stop: None,
            pid_file: None,
            warmup_s: 0.0,
            topic_configs: BTreeMap::new(),
        };
        let mut peer = Peer::new(spec, folder.path(), &folder.path().join("data"), 24_099);
        let error = peer.start().unwrap_err().to_string();
        assert!(
            error.contains("broken") && error.contains("no such option on 24099"),
            "{error}"
        );
    }
}
