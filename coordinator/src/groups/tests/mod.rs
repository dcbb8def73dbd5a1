//! Tests of the coordinator of groups as a whole.
