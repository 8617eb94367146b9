//! Every place where a kernel of the lab can have dropped a packet, and the devices' counters.
//!
//! Drops behind a redirect are not ours to count, so tests reconcile: sent = received + drops of
//! our programs + what is listed here.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::lab::network::namespace_names;
use crate::lab::network::nic::{self, WireCheck};
use crate::netns::NetNs;

/// Protocol counters that mean a lost packet, as TABLE.COUNTER of /proc/net/snmp and netstat.
const PROTOCOL_DROPS: &[&str] = &[
    "Ip.InHdrErrors",
    "Ip.InAddrErrors",
    "Ip.InUnknownProtos",
    "Ip.InDiscards",
    "Ip.OutDiscards",
    "Ip.OutNoRoutes",
    "Ip.ReasmFails",
    "Ip.FragFails",
    "IpExt.InNoRoutes",
    "IpExt.InTruncatedPkts",
    "IpExt.InCsumErrors",
    "Icmp.InErrors",
    "Icmp.InCsumErrors",
    "Udp.NoPorts",
    "Udp.InErrors",
    "Udp.RcvbufErrors",
    "Udp.SndbufErrors",
    "Udp.InCsumErrors",
    "Udp.MemErrors",
    "Tcp.InErrs",
    "Tcp.InCsumErrors",
    "TcpExt.ListenOverflows",
    "TcpExt.ListenDrops",
    "TcpExt.TCPBacklogDrop",
    "TcpExt.PFMemallocDrop",
    "TcpExt.TCPRcvQDrop",
];

/// Columns of tables in /proc/net/stat that mean a lost packet. What an `unreachable` route stops is an
/// `in_no_route`, and counted nowhere else.
const MACHINE_DROPS: &[(&str, &[&str])] = &[
    ("arp_cache", &["unresolved_discards"]),
    (
        "rt_cache",
        &["in_no_route", "in_martian_src", "in_martian_dst"],
    ),
];

/// Drop counters above zero, as PLACE/SOURCE → packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelDrops {
    pub counters: BTreeMap<String, u64>,
}

/// A device's counters; a packet that is to be cut later counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_drops: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_drops: u64,
}

/// The counters of every device of the lab, by (namespace, device).
pub type Devices = BTreeMap<(String, String), DeviceCounters>;

impl KernelDrops {
    pub fn total(&self) -> u64 {
        self.counters.values().sum()
    }

    /// What was added since `earlier`, without what stayed the same.
    pub fn since(&self, earlier: &Self) -> Self {
        let added = self.counters.iter().filter_map(|(name, count)| {
            let before = earlier.counters.get(name).copied().unwrap_or(0);
            let added = count.saturating_sub(before);
            (added > 0).then(|| (name.clone(), added))
        });
        Self {
            counters: added.collect(),
        }
    }

    /// Sums up the drop counters of devices, queues and protocols of these namespaces.
    ///
    /// `machine/...` entries (receive backlog, neighbours, routes) cover the whole machine, since the
    /// kernel does not count them by namespace.
    pub fn of<'a>(namespaces: impl IntoIterator<Item = &'a NetNs>) -> Result<Self> {
        let mut drops = Self::default();
        for namespace in namespaces {
            drops.add_namespace(namespace)?;
        }
        let backlog = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
        drops.add("machine", "backlog_drops", sum_hex_column(&backlog, 0, 1));
        for (table, columns) in MACHINE_DROPS {
            let text = fs::read_to_string(format!("/proc/net/stat/{table}")).unwrap_or_default();
            let heading = text.lines().next().unwrap_or_default();
            for column in *columns {
                let mut names = heading.split_whitespace();
                if let Some(at) = names.position(|name| name == *column) {
                    let count = sum_hex_column(&text, 1, at);
                    drops.add("machine", &format!("{table}/{column}"), count);
                }
            }
        }
        Ok(drops)
    }

    fn add_namespace(&mut self, namespace: &NetNs) -> Result<()> {
        let name = namespace.name();
        let [devices, snmp, netstat] = tables(namespace)?;
        for (device, counters) in parse_devices(&devices) {
            self.add(name, &format!("{device}/rx_errors"), counters.rx_errors);
            self.add(name, &format!("{device}/rx_drops"), counters.rx_drops);
            self.add(name, &format!("{device}/tx_errors"), counters.tx_errors);
            self.add(name, &format!("{device}/tx_drops"), counters.tx_drops);
        }
        for (counter, count) in parse_protocols(&snmp).chain(parse_protocols(&netstat)) {
            if PROTOCOL_DROPS.contains(&counter.as_str()) {
                self.add(name, &counter, count);
            }
        }
        for (device, count) in queue_drops(namespace)? {
            self.add(name, &format!("{device}/qdisc_drops"), count);
        }
        Ok(())
    }

    fn add(&mut self, place: &str, source: &str, count: u64) {
        if count > 0 {
            *self
                .counters
                .entry(format!("{place}/{source}"))
                .or_default() += count;
        }
    }
}

impl Lab {
    /// The drop counters of all namespaces of the lab; see [`KernelDrops::of`].
    pub fn kernel_drops(&self) -> Result<KernelDrops> {
        KernelDrops::of(&self.namespaces()?)
    }

    /// All namespaces of the lab.
    pub fn namespaces(&self) -> Result<Vec<NetNs>> {
        let names = namespace_names();
        names.iter().map(|name| NetNs::open(name)).collect()
    }

    /// The counters of every device in every namespace of the lab.
    pub fn devices(&self) -> Result<Devices> {
        let mut devices = Devices::new();
        for name in namespace_names() {
            let read = || fs::read_to_string("/proc/thread-self/net/dev");
            let table = NetNs::open(&name)?.enter(read)??;
            let parsed = parse_devices(&table);
            devices.extend(parsed.map(|(device, counters)| ((name.clone(), device), counters)));
        }
        Ok(devices)
    }

    /// What a transfer from a pod on `sender` to `receiver` did on the wire.
    pub fn wire_check(
        &self,
        before: &Devices,
        after: &Devices,
        sender: &str,
        receiver: &str,
    ) -> Result<WireCheck> {
        let delta = |namespace: &str, device: &str| -> Result<(u64, u64, u64)> {
            let key = (namespace.to_owned(), device.to_owned());
            let (Some(earlier), Some(later)) = (before.get(&key), after.get(&key)) else {
                bail!("no counters of {device} in {namespace}");
            };
            Ok((
                later.tx_packets - earlier.tx_packets,
                later.tx_bytes - earlier.tx_bytes,
                later.rx_packets - earlier.rx_packets,
            ))
        };
        let (nic_packets, nic_bytes, _) = delta(self.node(sender)?.netns.name(), "nic0")?;
        let (_, _, pod_packets) = delta(self.pod(receiver)?.netns.name(), "eth0")?;
        let nic_mean_bytes = nic_bytes as f64 / nic_packets.max(1) as f64;
        Ok(WireCheck {
            nic_packets,
            nic_mean_bytes,
            pod_packets,
        })
    }

    /// Spreads flows over the CPUs (as the lab does from the start), or keeps what one CPU sends in
    /// order.
    pub fn set_receive_steering(&self, on: bool) -> Result<()> {
        for name in namespace_names() {
            let namespace = NetNs::open(&name)?;
            if on {
                nic::steer_receive(&namespace)?;
            } else {
                nic::stop_steering(&namespace)?;
            }
        }
        Ok(())
    }

    /// Switches wire mode; see [`nic::set_wire_mode`].
    pub fn set_wire_mode(&self, on: bool) -> Result<()> {
        let mut state = self.state()?;
        nic::set_wire_mode(on, state.relay.is_none())?;
        state.wire_mode = on;
        state.save()
    }
}

/// The namespace's /proc/net/dev, snmp and netstat.
/// Frames that nodes heard by devices of these names and had no use for: for somebody else, or of no
/// protocol that they know.
pub fn overheard(nodes: &[&NetNs], is_meant: impl Fn(&str) -> bool) -> Result<u64> {
    let mut sum = 0;
    for node in nodes {
        let links = json_of(node, "ip", &["-s", "-s", "-j", "link", "show"])?;
        let meant = links
            .iter()
            .filter(|link| link["ifname"].as_str().is_some_and(&is_meant));
        for link in meant {
            let received = &link["stats64"]["rx"];
            // Shown only where it is not 0.
            sum += received["otherhost"].as_u64().unwrap_or(0);
            sum += received["dropped"].as_u64().context("rx dropped")?;
        }
    }
    Ok(sum)
}

pub(crate) fn tables(namespace: &NetNs) -> Result<[String; 3]> {
    let [devices, snmp, netstat] = namespace.enter(|| {
        ["dev", "snmp", "netstat"]
            .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")))
    })?;
    Ok([devices?, snmp?, netstat?])
}

fn queue_drops(namespace: &NetNs) -> Result<Vec<(String, u64)>> {
    let queues = json_of(namespace, "tc", &["-s", "-j", "qdisc", "show"])?;
    Ok(queues
        .iter()
        .filter_map(|queue| Some((queue["dev"].as_str()?.to_owned(), queue["drops"].as_u64()?)))
        .collect())
}

/// The list that a program of iproute2 prints as JSON.
fn json_of(namespace: &NetNs, program: &str, arguments: &[&str]) -> Result<Vec<serde_json::Value>> {
    let output = namespace.command(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let list: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{program} -j in {}", namespace.name()))?;
    Ok(list.as_array().cloned().unwrap_or_default())
}

/// /proc/net/dev: two heading lines, then NAME: eight receive and eight send columns.
pub(crate) fn parse_devices(table: &str) -> impl Iterator<Item = (String, DeviceCounters)> {
    table.lines().skip(2).filter_map(|line| {
        let (name, columns) = line.split_once(':')?;
        let numbers: Vec<u64> = columns
            .split_whitespace()
            .filter_map(|column| column.parse().ok())
            .collect();
        let counters = DeviceCounters {
            rx_bytes: *numbers.first()?,
            rx_packets: *numbers.get(1)?,
            rx_errors: *numbers.get(2)?,
            rx_drops: *numbers.get(3)?,
            tx_bytes: *numbers.get(8)?,
            tx_packets: *numbers.get(9)?,
            tx_errors: *numbers.get(10)?,
            tx_drops: *numbers.get(11)?,
        };
        Some((name.trim().to_owned(), counters))
    })
}

/// Pairs of lines: `Table: name name` and `Table: value value`.
pub(crate) fn parse_protocols(table: &str) -> impl Iterator<Item = (String, u64)> {
    let lines: Vec<&str> = table.lines().collect();
    let pairs: Vec<(String, u64)> = lines
        .chunks_exact(2)
        .filter_map(|pair| Some((pair[0].split_once(':')?, pair[1].split_once(':')?.1)))
        .flat_map(|((table, names), values)| {
            names
                .split_whitespace()
                .zip(values.split_whitespace())
                .filter_map(move |(name, value)| {
                    // Some columns are signed, none of those that we look at.
                    Some((format!("{table}.{name}"), value.parse().ok()?))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    pairs.into_iter()
}

/// One line per CPU, hexadecimal columns.
fn sum_hex_column(table: &str, heading_lines: usize, column: usize) -> u64 {
    let cells = table
        .lines()
        .skip(heading_lines)
        .filter_map(|line| line.split_whitespace().nth(column));
    cells
        .filter_map(|cell| u64::from_str_radix(cell, 16).ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tables_are_read_by_name_and_column() {
        let table = "Inter-| Receive | Transmit\n face |bytes ...\n\
             nic0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n";
        let (name, counters) = parse_devices(table).next().unwrap();
        assert_eq!(name, "nic0");
        assert_eq!((counters.rx_packets, counters.rx_drops), (2, 4));
        assert_eq!((counters.tx_bytes, counters.tx_drops), (500, 8));

        let snmp = "Ip: Forwarding InDiscards\nIp: 1 9\nUdp: InErrors RcvbufErrors\nUdp: 4 3\n";
        let read: BTreeMap<_, _> = parse_protocols(snmp).collect();
        assert_eq!(read["Ip.InDiscards"], 9);
        assert_eq!(read["Udp.RcvbufErrors"], 3);

        assert_eq!(
            sum_hex_column("00000001 0000000a\n00000001 00000002\n", 0, 1),
            12
        );
    }

    #[test]
    fn only_what_was_added_remains_in_a_delta() {
        let drops = |pairs: &[(&str, u64)]| KernelDrops {
            counters: pairs
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
        };
        let delta = drops(&[("a", 5), ("b", 2), ("c", 1)]).since(&drops(&[("a", 5), ("b", 1)]));
        assert_eq!(delta, drops(&[("b", 1), ("c", 1)]));
        assert_eq!(delta.total(), 2);
    }
}
