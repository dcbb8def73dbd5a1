//! Members of a consumer group that speak the classic protocol (KIP-848's online migration): JoinGroup, SyncGroup and Heartbeat are served to each by itself.
//!
//! Such a member's generation is its own epoch. It says in its JoinGroup what it reads and still owns ([`join`]), and is taken one step towards its target as by a heartbeat;
//! its SyncGroup tells it what is its own now ([`sync`]). When there is more to do, its Heartbeat is answered REBALANCE_IN_PROGRESS, and it joins again.
//! Nobody leads: it is never told the other members.

mod join;
mod sync;

pub(in crate::groups) use self::join::{Checked, Joining};
