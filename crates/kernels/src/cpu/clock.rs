//! The clock. That of the standard library panics in browsers.

#[cfg(not(all(feature = "cpu-threads", target_arch = "wasm32", target_os = "unknown")))]
pub(super) use std::time::Instant;
#[cfg(all(feature = "cpu-threads", target_arch = "wasm32", target_os = "unknown"))]
pub(super) use web_time::Instant;
