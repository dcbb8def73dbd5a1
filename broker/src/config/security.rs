//! Keys whose silent ignoring would harm: those that ask for protection, which is not offered yet, and those that ask for more of a cluster or of the
//! file than one broker reads. They end the start: to ignore them would be to serve in the open what was to be protected.

use std::collections::BTreeMap;

use super::{ConfigError, Listener, split_list};

const PROTOCOL_MAP: &str = "listener.security.protocol.map";
const PLAINTEXT: &str = "PLAINTEXT";
const UNPROTECTED: &str = "authentication and authorization are not offered yet, and without them clients would be served in the open";
const POLICY: &str =
    "policies are Java classes, which do not run here, and without it nothing would be refused";
const PROVIDERS: &str = "values are taken as they stand: what a provider would put in place of `${…}` must be in the file";
const CLUSTER: &str =
    "there is one broker yet, its own controller, which would not join the others";

/// Whether a key is this module's business.
pub(super) fn concerns(name: &str) -> bool {
    matches!(
        name,
        PROTOCOL_MAP
            | "authorizer.class.name"
            | "security.inter.broker.protocol"
            | "create.topic.policy.class.name"
            | "alter.config.policy.class.name"
            | "config.providers"
            | "controller.quorum.voters"
            | "controller.quorum.bootstrap.servers"
    ) || name.starts_with("sasl.")
        || name.starts_with("listener.name.")
}

/// All that would not be done, each with the reason; `listeners` are those that clients are served on.
pub(super) fn refused(set: &BTreeMap<String, String>, listeners: &[Listener]) -> Vec<ConfigError> {
    let refused = set.iter().filter_map(|(name, value)| {
        Some(match name.as_str() {
            PROTOCOL_MAP => ConfigError::new(name, value, unprotected_listener(value, listeners)?),
            "security.inter.broker.protocol" => {
                let protected = !value.eq_ignore_ascii_case(PLAINTEXT);
                protected.then(|| ConfigError::new(name, value, UNPROTECTED))?
            }
            "controller.quorum.voters" | "controller.quorum.bootstrap.servers" => {
                let several = split_list(value).nth(1).is_some();
                several.then(|| ConfigError::new(name, value, CLUSTER))?
            }
            "create.topic.policy.class.name" | "alter.config.policy.class.name" => {
                ConfigError::any(name, POLICY)
            }
            "config.providers" => ConfigError::any(name, PROVIDERS),
            // Their values may be passwords.
            _ => ConfigError::any(name, UNPROTECTED),
        })
    });
    refused.collect()
}

/// Why a protocol map cannot be kept: it protects a listener that clients are served on.
fn unprotected_listener(map: &str, listeners: &[Listener]) -> Option<String> {
    let mut pairs = split_list(map).filter_map(|pair| pair.split_once(':'));
    let (listener, protocol) = pairs.find(|(listener, protocol)| {
        let known = listeners
            .iter()
            .any(|known| known.name.eq_ignore_ascii_case(listener.trim()));
        known && !protocol.trim().eq_ignore_ascii_case(PLAINTEXT)
    })?;
    Some(format!(
        "listener {} would have to be served with {}, and only {PLAINTEXT} is offered yet",
        listener.trim(),
        protocol.trim()
    ))
}

#[cfg(test)]
mod tests {
    //! What asks for protection is refused, what merely mentions it is not.
    use crate::config::BrokerConfig;

    fn refused(pairs: &[(&str, &str)]) -> Option<String> {
        let pairs = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let refused = BrokerConfig::from_pairs(pairs).err()?;
        refused.errors.first().map(|error| error.key.clone())
    }

    #[test]
    fn a_password_is_not_shown() {
        let pairs = [(
            "sasl.jaas.config".to_string(),
            "password=secret".to_string(),
        )];
        let text = BrokerConfig::from_pairs(pairs).unwrap_err().to_string();
        assert!(text.starts_with("configuration key `sasl.jaas.config` cannot be set: "));
        assert!(!text.contains("secret"), "{text}");
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
            ("create.topic.policy.class.name", "com.example.Policy"),
            ("config.providers", "file"),
            ("controller.quorum.voters", "1@a:9093,2@b:9093"),
            ("controller.quorum.bootstrap.servers", "a:9093,b:9093"),
        ] {
            assert_eq!(refused(&[(key, value)]).as_deref(), Some(key));
            assert_eq!(refused(&[(key, value), (key, "")]), None);
        }
        // As in the files that Kafka comes with.
        let kafkas = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL";
        assert_eq!(refused(&[(map, kafkas)]), None);
        assert_eq!(
            refused(&[("controller.quorum.bootstrap.servers", "localhost:9093")]),
            None
        );
        assert_eq!(
            refused(&[custom, (map, "SECRET:PLAINTEXT,OTHER:SSL")]),
            None
        );
    }
}
