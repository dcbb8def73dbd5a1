//! How a process's control group was held back by its CPU limit: what a container's quota does to a latency, and nobody sees from inside.
//!
//! Version 2 (`cpu.stat` with `throttled_usec`) and version 1 (`throttled_time`, nanoseconds) are read alike. A group that bounds another one
//! throttles it as well, so the groups above count, too. Source: the kernel's `Documentation/scheduler/sched-bwc.rst`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

const MOUNTED: &str = "/sys/fs/cgroup";
/// Groups above one another that are looked at.
const DEPTH_MAX: usize = 32;

/// What a CPU limit took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Throttling {
    /// Periods in which the group had used up its share.
    pub times: u64,
    /// Seconds its runnable threads were kept from running, summed over processors.
    pub seconds: f64,
}

impl Throttling {
    /// Of the groups that `pid` belongs to, so far; none where no limit is accounted for.
    pub fn of(pid: u32) -> Option<Throttling> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let folder = folders(&groups, Path::new(MOUNTED))
            .into_iter()
            .find(|folder| folder.join("cpu.stat").is_file())?;
        let mut sum: Option<Throttling> = None;
        let above = folder.ancestors().take(DEPTH_MAX);
        for group in above.take_while(|group| group.starts_with(MOUNTED)) {
            let stat = fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
            if let Some(found) = parse(&stat) {
                let so_far = sum.unwrap_or_default();
                sum = Some(Throttling {
                    times: so_far.times + found.times,
                    seconds: so_far.seconds + found.seconds,
                });
            }
        }
        sum
    }

    /// What was taken from this moment to `end`.
    pub fn until(self, end: Throttling) -> Throttling {
        Throttling {
            times: end.times.saturating_sub(self.times),
            seconds: (end.seconds - self.seconds).max(0.0),
        }
    }
}

/// Where the group may lie, the likeliest first: inside a container the path that the kernel tells may be that of the host.
fn folders(groups: &str, mounted: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let path = path.trim_start_matches('/');
        let roots = if controllers.is_empty() {
            vec![mounted.to_path_buf(), mounted.join("unified")]
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            vec![mounted.join(controllers), mounted.join("cpu")]
        } else {
            continue;
        };
        for root in roots {
            folders.push(root.join(path));
            folders.push(root);
        }
    }
    folders
}

fn parse(stat: &str) -> Option<Throttling> {
    let value = |key: &str| -> Option<u64> {
        stat.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    };
    let seconds = match (value("throttled_usec "), value("throttled_time ")) {
        (Some(us), _) => us as f64 / 1e6,
        (None, Some(ns)) => ns as f64 / 1e9,
        (None, None) => return None,
    };
    Some(Throttling {
        times: value("nr_throttled ")?,
        seconds,
    })
}

#[cfg(test)]
mod tests {
    //! Both versions of the kernel's files are understood; what is not there is absent and not zero.
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let two =
            "usage_usec 5\nuser_usec 3\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2500000\n";
        let one = "nr_periods 10\nnr_throttled 4\nthrottled_time 2500000000\n";
        let expected = Throttling {
            times: 4,
            seconds: 2.5,
        };
        assert_eq!(parse(two), Some(expected));
        assert_eq!(parse(one), Some(expected));
        assert_eq!(parse("usage_usec 5\n"), None);
        let later = Throttling {
            times: 6,
            seconds: 3.0,
        };
        assert_eq!(
            expected.until(later),
            Throttling {
                times: 2,
                seconds: 0.5
            }
        );
    }

    #[test]
    fn groups_are_found_by_their_controller() {
        let mounted = Path::new("m");
        let one = folders("4:memory:/a\n1:cpu,cpuacct:/b/c\n", mounted);
        assert_eq!(one.first(), Some(&mounted.join("cpu,cpuacct/b/c")));
        assert!(!one.iter().any(|folder| folder.ends_with("a")));
        let two = folders("0::/b\n", mounted);
        assert_eq!(two.first(), Some(&mounted.join("b")));
        assert!(folders("nonsense\n", mounted).is_empty());
    }
}
