//! What the WAN is like, and how people write it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lab::inventory::CLUSTERS;

/// One site per cluster, in the order of the inventory.
pub const SITES: usize = CLUSTERS.len();

/// The whole WAN: indices are the clusters' places in the inventory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Loss and jitter are the same in every run with the same seed and the same packets.
    pub seed: u64,
    pub uplinks: [UplinkSettings; SITES],
    /// `paths[from][to]`
    pub paths: [[PathSettings; SITES]; SITES],
}

/// What all traffic that leaves one site shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkSettings {
    /// Bits per second on the wire (IP length + 38 bytes per packet); `None` is no limit.
    pub rate_bps: Option<u64>,
    /// The queue's size in wire bytes; means nothing without a rate.
    pub queue_bytes: u64,
}

/// What one direction between two sites does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathSettings {
    pub delay_ns: u64,
    /// The most that is added to the delay, evenly distributed; packets are never reordered.
    pub jitter_ns: u64,
    /// Share of packets that are lost, 0.0..=1.0.
    pub loss: f64,
    /// Longer packets are dropped without an ICMP error.
    pub mtu_bytes: u32,
}

impl Default for UplinkSettings {
    fn default() -> Self {
        Self {
            rate_bps: None,
            queue_bytes: 256 * 1024,
        }
    }
}

impl Default for PathSettings {
    fn default() -> Self {
        Self {
            delay_ns: 0,
            jitter_ns: 0,
            loss: 0.0,
            mtu_bytes: 1500,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::everywhere(PathSettings::default(), UplinkSettings::default(), 1)
    }
}

impl Settings {
    /// The same between all sites.
    pub fn everywhere(path: PathSettings, uplink: UplinkSettings, seed: u64) -> Self {
        Self {
            seed,
            uplinks: [uplink; SITES],
            paths: [[path; SITES]; SITES],
        }
    }

    /// A WAN that only delays, by `delay` in each direction.
    pub fn with_delay(delay: Duration) -> Self {
        let path = PathSettings {
            delay_ns: nanoseconds(delay),
            ..PathSettings::default()
        };
        Self::everywhere(path, UplinkSettings::default(), 1)
    }

    /// Every uplink limited to `rate_bps`.
    #[must_use]
    pub fn with_rate(mut self, rate_bps: u64) -> Self {
        for uplink in &mut self.uplinks {
            uplink.rate_bps = Some(rate_bps);
        }
        self
    }
}

/// One line per direction, for people.
impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lines = Vec::new();
        for (from, row) in self.paths.iter().enumerate() {
            let uplink = self.uplinks[from];
            let rate = uplink.rate_bps.map_or("no limit".to_owned(), |rate_bps| {
                format!(
                    "{} Mbit/s, queue {} bytes",
                    rate_bps as f64 / 1e6,
                    uplink.queue_bytes
                )
            });
            for (to, path) in row.iter().enumerate().filter(|(to, _)| *to != from) {
                let PathSettings {
                    delay_ns,
                    jitter_ns,
                    loss,
                    mtu_bytes,
                } = path;
                lines.push(format!(
                    "{} to {}: delay {} ms, jitter {} ms, loss {} %, MTU {mtu_bytes}, uplink {rate}",
                    CLUSTERS[from].name,
                    CLUSTERS[to].name,
                    *delay_ns as f64 / 1e6,
                    *jitter_ns as f64 / 1e6,
                    loss * 100.0,
                ));
            }
        }
        f.write_str(&lines.join("\n"))
    }
}

/// The settings as command line flags; a flag that is not given leaves the value as it is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WanFlags {
    /// One-way delay, for example 10ms
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub delay: Option<Duration>,
    /// The most that is added to the delay, for example 2ms; packets are never reordered
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub jitter: Option<Duration>,
    /// Share of packets that are lost, for example 1%
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    pub loss: Option<f64>,
    /// Bits per second that each site may send, for example 100M; `none` for no limit
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// Size of each uplink's queue in bytes, for example 256K
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub queue: Option<u64>,
    /// Packets longer than this vanish between the sites, without an ICMP error
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    pub mtu: Option<u32>,
    /// Start of the random series of loss and jitter
    #[arg(long)]
    pub seed: Option<u64>,
}

/// An uplink's rate as written: `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

impl WanFlags {
    pub fn is_empty(&self) -> bool {
        let WanFlags {
            delay,
            jitter,
            loss,
            rate,
            queue,
            mtu,
            seed,
        } = self;
        delay.is_none()
            && jitter.is_none()
            && loss.is_none()
            && rate.is_none()
            && queue.is_none()
            && mtu.is_none()
            && seed.is_none()
    }

    /// Changes the directions out of `from` and into `to`; `None` stands for every site.
    pub fn apply(&self, settings: &mut Settings, from: Option<usize>, to: Option<usize>) {
        let selected = |site: usize, wanted: Option<usize>| wanted.is_none_or(|it| it == site);
        for (site, row) in settings.paths.iter_mut().enumerate() {
            if !selected(site, from) {
                continue;
            }
            let uplink = &mut settings.uplinks[site];
            set(&mut uplink.rate_bps, self.rate.map(|rate| rate.0));
            set(&mut uplink.queue_bytes, self.queue);
            for (_, path) in row
                .iter_mut()
                .enumerate()
                .filter(|(far, _)| selected(*far, to))
            {
                set(&mut path.delay_ns, self.delay.map(nanoseconds));
                set(&mut path.jitter_ns, self.jitter.map(nanoseconds));
                set(&mut path.loss, self.loss);
                set(&mut path.mtu_bytes, self.mtu);
            }
        }
        set(&mut settings.seed, self.seed);
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err("expected a number with us, ms or s, for example 10ms".into()),
    };
    let value: f64 = number
        .parse()
        .map_err(|_| format!("{number:?} is not a number"))?;
    match Duration::try_from_secs_f64(value * seconds) {
        Ok(time) if time <= Duration::from_secs(60) => Ok(time),
        _ => Err("expected between 0s and 60s".into()),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = text
        .strip_suffix('%')
        .map_or((text, 1.0), |number| (number, 100.0));
    let share = number
        .parse::<f64>()
        .map_err(|_| format!("{number:?} is not a number"))?
        / scale;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("expected 0% to 100%".into())
    }
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "none" {
        return Ok(Rate(None));
    }
    match parse_scaled(text, 1000)? {
        0 => Err("expected a rate above 0, or none for no limit".into()),
        rate_bps => Ok(Rate(Some(rate_bps))),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    parse_scaled(text, 1024)
}

fn parse_scaled(text: &str, thousand: u64) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let power = match unit {
        "" => 0,
        "K" | "k" => 1,
        "M" => 2,
        "G" => 3,
        _ => return Err("expected a whole number, with K, M or G if needed".into()),
    };
    let value: u64 = number
        .parse()
        .map_err(|_| format!("{number:?} is not a whole number"))?;
    value
        .checked_mul(thousand.pow(power))
        .ok_or_else(|| "too large".into())
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|it: char| !it.is_ascii_digit() && it != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!(parse_time("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(parse_time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_share("1%"), Ok(0.01));
        assert_eq!(parse_share("0.25"), Ok(0.25));
        assert_eq!(parse_rate("100M"), Ok(Rate(Some(100_000_000))));
        assert_eq!(parse_rate("none"), Ok(Rate(None)));
        assert_eq!(parse_size("256K"), Ok(262_144));
    }

    #[test]
    fn values_without_sense_are_refused() {
        for text in ["10", "-1ms", "1h", "61s", "ms", "99999999999999999999s"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        for text in ["101%", "-1", "NaN", "x"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
        for text in [
            "0",
            "1.5M",
            "1T",
            "99999999999999999999",
            "18446744073709551615G",
        ] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_flag_changes_the_directions_it_names_and_nothing_else() {
        let delay = Some(Duration::from_millis(40));
        let flags = WanFlags {
            delay,
            rate: Some(Rate(Some(1000))),
            ..WanFlags::default()
        };
        let mut settings = Settings::default();
        flags.apply(&mut settings, Some(0), Some(1));

        let mut expected = Settings::default();
        expected.paths[0][1].delay_ns = 40_000_000;
        expected.uplinks[0].rate_bps = Some(1000);
        assert_eq!(settings, expected);
    }
}
