//! How control of a name is proved: one file per challenge type.

pub mod dns01;
pub mod dns_persist01;
pub mod http01;
pub mod rfc2136;
pub mod tls_alpn01;
