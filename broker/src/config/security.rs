//! Keys that ask for protection which is not offered yet: they end the start, because to ignore them would be to serve in the open what was to be
//! protected.

use std::collections::BTreeMap;

use super::{ConfigError, Listener, split_list};

const PROTOCOL_MAP: &str = "listener.security.protocol.map";
const PLAINTEXT: &str = "PLAINTEXT";

/// Whether a key has to do with who may connect and what they may do.
pub(super) fn concerns(name: &str) -> bool {
    name == PROTOCOL_MAP
        || name == "authorizer.class.name"
        || name == "security.inter.broker.protocol"
        || name.starts_with("sasl.")
        || name.starts_with("listener.name.")
}

/// Refuses what would not be done.
///
/// # Errors
/// The first key that asks for more than PLAINTEXT without authorization.
pub(super) fn check(
    set: &BTreeMap<String, String>,
    listeners: &[Listener],
) -> Result<(), ConfigError> {
    for (name, value) in set {
        let allowed = match name.as_str() {
            PROTOCOL_MAP => {
                let mut pairs = split_list(value).filter_map(|pair| pair.split_once(':'));
                let wants_more = pairs.find(|(listener, protocol)| {
                    let known = listeners
                        .iter()
                        .any(|known| known.name.eq_ignore_ascii_case(listener.trim()));
                    known && !protocol.trim().eq_ignore_ascii_case(PLAINTEXT)
                });
                match wants_more {
                    Some((listener, _)) => format!(
                        "PLAINTEXT for listener {}: no other protocol is offered yet",
                        listener.trim()
                    ),
                    None => continue,
                }
            }
            "security.inter.broker.protocol" if value.eq_ignore_ascii_case(PLAINTEXT) => continue,
            _ => "nothing: authentication and authorization are not offered yet, and serving without them is not what this asks for"
                .to_string(),
        };
        return Err(ConfigError::new(name, value, allowed));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! What asks for protection is refused, what merely mentions it is not.
    use crate::config::BrokerConfig;

    fn refused(pairs: &[(&str, &str)]) -> Option<String> {
        let pairs = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        BrokerConfig::from_pairs(pairs).err().map(|error| error.key)
    }

    #[test]
    fn nothing_that_was_to_be_protected_is_served_in_the_open() {
        let map = "listener.security.protocol.map";
        let custom = ("listeners", "SECRET://127.0.0.1:1");
        assert_eq!(
            refused(&[custom, (map, "secret:SSL")]).as_deref(),
            Some(map)
        );
        for (key, value) in [
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("listener.name.secret.ssl.client.auth", "required"),
            (
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            ),
            ("security.inter.broker.protocol", "SASL_SSL"),
        ] {
            assert_eq!(refused(&[(key, value)]).as_deref(), Some(key));
            assert_eq!(refused(&[(key, value), (key, "")]), None);
        }
        // As in the files that Kafka comes with.
        let kafkas = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL";
        assert_eq!(refused(&[(map, kafkas)]), None);
        assert_eq!(
            refused(&[custom, (map, "SECRET:PLAINTEXT,OTHER:SSL")]),
            None
        );
    }
}
