//! Whether `underlay_filter` goes on the underlay interface.
//!
//! It must only ever save work. So by itself it goes nowhere where its driver would have to give up
//! something for it, and never where it could drop what `underlay_ingress` would let pass.

use std::fmt;

use crate::image::{HostFacts, Interface};
use crate::model::{EarlyDrop, Validated};

/// Why early drop is not to be had, where it would be wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Another XDP program, by the kernel's number: we leave it alone.
    Occupied(u32),
    /// Network cards take the tag off before the program sees a frame, which then looks like one for us.
    Tagged(String),
    /// The driver does not run XDP programs.
    NotNative,
    /// The kernel does not tell whether it does.
    Untold,
    /// It would have to hand over segments one by one.
    Merges,
    /// Tried, and refused by the kernel or the driver.
    Refused(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied(program) => write!(
                f,
                "XDP program #{program} of somebody else is on it; remove that one, or write \
                 `earlyDrop: Off`"
            ),
            Self::Tagged(name) => write!(
                f,
                "the VLAN device {name} is stacked on it, whose frames look like untagged ones there; \
                 use another interface as underlay, or write `earlyDrop: Off`"
            ),
            Self::NotNative => f.write_str(
                "its driver does not run XDP programs; write `earlyDrop: Off` to say that this is fine",
            ),
            Self::Untold => f.write_str(
                "this kernel does not tell whether its driver runs XDP programs (Linux 6.3 does); \
                 `earlyDrop: On` tries",
            ),
            Self::Merges => f.write_str(
                "its driver merges received segments and would give that up for all traffic; \
                 `earlyDrop: On` has it do so, or `ethtool -K NAME rx-gro-hw off lro off`",
            ),
            Self::Refused(why) => write!(f, "it was tried and refused: {why}"),
        }
    }
}

/// Whether early drop is wanted, and possible as far as one can see.
///
/// # Errors
/// What stands in the way. At `Auto` that only kinds of devices that are no hardware stay without is
/// what is wanted.
pub fn early_drop(configuration: &Validated, facts: &HostFacts) -> Result<bool, Obstacle> {
    let underlay = &configuration.node().underlay;
    let Some(interface) = facts.interfaces.get(&underlay.interface) else {
        return Ok(false);
    };
    match underlay.early_drop {
        EarlyDrop::Off => return Ok(false),
        EarlyDrop::Auto if !interface.kind.is_empty() => return Ok(false),
        EarlyDrop::Auto if interface.native_xdp.is_none() => return Err(Obstacle::Untold),
        EarlyDrop::Auto if interface.merges => return Err(Obstacle::Merges),
        EarlyDrop::Auto | EarlyDrop::On => {}
    }
    if interface.native_xdp == Some(false) {
        return Err(Obstacle::NotNative);
    }
    let ifindex = interface.ifindex;
    if interface.xdp_program != 0 && !facts.filtered.contains(&ifindex) {
        return Err(Obstacle::Occupied(interface.xdp_program));
    }
    if let Some(name) = vlan_on(interface, facts) {
        return Err(Obstacle::Tagged(name.clone()));
    }
    match facts.filter_refused.get(&ifindex) {
        Some(why) => Err(Obstacle::Refused(why.clone())),
        None => Ok(true),
    }
}

fn vlan_on<'a>(interface: &Interface, facts: &'a HostFacts) -> Option<&'a String> {
    let is_on_it =
        |other: &Interface| other.kind == "vlan" && other.lower_ifindex == interface.ifindex;
    let mut all = facts.interfaces.iter();
    all.find(|(_, other)| is_on_it(other)).map(|(name, _)| name)
}
