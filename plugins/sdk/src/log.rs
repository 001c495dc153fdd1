//! Lines for the gateway's log, through [`crate::error!`], [`crate::warn!`], [`crate::info!`],
//! [`crate::debug!`] and [`crate::trace!`].

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something will fail, or is not as it should be.
    Warn,
    /// Worth a line in normal operation.
    Info,
    /// For the plugin's author.
    Debug,
    /// Everything.
    Trace,
}

/// Writes one line.
pub fn write(level: Level, message: &str) {
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    crate::host::log::write(level, message);
}

/// Writes a line at `error`; takes what `format!` takes.
#[macro_export]
macro_rules! error {
    ($($text:tt)+) => { $crate::__log!(Error, $($text)+) };
}

/// Writes a line at `warn`; takes what `format!` takes.
#[macro_export]
macro_rules! warn {
    ($($text:tt)+) => { $crate::__log!(Warn, $($text)+) };
}

/// Writes a line at `info`; takes what `format!` takes.
#[macro_export]
macro_rules! info {
    ($($text:tt)+) => { $crate::__log!(Info, $($text)+) };
}

/// Writes a line at `debug`; takes what `format!` takes.
#[macro_export]
macro_rules! debug {
    ($($text:tt)+) => { $crate::__log!(Debug, $($text)+) };
}

/// Writes a line at `trace`; takes what `format!` takes.
#[macro_export]
macro_rules! trace {
    ($($text:tt)+) => { $crate::__log!(Trace, $($text)+) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $($text:tt)+) => {
        $crate::log::write($crate::log::Level::$level, &$crate::log::format!($($text)+))
    };
}

#[doc(hidden)]
pub use alloc::format;
