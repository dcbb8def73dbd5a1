//! Listener addresses as Kafka writes them: `NAME://host:port`.
//!
//! Only PLAINTEXT is offered for now; another protocol is refused with that.

use std::fmt;
use std::sync::Arc;

use super::ConfigError;

/// One listener: where to bind, or what clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The listener's name, in capitals.
    pub name: Arc<str>,
    /// Host name or address; empty: every address.
    pub host: String,
    /// The port; 0: a free one.
    pub port: u16,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.name, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.name, self.host, self.port)
        }
    }
}

impl Listener {
    /// What to hand to `bind`: the host, or every address.
    pub fn bind_host(&self) -> &str {
        if self.host.is_empty() {
            "0.0.0.0"
        } else {
            &self.host
        }
    }

    fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "::")
    }
}

const ALLOWED: &str = "NAME://host:port, several separated by commas, each name once, such as PLAINTEXT://127.0.0.1:9092";
const SECURE: [&str; 3] = ["SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// Parses the value of `listeners` or `advertised.listeners`.
pub fn parse_list(key: &str, text: &str) -> Result<Vec<Listener>, ConfigError> {
    let mut listeners: Vec<Listener> = Vec::new();
    for item in super::split_list(text) {
        let listener = parse(item).ok_or_else(|| ConfigError::new(key, text, ALLOWED))?;
        if SECURE.contains(&&*listener.name) {
            let allowed = format!("PLAINTEXT listeners: {} is not offered yet", listener.name);
            return Err(ConfigError::new(key, text, allowed));
        }
        if listeners.iter().any(|other| other.name == listener.name) {
            return Err(ConfigError::new(key, text, ALLOWED));
        }
        listeners.push(listener);
    }
    if listeners.is_empty() {
        return Err(ConfigError::new(key, text, ALLOWED));
    }
    Ok(listeners)
}

fn parse(item: &str) -> Option<Listener> {
    let (name, address) = item.split_once("://")?;
    let name_fits = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains([':', '/']) => return None,
        None => host,
    };
    name_fits.then_some(Listener {
        name: name.to_ascii_uppercase().into(),
        host: host.to_string(),
        port: port.parse().ok()?,
    })
}

/// What clients are told when nothing is advertised: the listeners, wildcard hosts replaced by this machine's name.
pub fn advertised(listeners: &[Listener]) -> Vec<Listener> {
    listeners
        .iter()
        .map(|listener| match listener.is_wildcard() {
            true => Listener {
                host: machine_name(),
                ..listener.clone()
            },
            false => listener.clone(),
        })
        .collect()
}

fn machine_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// Refuses advertised listeners that no client could use: unknown names, wildcard hosts.
pub fn check_advertised(
    listeners: &[Listener],
    advertised: &[Listener],
    text: &str,
) -> Result<(), ConfigError> {
    for told in advertised {
        let known = listeners.iter().any(|bound| bound.name == told.name);
        if !known || told.is_wildcard() {
            let names: Vec<&str> = listeners.iter().map(|listener| &*listener.name).collect();
            let allowed = format!(
                "for each of {} an address that clients can reach",
                names.join(", ")
            );
            return Err(ConfigError::new("advertised.listeners", text, allowed));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Addresses in all the forms Kafka takes, and refusals.
    use super::*;

    #[test]
    fn forms() {
        let listeners = parse_list(
            "listeners",
            "plaintext://:9092, INTERNAL://[::1]:1,X://host:0",
        )
        .unwrap();
        let shown: Vec<String> = listeners.iter().map(Listener::to_string).collect();
        assert_eq!(
            shown,
            ["PLAINTEXT://:9092", "INTERNAL://[::1]:1", "X://host:0"]
        );
        for wrong in [
            "",
            "host:1",
            "A://host",
            "A://host:x",
            "A://h:1,A://h:2",
            "A://::1:9",
            "SSL://h:1",
            "A://h:70000",
        ] {
            assert!(parse_list("listeners", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn advertised_must_be_reachable() {
        let bound = parse_list("listeners", "A://:1").unwrap();
        assert!(!advertised(&bound)[0].host.is_empty());
        let told = parse_list("advertised.listeners", "A://0.0.0.0:1").unwrap();
        assert!(check_advertised(&bound, &told, "").is_err());
        let told = parse_list("advertised.listeners", "B://h:1").unwrap();
        assert!(check_advertised(&bound, &told, "").is_err());
    }
}
