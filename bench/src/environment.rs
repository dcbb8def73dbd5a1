//! What a result must carry to be worth comparing: kernel, processor, memory, disk, versions.

use std::fs;

use serde::Serialize;

/// The machine and the tool, as found.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Version of this tool.
    pub tool: String,
    /// Seconds since the Unix epoch.
    pub unix_time_s: u64,
    /// Kernel name and release.
    pub kernel: String,
    /// Processor model.
    pub cpu: String,
    /// Processors this process may use.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Device and file system of the working directory, and how it is mounted.
    pub disk: String,
    /// The broker's command line, where its pid was given.
    pub broker_command: Option<String>,
}

impl Environment {
    /// Looks around.
    pub fn find(broker: Option<u32>) -> Environment {
        let uname = rustix::system::uname();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Environment {
            tool: format!("ringlog-bench {}", env!("CARGO_PKG_VERSION")),
            unix_time_s: now.as_secs(),
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            ),
            cpu: first_value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: first_value("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib * 1024),
            disk: disk_of_working_directory().unwrap_or_else(|| "unknown".into()),
            broker_command: broker.and_then(command_line),
        }
    }
}

fn first_value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == key).then(|| value.trim().to_string())
    })
}

/// The command line, without folders: a result travels, paths of one machine do not.
fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty());
    let named = words.map(|word| {
        let word = String::from_utf8_lossy(word).into_owned();
        if word.len() > 200 {
            "…".to_string()
        } else {
            word.rsplit('/').next().unwrap_or_default().to_string()
        }
    });
    Some(named.collect::<Vec<_>>().join(" "))
}

fn disk_of_working_directory() -> Option<String> {
    let here = std::env::current_dir().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let best = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((
                fields.next()?,
                fields.next()?,
                fields.next()?,
                fields.next()?,
            ))
        })
        .filter(|(_, at, ..)| here.starts_with(at))
        .max_by_key(|(_, at, ..)| at.len())?;
    let (device, _, kind, options) = best;
    Some(format!("{device} {kind} ({options})"))
}
