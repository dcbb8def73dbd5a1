//! One run: a fresh broker, a load, its figures. What fails is a remark of that run, never a panic, and never a figure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::broker::{Broker, free_port};
use super::figure::{self, Kind};
use super::plant::Brake;
use super::subject::{ClientSpec, Places, Subject};

/// The longest a load may take: workloads are short, and one that hangs must not hang a pipeline.
const LOAD_WITHIN: Duration = Duration::from_secs(900);
const ENDED_EVERY: Duration = Duration::from_millis(10);

/// What a load is.
pub enum Load {
    /// `ringlog-bench` with a workload.
    Bench {
        /// The program: one for both sides.
        program: PathBuf,
        /// The workload's file.
        workload: PathBuf,
        /// `--set` arguments.
        set: Vec<String>,
    },
    /// The subject's own.
    Client(ClientSpec),
}

/// What a run gave.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// Whether everything went well; figures of a run that did not are not used.
    pub complete: bool,
    /// What failed, and what makes figures doubtful.
    pub remarks: Vec<String>,
    /// Whether something else disturbed the machine.
    pub disturbed: bool,
    /// Figures by name.
    pub figures: Vec<(String, f64)>,
    /// Where it ran, as the load generator says it.
    #[serde(skip)]
    pub environment: Option<Value>,
}

impl Run {
    fn failed(remark: impl ToString) -> Run {
        Run {
            remarks: vec![remark.to_string()],
            ..Run::default()
        }
    }
}

/// Runs `load` once against what `built` holds, with a broker that is slowed by `plant` parts if any. Data and output go under `folder`, and only a failed
/// run leaves its output there.
pub fn run(
    subject: &Subject,
    built: &Places,
    load: &Load,
    plant: Option<f64>,
    folder: &Path,
) -> Run {
    let data = folder.join("data");
    // Whoever ran before must not have its writing done at this run's cost.
    let _ = fs::remove_dir_all(&data);
    if let Err(error) = fs::create_dir_all(&data) {
        return Run::failed(format!("{} cannot be made: {error}", data.display()));
    }
    nix::unistd::sync();
    let port = match free_port() {
        Ok(port) => port,
        Err(error) => return Run::failed(error),
    };
    let places = Places {
        data,
        port,
        ..built.clone()
    };
    let mut broker = None;
    if let Some(spec) = &subject.broker {
        match Broker::start(spec, &places, &folder.join("broker.log")) {
            Ok(started) => broker = Some(started),
            Err(error) => return Run::failed(error),
        }
    }
    let slowed = plant.zip(broker.as_ref().map(Broker::pid));
    let brake = slowed.map(|(by, pid)| Brake::on(pid, by));
    let mut run = match load {
        Load::Bench {
            program,
            workload,
            set,
        } => bench(
            program,
            workload,
            set,
            &places,
            broker.as_ref().map(Broker::pid),
            folder,
        ),
        Load::Client(client) => own(client, &places, folder),
    };
    drop(brake);
    if let Some(mut broker) = broker {
        if !broker.alive() {
            run.complete = false;
            run.remarks
                .push(format!("the broker died; it said last:\n{}", broker.said()));
        } else if let Err(error) = broker.stop() {
            run.complete = false;
            run.remarks.push(error.to_string());
        }
    }
    let _ = fs::remove_dir_all(&places.data);
    run
}

/// Runs a command to its end with its output in `log`; gives its exit status.
fn finish(mut command: Command, log: &Path) -> Result<i32, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let begun = Instant::now();
    let mut child = fs::File::create(log)
        .and_then(|out| {
            command
                .stdin(Stdio::null())
                .stdout(out.try_clone()?)
                .stderr(out)
                .spawn()
        })
        .map_err(|error| format!("{name} cannot be run: {error}"))?;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.code().unwrap_or(-1)),
            Ok(None) if begun.elapsed() > LOAD_WITHIN => {
                // It is beyond being waited for; how it ends no longer matters.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{name} was ended after {LOAD_WITHIN:?}"));
            }
            Ok(None) => std::thread::sleep(ENDED_EVERY),
            Err(error) => return Err(format!("{name} cannot be waited for: {error}")),
        }
    }
}

/// The last lines of a file.
fn tail(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

fn bench(
    program: &Path,
    workload: &Path,
    set: &[String],
    places: &Places,
    pid: Option<u32>,
    folder: &Path,
) -> Run {
    let (json, log) = (folder.join("result.json"), folder.join("load.log"));
    let _ = fs::remove_file(&json);
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(workload)
        .args([
            "--quiet",
            "--bootstrap",
            &places.fill("{bootstrap}"),
            "--json",
        ])
        .arg(&json);
    if let Some(pid) = pid {
        command.args(["--pid", &pid.to_string()]);
    }
    for one in set {
        command.args(["--set", one]);
    }
    let status = match finish(command, &log) {
        Ok(status) => status,
        Err(error) => return Run::failed(error),
    };
    let outcome = fs::read_to_string(&json)
        .ok()
        .and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let Some(outcome) = outcome else {
        return Run::failed(format!(
            "ringlog-bench gave no result (exit status {status}):\n{}",
            tail(&log)
        ));
    };
    let remarks = figure::remarks(&outcome);
    Run {
        complete: status == 0 && outcome.pointer("/complete") == Some(&Value::Bool(true)),
        disturbed: remarks.iter().any(|remark| figure::is_disturbance(remark)),
        remarks,
        figures: figure::figures(&outcome)
            .into_iter()
            .map(|(kind, value)| (Kind::name(kind).to_string(), value))
            .collect(),
        environment: outcome.pointer("/environment").cloned(),
    }
}

fn own(client: &ClientSpec, places: &Places, folder: &Path) -> Run {
    let log = folder.join("load.log");
    let mut words = client.measure.iter().map(|word| places.fill(word));
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(&places.source);
    match finish(command, &log) {
        Ok(0) => {}
        Ok(status) => {
            return Run::failed(format!(
                "the client ended with exit status {status}:\n{}",
                tail(&log)
            ));
        }
        Err(error) => return Run::failed(error),
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
    let last = said
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let Ok(Value::Object(object)) = serde_json::from_str::<Value>(last) else {
        return Run::failed(format!(
            "the client's last line is no JSON object: {last:?}"
        ));
    };
    let mut figures = Vec::new();
    for name in client.figures.keys() {
        match object.get(name).and_then(Value::as_f64) {
            Some(value) => figures.push((name.clone(), value)),
            None => {
                return Run::failed(format!(
                    "the client's last line has no number {name:?}: {last}"
                ));
            }
        }
    }
    Run {
        complete: true,
        figures,
        ..Run::default()
    }
}
