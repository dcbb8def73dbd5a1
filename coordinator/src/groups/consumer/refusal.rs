//! Why a request to a consumer group is refused.

use ringlog_net::{ErrorCode, Str};

/// The protocol's error, and words for whoever reads the client's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error.
    pub code: ErrorCode,
    /// The words.
    pub message: Str,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ErrorCode, message: impl Into<Str>) -> Refusal {
        Refusal {
            code,
            message: message.into(),
        }
    }

    /// Nothing is refused, or this.
    ///
    /// # Errors
    /// The refusal when the condition does not hold.
    pub fn unless(holds: bool, code: ErrorCode, message: impl Into<Str>) -> Result<(), Refusal> {
        if holds {
            Ok(())
        } else {
            Err(Refusal::new(code, message))
        }
    }
}
