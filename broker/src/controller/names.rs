//! What a topic may be called: Kafka's rules, so that every name is also a directory's and a metric's name.

use ringlog_net::{ErrorCode, Str};

use super::Refusal;
use super::image::Image;

/// Longest topic name, in bytes: a directory `<topic>-<partition>` must stay below 255.
pub const NAME_BYTES_MAX: usize = 249;
/// The log that this very metadata comes from; never a topic that clients make or remove.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Checks the form of a topic's name.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a topic's name cannot be empty".into());
    }
    if name == "." || name == ".." {
        return Err(format!(
            "a topic cannot be named `{name}`: that is a directory"
        ));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "a topic's name has at most {NAME_BYTES_MAX} characters; this one has {}",
            name.len()
        ));
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    {
        let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
        return Err(format!(
            "topic name `{}` may hold only ASCII letters, digits, `.`, `_` and `-`",
            shown.escape_debug()
        ));
    }
    Ok(())
}

/// `name` as metrics would write it: names that are equal there collide.
pub fn metric_form(name: &str) -> String {
    name.replace('.', "_")
}

/// Checks a name for a new topic: form, and that nothing of the kind is there.
pub(super) fn check_new(image: &Image, name: &Str) -> Result<(), Refusal> {
    check(name).map_err(|reason| Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, reason))?;
    if **name == *METADATA_TOPIC {
        let reason = format!("`{METADATA_TOPIC}` belongs to the controller and cannot be created");
        return Err(Refusal::new(ErrorCode::TOPIC_AUTHORIZATION_FAILED, reason));
    }
    if image.topic(name).is_some() {
        return Err(Refusal::new(
            ErrorCode::TOPIC_ALREADY_EXISTS,
            format!("topic `{name}` exists already"),
        ));
    }
    match image.colliding(name) {
        Some(other) => Err(Refusal::new(
            ErrorCode::INVALID_TOPIC_EXCEPTION,
            format!(
                "topic `{name}` cannot be told from topic `{other}` in metrics, where `.` and `_` are the same; choose another name"
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    //! Names that are directories, too long, or not plain ASCII are refused with a reason; all others pass.
    use super::*;

    #[test]
    fn forms() {
        for good in [
            "a",
            "A.b_c-9",
            "...",
            "-",
            "__consumer_offsets",
            &"x".repeat(249),
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "é",
            "a\0",
            "a\n",
            "../../etc/passwd",
            &"x".repeat(250),
            "a:b",
            "💥",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
