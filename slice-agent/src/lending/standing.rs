//! How a slice stands on an uplink whose nodes lend, for people.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use slice_common::shaper::Loan;

/// What this node has of a slice's ceiling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub own_bps: u64,
    pub partners: BTreeMap<Ipv4Addr, PartnerStanding>,
    /// Classes of the device keep rates of their own.
    pub only_lends: bool,
}

/// In [`Loan::WHOLE`]ths of the own part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartnerStanding {
    pub lent_parts: u32,
    pub borrowed_parts: u32,
}

/// How it is with the agents of an uplink's partners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkLending {
    /// Why nobody is asked or answered.
    pub obstacle: Option<String>,
    /// By partner: why it does not answer.
    pub silent: BTreeMap<Ipv4Addr, String>,
}

impl Standing {
    pub fn bps(&self, parts: u32) -> u64 {
        let bps = u128::from(self.own_bps) * u128::from(parts) / u128::from(Loan::WHOLE);
        u64::try_from(bps).unwrap_or(u64::MAX)
    }

    pub fn lent_parts(&self) -> u32 {
        self.partners.values().map(|it| it.lent_parts).sum()
    }

    pub fn borrowed_parts(&self) -> u32 {
        self.partners.values().map(|it| it.borrowed_parts).sum()
    }
}
