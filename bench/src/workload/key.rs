//! Checks that any key can need, each refusal with file, line and key.

use toml::Spanned;

use super::WorkloadError;
use super::text::Value;

/// The text that is read, for the lines of its keys.
pub struct Source<'a> {
    /// All of it.
    pub text: &'a str,
    /// Its name.
    pub file: &'a str,
}

impl Source<'_> {
    /// A refusal of `value`.
    pub fn error<T>(
        &self,
        key: &str,
        value: &Spanned<T>,
        reason: impl Into<String>,
    ) -> WorkloadError {
        let line = self.text[..value.span().start.min(self.text.len())]
            .matches('\n')
            .count()
            + 1;
        WorkloadError::Key {
            file: self.file.into(),
            line,
            key: key.into(),
            reason: reason.into(),
        }
    }

    /// A number within limits, or its default.
    pub fn number<T>(
        &self,
        key: &str,
        value: Value<T>,
        default: T,
        min: T,
        max: T,
    ) -> Result<T, WorkloadError>
    where
        T: PartialOrd + std::fmt::Display + Copy,
    {
        let Some(value) = value else {
            return Ok(default);
        };
        let given = *value.get_ref();
        if given >= min && given <= max {
            Ok(given)
        } else {
            Err(self.error(key, &value, format!("{given} is outside {min} to {max}")))
        }
    }

    /// Like `number`, where whole numbers and fractions are both natural to write.
    pub fn decimal(
        &self,
        key: &str,
        value: Value<toml::Value>,
        default: f64,
        max: f64,
    ) -> Result<f64, WorkloadError> {
        let Some(value) = value else {
            return Ok(default);
        };
        match as_f64(value.get_ref()) {
            Some(given) if (0.0..=max).contains(&given) => Ok(given),
            Some(given) => Err(self.error(key, &value, format!("{given} is outside 0 to {max}"))),
            None => Err(self.error(key, &value, "a number is needed")),
        }
    }

    /// One of `words`; the first is the default.
    pub fn word<T: Copy>(
        &self,
        key: &str,
        value: Value<String>,
        words: &[(&str, T)],
    ) -> Result<T, WorkloadError> {
        let Some(value) = value else {
            return Ok(words[0].1);
        };
        words
            .iter()
            .find(|(word, _)| word == value.get_ref())
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.error(
                    key,
                    &value,
                    format!("{:?} is not one of {}", value.get_ref(), known.join(", ")),
                )
            })
    }

    /// A name that a topic can have.
    pub fn name(&self, key: &str, value: &Spanned<String>) -> Result<String, WorkloadError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name = value.get_ref();
        if !name.is_empty() && name.len() <= 200 && name.chars().all(legal) {
            Ok(name.clone())
        } else {
            Err(self.error(
                key,
                value,
                "1 to 200 of the characters a-z A-Z 0-9 . _ - are needed",
            ))
        }
    }
}

/// A number, whole or not.
pub fn as_f64(value: &toml::Value) -> Option<f64> {
    match value {
        // Exact up to 2^53, far above every limit here.
        toml::Value::Integer(whole) => Some(*whole as f64),
        toml::Value::Float(decimal) => Some(*decimal),
        _ => None,
    }
}
