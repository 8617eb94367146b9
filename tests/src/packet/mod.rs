//! Packets for tests: built field by field, broken on purpose, read back and explained.
//!
//! Written from the RFCs and not from `slice-common`: a test that builds its packets with the code
//! under test would agree with its mistakes.
//!
//! ```
//! use slice_tests::packet::{Ipv4, Tcp, describe, faults};
//!
//! let syn = Ipv4::between([10, 1, 1, 10], [10, 77, 0, 2]).tcp(Tcp::new(40_000, 9092).syn().mss(1460));
//! assert_eq!(faults(&syn.frame([2; 6], [4; 6])), Vec::<String>::new());
//! assert!(describe(&syn.frame([2; 6], [4; 6])).contains("10.1.1.10:40000 > 10.77.0.2:9092"));
//! ```

mod checksum;
mod ipv4;
mod read;
mod transport;
mod vxlan;

pub use checksum::{Checksum, internet_checksum};
pub use ipv4::{Ipv4, Mac, ethernet};
pub use read::{describe, describe_difference, faults};
pub use transport::{Icmp, Ipv4Quote, Tcp, Udp};
pub use vxlan::Vxlan;
