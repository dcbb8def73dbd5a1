//! The wire: Kafka messages and frames.
//!
//! Messages are described once, in `messages/`, in a notation of our own; the build turns them into the types of
//! [`messages`] and [`metadata`]. Around them: [`header`], [`request`], [`frame`], and [`api`], the one table of APIs
//! and versions that everything else reads. Nothing here does I/O, and no input can make it panic.

pub mod api;
#[cfg(feature = "arbitrary")]
pub mod arbitrary;
pub mod codec;
pub mod coordinators;
pub mod error_code;
pub mod frame;
pub mod header;
pub mod messages;
pub mod metadata;
pub mod request;
mod types;

pub use api::{ApiKey, VersionRange};
pub use bytes::Bytes;
pub use error_code::ErrorCode;
pub use types::{Records, Str, Uuid, UuidError};
