//! Renders the key tables as Markdown, for `ringlog config` and the README.

use std::fmt::Write;

use super::keys::{BROKER, Update};
use super::topic_keys::TOPIC;

/// The tables of broker and topic keys.
pub fn markdown() -> String {
    let mut text = String::from(
        "| broker key | importance | type | default | change | what it does |\n|---|---|---|---|---|---|\n",
    );
    for key in BROKER {
        let change = match key.update {
            Update::ReadOnly => "restart",
            Update::ClusterWide => "cluster",
        };
        let (name, kind) = (key.name, key.kind.name());
        let _ = writeln!(
            text,
            "| `{name}` | {} | {kind} | {} | {change} | {} |",
            key.importance.name(),
            shown(key.default),
            key.doc
        );
    }
    text.push_str(
        "\n| topic key | importance | type | default | what it does |\n|---|---|---|---|---|\n",
    );
    for key in TOPIC {
        let default = match key.broker_key {
            Some(broker) => format!("`{broker}`"),
            None => shown(key.default),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {default} | {} |",
            key.name,
            key.importance.name(),
            key.kind.name(),
            key.doc
        );
    }
    text
}

fn shown(default: &str) -> String {
    if default.is_empty() {
        "none".into()
    } else {
        format!("`{default}`")
    }
}
