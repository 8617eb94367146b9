//! The verdict on one packet, from what kind of packet it is and what the rules say.

use crate::layout::PolicyVerdict;

/// What a packet may do to a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// A TCP SYN without ACK: opens a connection, so only the forward rule counts.
    TcpOpen,
    /// Any other TCP packet: harmless without the SYN before it, so the rule of either direction
    /// lets it pass. No state, so no state to lose.
    TcpOther,
    /// UDP: the forward rule, or a fresh record of a packet the other way.
    Datagram,
    /// An ICMP echo request: the forward rule only. It looks like the answer to one (same identifier,
    /// no ports), so a record of one must not let it pass.
    EchoRequest,
    /// An ICMP echo reply: only a fresh record of its request; no rule opens a way for it.
    EchoReply,
    /// A UDP or echo packet that an ICMP error quotes: a fresh record must say that it was let pass, or
    /// a rule for one direction would carry errors with data in the other. A quoted TCP packet is as
    /// any but the SYN.
    Quoted,
    /// An ICMP error: nothing by itself, it is judged by the packet that it quotes.
    Error,
    /// A fragment other than the first: nothing by itself, it follows the first.
    LaterFragment,
}

/// Which questions a packet's verdict needs, asked one after the other until one says yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    ForwardRule,
    MirroredRule,
    /// The packet answers one that was noted.
    ReplyRecord,
    /// The packet itself was noted.
    OwnRecord,
}

impl PacketKind {
    /// Whether `ground` can let a packet of this kind pass.
    #[inline(always)]
    pub const fn may_rest_on(self, ground: Ground) -> bool {
        match ground {
            Ground::ForwardRule => !matches!(
                self,
                Self::EchoReply | Self::Quoted | Self::Error | Self::LaterFragment
            ),
            Ground::MirroredRule => matches!(self, Self::TcpOther),
            Ground::ReplyRecord => matches!(self, Self::Datagram | Self::EchoReply | Self::Quoted),
            Ground::OwnRecord => matches!(self, Self::Quoted),
        }
    }

    /// Whether the rule of the other direction may let a packet of this kind pass a gateway, which
    /// remembers nothing of exchanges: not where it begins one.
    #[inline(always)]
    pub const fn may_pass_by_mirrored_rule(self) -> bool {
        !matches!(self, Self::TcpOpen | Self::EchoRequest)
    }

    /// Whether a verdict on one packet of this kind that rests on `ground` holds for the flow's next one
    /// while the rules stay. A packet that opens a connection is always judged itself, or a harmless one
    /// before it would open the door; and records expire.
    #[inline(always)]
    pub const fn keeps_verdict(self, ground: Ground) -> bool {
        matches!(self, Self::TcpOther | Self::Datagram)
            && matches!(ground, Ground::ForwardRule | Ground::MirroredRule)
    }

    /// Whether a packet that the forward rule lets pass leaves a record for its reply.
    #[inline(always)]
    pub const fn leaves_reply_record(self) -> bool {
        matches!(self, Self::Datagram | Self::EchoRequest)
    }
}

/// Whether a rule's verdict, if there is a rule, lets a packet pass. No rule: denied.
#[inline(always)]
pub const fn allows(verdict_number: Option<u32>) -> bool {
    match verdict_number {
        Some(number) => matches!(PolicyVerdict::from_number(number), PolicyVerdict::Allow),
        None => false,
    }
}
