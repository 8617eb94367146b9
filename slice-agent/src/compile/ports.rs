//! Runs of ports as prefixes of a port's 16 bits, because the kernel's tables match prefixes.

/// A prefix of port numbers: the first `bits` of `port` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortPrefix {
    pub(super) port: u16,
    pub(super) bits: u32,
}

/// Covers `first..=last` with as few prefixes as there can be, at most 30.
pub(super) fn prefixes(first: u16, last: u16) -> Vec<PortPrefix> {
    let mut list = Vec::new();
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    while at < end {
        let aligned = if at == 0 {
            16
        } else {
            at.trailing_zeros().min(16)
        };
        let fits = (end - at).ilog2();
        let size_bits = aligned.min(fits);
        list.push(PortPrefix {
            port: at as u16,
            bits: 16 - size_bits,
        });
        at += 1 << size_bits;
    }
    list
}

/// Which value each port has: runs in ascending order that never overlap, and nothing between them.
#[derive(Clone, Debug)]
pub(super) struct PortMap<V> {
    runs: Vec<(u16, u16, V)>,
}

impl<V: Copy + Ord> PortMap<V> {
    pub(super) fn new() -> Self {
        Self { runs: Vec::new() }
    }

    /// Gives `value` to the ports of `first..=last` that have none.
    pub(super) fn fill(&mut self, first: u16, last: u16, value: V) {
        let mut gaps = Vec::new();
        let mut at = u32::from(first);
        for (run_first, run_last, _) in &self.runs {
            let (run_first, run_last) = (u32::from(*run_first), u32::from(*run_last));
            if run_last < at || run_first > u32::from(last) {
                continue;
            }
            if at < run_first {
                gaps.push((at as u16, (run_first - 1) as u16, value));
            }
            at = run_last + 1;
        }
        if at <= u32::from(last) {
            gaps.push((at as u16, last, value));
        }
        self.runs.extend(gaps);
        self.runs.sort_unstable_by_key(|run| run.0);
        self.merge();
    }

    /// Whether every port has a value.
    fn is_full(&self) -> bool {
        let ports: u32 = self
            .runs
            .iter()
            .map(|(first, last, _)| u32::from(last - first) + 1)
            .sum();
        ports == 1 << 16
    }

    /// Returns a value for all ports, where there is one, and prefixes for those that differ.
    /// Of the possible values for all it takes the one that leaves the fewest prefixes.
    pub(super) fn cover(&self) -> (Option<V>, Vec<(PortPrefix, V)>) {
        if !self.is_full() {
            return (None, self.except(None));
        }
        let mut bases: Vec<V> = self.runs.iter().map(|run| run.2).collect();
        bases.sort_unstable();
        bases.dedup();
        let covers = bases
            .into_iter()
            .map(|base| (Some(base), self.except(Some(base))));
        covers
            .min_by_key(|(_, list)| list.len())
            .unwrap_or((None, Vec::new()))
    }

    /// The same, where a wider entry already gives `base` to all ports.
    pub(super) fn except(&self, base: Option<V>) -> Vec<(PortPrefix, V)> {
        self.runs
            .iter()
            .filter(|run| Some(run.2) != base)
            .flat_map(|(first, last, value)| {
                prefixes(*first, *last)
                    .into_iter()
                    .map(|prefix| (prefix, *value))
            })
            .collect()
    }

    fn merge(&mut self) {
        let mut merged: Vec<(u16, u16, V)> = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            match merged.last_mut() {
                Some(last) if last.2 == run.2 && u32::from(last.1) + 1 == u32::from(run.0) => {
                    last.1 = run.1;
                }
                _ => merged.push(*run),
            }
        }
        self.runs = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(prefix: PortPrefix, port: u16) -> bool {
        prefix.bits == 0 || (prefix.port ^ port) >> (16 - prefix.bits) == 0
    }

    #[test]
    fn the_kafka_ports_need_two_prefixes() {
        let list = prefixes(9090, 9092);
        let expected = [
            PortPrefix {
                port: 9090,
                bits: 15,
            },
            PortPrefix {
                port: 9092,
                bits: 16,
            },
        ];
        assert_eq!(list, expected);
        assert_eq!(prefixes(0, u16::MAX), [PortPrefix { port: 0, bits: 0 }]);
        assert_eq!(prefixes(1, 65_534).len(), 30);
    }

    proptest! {
        #[test]
        fn prefixes_hold_each_port_of_the_run_once_and_no_other(a: u16, b: u16) {
            let (first, last) = (a.min(b), a.max(b));
            let list = prefixes(first, last);
            for port in [first, last, first.wrapping_sub(1), last.wrapping_add(1), a / 2 + b / 2] {
                let times = list.iter().filter(|prefix| holds(**prefix, port)).count();
                prop_assert_eq!(times, usize::from((first..=last).contains(&port)));
            }
            let ports: u64 = list.iter().map(|prefix| 1u64 << (16 - prefix.bits)).sum();
            prop_assert_eq!(ports, u64::from(last - first) + 1);
        }

        #[test]
        fn the_first_to_fill_a_port_keeps_it(
            fills in prop::collection::vec((0u16..200, 0u16..200, 0u8..4), 0..12),
            probe in 0u16..220,
        ) {
            let mut map = PortMap::new();
            let mut naive = None;
            for (a, b, value) in fills {
                let (first, last) = (a.min(b), a.max(b));
                map.fill(first, last, value);
                if (first..=last).contains(&probe) {
                    naive = naive.or(Some(value));
                }
            }
            let (base, list) = map.cover();
            let longest = list
                .iter()
                .filter(|(prefix, _)| holds(*prefix, probe))
                .max_by_key(|(prefix, _)| prefix.bits);
            prop_assert_eq!(longest.map(|(_, value)| *value).or(base), naive);
        }
    }
}
