//! Who may talk to whom: rules, and records of questions.

use slice_common::address::Address;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, Endpoint, ReplyKey, Route};

use super::read::{ICMP, Kind, TCP, Transport};
use super::{LIFETIME_NS, Model, Notes, REFRESH_AFTER_NS};
use crate::fuzz::input::Input;

/// The scope of what pods exchange with the world outside their slices.
pub(super) const OUTSIDE: u32 = 0;

/// One end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) address: [u8; 4],
    pub(super) namespace: u32,
}

/// A packet between two ends of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talk {
    pub(super) slice: u32,
    pub(super) from: End,
    pub(super) to: End,
    pub(super) protocol: u8,
    pub(super) ports: [u16; 2],
}

impl Talk {
    /// What went the other way, with these ports.
    pub(super) fn reversed(self, protocol: u8, ports: [u16; 2]) -> Self {
        Self {
            from: self.to,
            to: self.from,
            protocol,
            ports,
            ..self
        }
    }
}

impl Model<'_> {
    /// Whether a packet of this kind may pass; a question leaves a record for its answer.
    pub(super) fn may_talk(
        &mut self,
        input: &Input,
        talk: Talk,
        kind: Kind,
        notes: &mut Notes,
    ) -> Result<(), DropReason> {
        let is_allowed = match kind {
            Kind::Opening => self.has_rule(talk),
            Kind::Segment => self.has_rule(talk) || self.has_rule_for_other_way(talk),
            Kind::Ping | Kind::Datagram if self.has_rule(talk) => {
                self.note_question(input, talk.slice, talk, notes);
                true
            }
            Kind::Ping => false,
            Kind::Datagram | Kind::Pong => self.is_awaited(input, talk.slice, talk),
            Kind::Complaint | Kind::LaterPart => false,
        };
        self.verdict(input, is_allowed)
    }

    /// Whether an error about this packet may pass: about a segment, wherever the segment itself might
    /// have; about any other, when the packet or the question that it answers was noted. A rule alone
    /// would carry errors with data against its direction.
    fn was_said(&mut self, input: &Input, about: Talk) -> bool {
        if about.protocol == TCP {
            return self.has_rule(about) || self.has_rule_for_other_way(about);
        }
        self.is_awaited(input, about.slice, about)
            || self.is_awaited(input, about.slice, answer_to(about))
    }

    pub(super) fn may_be_told(&mut self, input: &Input, about: Talk) -> Result<(), DropReason> {
        let is_allowed = self.was_said(input, about);
        self.verdict(input, is_allowed)
    }

    fn verdict(&mut self, input: &Input, is_allowed: bool) -> Result<(), DropReason> {
        if is_allowed {
            self.saw(input, "allowed");
            Ok(())
        } else {
            Err(DropReason::PolicyDenied)
        }
    }

    pub(super) fn has_rule(&self, talk: Talk) -> bool {
        let namespaces = [talk.from.namespace, talk.to.namespace];
        self.tables
            .allows(talk.slice, namespaces, talk.protocol, talk.ports[1])
    }

    /// As if the packet were the other end's: the server's port is then the source.
    pub(super) fn has_rule_for_other_way(&self, talk: Talk) -> bool {
        let [own, other] = talk.ports;
        self.has_rule(talk.reversed(talk.protocol, [other, own]))
    }

    /// Whether somebody asked for this packet, not too long ago.
    pub(super) fn is_awaited(&mut self, input: &Input, scope: u32, talk: Talk) -> bool {
        let record = key(scope, talk);
        let is_fresh = self.replies.get(&record).map(|until| self.now_ns < *until);
        match is_fresh {
            Some(true) => self.saw(input, "answer awaited"),
            Some(false) => self.saw(input, "answer too late"),
            None => {}
        }
        is_fresh == Some(true)
    }

    /// Writes down what the answer to this packet will look like.
    pub(super) fn note_question(
        &mut self,
        input: &Input,
        scope: u32,
        talk: Talk,
        notes: &mut Notes,
    ) {
        let record = key(scope, answer_to(talk));
        let until = self.now_ns + LIFETIME_NS;
        let is_young = |known: &u64| *known >= until - REFRESH_AFTER_NS;
        match self.replies.get(&record) {
            Some(known) if is_young(known) => return self.saw(input, "question noted before"),
            Some(_) => self.saw(input, "record renewed"),
            None => self.saw(input, "record written"),
        }
        self.replies.insert(record, until);
        notes.remembered = Some(record);
    }

    /// By the destination's port, else by the source's, else by the pods: of two that are of a class each, the
    /// one with the smaller number counts.
    pub(super) fn class(&mut self, input: &Input, talk: Talk, pod: &Endpoint, to: &Route) -> Class {
        let [own, other] = talk.ports;
        let of_port = |port| self.tables.class(talk.slice, talk.protocol, port);
        if let Some(class) = of_port(other) {
            self.saw(input, "class by destination port");
            return class;
        }
        if let Some(class) = of_port(own) {
            self.saw(input, "class by source port");
            return class;
        }
        let class = |class, dscp| Class {
            class,
            dscp,
            reserved: 0,
        };
        let of_sender = class(pod.class.class, pod.class.dscp);
        let of_receiver = class(to.class, to.dscp);
        match (of_sender.class, of_receiver.class) {
            (0, 0) => of_sender,
            (_, 0) => {
                self.saw(input, "class of the sender alone");
                of_sender
            }
            (0, _) => {
                self.saw(input, "class of the receiver alone");
                of_receiver
            }
            (sender, receiver) if receiver < sender => {
                self.saw(input, "receiver's class before sender's");
                of_receiver
            }
            _ => {
                self.saw(input, "sender's class first");
                of_sender
            }
        }
    }
}

/// What the answer to a packet looks like. An echo keeps its identifier.
fn answer_to(talk: Talk) -> Talk {
    let [own, other] = talk.ports;
    let ports = if talk.protocol == ICMP {
        talk.ports
    } else {
        [other, own]
    };
    talk.reversed(talk.protocol, ports)
}

/// A packet between two addresses outside of any slice.
pub(super) fn outside(from: [u8; 4], to: [u8; 4], transport: Transport) -> Talk {
    let end = |address| End {
        address,
        namespace: 0,
    };
    Talk {
        slice: OUTSIDE,
        from: end(from),
        to: end(to),
        protocol: transport.protocol,
        ports: transport.ports,
    }
}

fn key(scope: u32, talk: Talk) -> ReplyKey {
    ReplyKey {
        scope,
        source: Address::from_octets(talk.from.address),
        destination: Address::from_octets(talk.to.address),
        source_port: talk.ports[0].to_be(),
        destination_port: talk.ports[1].to_be(),
        protocol: u32::from(talk.protocol),
    }
}
