//! Log lines on standard error: warnings unless asked for more by -v or BLKDELTA_LOG.

use tracing_subscriber::EnvFilter;

/// Starts logging. BLKDELTA_LOG wins over the flags.
pub fn start(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("BLKDELTA_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    lines.without_time().with_ansi(false).init();
}
