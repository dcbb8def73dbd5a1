//! What must hold between the keys of consumer groups, as Kafka demands it at start: a value outside of its bounds is a mistake to be told, not one to be bent.

use super::{ConfigError, View};

const SESSION: &str = "group.consumer.session.timeout.ms";
const HEARTBEAT: &str = "group.consumer.heartbeat.interval.ms";

/// Checks the keys against each other.
///
/// # Errors
/// The first key that is not within the bounds that others set.
pub(super) fn check(view: &View<'_>) -> Result<(), ConfigError> {
    for (key, least, most) in [
        (
            HEARTBEAT,
            "group.consumer.min.heartbeat.interval.ms",
            "group.consumer.max.heartbeat.interval.ms",
        ),
        (
            SESSION,
            "group.consumer.min.session.timeout.ms",
            "group.consumer.max.session.timeout.ms",
        ),
    ] {
        let unless = |holds: bool, key: &str, reason: String| match holds {
            true => Ok(()),
            false => Err(ConfigError::new(key, view.text(key), reason)),
        };
        let (value, min, max) = (view.number(key), view.number(least), view.number(most));
        unless(
            max >= min,
            most,
            format!("it must be at least {min}, which is {least}"),
        )?;
        unless(
            value >= min,
            key,
            format!("it must be at least {min}, which is {least}"),
        )?;
        unless(
            value <= max,
            key,
            format!("it must be at most {max}, which is {most}"),
        )?;
    }
    if view.number(HEARTBEAT) >= view.number(SESSION) {
        let session = view.text(SESSION);
        let reason = format!("it must be less than {session}, which is {SESSION}");
        return Err(ConfigError::new(HEARTBEAT, view.text(HEARTBEAT), reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Each bound, and that what is within them is taken.
    use crate::config::BrokerConfig;

    fn refusal(pairs: &[(&str, &str)]) -> Option<String> {
        let pairs = pairs.iter().map(|(key, value)| {
            let key = format!("group.consumer.{key}.ms");
            (key, value.to_string())
        });
        let refused = BrokerConfig::from_pairs(pairs).err();
        refused.map(|error| error.to_string())
    }

    #[test]
    fn values_outside_of_their_bounds_are_refused() {
        for (pairs, named) in [
            (
                vec![("session.timeout", "44999")],
                "at least 45000, which is group.consumer.min.session.timeout.ms",
            ),
            (
                vec![("session.timeout", "60001")],
                "at most 60000, which is group.consumer.max.session.timeout.ms",
            ),
            (
                vec![("max.session.timeout", "44999")],
                "at least 45000, which is group.consumer.min.session.timeout.ms",
            ),
            (
                vec![("heartbeat.interval", "4999")],
                "at least 5000, which is group.consumer.min.heartbeat.interval.ms",
            ),
            (
                vec![("heartbeat.interval", "15001")],
                "at most 15000, which is group.consumer.max.heartbeat.interval.ms",
            ),
            (
                vec![("min.heartbeat.interval", "15001")],
                "at least 15001, which is group.consumer.min.heartbeat.interval.ms",
            ),
            (
                vec![
                    ("heartbeat.interval", "45000"),
                    ("max.heartbeat.interval", "45000"),
                ],
                "less than 45000, which is group.consumer.session.timeout.ms",
            ),
        ] {
            let refusal = refusal(&pairs).unwrap_or_default();
            assert!(refusal.ends_with(named), "{pairs:?}: {refusal}");
        }
        let shorter = [
            ("min.session.timeout", "1000"),
            ("session.timeout", "1001"),
            ("min.heartbeat.interval", "1"),
            ("heartbeat.interval", "1000"),
        ];
        assert_eq!(refusal(&shorter), None);
        assert_eq!(refusal(&[]), None);
    }
}
