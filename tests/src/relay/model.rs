//! The WAN as a queue model in plain time: no clock, no device, no thread.
//!
//! Each site has one uplink: a virtual clock that says when its last accepted byte has left, and a
//! queue that is full by bytes. Behind it each direction (from, to) adds a constant delay, jitter
//! that never reorders, and seeded loss.

use std::collections::VecDeque;

use super::settings::{SITES, Settings};

/// What a packet occupies on a wire besides its IP length: Ethernet header, frame check sequence,
/// preamble and gap.
pub(super) const WIRE_OVERHEAD_BYTES: u64 = 38;
/// All packets under way together; above it packets are dropped and counted apart.
pub(super) const MEMORY_LIMIT_BYTES: usize = 64 << 20;

/// A packet that has arrived at the far end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub(super) from: usize,
    pub(super) to: usize,
    /// When it was to leave.
    pub(super) due_ns: u64,
    pub(super) packet: Vec<u8>,
}

/// Why the WAN dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WanDrop {
    /// The uplink's queue was full.
    Queue,
    /// Lost by the dice.
    Loss,
    /// Longer than the direction's MTU: dropped in silence, as by a path with a black hole.
    TooBig,
    /// More under way than the relay's memory allows; a run with these is void.
    Memory,
}

/// The state of the whole WAN.
#[derive(Debug)]
pub(super) struct WanModel {
    settings: Settings,
    /// When each uplink will have sent what it accepted.
    free_at_ns: [u64; SITES],
    directions: [[Direction; SITES]; SITES],
    bytes_under_way: usize,
}

#[derive(Debug, Default)]
struct Direction {
    under_way: VecDeque<(u64, Vec<u8>)>,
    last_due_ns: u64,
    random: Random,
}

impl WanModel {
    pub(super) fn new(settings: Settings) -> Self {
        let mut model = Self {
            settings: settings.clone(),
            free_at_ns: [0; SITES],
            directions: Default::default(),
            bytes_under_way: 0,
        };
        model.seed(settings.seed);
        model
    }

    /// Changes the WAN while packets are under way; those keep their due times.
    pub(super) fn reconfigure(&mut self, settings: Settings) {
        if settings.seed != self.settings.seed {
            self.seed(settings.seed);
        }
        self.settings = settings;
    }

    /// Takes a packet that site `from` sends to site `to`.
    pub(super) fn arrive(
        &mut self,
        now_ns: u64,
        from: usize,
        to: usize,
        packet: Vec<u8>,
    ) -> Result<(), WanDrop> {
        let path = self.settings.paths[from][to];
        if packet.len() > path.mtu_bytes as usize {
            return Err(WanDrop::TooBig);
        }
        if self.bytes_under_way + packet.len() > MEMORY_LIMIT_BYTES {
            return Err(WanDrop::Memory);
        }
        let sent_ns = self.pass_uplink(now_ns, from, packet.len() as u64 + WIRE_OVERHEAD_BYTES)?;
        let direction = &mut self.directions[from][to];
        // Both dice are cast for every packet: a changed loss leaves the jitter's series alone.
        let lost = direction.random.next_fraction() < path.loss;
        let jitter_ns = (direction.random.next_fraction() * path.jitter_ns as f64) as u64;
        if lost {
            return Err(WanDrop::Loss);
        }
        let due_ns = (sent_ns + path.delay_ns + jitter_ns).max(direction.last_due_ns);
        direction.last_due_ns = due_ns;
        self.bytes_under_way += packet.len();
        direction.under_way.push_back((due_ns, packet));
        Ok(())
    }

    /// When the next packet is due, if any is under way.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        let heads = self
            .directions
            .iter()
            .flatten()
            .filter_map(|it| it.under_way.front());
        heads.map(|(due_ns, _)| *due_ns).min()
    }

    /// The packet that was due first, if its time has come.
    pub(super) fn depart(&mut self, now_ns: u64) -> Option<Departure> {
        let (due_ns, from, to) = self
            .directions
            .iter()
            .enumerate()
            .flat_map(|(from, row)| row.iter().enumerate().map(move |(to, it)| (from, to, it)))
            .filter_map(|(from, to, it)| Some((it.under_way.front()?.0, from, to)))
            .min()?;
        if due_ns > now_ns {
            return None;
        }
        let (_, packet) = self.directions[from][to].under_way.pop_front()?;
        self.bytes_under_way -= packet.len();
        Some(Departure {
            from,
            to,
            due_ns,
            packet,
        })
    }

    /// Returns when the uplink has sent the packet.
    fn pass_uplink(&mut self, now_ns: u64, from: usize, wire_bytes: u64) -> Result<u64, WanDrop> {
        let uplink = self.settings.uplinks[from];
        let Some(rate_bps) = uplink.rate_bps else {
            self.free_at_ns[from] = now_ns;
            return Ok(now_ns);
        };
        let waiting_ns = self.free_at_ns[from].saturating_sub(now_ns);
        let backlog_bytes = scale(waiting_ns, rate_bps, 8_000_000_000);
        if backlog_bytes + wire_bytes > uplink.queue_bytes {
            return Err(WanDrop::Queue);
        }
        let sending_ns = scale(wire_bytes, 8_000_000_000, rate_bps);
        self.free_at_ns[from] = self.free_at_ns[from].max(now_ns) + sending_ns;
        Ok(self.free_at_ns[from])
    }

    fn seed(&mut self, seed: u64) {
        for (from, row) in self.directions.iter_mut().enumerate() {
            for (to, direction) in row.iter_mut().enumerate() {
                // Each direction has its own series: traffic one way does not shift the other's.
                direction.random = Random::new(seed, (from * SITES + to) as u64);
            }
        }
    }
}

/// value × numerator / denominator without overflow in between.
fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    let product = u128::from(value) * u128::from(numerator) / u128::from(denominator);
    u64::try_from(product).unwrap_or(u64::MAX)
}

/// SplitMix64: small, seedable and the same on every machine.
#[derive(Debug, Default)]
struct Random {
    state: u64,
}

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        let mut mixer = Self {
            state: seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03),
        };
        Self {
            state: mixer.next(),
        }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In 0.0..1.0.
    fn next_fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::settings::{PathSettings, UplinkSettings};
    use proptest::prelude::*;

    const EAST: usize = 0;
    const WEST: usize = 1;
    const EDGE: usize = 2;
    const MS: u64 = 1_000_000;

    fn settings(path: PathSettings, uplink: UplinkSettings) -> Settings {
        Settings::everywhere(path, uplink, 1)
    }

    fn drain(model: &mut WanModel) -> Vec<Departure> {
        std::iter::from_fn(|| model.depart(u64::MAX)).collect()
    }

    /// Sends packets of 1000 bytes, one every `gap_ns`, and tells which were lost.
    fn losses(seed: u64, loss: f64, count: usize) -> Vec<bool> {
        let path = PathSettings {
            loss,
            ..PathSettings::default()
        };
        let mut model = WanModel::new(Settings::everywhere(path, UplinkSettings::default(), seed));
        let send = |index| {
            model
                .arrive(index as u64 * MS, EAST, WEST, vec![0; 100])
                .is_err()
        };
        (0..count).map(send).collect()
    }

    #[test]
    fn a_packet_leaves_after_its_sending_time_and_its_delay() {
        let path = PathSettings {
            delay_ns: 10 * MS,
            ..PathSettings::default()
        };
        let uplink = UplinkSettings {
            rate_bps: Some(8_304_000),
            ..UplinkSettings::default()
        };
        let mut model = WanModel::new(settings(path, uplink));
        // 1000 + 38 bytes at 8.304 Mbit/s take 1 ms.
        for _ in 0..2 {
            model.arrive(5 * MS, EAST, WEST, vec![7; 1000]).unwrap();
        }
        assert_eq!(model.next_due_ns(), Some(16 * MS));
        assert_eq!(model.depart(16 * MS - 1), None, "not before its time");
        let dues: Vec<_> = drain(&mut model).iter().map(|it| it.due_ns).collect();
        assert_eq!(dues, [16 * MS, 17 * MS]);
        assert_eq!(model.next_due_ns(), None);
    }

    #[test]
    fn uplinks_of_two_sites_do_not_slow_each_other() {
        let uplink = UplinkSettings {
            rate_bps: Some(8_304_000),
            ..UplinkSettings::default()
        };
        let mut model = WanModel::new(settings(PathSettings::default(), uplink));
        model.arrive(0, EAST, EDGE, vec![0; 1000]).unwrap();
        model.arrive(0, EAST, WEST, vec![0; 1000]).unwrap();
        model.arrive(0, WEST, EDGE, vec![0; 1000]).unwrap();
        let due = |from| move |it: &&Departure| it.from == from;
        let all = drain(&mut model);
        assert_eq!(
            all.iter().filter(due(EAST)).map(|it| it.due_ns).max(),
            Some(2 * MS)
        );
        assert_eq!(
            all.iter().filter(due(WEST)).map(|it| it.due_ns).max(),
            Some(MS)
        );
    }

    #[test]
    fn the_full_queue_drops_the_newcomer_and_only_it() {
        let uplink = UplinkSettings {
            rate_bps: Some(1_000_000),
            queue_bytes: 2 * 1038,
        };
        let mut model = WanModel::new(settings(PathSettings::default(), uplink));
        let results = [0; 3].map(|now| model.arrive(now, EAST, WEST, vec![0; 1000]));
        assert_eq!(results, [Ok(()), Ok(()), Err(WanDrop::Queue)]);
        // 8.304 ms later one packet has left: there is room for one again.
        assert_eq!(model.arrive(8_304_000, EAST, WEST, vec![0; 1000]), Ok(()));
        assert_eq!(
            model.arrive(8_304_000, EAST, WEST, vec![0; 1000]),
            Err(WanDrop::Queue)
        );
    }

    #[test]
    fn what_exceeds_the_mtu_or_the_memory_is_dropped_for_that_reason() {
        let path = PathSettings {
            mtu_bytes: 1400,
            delay_ns: MS,
            ..PathSettings::default()
        };
        let mut model = WanModel::new(settings(path, UplinkSettings::default()));
        assert_eq!(
            model.arrive(0, EAST, WEST, vec![0; 1401]),
            Err(WanDrop::TooBig)
        );
        let fits = MEMORY_LIMIT_BYTES / 1024;
        for _ in 0..fits {
            model.arrive(0, EAST, WEST, vec![0; 1024]).unwrap();
        }
        assert_eq!(
            model.arrive(0, EAST, WEST, vec![0; 1024]),
            Err(WanDrop::Memory)
        );
        assert_eq!(drain(&mut model).len(), fits);
        assert_eq!(
            model.arrive(0, EAST, WEST, vec![0; 1024]),
            Ok(()),
            "memory is given back"
        );
    }

    #[test]
    fn loss_is_close_to_what_was_set_and_the_same_for_the_same_seed() {
        let lost = losses(1, 0.1, 20_000);
        let share = lost.iter().filter(|it| **it).count() as f64 / lost.len() as f64;
        assert!((share - 0.1).abs() < 0.01, "{share}");
        assert_eq!(lost, losses(1, 0.1, 20_000));
        assert_ne!(lost, losses(2, 0.1, 20_000));
        assert!(losses(1, 0.0, 1000).iter().all(|it| !it));
        assert!(losses(1, 1.0, 1000).iter().all(|it| *it));
    }

    proptest! {
        #[test]
        fn nothing_is_reordered_early_or_unaccounted(
            gaps_us in prop::collection::vec(0_u64..2000, 1..200),
            lengths in prop::collection::vec(20_usize..1500, 200),
            delay_ms in 0_u64..50,
            jitter_ms in 0_u64..20,
            loss in 0.0_f64..0.5,
            rate_bps in prop::option::of(100_000_u64..1_000_000_000),
            queue_bytes in 2_000_u64..100_000,
        ) {
            let path = PathSettings {
                delay_ns: delay_ms * MS, jitter_ns: jitter_ms * MS, loss, mtu_bytes: 1500,
            };
            let mut model = WanModel::new(settings(path, UplinkSettings { rate_bps, queue_bytes }));
            let mut now_ns = 0;
            let mut accepted = Vec::new();
            for (number, (gap_us, length)) in gaps_us.iter().zip(&lengths).enumerate() {
                now_ns += gap_us * 1000;
                let mut packet = vec![0; *length];
                packet[..8].copy_from_slice(&(number as u64).to_be_bytes());
                if model.arrive(now_ns, EAST, WEST, packet).is_ok() {
                    accepted.push((number as u64, now_ns));
                }
            }
            let left = drain(&mut model);
            let numbers: Vec<u64> = left
                .iter()
                .map(|it| u64::from_be_bytes(it.packet[..8].try_into().unwrap()))
                .collect();
            let expected: Vec<u64> = accepted.iter().map(|(number, _)| *number).collect();
            prop_assert_eq!(numbers, expected, "each accepted packet once, in order");
            for (departure, (_, sent_ns)) in left.iter().zip(&accepted) {
                prop_assert!(departure.due_ns >= sent_ns + path.delay_ns, "too early");
            }
            prop_assert_eq!(model.bytes_under_way, 0);
        }

        #[test]
        fn a_busy_uplink_sends_at_its_rate(
            rate_bps in 1_000_000_u64..10_000_000_000,
            length in 40_usize..1500,
        ) {
            const PACKETS: u64 = 500;
            let uplink = UplinkSettings { rate_bps: Some(rate_bps), queue_bytes: u64::MAX / 2 };
            let mut model = WanModel::new(settings(PathSettings::default(), uplink));
            for _ in 0..PACKETS {
                model.arrive(0, EAST, WEST, vec![0; length]).unwrap();
            }
            let last_ns = drain(&mut model).last().unwrap().due_ns as f64;
            let wire_bits = (PACKETS * (length as u64 + WIRE_OVERHEAD_BYTES) * 8) as f64;
            let error = wire_bits / (last_ns / 1e9) / rate_bps as f64 - 1.0;
            prop_assert!(error.abs() < 0.02, "rate is off by {}", error);
        }
    }
}
