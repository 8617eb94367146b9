//! What live scenes in the lab see and do: sockets in pods, raw packets, captures, counted drops.

mod capture;
mod ledger;
mod masquerade;
mod raw;
mod talk;

pub use capture::{Capture, Frame, Inner, TunnelFrame, tunnel_frame};
pub use ledger::{Counted, counted_since, drops_everywhere, expect_drops};
pub use masquerade::Masquerade;
pub use raw::{LeftChecksum, inject, inject_frame};
pub use talk::{Mailbox, TcpMeeting, meet};
