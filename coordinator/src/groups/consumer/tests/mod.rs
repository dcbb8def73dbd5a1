//! Groups as a whole.
