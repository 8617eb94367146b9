//! What the person watching sees.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Prints acts and figures, with the time since the start.
pub(super) struct Screen {
    started: Instant,
}

impl Screen {
    pub(super) fn since(started: Instant) -> Self {
        Self { started }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    pub(super) fn act(&self, letter: char, title: &str) {
        println!("\n[{:5.1} s] ({letter}) {title}", self.seconds());
    }

    pub(super) fn step(&self, text: &str) {
        println!("[{:5.1} s]     {text}", self.seconds());
    }

    /// A line that the next one overwrites, where there is a terminal to overwrite.
    pub(super) fn passing(&self, text: &str) {
        if std::io::stdout().is_terminal() {
            print!("\r[{:5.1} s]     {text}\x1b[K", self.seconds());
            // Only a terminal that is gone cannot take it; the next line will say so.
            let _gone = std::io::stdout().flush();
        }
    }

    /// Ends a passing line.
    pub(super) fn settle(&self) {
        if std::io::stdout().is_terminal() {
            print!("\r\x1b[K");
        }
    }

    /// The plain sentence that an act ends with.
    pub(super) fn result(&self, text: &str) {
        println!("[{:5.1} s]  => {text}", self.seconds());
    }

    /// As [`Screen::result`], and whether it is what was promised.
    pub(super) fn judged(&self, is_good: bool, text: &str) {
        let verdict = if is_good { "good" } else { "NOT GOOD" };
        self.result(&format!("{verdict}: {text}"));
    }
}
