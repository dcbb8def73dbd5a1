//! Subscriptions by regular expression (KIP-848): an expression is compiled here, matched against whole topic names, and its matches are written down.
//!
//! Kafka takes RE2's syntax. The `regex` crate's is nearly the same, and like RE2 it takes linear time whatever the expression. Differences: `\Q…\E`, `\C`
//! and a `{` that begins no repetition are refused here; `&&`, `--` and `~~` inside brackets are set operations here; and classes are ASCII, as are topic names,
//! so `\pL` and its like are refused. An expression whose program would be too large is refused as invalid.

use std::collections::BTreeSet;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use ringlog_net::Str;

use super::topics::TopicView;

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4096;
/// So many different expressions a group may have.
pub const EXPRESSIONS_MAX: usize = 128;
/// Memory of a compiled expression, and again for its cache while matching, in bytes.
const PROGRAM_BYTES_MAX: usize = 256 << 10;
/// How deeply groups and repetitions may nest.
const NESTING_MAX: u32 = 64;

/// An expression that can be matched.
#[derive(Clone, Debug)]
pub struct Expression(Arc<Regex>);

/// What an expression matched when it was last looked at: record type 16.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The names of the topics.
    pub topics: BTreeSet<Str>,
    /// Of the metadata that was looked at.
    pub version: i64,
    /// When, in ms since the epoch.
    pub timestamp_ms: i64,
}

impl Resolved {
    /// The memory it takes, roughly.
    pub fn bytes(&self) -> usize {
        const EACH_NAME: usize = 64;
        self.topics.iter().map(|name| EACH_NAME + name.len()).sum()
    }
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, for the client to read.
    pub fn compile(text: &str) -> Result<Expression, String> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(format!(
                "it is {} bytes long; {EXPRESSION_BYTES_MAX} are allowed",
                text.len()
            ));
        }
        let build = |text: &str| {
            RegexBuilder::new(text)
                .unicode(false)
                .size_limit(PROGRAM_BYTES_MAX)
                .dfa_size_limit(PROGRAM_BYTES_MAX)
                .nest_limit(NESTING_MAX)
                .build()
        };
        // By itself first: what is wrong alone could become right between the anchors, as `a)|(b` would.
        build(text).map_err(|error| error.to_string())?;
        let whole = build(&format!(r"\A(?:{text})\z")).map_err(|error| error.to_string())?;
        Ok(Expression(Arc::new(whole)))
    }

    /// Whether it matches the whole of a name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name.as_bytes())
    }

    /// The topics whose names match.
    pub fn resolve(&self, topics: &dyn TopicView, timestamp_ms: i64) -> Resolved {
        Resolved {
            topics: topics
                .names()
                .filter(|name| self.matches(name))
                .map(Str::from)
                .collect(),
            version: i64::try_from(topics.version()).unwrap_or(i64::MAX),
            timestamp_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is matched, and what is refused.

    use super::{EXPRESSION_BYTES_MAX, Expression};

    #[test]
    fn a_match_is_of_the_whole_name() {
        let matches = |text: &str, name| Expression::compile(text).unwrap().matches(name);
        assert!(matches("foo.*", "foo-bar"));
        assert!(!matches("foo", "foo-bar"));
        assert!(!matches("bar", "foo-bar"));
        assert!(matches("a|ab", "ab"));
        assert!(matches("^foo$", "foo"));
        assert!(matches(r"\w+\.\d{2}", "topic.07"));
        assert!(!matches("", "foo"));
    }

    #[test]
    fn what_is_invalid_or_too_large_is_refused() {
        for text in [
            "(",
            "[",
            "a)|(b",
            "*",
            r"\Qa\E",
            "(?x)a #",
            "((((a{100}){100}){100}){100})",
        ] {
            assert!(Expression::compile(text).is_err(), "{text}");
        }
        assert!(Expression::compile(&"(".repeat(100)).is_err());
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        assert!(Expression::compile(&deep).is_err());
        assert!(Expression::compile(&"a".repeat(EXPRESSION_BYTES_MAX + 1)).is_err());
        assert!(Expression::compile(&"a".repeat(EXPRESSION_BYTES_MAX)).is_ok());
    }
}
