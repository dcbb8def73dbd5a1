//! The coordinators' state machines: consumer groups with their offsets, and transactions.
//!
//! No I/O, no clock, no threads. A coordinator is the state of one partition of `__consumer_offsets` or `__transaction_state`. It is handed requests and the
//! time, changes its state at once, and says in [`Commands`] what must be appended to that partition and whom to answer. Whoever drives it appends the records
//! of one event as one atomic batch, in the order of the events, and lets an answer go only once every record of that event and of those before it is
//! durable. When an append fails, the state is ahead of the log and is thrown away: it is loaded anew from the records.

pub mod command;
pub mod groups;
pub mod partition;
pub mod record;
pub mod transactions;

pub use command::{Caller, Commands, Now, Token};
pub use partition::partition_for;
pub use record::Record;
