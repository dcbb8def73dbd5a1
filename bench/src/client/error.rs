//! Why a load could not go on.

use std::io;

/// What ended a load before its time.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A connection broke.
    #[error("a connection to the broker broke: {0}")]
    Io(io::Error),
    /// The broker's bytes make no sense.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
}
