//! The shaper in simulated time: a WAN link, senders that react as TCP does or not at all, and what must
//! hold whatever they do. Each negative test first shows that without the part that it is about, the
//! property fails.

mod arithmetic;
mod behaviour;
mod ceiling;
mod guarantee;
mod latency;
mod leaf;
mod loans;
mod plant;
mod processors;
mod record;
mod scenes;
mod senders;
mod simulation;
mod uplink;
