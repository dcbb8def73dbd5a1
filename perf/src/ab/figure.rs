//! The figures that are compared: which a workload has, where they stand in the load generator's result, and how much of a change matters.

use serde::Serialize;
use serde_json::Value;

use super::decision::{Better, Limits};

/// A kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Median latency, ms: end to end where the workload consumes, else of producing. Open loops only.
    P50,
    /// 99th percentile of the same.
    P99,
    /// 10⁶ bytes per second of a closed loop: an open one has the rate it was given.
    Throughput,
    /// Broker CPU seconds per 10⁹ bytes produced and fetched.
    Cpu,
    /// Most resident memory of the broker, 10⁶ bytes.
    Memory,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [
        Kind::P50,
        Kind::P99,
        Kind::Throughput,
        Kind::Cpu,
        Kind::Memory,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::P50 => "p50",
            Kind::P99 => "p99",
            Kind::Throughput => "throughput",
            Kind::Cpu => "cpu",
            Kind::Memory => "memory",
        }
    }

    /// How reports name it.
    pub fn label(self) -> &'static str {
        match self {
            Kind::P50 => "p50 ms",
            Kind::P99 => "p99 ms",
            Kind::Throughput => "MB/s",
            Kind::Cpu => "broker CPU s per GB",
            Kind::Memory => "broker memory, most, MB",
        }
    }

    /// Which way is good.
    pub fn better(self) -> Better {
        match self {
            Kind::Throughput => Better::Higher,
            _ => Better::Lower,
        }
    }

    /// How much matters, and how much must not hide, unless the command line says otherwise. A 99th percentile of a few seconds of load differs from run
    /// to run by tens of percent, so nothing small can be asked of it.
    pub fn limits(self) -> Limits {
        let (threshold, resolution) = match self {
            Kind::P50 => (0.10, 0.50),
            Kind::P99 => (0.25, 1.50),
            Kind::Throughput => (0.10, 0.25),
            Kind::Cpu => (0.05, 0.25),
            Kind::Memory => (0.10, 0.25),
        };
        Limits {
            threshold,
            resolution,
        }
    }
}

/// The figures in a result of `ringlog-bench run --json`.
pub fn figures(outcome: &Value) -> Vec<(Kind, f64)> {
    let number = |path: &str| outcome.pointer(path).and_then(Value::as_f64);
    let produces = outcome.pointer("/producer/records").is_some();
    let closed = outcome.pointer("/producer/closed_loop") == Some(&Value::Bool(true));
    let mut found = Vec::new();
    let mut add = |kind, value: Option<f64>| found.extend(value.map(|value| (kind, value)));
    if produces && !closed {
        let consumes = outcome.pointer("/consumer/records").is_some();
        let at = if consumes {
            "/end_to_end"
        } else {
            "/producer/latency"
        };
        add(Kind::P50, number(&format!("{at}/p50_ms")));
        add(Kind::P99, number(&format!("{at}/p99_ms")));
    } else if produces {
        add(Kind::Throughput, number("/producer/mb_per_s"));
    } else {
        add(Kind::Throughput, number("/consumer/mb_per_s"));
    }
    let bytes = number("/producer/bytes").unwrap_or(0.0) + number("/consumer/bytes").unwrap_or(0.0);
    add(
        Kind::Cpu,
        cpu_s(outcome)
            .filter(|_| bytes > 0.0)
            .map(|seconds| seconds * 1e9 / bytes),
    );
    add(
        Kind::Memory,
        number("/observed/broker/rss_max_bytes").map(|bytes| bytes / 1e6),
    );
    found
}

fn cpu_s(outcome: &Value) -> Option<f64> {
    let number = |key: &str| {
        outcome
            .pointer(&format!("/observed/broker/{key}"))
            .and_then(Value::as_f64)
    };
    number("exact_cpu_s").or_else(|| Some(number("user_s")? + number("system_s")?))
}

/// What the generator said makes a run doubtful or incomplete.
pub fn remarks(outcome: &Value) -> Vec<String> {
    ["/problems", "/doubts"]
        .iter()
        .filter_map(|list| outcome.pointer(list)?.as_array())
        .flatten()
        .filter_map(|remark| remark.as_str().map(str::to_string))
        .collect()
}

/// Whether a remark tells of something that disturbed the machine, and not of what was measured.
pub fn is_disturbance(remark: &str) -> bool {
    remark.starts_with("disturbed:")
}

#[cfg(test)]
mod tests {
    //! Each kind of workload has its figures, and what is not in a result is absent.
    use super::*;
    use serde_json::json;

    #[test]
    fn an_open_loop_has_latencies_and_costs() {
        let outcome = json!({
            "producer": { "records": 10, "bytes": 500_000_000, "closed_loop": false, "mb_per_s": 2.0, "latency": { "p50_ms": 0.2, "p99_ms": 0.9 } },
            "consumer": null, "end_to_end": null,
            "observed": { "broker": { "exact_cpu_s": 1.5, "user_s": 9.0, "system_s": 9.0, "rss_max_bytes": 12_000_000 } },
            "doubts": ["disturbed: other processes kept 0.9 cores busy"], "problems": ["it broke"],
        });
        let expected = vec![
            (Kind::P50, 0.2),
            (Kind::P99, 0.9),
            (Kind::Cpu, 3.0),
            (Kind::Memory, 12.0),
        ];
        assert_eq!(figures(&outcome), expected);
        let remarks = remarks(&outcome);
        assert_eq!(
            remarks
                .iter()
                .filter(|remark| is_disturbance(remark))
                .count(),
            1
        );
        assert_eq!(remarks[0], "it broke");
    }

    #[test]
    fn a_closed_loop_has_throughput_and_a_reader_has_its_own() {
        let outcome = json!({ "producer": { "records": 1, "bytes": 1, "closed_loop": true, "mb_per_s": 900.0 }, "observed": null });
        assert_eq!(figures(&outcome), vec![(Kind::Throughput, 900.0)]);
        let outcome = json!({
            "producer": null, "consumer": { "records": 1, "bytes": 1_000_000_000, "mb_per_s": 800.0 },
            "observed": { "broker": { "exact_cpu_s": null, "user_s": 0.25, "system_s": 0.5, "rss_max_bytes": 1 } },
        });
        assert_eq!(
            figures(&outcome)[..2],
            [(Kind::Throughput, 800.0), (Kind::Cpu, 0.75)]
        );
    }

    #[test]
    fn end_to_end_stands_before_the_answer() {
        let outcome = json!({
            "producer": { "records": 1, "bytes": 1, "closed_loop": false, "latency": { "p50_ms": 1.0, "p99_ms": 2.0 } },
            "consumer": { "records": 1, "bytes": 1 }, "end_to_end": { "p50_ms": 3.0, "p99_ms": 4.0 },
        });
        assert_eq!(figures(&outcome), vec![(Kind::P50, 3.0), (Kind::P99, 4.0)]);
        assert!(figures(&json!({})).is_empty());
    }
}
