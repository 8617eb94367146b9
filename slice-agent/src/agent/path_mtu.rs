//! How large a packet a path really carries, found by probes of different sizes.

/// The least that every path carries.
const BYTES_MIN: u32 = 576;
/// Probes get lost for other reasons too.
const SILENCES_MAX: u32 = 3;
/// After what was refused the configured size is tried again every so many probes: a path may widen.
const RETRY_AFTER: u32 = 12;

/// The search on one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MtuSearch {
    configured: u32,
    /// The largest size that was answered and not refused since; 0 before the first answer.
    answered: u32,
    /// The smallest size that was refused; above `configured` if none was.
    refused: u32,
    silences: u32,
    probes: u32,
}

impl MtuSearch {
    pub(super) fn new(configured: u32) -> Self {
        Self {
            configured,
            answered: 0,
            refused: configured + 1,
            silences: 0,
            probes: 0,
        }
    }

    pub(super) fn configured(&self) -> u32 {
        self.configured
    }

    /// The largest size that was answered.
    pub(super) fn answered(&self) -> Option<u32> {
        (self.answered > 0).then_some(self.answered)
    }

    /// Whether the path carries less than it is configured to, and how much that is.
    pub(super) fn shortfall(&self) -> Option<u32> {
        let is_found = self.refused <= self.configured && self.refused == self.answered + 1;
        is_found.then_some(self.answered)
    }

    /// The size to try next.
    pub(super) fn next_size(&mut self) -> u32 {
        self.probes += 1;
        if self.refused > self.configured || self.probes.is_multiple_of(RETRY_AFTER) {
            return self.configured;
        }
        let low = self.answered.max(BYTES_MIN);
        if self.refused <= low + 1 {
            low
        } else {
            low + (self.refused - low) / 2
        }
    }

    pub(super) fn was_answered(&mut self, bytes: u32) {
        self.silences = 0;
        self.answered = self.answered.max(bytes);
        if bytes >= self.refused {
            self.refused = self.configured + 1;
        }
    }

    /// A probe of this size was not answered, although small ones were.
    pub(super) fn was_silent(&mut self, bytes: u32) {
        if bytes >= self.refused {
            return;
        }
        self.silences += 1;
        if self.silences >= SILENCES_MAX {
            self.silences = 0;
            self.refused = bytes;
            if self.answered >= bytes {
                self.answered = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes a path that carries packets of up to `carried` bytes.
    fn probe(search: &mut MtuSearch, carried: u32, times: usize) {
        for _ in 0..times {
            let size = search.next_size();
            if size <= carried {
                search.was_answered(size);
            } else {
                search.was_silent(size);
            }
        }
    }

    #[test]
    fn a_path_as_wide_as_configured_is_known_at_once() {
        let mut search = MtuSearch::new(1500);
        assert_eq!(search.answered(), None);
        probe(&mut search, 1500, 1);
        assert_eq!((search.answered(), search.shortfall()), (Some(1500), None));
    }

    #[test]
    fn every_narrower_path_is_measured_to_the_byte() {
        for carried in (BYTES_MIN..1500).step_by(7) {
            let mut search = MtuSearch::new(1500);
            probe(&mut search, carried, 60);
            assert_eq!(search.answered(), Some(carried));
            assert_eq!(search.shortfall(), Some(carried));
        }
    }

    #[test]
    fn a_path_that_narrows_or_widens_is_followed() {
        let mut search = MtuSearch::new(9000);
        probe(&mut search, 9000, 5);
        probe(&mut search, 1400, 80);
        assert_eq!(search.shortfall(), Some(1400));
        probe(&mut search, 9000, RETRY_AFTER as usize);
        assert_eq!((search.answered(), search.shortfall()), (Some(9000), None));
    }

    #[test]
    fn a_lost_probe_says_nothing() {
        let mut search = MtuSearch::new(1500);
        probe(&mut search, 1500, 1);
        for _ in 0..10 {
            search.was_silent(1500);
            search.was_silent(1500);
            search.was_answered(1500);
        }
        assert_eq!(search.shortfall(), None);
    }
}
