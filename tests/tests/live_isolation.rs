//! Who reaches whom, and as whom, between real agents' programs in one lab: slices, strangers,
//! nodes and forgers. Needs root and a built agent (`SLICE_AGENT_BIN`, or
//! `target/release/slice-agent`).
//!
//! Every scene about a packet that must not pass first sends the same one without the fault.

#[path = "live_isolation/addresses.rs"]
mod addresses;
#[path = "live_isolation/bare.rs"]
mod bare;
#[path = "live_isolation/errors.rs"]
mod errors;
#[path = "live_isolation/forgers.rs"]
mod forgers;
#[path = "live_isolation/narrow.rs"]
mod narrow;
#[path = "live_isolation/reconfigure.rs"]
mod reconfigure;
#[path = "live_isolation/segments.rs"]
mod segments;
#[path = "live_isolation/sizes.rs"]
mod sizes;
#[path = "live_isolation/stack.rs"]
mod stack;
#[path = "live_isolation/strangers.rs"]
mod strangers;
#[path = "live_isolation/strict.rs"]
mod strict;
#[path = "live_isolation/uplinks.rs"]
mod uplinks;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use slice_tests::harness;
use slice_tests::lab::{Lab, Ping, Pod};
use slice_tests::packet::Ipv4;

/// All on one machine: an answer that takes longer does not come.
const ECHO_LIMIT: Duration = Duration::from_millis(500);
/// TCP and UDP, from broker to broker, outside every class.
const OPEN_PORT: u16 = 7000;

fn main() -> ExitCode {
    let scenes = [
        addresses::SCENES,
        strangers::SCENES,
        forgers::SCENES,
        errors::SCENES,
        sizes::SCENES,
        narrow::SCENES,
        segments::SCENES,
        strict::SCENES,
        stack::SCENES,
        uplinks::SCENES,
        bare::SCENES,
    ];
    harness::main_in_lab("the live isolation scenes", &scenes, |_| Ok(()))
}

/// Several pods by name.
fn pods<const N: usize>(lab: &Lab, names: [&str; N]) -> Result<[Pod; N]> {
    let pods: Vec<Pod> = names
        .iter()
        .map(|name| lab.pod(name))
        .collect::<Result<_>>()?;
    pods.try_into()
        .map_err(|_| anyhow::anyhow!("as many pods as names"))
}

fn slice_address(pod: &Pod) -> Result<Ipv4Addr> {
    Ok(pod.place()?.address)
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr) -> Ipv4 {
    Ipv4::between(from.octets(), to.octets())
}

/// How many of one echo request are answered, from the pod's own address.
fn echo(from: &Pod, to: Ipv4Addr) -> Result<u32> {
    let ping = Ping {
        timeout: ECHO_LIMIT,
        ..Ping::default()
    };
    Ok(ping
        .run(&from.netns, Some(from.pod_address), to)?
        .received())
}

/// Compares with a message that names what is compared.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<()> {
    ensure!(
        found == expected,
        "{what}: expected {expected:?}, found {found:?}"
    );
    Ok(())
}
