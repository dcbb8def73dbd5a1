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

const FORM: &str = "it must be NAME://host:port, such as PLAINTEXT://127.0.0.1:9092; several are separated by commas, each name once";
const SECURE: [&str; 3] = ["SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// Parses the value of `listeners` or `advertised.listeners`.
pub fn parse_list(key: &str, text: &str) -> Result<Vec<Listener>, ConfigError> {
    let mut listeners: Vec<Listener> = Vec::new();
    for item in super::split_list(text) {
        let listener = parse(item).ok_or_else(|| ConfigError::new(key, text, FORM))?;
        if listeners.iter().any(|other| other.name == listener.name) {
            return Err(ConfigError::new(key, text, FORM));
        }
        listeners.push(listener);
    }
    if listeners.is_empty() {
        return Err(ConfigError::new(key, text, FORM));
    }
    Ok(listeners)
}

/// The listeners for clients and those for controllers, which `controller.listener.names` names.
///
/// # Errors
/// A name that no listener has, and nothing left for clients, or only with protection that is not offered.
pub fn divide(
    listeners: Vec<Listener>,
    text: &str,
    names: &str,
) -> Result<(Vec<Listener>, Vec<Listener>), ConfigError> {
    let has = |listener: &Listener, name: &str| listener.name.eq_ignore_ascii_case(name);
    let stray =
        super::split_list(names).find(|name| !listeners.iter().any(|listener| has(listener, name)));
    if let Some(name) = stray {
        let reason = format!("`listeners` has no listener {name}");
        return Err(ConfigError::new("controller.listener.names", names, reason));
    }
    let (controllers, clients): (Vec<_>, Vec<_>) = listeners
        .into_iter()
        .partition(|listener| super::split_list(names).any(|name| has(listener, name)));
    if clients.is_empty() {
        let reason = "controller.listener.names takes all of them, which leaves none for clients";
        return Err(ConfigError::new("listeners", text, reason));
    }
    let secure = clients
        .iter()
        .find(|listener| SECURE.contains(&&*listener.name));
    if let Some(listener) = secure {
        let reason = format!("only PLAINTEXT is offered yet, not {}", listener.name);
        return Err(ConfigError::new("listeners", text, reason));
    }
    Ok((clients, controllers))
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

/// What clients are told: the addresses of `advertised.listeners`, without those of controllers.
///
/// # Errors
/// What no client could use: unknown names, wildcard hosts, nothing.
pub fn told(
    clients: &[Listener],
    controllers: &[Listener],
    text: &str,
) -> Result<Vec<Listener>, ConfigError> {
    const KEY: &str = "advertised.listeners";
    let mut told = parse_list(KEY, text)?;
    told.retain(|told| !controllers.iter().any(|known| known.name == told.name));
    let refuse = |reason: String| Err(ConfigError::new(KEY, text, reason));
    let names: Vec<&str> = clients.iter().map(|listener| &*listener.name).collect();
    let names = names.join(", ");
    for told in &told {
        if !clients.iter().any(|known| known.name == told.name) {
            return refuse(format!(
                "`listeners` has {names} for clients, and no {}",
                told.name
            ));
        }
        if told.is_wildcard() {
            return refuse(format!("{told} is no address that clients can connect to"));
        }
    }
    match told.is_empty() {
        true => refuse(format!("clients need an address of {names}")),
        false => Ok(told),
    }
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
            "A://h:70000",
        ] {
            assert!(parse_list("listeners", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn advertised_must_be_reachable() {
        let bound = parse_list("listeners", "A://:1").unwrap();
        assert!(!advertised(&bound)[0].host.is_empty());
        for wrong in ["A://0.0.0.0:1", "B://h:1", "SSL://h:1", "nonsense"] {
            assert!(told(&bound, &[], wrong).is_err(), "{wrong}");
        }
        assert_eq!(told(&bound, &[], "A://h:1").unwrap()[0].host, "h");
    }

    #[test]
    fn controllers_have_listeners_of_their_own() {
        let divided =
            |text: &str, names: &str| divide(parse_list("listeners", text).unwrap(), text, names);
        let both = "PLAINTEXT://:9092,CONTROLLER://:9093";
        let (clients, controllers) = divided(both, "CONTROLLER").unwrap();
        assert_eq!(&*clients[0].name, "PLAINTEXT");
        assert_eq!((clients.len(), controllers.len()), (1, 1));
        let advertised = "PLAINTEXT://h:9092,CONTROLLER://h:9093";
        let told = told(&clients, &controllers, advertised).unwrap();
        assert_eq!(told[0].to_string(), "PLAINTEXT://h:9092");
        assert_eq!(told.len(), 1);
        assert!(super::told(&clients, &controllers, "CONTROLLER://h:9093").is_err());
        // A controller's listener is not opened, so nothing is served without the protection that it asks for.
        assert!(divided("PLAINTEXT://:1,SSL://:2", "ssl").is_ok());
        for (text, names) in [
            (both, "CONTROLER"),
            (both, "PLAINTEXT,CONTROLLER"),
            ("SSL://:1", ""),
        ] {
            assert!(divided(text, names).is_err(), "{text} {names}");
        }
    }
}
