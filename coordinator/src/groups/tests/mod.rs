//! Tests of the coordinator of groups as a whole: its rules one by one, what hostile input may not do, and random histories against a model.

mod administration;
mod harness;
mod joining;
mod leaving;
mod limits;
mod loading;
mod model;
mod offsets;
mod retention;
mod static_members;
mod syncing;
mod transactions;
