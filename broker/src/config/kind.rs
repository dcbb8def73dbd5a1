//! What a configuration value may look like: its type, its bounds, and the words that tell a user what it must be.
//!
//! Pure text checks; what a value means is for the code that asks for it.

/// The type of a configuration value, with what is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A 32-bit integer in a range.
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A 64-bit integer in a range.
    Long {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
    /// A decimal number in a range.
    Double {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Any text.
    Text,
    /// Texts separated by commas.
    List,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Kafka has more values; only this one can be had here, and why.
    Only(&'static str, &'static str),
    /// Some of these texts, separated by commas.
    ListOf(&'static [&'static str]),
    /// A text that is never shown.
    Password,
}

impl Kind {
    /// Checks a value; the error says what it must be, in a clause that follows the value.
    pub fn check(self, value: &str) -> Result<(), String> {
        let value = value.trim();
        let fits = match self {
            Kind::Int { min, max } | Kind::Long { min, max } => value
                .parse::<i64>()
                .is_ok_and(|number| (min..=max).contains(&number)),
            Kind::Boolean => {
                value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false")
            }
            Kind::Double { min, max } => value
                .parse::<f64>()
                .is_ok_and(|number| (min..=max).contains(&number)),
            Kind::Text | Kind::List | Kind::Password => true,
            Kind::OneOf(choices) => choices.contains(&value),
            Kind::Only(choice, _) => value == choice,
            Kind::ListOf(choices) => {
                let mut items = value.split(',').map(str::trim);
                !value.is_empty() && items.all(|item| choices.contains(&item))
            }
        };
        if fits { Ok(()) } else { Err(self.rule()) }
    }

    /// What a value must be, in a clause that follows it.
    fn rule(self) -> String {
        match self {
            Kind::Int { min, max } | Kind::Long { min, max } => {
                let top = match self {
                    Kind::Int { .. } => i64::from(i32::MAX),
                    _ => i64::MAX,
                };
                match max >= top {
                    true => format!("it must be a whole number, {min} or more"),
                    false => format!("it must be a whole number from {min} to {max}"),
                }
            }
            Kind::Boolean => "it must be true or false".into(),
            Kind::Double { min, max } if max == f64::MAX => {
                format!("it must be a number, {min} or more")
            }
            Kind::Double { min, max } => format!("it must be a number from {min} to {max}"),
            Kind::Text | Kind::Password => "it must be text".into(),
            Kind::List => "it must be texts separated by commas".into(),
            Kind::OneOf(choices) => format!("it must be one of {}", choices.join(", ")),
            Kind::Only(choice, why) => format!("only `{choice}` is offered, because {why}"),
            Kind::ListOf(choices) => {
                let choices = choices.join(", ");
                format!("it must be one or more of {choices}, separated by commas")
            }
        }
    }

    /// The type's number in DescribeConfigs answers (KIP-569).
    pub fn kafka_type(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::Text | Kind::OneOf(_) | Kind::Only(..) => 2,
            Kind::Int { .. } => 3,
            Kind::Long { .. } => 5,
            Kind::Double { .. } => 6,
            Kind::List | Kind::ListOf(_) => 7,
            Kind::Password => 9,
        }
    }

    /// The type's name in documentation.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Text | Kind::OneOf(_) | Kind::Only(..) => "string",
            Kind::Int { .. } => "int",
            Kind::Long { .. } => "long",
            Kind::Double { .. } => "double",
            Kind::List | Kind::ListOf(_) => "list",
            Kind::Password => "password",
        }
    }
}

#[cfg(test)]
mod tests {
    //! Values inside the bounds pass, all others are answered with what is allowed.
    use super::*;

    #[test]
    fn bounds_are_kept_and_told() {
        let kind = Kind::Int {
            min: 1,
            max: i64::from(i32::MAX),
        };
        assert_eq!(kind.check(" 1 "), Ok(()));
        let rule = Err("it must be a whole number, 1 or more".to_string());
        assert_eq!(kind.check("0"), rule);
        assert_eq!(kind.check("1.5"), rule);
        assert!(kind.check("2147483648").is_err());
        assert_eq!(Kind::Boolean.check("TRUE"), Ok(()));
        assert!(Kind::Boolean.check("yes").is_err());
        let list = Kind::ListOf(&["delete", "compact"]);
        assert_eq!(list.check("compact, delete"), Ok(()));
        assert!(list.check("compact,").is_err());
        assert!(list.check("").is_err());
        let only = Kind::Only("producer", "nothing is compressed anew");
        assert_eq!(only.check("producer"), Ok(()));
        assert_eq!(
            only.check("gzip"),
            Err("only `producer` is offered, because nothing is compressed anew".into())
        );
    }

    #[test]
    fn an_open_end_is_not_told_as_a_number() {
        let kind = Kind::Double {
            min: 1.0,
            max: f64::MAX,
        };
        assert_eq!(
            kind.check("none"),
            Err("it must be a number, 1 or more".into())
        );
    }
}
