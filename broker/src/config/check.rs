//! What a configuration would do, as text, for `ringlog config --check`: what is used, what does nothing, what is unknown, what is refused.

use std::fmt::Write;
use std::path::Path;

use super::kind::Kind;
use super::{BrokerConfig, Refused, keys};

/// Where to look first when a broker is not where one expects it; told even when nobody set them.
const PLACES: [&str; 5] = [
    "node.id",
    "listeners",
    "log.dirs",
    "journal.dir",
    "http.listener",
];

/// Keys that others take the place of when they are set.
const WEAKER: [(&str, &[&str]); 5] = [
    ("broker.id", &["node.id"]),
    ("log.dir", &["log.dirs"]),
    (
        "log.retention.hours",
        &["log.retention.ms", "log.retention.minutes"],
    ),
    ("log.retention.minutes", &["log.retention.ms"]),
    ("log.roll.hours", &["log.roll.ms"]),
];

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A broker would start, and every key is known.
    Good,
    /// A broker would start, and ignore keys that nobody knows.
    Unknown,
    /// No broker would start.
    Refused,
}

/// What `checked` came to.
pub fn report(checked: &Result<BrokerConfig, Refused>) -> (String, Verdict) {
    let mut text = String::new();
    let config = match checked {
        Ok(config) => config,
        Err(refused) => {
            text.push_str("refused: a broker would not start\n");
            for error in &refused.errors {
                let _ = writeln!(text, "  {error}");
            }
            return (text, Verdict::Refused);
        }
    };
    used(config, &mut text);
    for (missing, title) in [
        (false, "without meaning here"),
        (true, "not offered, so without effect"),
    ] {
        section(&mut text, title, &grouped(config, missing));
    }
    let unknown = &config.ignored().unknown;
    section(&mut text, "unknown, so ignored", unknown);
    let verdict = match unknown.is_empty() {
        true => Verdict::Good,
        false => Verdict::Unknown,
    };
    (text, verdict)
}

/// The keys that do nothing for want of something, or for want of meaning, those with the same reason in one line.
pub fn grouped(config: &BrokerConfig, missing: bool) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let foreign = config.ignored().foreign.iter();
    for (name, key) in foreign.filter(|(_, key)| key.missing == missing) {
        match groups
            .iter_mut()
            .find(|(because, _)| *because == key.because)
        {
            Some((_, names)) => names.push(name),
            None => groups.push((key.because, vec![name])),
        }
    }
    let lines = groups.into_iter();
    lines
        .map(|(because, names)| format!("{}: {because}", names.join(", ")))
        .collect()
}

fn used(config: &BrokerConfig, text: &mut String) {
    let mut lines = Vec::new();
    for place in PLACES {
        if !config.is_set(place) {
            lines.push(match (place, config.get(place)) {
                ("journal.dir", "") => {
                    let first = config.log_dirs.first().map_or(Path::new(""), |path| path);
                    format!("{place} = {} (the first data directory)", first.display())
                }
                (_, value) => format!("{place} = {value} ({})", origin(config, place)),
            });
        }
    }
    for (name, value) in config.pairs_set() {
        let value = match keys::broker(name) {
            Some(key) if key.kind == Kind::Password => "(not shown)",
            _ => value,
        };
        lines.push(match stronger(config, name) {
            Some(other) => format!("{name} = {value} (not used, because {other} is set)"),
            None => format!("{name} = {value}"),
        });
    }
    lines.sort();
    section(text, "used", &lines);
    let told: Vec<String> = config.advertised.iter().map(ToString::to_string).collect();
    section(text, "clients are told to connect to", &told);
    let closed: Vec<String> = config
        .controller_listeners
        .iter()
        .map(ToString::to_string)
        .collect();
    section(
        text,
        "not opened, because there are no other controllers",
        &closed,
    );
}

/// Where a value that its key was not set to comes from.
fn origin(config: &BrokerConfig, name: &str) -> &'static str {
    let weaker = WEAKER
        .iter()
        .find(|(weaker, stronger)| stronger.contains(&name) && config.is_set(weaker));
    weaker.map_or("default", |(weaker, _)| weaker)
}

fn stronger(config: &BrokerConfig, name: &str) -> Option<&'static str> {
    let (_, others) = WEAKER.iter().find(|(weaker, _)| *weaker == name)?;
    others.iter().copied().find(|other| config.is_set(other))
}

fn section(text: &mut String, title: &str, lines: &[impl AsRef<str>]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "{title}:");
    for line in lines {
        let _ = writeln!(text, "  {}", line.as_ref());
    }
}

#[cfg(test)]
mod tests {
    //! Each key that is set is told in its place, and the verdict follows.
    use super::*;

    fn checked(pairs: &[(&str, &str)]) -> (String, Verdict) {
        let pairs = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        report(&BrokerConfig::from_pairs(pairs))
    }

    #[test]
    fn what_is_set_is_in_one_section() {
        let (text, verdict) = checked(&[
            ("log.dir", "old"),
            ("log.retention.hours", "1"),
            ("log.retention.ms", "5"),
            ("num.io.threads", "8"),
            ("num.network.threads", "3"),
            ("remote.log.storage.system.enable", "true"),
            ("num.partition", "3"),
        ]);
        assert_eq!(verdict, Verdict::Unknown);
        let (used, rest) = text.split_once("without meaning here:").unwrap();
        let (moot, rest) = rest.split_once("not offered, so without effect:").unwrap();
        let (missing, unknown) = rest.split_once("unknown, so ignored:").unwrap();
        for line in [
            "  journal.dir = old (the first data directory)\n",
            "  log.dirs = old (log.dir)\n",
            "  log.retention.hours = 1 (not used, because log.retention.ms is set)\n",
            "  log.retention.ms = 5\n",
            "  node.id = 1 (default)\n",
        ] {
            assert!(used.contains(line), "{used}");
        }
        assert!(moot.contains("  num.io.threads, num.network.threads: one thread a core"));
        assert!(missing.contains("  remote.log.storage.system.enable: tiered"));
        assert_eq!(unknown, "\n  num.partition\n");
    }

    #[test]
    fn the_verdict_follows() {
        assert_eq!(checked(&[("num.io.threads", "8")]).1, Verdict::Good);
        let (text, verdict) = checked(&[("shards", "x"), ("num.partitions", "0")]);
        assert_eq!(verdict, Verdict::Refused);
        assert!(
            text.contains("`shards`") && text.contains("`num.partitions`"),
            "{text}"
        );
    }
}
