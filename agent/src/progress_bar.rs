//! Progress on a terminal: bytes, rate, changed, time left. Nothing when standard error is not a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use blkdelta_core::progress::Progress;
use blkdelta_core::units::format_size;
use indicatif::{ProgressBar, ProgressStyle};

const PERIOD: Duration = Duration::from_millis(100);
const TEMPLATE: &str =
    "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {prefix} {eta} left";

/// Draws while it lives.
pub struct ProgressView {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressView {
    /// Starts drawing these counters; does nothing when `quiet` or without a terminal.
    pub fn start(what: &'static str, changed: &'static str, progress: &Progress, quiet: bool) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        if quiet || !std::io::stderr().is_terminal() {
            return Self { ended, thread: None };
        }
        let (progress, stop) = (progress.clone(), Arc::clone(&ended));
        let thread = std::thread::spawn(move || draw(what, changed, &progress, &stop));
        Self { ended, thread: Some(thread) }
    }
}

fn draw(what: &'static str, changed: &'static str, progress: &Progress, ended: &AtomicBool) {
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style).with_message(what);
    while !ended.load(Ordering::Relaxed) {
        bar.set_length(progress.bytes_total());
        bar.set_position(progress.bytes_done());
        let note = progress.note();
        let comma = if note.is_empty() { "" } else { ", " };
        bar.set_prefix(format!("{} {changed}{comma}{note}", format_size(progress.bytes_changed())));
        std::thread::park_timeout(PERIOD);
    }
    bar.finish_and_clear();
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
