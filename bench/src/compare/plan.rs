//! What a comparison measures and what is hoped of it: a TOML file that names workloads and goals, and the figures they may name.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::results::Outcome;
use crate::workload::{Workload, WorkloadError};

/// A figure of a run or of a peer's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Produce latency, median, ms.
    P50Ms,
    /// Produce latency, 99th percentile, ms.
    P99Ms,
    /// Produce latency, 99.9th percentile, ms.
    P999Ms,
    /// From intended send time to receipt, median, ms.
    EndToEndP50Ms,
    /// From intended send time to receipt, 99th percentile, ms.
    EndToEndP99Ms,
    /// From when a connection was meant to be opened to its metadata, 99th percentile, ms.
    ConnectP99Ms,
    /// Values acknowledged, 10⁶ bytes per second.
    ProduceMbPerS,
    /// Batches received, 10⁶ bytes per second.
    FetchMbPerS,
    /// Broker CPU per produced record (or fetched one), µs.
    BrokerUsPerRecord,
    /// Broker CPU per answered request, µs.
    BrokerUsPerRequest,
    /// Broker CPU seconds per 10⁹ bytes produced and fetched.
    BrokerSPerGb,
    /// Cores the broker kept busy.
    BrokerCores,
    /// Most resident memory during a run, 10⁶ bytes.
    BrokerRssMaxMb,
    /// Bytes the broker wrote to disk per byte of values produced.
    WritesPerByte,
    /// Broker context switches per request.
    SwitchesPerRequest,
    /// Generator CPU seconds per 10⁶ records.
    GeneratorSPerMillion,
    /// From start to the first answer, empty, ms.
    ReadyMs,
    /// Resident memory idle, 10⁶ bytes.
    IdleRssMb,
    /// CPU idle, percent of a core.
    IdleCpuPercent,
    /// Resident memory with idle partitions, 10⁶ bytes.
    PartitionsRssMb,
    /// CPU with idle partitions, percent of a core.
    PartitionsCpuPercent,
    /// From start to offsets of every partition, after kill -9, ms.
    RecoveryMs,
    /// From the signal to the end of the process, ms.
    StopMs,
    /// From start to offsets of every partition, after kill -9 while records were written, ms.
    LoadRecoveryMs,
    /// From the signal to offsets of every partition, over a clean restart while records were written, ms.
    LoadRestartMs,
}

impl Metric {
    /// How reports name it.
    pub fn label(self) -> &'static str {
        match self {
            Metric::P50Ms => "p50 ms",
            Metric::P99Ms => "p99 ms",
            Metric::P999Ms => "p99.9 ms",
            Metric::EndToEndP50Ms => "end-to-end p50 ms",
            Metric::EndToEndP99Ms => "end-to-end p99 ms",
            Metric::ConnectP99Ms => "new connection p99 ms",
            Metric::ProduceMbPerS => "produce MB/s",
            Metric::FetchMbPerS => "fetch MB/s",
            Metric::BrokerUsPerRecord => "broker CPU µs per record",
            Metric::BrokerUsPerRequest => "broker CPU µs per request",
            Metric::BrokerSPerGb => "broker CPU s per GB",
            Metric::BrokerCores => "broker cores",
            Metric::BrokerRssMaxMb => "broker memory, most, MB",
            Metric::WritesPerByte => "bytes to disk per byte produced",
            Metric::SwitchesPerRequest => "broker context switches per request",
            Metric::GeneratorSPerMillion => "generator CPU s per million records",
            Metric::ReadyMs => "start to ready, empty, ms",
            Metric::IdleRssMb => "memory idle, MB",
            Metric::IdleCpuPercent => "CPU idle, % of a core",
            Metric::PartitionsRssMb => "memory with idle partitions, MB",
            Metric::PartitionsCpuPercent => "CPU with idle partitions, % of a core",
            Metric::RecoveryMs => "start to ready after kill -9, ms",
            Metric::StopMs => "clean stop, ms",
            Metric::LoadRecoveryMs => "start to ready after kill -9 under load, ms",
            Metric::LoadRestartMs => "stop to ready, clean restart under load, ms",
        }
    }

    /// Its value in a run's outcome, where it has one.
    pub fn of(self, outcome: &Outcome) -> Option<f64> {
        let latency = outcome
            .producer
            .as_ref()
            .and_then(|producer| producer.latency.as_ref());
        let broker = outcome
            .observed
            .as_ref()
            .and_then(|seen| seen.broker.as_ref());
        let requests = outcome.producer.as_ref().map_or(0, |p| p.requests)
            + outcome.consumer.as_ref().map_or(0, |c| c.requests);
        match self {
            Metric::P50Ms => latency.map(|summary| summary.p50_ms),
            Metric::P99Ms => latency.map(|summary| summary.p99_ms),
            Metric::P999Ms => latency.map(|summary| summary.p999_ms),
            Metric::EndToEndP50Ms => outcome.end_to_end.as_ref().map(|summary| summary.p50_ms),
            Metric::EndToEndP99Ms => outcome.end_to_end.as_ref().map(|summary| summary.p99_ms),
            Metric::ConnectP99Ms => {
                let latency = outcome.churn.as_ref()?.latency.as_ref();
                latency.map(|summary| summary.p99_ms)
            }
            Metric::ProduceMbPerS => outcome.producer.as_ref().map(|producer| producer.mb_per_s),
            Metric::FetchMbPerS => outcome.consumer.as_ref().map(|consumer| consumer.mb_per_s),
            Metric::BrokerUsPerRecord => outcome.broker_us_per_record(),
            Metric::BrokerUsPerRequest => outcome.broker_us_per_request(),
            Metric::BrokerSPerGb => outcome.broker_s_per_gb(),
            Metric::BrokerCores => broker.map(|usage| usage.cores()),
            Metric::BrokerRssMaxMb => broker.map(|usage| usage.rss_max_bytes as f64 / 1e6),
            Metric::WritesPerByte => {
                let produced = outcome
                    .producer
                    .as_ref()
                    .map(|producer| producer.bytes)
                    .filter(|&bytes| bytes > 0)?;
                broker.and_then(|usage| Some(usage.write_bytes? as f64 / produced as f64))
            }
            Metric::SwitchesPerRequest => {
                let usage = broker?;
                let switches = usage.voluntary_switches? + usage.involuntary_switches?;
                (requests > 0).then(|| switches as f64 / requests as f64)
            }
            Metric::GeneratorSPerMillion => outcome.generator_s_per_million(),
            _ => None,
        }
    }

    /// What a report shows of a run: what its workload is about, then costs.
    pub fn shown(workload: &Workload) -> Vec<Metric> {
        let open_loop = workload
            .producer
            .as_ref()
            .is_some_and(|producer| producer.rate != crate::workload::Rate::Max);
        let mut shown = Vec::new();
        match (&workload.producer, &workload.consumer) {
            (Some(_), Some(_)) => {
                shown.extend([Metric::EndToEndP50Ms, Metric::EndToEndP99Ms, Metric::P99Ms])
            }
            (Some(_), None) if open_loop => {
                shown.extend([Metric::P50Ms, Metric::P99Ms, Metric::P999Ms])
            }
            (Some(_), None) => shown.push(Metric::ProduceMbPerS),
            (None, _) => shown.push(Metric::FetchMbPerS),
        }
        if workload.churn.is_some() {
            shown.push(Metric::ConnectP99Ms);
        }
        if open_loop {
            shown.extend([Metric::BrokerUsPerRequest, Metric::SwitchesPerRequest]);
        } else {
            shown.push(Metric::BrokerSPerGb);
        }
        shown.extend([Metric::BrokerCores, Metric::BrokerRssMaxMb]);
        if workload.producer.is_some() {
            shown.push(Metric::WritesPerByte);
        }
        shown.push(Metric::GeneratorSPerMillion);
        shown
    }
}

/// What is hoped of a figure of the first peer. Several bounds must all hold.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// The figure.
    pub metric: Metric,
    /// At most this many times the second peer's.
    pub ratio_at_most: Option<f64>,
    /// At least this many times the second peer's.
    pub ratio_at_least: Option<f64>,
    /// At most this value.
    pub at_most: Option<f64>,
    /// At most the device's own durable 4 KiB write (median, ms) plus this.
    pub device_plus_ms: Option<f64>,
    /// At most this many times what a bare send loop costs per GB.
    pub send_loop_times: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanText {
    name: String,
    about: String,
    #[serde(default)]
    workload: Vec<EntryText>,
    lifecycle: Option<Lifecycle>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    file: PathBuf,
    #[serde(default)]
    goal: Vec<Goal>,
}

/// Starting, idling, crashing.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle {
    /// Idle partitions.
    pub partitions: u32,
    /// Bytes in them before the kill.
    pub bytes: u64,
    /// Seconds over which idleness is watched.
    pub idle_s: f64,
    /// Records per second that are written while the peer is killed, and then while it is restarted; absent: neither is done.
    pub load_rate: Option<f64>,
    /// What is hoped.
    #[serde(default)]
    pub goal: Vec<Goal>,
}

/// One workload of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The file, as the plan names it.
    pub file: PathBuf,
    /// The workload.
    pub workload: Workload,
    /// What is hoped.
    pub goals: Vec<Goal>,
}

/// A comparison's plan.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Workloads, in order.
    pub entries: Vec<Entry>,
    /// Starting, idling, crashing.
    pub lifecycle: Option<Lifecycle>,
}

/// Why a plan was refused.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The plan's own file.
    #[error("{file}: {reason}")]
    Plan {
        /// The file.
        file: String,
        /// What is wrong, with line and key.
        reason: String,
    },
    /// One of its workloads.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

impl Plan {
    /// Reads a plan and its workloads, whose files are relative to it. `only` keeps the workloads of these names, if any are
    /// given; `overrides` go to every workload.
    pub fn load(path: &Path, only: &[String], overrides: &[String]) -> Result<Plan, PlanError> {
        let error = |reason: String| PlanError::Plan {
            file: path.display().to_string(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|source| error(source.to_string()))?;
        let text: PlanText = toml::from_str(&text).map_err(|source| error(source.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut entries = Vec::new();
        for entry in text.workload {
            let workload = Workload::load(&folder.join(&entry.file), overrides)?;
            if only.is_empty() || only.contains(&workload.name) {
                entries.push(Entry {
                    file: entry.file,
                    workload,
                    goals: entry.goal,
                });
            }
        }
        if let Some(unknown) = only.iter().find(|name| {
            *name != "lifecycle" && !entries.iter().any(|entry| entry.workload.name == **name)
        }) {
            return Err(error(format!(
                "there is no workload {unknown:?} in this plan"
            )));
        }
        let lifecycle = text
            .lifecycle
            .filter(|_| only.is_empty() || only.iter().any(|name| name == "lifecycle"));
        Ok(Plan {
            name: text.name,
            about: text.about,
            entries,
            lifecycle,
        })
    }
}

#[cfg(test)]
mod tests {
    //! Shipped plans are accepted, and a wrong one says where.
    use super::*;

    #[test]
    fn shipped_plans_are_accepted() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("comparisons");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let plan = Plan::load(&entry.unwrap().path(), &[], &[]).unwrap();
            seen += usize::from(!plan.entries.is_empty());
        }
        assert!(seen > 0);
    }

    #[test]
    fn wrong_plans_say_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plan.toml");
        std::fs::write(
            &file,
            "name = 'a'\nabout = 'b'\n[lifecycle]\npartitons = 3\n",
        )
        .unwrap();
        let error = Plan::load(&file, &[], &[]).unwrap_err().to_string();
        assert!(
            error.contains("line 4") && error.contains("partitons"),
            "{error}"
        );
        std::fs::write(&file, "name = 'a'\nabout = 'b'\n").unwrap();
        let error = Plan::load(&file, &["nothing".into()], &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("no workload \"nothing\""), "{error}");
    }
}
