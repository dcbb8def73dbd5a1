//! A broker that a run starts and ends: a fresh process on fresh data for every run.
//!
//! Fresh, because what a process happens to get when it starts (addresses, hash seeds, where its files lie) makes it a little faster or slower for all
//! its life: with one process a side that luck would look like a difference between revisions, however many rounds there were.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::subject::{BrokerSpec, Places};

const READY_WITHIN: Duration = Duration::from_secs(120);
const READY_EVERY: Duration = Duration::from_millis(10);
const STOPS_WITHIN: Duration = Duration::from_secs(60);
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Lines of a broker's output that an error shows.
const TAIL_LINES: usize = 15;
/// An ApiVersions request, version 0, correlation 7, no client id: every Kafka-compatible broker answers it.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

/// Why a broker did not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A command could not be run.
    #[error("`{command}` cannot be run: {source}")]
    Command {
        /// The command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// It never answered.
    #[error("the broker {how}; its output is in {log}:\n{tail}")]
    NotReady {
        /// What it did instead.
        how: String,
        /// Where its output went.
        log: String,
        /// The end of it.
        tail: String,
    },
    /// It goes on after it was told to stop.
    #[error("the broker (pid {0}) did not stop within {STOPS_WITHIN:?}")]
    NotStopped(u32),
}

/// A running broker; killed when dropped.
pub struct Broker {
    spec: BrokerSpec,
    places: Places,
    log: PathBuf,
    child: Option<Child>,
    pid: u32,
}

impl Broker {
    /// Starts one and waits until it answers. Its output goes to `log`.
    pub fn start(spec: &BrokerSpec, places: &Places, log: &Path) -> Result<Broker, BrokerError> {
        let command = spec.start.join(" ");
        let broken = |source| BrokerError::Command {
            command: command.clone(),
            source,
        };
        let mut broker = Broker {
            spec: spec.clone(),
            places: places.clone(),
            log: log.to_path_buf(),
            child: None,
            pid: 0,
        };
        let spawned = fs::create_dir_all(&places.data).and_then(|()| {
            let out = File::create(log)?;
            broker
                .command(&spec.start)
                .stdout(out.try_clone()?)
                .stderr(out)
                .spawn()
        });
        let child = spawned.map_err(broken)?;
        broker.pid = child.id();
        broker.child = Some(child);
        broker.await_ready()?;
        if let Some(file) = &spec.pid_file {
            let text = fs::read_to_string(places.fill(file)).map_err(broken)?;
            let pid = text.trim().parse::<u32>().ok().filter(|&pid| pid > 0);
            broker.pid =
                pid.ok_or_else(|| broken(io::Error::other(format!("no pid in {file}"))))?;
            if let Some(mut starter) = broker.child.take() {
                starter.wait().map_err(broken)?;
            }
        }
        Ok(broker)
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn command(&self, words: &[String]) -> Command {
        let mut words = words.iter().map(|word| self.places.fill(word));
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .current_dir(&self.places.source)
            .stdin(Stdio::null());
        command
    }

    fn await_ready(&mut self) -> Result<(), BrokerError> {
        let begun = Instant::now();
        while !answers(self.places.port) {
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            let how = match ended {
                Some(status) if !status.success() || self.spec.pid_file.is_none() => {
                    format!("ended with {status} before it answered")
                }
                _ if begun.elapsed() > READY_WITHIN => {
                    format!("did not answer within {READY_WITHIN:?}")
                }
                _ => {
                    std::thread::sleep(READY_EVERY);
                    continue;
                }
            };
            return Err(BrokerError::NotReady {
                how,
                log: self.log.display().to_string(),
                tail: self.said(),
            });
        }
        Ok(())
    }

    /// The end of what it has written.
    pub fn said(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => send(self.pid, None),
        }
    }

    /// Stops it cleanly.
    pub fn stop(mut self) -> Result<(), BrokerError> {
        match self.spec.stop.clone() {
            Some(words) => {
                let status = self.command(&words).stdout(Stdio::null()).status();
                status.map_err(|source| BrokerError::Command {
                    command: words.join(" "),
                    source,
                })?;
            }
            None => {
                send(self.pid, Some(Signal::SIGTERM));
            }
        }
        let begun = Instant::now();
        while self.alive() {
            if begun.elapsed() > STOPS_WITHIN {
                return Err(BrokerError::NotStopped(self.pid));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A pid of a process that was waited for may be another's by now; only what is known to run is killed.
        if self.alive() {
            send(self.pid, Some(Signal::SIGKILL));
        }
        if let Some(child) = &mut self.child {
            // Reaped; how it ended was ours to decide.
            let _ = child.wait();
        }
    }
}

/// Sends a signal, or only asks whether the process is there; false where it is not.
pub fn send(pid: u32, signal: Option<Signal>) -> bool {
    i32::try_from(pid).is_ok_and(|pid| pid > 0 && kill(Pid::from_raw(pid), signal).is_ok())
}

/// Whether a broker on `port` answers ApiVersions.
fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ask = || -> io::Result<[u8; 8]> {
        let mut socket = TcpStream::connect_timeout(&address, ANSWERS_WITHIN)?;
        socket.set_read_timeout(Some(ANSWERS_WITHIN))?;
        socket.write_all(&API_VERSIONS)?;
        let mut head = [0; 8];
        socket.read_exact(&mut head)?;
        Ok(head)
    };
    ask().is_ok_and(|head| head[4..] == API_VERSIONS[8..12])
}

/// A port that is free now, as is the next one.
pub fn free_port() -> io::Result<u16> {
    for _ in 0..100 {
        let one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = one.local_addr()?.port();
        if port < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other(
        "no two free ports beside each other were found",
    ))
}

#[cfg(test)]
mod tests {
    //! A broker that ends or never was says so with its own words, and is not left behind.
    use super::*;

    fn spec(script: &str) -> BrokerSpec {
        BrokerSpec {
            start: ["sh", "-c", script].map(String::from).to_vec(),
            stop: None,
            pid_file: None,
        }
    }

    #[test]
    fn what_a_broker_said_before_it_ended_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            source: folder.path().into(),
            data: folder.path().join("data"),
            port: free_port().unwrap(),
            ..Places::default()
        };
        let log = folder.path().join("log");
        let failed = Broker::start(&spec("echo no such option; exit 3"), &places, &log);
        let error = failed
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            error.contains("no such option") && error.contains("exit status: 3"),
            "{error}"
        );
        let missing = BrokerSpec {
            start: vec!["no-such-broker".into()],
            ..spec("")
        };
        let error = Broker::start(&missing, &places, &log)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            error.starts_with("`no-such-broker` cannot be run"),
            "{error}"
        );
    }

    #[test]
    fn an_answer_is_told_from_silence() {
        assert!(!answers(free_port().unwrap()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 14];
            socket.read_exact(&mut request).unwrap();
            socket.write_all(&[0, 0, 0, 10, 0, 0, 0, 7]).unwrap();
        });
        assert!(answers(port));
        thread.join().unwrap();
    }
}
