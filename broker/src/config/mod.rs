//! The broker's configuration: Kafka's `server.properties` keys read once at start into one immutable value.
//!
//! [`keys`] and [`topic_keys`] are the tables, [`foreign`] that of Kafka's keys that do nothing here; [`BrokerConfig`] is what was set, checked; [`topic`] resolves what holds for a topic or, with
//! dynamic changes, for the broker. Nothing here reads files or the environment: the caller hands in text.

pub mod check;
pub mod foreign;
mod groups;
pub mod keys;
pub mod kind;
pub mod listener;
pub mod properties;
pub mod reference;
mod security;
pub mod topic;
pub mod topic_keys;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use foreign::Foreign;
pub use listener::Listener;

/// A value that cannot be used; ends the start, or refuses a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration key `{key}` cannot be {}: {reason}", shown(.value.as_deref()))]
pub struct ConfigError {
    /// The key.
    pub key: String,
    /// The value that was given; none where any would be refused, or is nobody's business.
    pub value: Option<String>,
    /// Why not, in a clause that follows the value.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(key: &str, value: &str, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: Some(value.into()),
            reason: reason.into(),
        }
    }

    /// For a key that nothing can be set to.
    fn any(key: &str, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: None,
            reason: reason.into(),
        }
    }
}

fn shown(value: Option<&str>) -> String {
    match value {
        None => "set".into(),
        Some("") => "empty".into(),
        Some(value) => format!("`{value}`"),
    }
}

/// Everything in a configuration that cannot be used; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Key by key.
    pub errors: Vec<ConfigError>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let errors: Vec<String> = self.errors.iter().map(ConfigError::to_string).collect();
        f.write_str(&errors.join("; "))
    }
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        Self {
            errors: vec![error],
        }
    }
}

/// Names that were set and do nothing, each once, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Ignored {
    /// In no table: a slip of the pen, perhaps.
    pub unknown: Vec<String>,
    /// Kafka's keys that do nothing here, with the reason.
    pub foreign: Vec<(String, &'static Foreign)>,
}

impl Ignored {
    fn add(&mut self, name: String) {
        match foreign::foreign(&name) {
            Some(_) if self.foreign.iter().any(|(known, _)| *known == name) => {}
            Some(key) => self.foreign.push((name, key)),
            None if self.unknown.contains(&name) => {}
            None => self.unknown.push(name),
        }
    }
}

/// The static configuration, checked; shared by all threads.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    set: BTreeMap<String, String>,
    derived: BTreeMap<&'static str, String>,
    ignored: Ignored,
    /// `node.id`.
    pub node_id: i32,
    /// `listeners`: where to bind for clients.
    pub listeners: Vec<Listener>,
    /// Those of `listeners` that are for other controllers; not bound.
    pub controller_listeners: Vec<Listener>,
    /// `advertised.listeners`: what clients are told; the port is 0 until a listener on port 0 is bound.
    pub advertised: Vec<Listener>,
    /// `log.dirs`.
    pub log_dirs: Vec<PathBuf>,
    /// `journal.dir`.
    pub journal_dir: Option<PathBuf>,
    /// `http.listener`.
    pub http_listener: Option<SocketAddr>,
    /// `shards`; 0: as many as the machine allows.
    pub shards: usize,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`; none: never closed.
    pub idle_timeout: Option<Duration>,
    /// `max.in.flight.requests.per.connection`.
    pub in_flight_max: usize,
    /// `fetch.max.bytes`.
    pub fetch_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: usize,
    /// `memory.request.bytes`, of the whole broker.
    pub request_memory_bytes: usize,
    /// `memory.response.bytes`, of the whole broker.
    pub response_memory_bytes: usize,
    /// `memory.tail.cache.bytes`, of the whole broker.
    pub tail_cache_bytes: u64,
    /// `journal.bytes.max`, of the whole broker.
    pub journal_bytes_max: u64,
    /// `batch.decompressed.bytes.max`.
    pub decompressed_bytes_max: usize,
    /// `shard.mailbox.slots`.
    pub mailbox_slots: usize,
}

impl BrokerConfig {
    /// Checks the pairs of a file, then those of the command line, which win.
    ///
    /// # Errors
    /// Every value that cannot be used, as far as they can be found independently.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, Refused> {
        let mut set = BTreeMap::new();
        let mut ignored = Ignored::default();
        let mut harmful = BTreeMap::new();
        let mut errors = Vec::new();
        for (name, value) in pairs {
            let value = value.trim();
            if security::concerns(&name) {
                match value {
                    "" => harmful.remove(&name),
                    value => harmful.insert(name, value.to_string()),
                };
                continue;
            }
            let Some(key) = keys::broker(&name) else {
                ignored.add(name);
                continue;
            };
            if value.is_empty() {
                set.remove(&name);
                if key.default.is_empty() || name != "http.listener" {
                    continue;
                }
            } else if let Err(reason) = key.kind.check(value) {
                errors.push(ConfigError::new(&name, value, reason));
                continue;
            }
            set.insert(name, value.to_string());
        }
        let derived = derive(&set);
        let config = Self::typed(set, derived, ignored);
        let listeners = config.as_ref().map(|config| config.listeners.as_slice());
        errors.extend(security::refused(&harmful, listeners.unwrap_or_default()));
        match config {
            Ok(config) if errors.is_empty() => Ok(config),
            Ok(_) => Err(Refused { errors }),
            Err(error) => {
                errors.push(error);
                Err(Refused { errors })
            }
        }
    }

    fn typed(
        set: BTreeMap<String, String>,
        derived: BTreeMap<&'static str, String>,
        ignored: Ignored,
    ) -> Result<Self, ConfigError> {
        let view = View {
            set: &set,
            derived: &derived,
        };
        groups::check(&view)?;
        let text = view.text("listeners");
        let (listeners, controller_listeners) = listener::divide(
            listener::parse_list("listeners", text)?,
            text,
            view.text("controller.listener.names"),
        )?;
        let advertised = match view.text("advertised.listeners") {
            "" => listener::advertised(&listeners),
            text => listener::told(&listeners, &controller_listeners, text)?,
        };
        let http_listener = match view.text("http.listener") {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                ConfigError::new(
                    "http.listener",
                    text,
                    "it must be an address with a port, such as 127.0.0.1:9644, or empty",
                )
            })?),
        };
        let node_id = view.number("node.id") as i32;
        let idle_ms = view.number("connections.max.idle.ms");
        let log_dirs: Vec<PathBuf> = split_list(view.text("log.dirs"))
            .map(PathBuf::from)
            .collect();
        if log_dirs.is_empty() {
            let given = view.text("log.dirs");
            let reason = "it must name at least one directory";
            return Err(ConfigError::new("log.dirs", given, reason));
        }
        for (at, directory) in log_dirs.iter().enumerate() {
            if log_dirs[..at].contains(directory) {
                let given = view.text("log.dirs");
                let reason = format!("{} is there twice", directory.display());
                return Err(ConfigError::new("log.dirs", given, reason));
            }
        }
        let roles = view.text("process.roles");
        if split_list(roles).count() < 2 {
            return Err(ConfigError::new(
                "process.roles",
                roles,
                "it must be broker,controller, because every process is both yet",
            ));
        }
        let journal_dir = Some(view.text("journal.dir"))
            .filter(|text| !text.is_empty())
            .map(PathBuf::from);
        let sized = |name| view.number(name) as usize;
        Ok(Self {
            node_id,
            listeners,
            controller_listeners,
            advertised,
            log_dirs,
            journal_dir,
            http_listener,
            shards: sized("shards"),
            num_partitions: view.number("num.partitions") as i32,
            default_replication_factor: view.number("default.replication.factor") as i16,
            auto_create_topics: view.truth("auto.create.topics.enable"),
            delete_topics: view.truth("delete.topic.enable"),
            request_bytes_max: sized("socket.request.max.bytes"),
            idle_timeout: u64::try_from(idle_ms).ok().map(Duration::from_millis),
            in_flight_max: sized("max.in.flight.requests.per.connection"),
            fetch_bytes_max: sized("fetch.max.bytes"),
            fetch_sessions_max: sized("max.incremental.fetch.session.cache.slots"),
            request_memory_bytes: sized("memory.request.bytes"),
            response_memory_bytes: sized("memory.response.bytes"),
            tail_cache_bytes: view.number("memory.tail.cache.bytes") as u64,
            journal_bytes_max: view.number("journal.bytes.max") as u64,
            decompressed_bytes_max: sized("batch.decompressed.bytes.max"),
            mailbox_slots: sized("shard.mailbox.slots"),
            set,
            derived,
            ignored,
        })
    }

    /// The value of a key by text: as set, else as it follows from others, else its default. Empty for a key that is not in the table.
    pub fn get(&self, name: &str) -> &str {
        View {
            set: &self.set,
            derived: &self.derived,
        }
        .text(name)
    }

    /// The value of a numeric key; 0 for a key that is not in the table or not numeric.
    pub fn number(&self, name: &str) -> i64 {
        self.get(name).parse().unwrap_or(0)
    }

    /// Whether the key was set in the file or on the command line.
    pub fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    /// Every key that was set, with its value, by name.
    pub fn pairs_set(&self) -> impl Iterator<Item = (&str, &str)> {
        let set = self.set.iter();
        set.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Names that were set and do nothing.
    pub fn ignored(&self) -> &Ignored {
        &self.ignored
    }
}

/// The items of a comma-separated value, trimmed, without empty ones.
pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

struct View<'a> {
    set: &'a BTreeMap<String, String>,
    derived: &'a BTreeMap<&'static str, String>,
}

impl<'a> View<'a> {
    fn text(&self, name: &str) -> &'a str {
        if let Some(value) = self.set.get(name) {
            return value;
        }
        if let Some(value) = self.derived.get(name) {
            return value;
        }
        keys::broker(name).map_or("", |key| key.default)
    }

    fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    fn truth(&self, name: &str) -> bool {
        self.text(name).eq_ignore_ascii_case("true")
    }
}

/// Values that follow from other keys where Kafka has several for one thing.
fn derive(set: &BTreeMap<String, String>) -> BTreeMap<&'static str, String> {
    let number = |name: &str| set.get(name).and_then(|value| value.parse::<i64>().ok());
    let mut derived = BTreeMap::new();
    let retention_ms = match (
        number("log.retention.minutes"),
        number("log.retention.hours"),
    ) {
        (Some(minutes), _) => scaled(minutes, 60_000),
        (None, Some(hours)) => scaled(hours, 3_600_000),
        (None, None) => 168 * 3_600_000,
    };
    derived.insert("log.retention.ms", retention_ms.to_string());
    derived.insert(
        "log.roll.ms",
        scaled(number("log.roll.hours").unwrap_or(168), 3_600_000).to_string(),
    );
    derived.insert(
        "log.dirs",
        set.get("log.dir")
            .map_or("data", String::as_str)
            .to_string(),
    );
    if let Some(id) = number("broker.id").filter(|id| *id >= 0) {
        derived.insert("node.id", id.to_string());
    }
    derived
}

fn scaled(count: i64, unit_ms: i64) -> i64 {
    if count < 0 {
        -1
    } else {
        count.saturating_mul(unit_ms)
    }
}

#[cfg(test)]
mod tests {
    //! Kafka's precedence between keys, the defaults without any file, and what a wrong value is answered with.
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<BrokerConfig, Refused> {
        BrokerConfig::from_pairs(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())))
    }

    #[test]
    fn nothing_set_is_a_working_broker() {
        let config = config(&[]).unwrap();
        assert_eq!(config.node_id, 1);
        assert_eq!(config.log_dirs, [PathBuf::from("data")]);
        assert_eq!(
            config.listeners[0].to_string(),
            "PLAINTEXT://127.0.0.1:9092"
        );
        assert_eq!(config.advertised, config.listeners);
        assert_eq!(config.get("log.retention.ms"), "604800000");
        assert_eq!(config.http_listener, "127.0.0.1:9644".parse().ok());
    }

    #[test]
    fn finer_units_win_and_later_pairs_win() {
        let config = config(&[
            ("log.retention.hours", "1"),
            ("log.retention.minutes", "2"),
            ("log.roll.hours", "3"),
            ("broker.id", "7"),
            ("http.listener", ""),
            ("num.partitions", "2"),
            ("num.partitions", "4"),
        ])
        .unwrap();
        assert_eq!(config.get("log.retention.ms"), "120000");
        assert_eq!(config.get("log.roll.ms"), "10800000");
        assert_eq!((config.node_id, config.num_partitions), (7, 4));
        assert_eq!(config.http_listener, None);
    }

    #[test]
    fn wrong_values_name_key_value_and_choice() {
        let error = config(&[("num.partitions", "many")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "configuration key `num.partitions` cannot be `many`: it must be a whole number, 1 or more"
        );
        let error = config(&[("log.dirs", ",")]).unwrap_err();
        assert!(error.to_string().contains("cannot be `,`: it must name"));
        assert!(config(&[("listeners", "nonsense")]).is_err());
        assert!(config(&[("log.dirs", "a,a")]).is_err());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let refused = config(&[
            ("num.partitions", "0"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("shards", "-1"),
            ("listeners", "nonsense"),
        ]);
        let keys: Vec<String> = refused
            .unwrap_err()
            .errors
            .into_iter()
            .map(|error| error.key)
            .collect();
        assert_eq!(
            keys,
            [
                "num.partitions",
                "shards",
                "sasl.enabled.mechanisms",
                "listeners"
            ]
        );
    }

    #[test]
    fn what_does_nothing_is_known_by_name_or_unknown() {
        let pairs = [
            "num.io.threads",
            "num.partition",
            "num.io.threads",
            "num.partition",
        ];
        let config = config(&pairs.map(|name| (name, "3"))).unwrap();
        assert_eq!(config.ignored().unknown, ["num.partition"]);
        let foreign: Vec<&str> = config
            .ignored()
            .foreign
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(foreign, ["num.io.threads"]);
    }
}
