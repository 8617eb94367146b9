//! When what was read is taken for whole.
//!
//! Half a file may be valid: a writer that is not done looks like one who removed the rest. So a
//! configuration counts only when it was read twice alike, [`AGREE`] apart. Who writes without a
//! pause cannot hold changes up for ever: after [`UNREST_MAX`] the newest read counts as it is.
//! Renaming a finished file into its place is always safe.

use std::time::{Duration, Instant};

/// Two reads that agree are at least this far apart.
pub const AGREE: Duration = Duration::from_millis(150);
/// No read waits longer than this for one that agrees.
pub const UNREST_MAX: Duration = Duration::from_secs(5);

/// What was taken last, and what waits to be read a second time.
#[derive(Debug)]
pub struct Settling<T> {
    taken: Option<T>,
    waiting: Option<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    read: T,
    read_at: Instant,
    /// When the first read came that nobody agreed with.
    unrest_since: Instant,
}

impl<T> Default for Settling<T> {
    fn default() -> Self {
        Self {
            taken: None,
            waiting: None,
        }
    }
}

impl<T: PartialEq> Settling<T> {
    /// Something was read at `now`; returns it when it is to be taken, which is once.
    pub fn saw(&mut self, read: T, now: Instant) -> Option<&T> {
        if self.taken.as_ref() == Some(&read) {
            self.waiting = None;
            return None;
        }
        let (agrees, unrest_since) = match &self.waiting {
            None => (false, now),
            Some(before) if before.read != read => (false, before.unrest_since),
            // Read again too soon says nothing: the first of the two keeps its time.
            Some(before) if now.duration_since(before.read_at) < AGREE => return None,
            Some(before) => (true, before.unrest_since),
        };
        if agrees || now.duration_since(unrest_since) >= UNREST_MAX {
            self.waiting = None;
            self.taken = Some(read);
            return self.taken.as_ref();
        }
        self.waiting = Some(Waiting {
            read,
            read_at: now,
            unrest_since,
        });
        None
    }

    /// Takes the next reads that agree, changed or not.
    pub fn forget(&mut self) {
        self.taken = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken of reads at these milliseconds.
    fn taken(reads: &[(u64, &str)]) -> Vec<(u64, String)> {
        let start = Instant::now();
        let mut settling = Settling::default();
        let mut taken = Vec::new();
        for (at_ms, read) in reads {
            let now = start + Duration::from_millis(*at_ms);
            if let Some(read) = settling.saw((*read).to_owned(), now) {
                taken.push((*at_ms, read.clone()));
            }
        }
        taken
    }

    #[test]
    fn the_first_read_too_waits_for_one_that_agrees() {
        let reads = [(0, "all"), (149, "all"), (150, "all"), (300, "all")];
        assert_eq!(taken(&reads), [(150, "all".to_owned())]);
    }

    #[test]
    fn a_slow_writer_is_waited_for() {
        let reads = [
            (0, "old"),
            (150, "old"),
            (300, "n"),
            (450, "ne"),
            (600, "new"),
            (750, "new"),
        ];
        assert_eq!(
            taken(&reads),
            [(150, "old".to_owned()), (750, "new".to_owned())]
        );
    }

    #[test]
    fn what_was_undone_before_it_agreed_is_not_taken_and_counts_for_nothing() {
        let reads = [
            (0, "old"),
            (150, "old"),
            (300, "new"),
            (450, "old"),
            (6000, "new"),
            (6150, "old"),
        ];
        assert_eq!(taken(&reads), [(150, "old".to_owned())]);
    }

    #[test]
    fn who_writes_without_a_pause_is_followed_every_five_seconds() {
        let texts: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        let reads: Vec<_> = (0..).step_by(150).zip(&texts).collect();
        let reads: Vec<_> = reads
            .iter()
            .map(|(at, text)| (*at, text.as_str()))
            .collect();
        let taken: Vec<_> = taken(&reads).into_iter().map(|(at_ms, _)| at_ms).collect();
        assert_eq!(taken, [5100, 10_350]);
    }

    #[test]
    fn after_forgetting_the_same_is_taken_once_more() {
        let start = Instant::now();
        let mut settling = Settling::default();
        let saw = |settling: &mut Settling<_>, at_ms| {
            let now = start + Duration::from_millis(at_ms);
            settling.saw("all", now).is_some()
        };
        assert!(!saw(&mut settling, 0) && saw(&mut settling, 150) && !saw(&mut settling, 300));
        settling.forget();
        assert!(!saw(&mut settling, 450) && saw(&mut settling, 600) && !saw(&mut settling, 750));
    }
}
