//! Where a workload runs: a name, the address others reach it by, and a network namespace.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use crate::netns::NetNs;

/// A pod (or any namespace) that a workload can be started in.
#[derive(Clone, Debug)]
pub struct Place {
    /// How others call it, for example `kafka-0`.
    pub name: String,
    /// The address at which the other places reach this one; in a slice, the slice address.
    pub address: Ipv4Addr,
    pub netns: NetNs,
    /// Covers /etc/hosts for the programs that are started here.
    pub hosts: Option<PathBuf>,
}

impl Place {
    /// A command that will run here and see this place's hosts file.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.hosts {
            Some(hosts) => self.netns.command_with_hosts(program, hosts),
            None => self.netns.command(program),
        }
    }
}
