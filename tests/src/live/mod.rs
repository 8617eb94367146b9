//! What live scenes in the lab see and do: sockets in pods, raw packets, captures, counted drops.

mod account;
mod capture;
mod ledger;
mod masquerade;
mod offload;
mod packet_filter;
mod quiet;
mod raw;
mod tables;
mod talk;

pub use account::{Account, Books};
pub use capture::{Capture, Frame, Inner, TunnelFrame, tunnel_frame, tunnel_packet};
pub use ledger::{Counted, counted_since, drops_everywhere, expect_drops};
pub use masquerade::Masquerade;
pub use offload::without_offload;
pub use packet_filter::{PacketFilter, StackSetting};
pub use quiet::QuietPods;
pub use raw::{LeftChecksum, Raw, Wire, inject, inject_frame, mac_of};
pub use tables::{are_steady, maps_of, proven_since, put_in_force};
pub use talk::{Mailbox, TcpMeeting, forget_widths, meet, set_mtu_discovery};
