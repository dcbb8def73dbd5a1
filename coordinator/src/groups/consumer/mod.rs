//! Consumer groups of the next generation (KIP-848): members say by heartbeat what they subscribe to and own, and the coordinator decides who owns what.
//!
//! A group's **epoch** grows whenever members, subscriptions or topics change. The **target** is made for an epoch by an [`assignor`]. Each member is taken to
//! it step by step ([`reconcile`]): a partition is given to a member only once nobody else owns it, that is after its owner said to have given it up, left,
//! or was removed for being silent. So no two members own a partition at once, whatever answers are lost.
//!
//! Everything stored is a [`Change`]; a group that serves requests and a group that is loaded change by these alone.

pub mod assignment;
pub mod assignor;
pub mod change;
pub(in crate::groups) mod classic;
pub mod config;
mod describe;
pub(in crate::groups) mod embedded;
pub mod expression;
mod group;
mod heartbeat;
mod identity;
pub mod member;
mod offsets;
pub mod reconcile;
pub mod refusal;
mod removal;
pub mod request;
mod resolve;
mod target;
#[cfg(test)]
pub(in crate::groups) mod tests;
pub mod timers;
mod topics;

pub use self::assignor::Assignor;
pub use self::change::{Change, Unreadable};
pub use self::config::{ConsumerGroupConfig, MigrationPolicy};
pub use self::group::{ConsumerGroup, ConsumerGroupState};
pub use self::heartbeat::refused;
pub use self::member::Member;
pub use self::offsets::CommitCheck;
pub use self::refusal::Refusal;
pub use self::removal::left;
pub use self::topics::TopicView;
