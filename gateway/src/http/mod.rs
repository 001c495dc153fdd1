//! HTTP towards clients: connections, the life of one exchange, and our own answers.

pub mod head;
