//! Single sequences of events on the simulated disk that random histories meet too rarely, with what must hold after each. Deterministic; a run that
//! does not end in its virtual time counts as a hang.

mod budgets;
mod deleting_meanwhile;
mod disk_errors;
mod few_descriptors;
mod given_up_roll;
mod leaving;
mod lowered_index_bytes;
mod newest_timestamp;
mod restarts;
mod rotten_journal;
mod support;
mod truncation;
mod unfinished_truncation;
