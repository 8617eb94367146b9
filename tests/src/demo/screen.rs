//! What the person watching sees.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use super::Report;

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

pub(super) fn hint_what_to_try(report: &Report) {
    let (kafka, read_again) = match report.kafka_records_acked {
        Some(_) => (
            "The lab stays up, and Kafka with it (brokers kafka-0, kafka-1, kafka-2, port 9092).",
            "cargo xtask lab exec analytics-1 -- target/release/slice-lab kafka-consume --bootstrap \
             kafka-2:9092 --topic orders-1 --run 1    # reads all records again\n  ",
        ),
        None => ("The lab stays up, without Kafka.", ""),
    };
    println!(
        "\n{kafka} Try:\n  \
         cargo xtask lab status\n  \
         cargo xtask lab exec kafka-0 -- ping -c 3 kafka-2\n  \
         cargo xtask lab exec audit-0 -- ping -c 1 -W 1 kafka-0    # no rule allows it: no answer\n  \
         {read_again}\
         cargo xtask lab down"
    );
}

pub(super) fn verdict(report: &Report) {
    for fault in &report.faults {
        println!("FAULT: {fault}");
    }
    let verdict = match report.exit_code() {
        0 => "everything held".to_owned(),
        3 => format!(
            "everything that ran held; skipped: {}",
            report.skipped.join(", ")
        ),
        _ => format!(
            "NOT GOOD, {} of the promises did not hold",
            report.faults.len()
        ),
    };
    println!("\nVERDICT after {:.0} s: {verdict}", report.seconds);
}
