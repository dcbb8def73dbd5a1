//! Transactions: the state of one partition of `__transaction_state`.
