//! Pods that hear everything and say nothing: their stacks drop what arrives behind the captures.
//!
//! A stack answers strange packets with resets and errors, which would be packets that nobody sent.

use anyhow::Result;

use super::masquerade::nft;
use crate::netns::NetNs;

const TABLE: &str = "sliceplane_quiet";

/// Pods that are quiet until this is dropped.
#[derive(Debug)]
pub struct QuietPods(Vec<NetNs>);

impl QuietPods {
    /// # Errors  when nft refuses.
    pub fn of(pods: impl IntoIterator<Item = NetNs>) -> Result<Self> {
        let mut quiet = Self(Vec::new());
        for pod in pods {
            let script = format!(
                "table ip {TABLE} {{ chain everything {{ \
                 type filter hook prerouting priority -400; policy drop; }}; }}"
            );
            nft(&pod, &script)?;
            quiet.0.push(pod);
        }
        Ok(quiet)
    }
}

impl Drop for QuietPods {
    fn drop(&mut self) {
        for pod in &self.0 {
            if let Err(error) = nft(pod, &format!("delete table ip {TABLE}")) {
                eprintln!("{error:#}");
            }
        }
    }
}
