//! May these two talk?

use slice_common::address::Address;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{NewExchangesKey, PolicyKey};
use slice_common::policy::{Ground, allows};
use slice_common::reply;
use slice_common::wire::transport::Transport;

use crate::packet::Packet;
use crate::stage::parse::Headers;
use crate::{maps, replies};

/// A packet as the policy sees it: addresses and namespaces inside the slice.
#[derive(Clone, Copy)]
pub(crate) struct Conversation {
    pub(crate) slice: u32,
    pub(crate) source: Address,
    pub(crate) source_namespace: u32,
    pub(crate) destination: Address,
    pub(crate) destination_namespace: u32,
    pub(crate) transport: Transport,
}

impl Conversation {
    /// The conversation as a packet the other way sees it.
    #[inline(always)]
    pub(crate) fn reversed(&self, transport: Transport) -> Self {
        Self {
            slice: self.slice,
            source: self.destination,
            source_namespace: self.destination_namespace,
            destination: self.source,
            destination_namespace: self.source_namespace,
            transport,
        }
    }
}

/// Judges a packet, and says what lets it pass.
#[inline(always)]
pub(crate) fn judge(conversation: &Conversation) -> Result<Ground, DropReason> {
    let kind = conversation.transport.kind;
    if kind.may_rest_on(Ground::ForwardRule) && allows(forward_rule(conversation)) {
        return Ok(Ground::ForwardRule);
    }
    if kind.may_rest_on(Ground::MirroredRule) && allows(mirrored_rule(conversation)) {
        return Ok(Ground::MirroredRule);
    }
    if kind.may_rest_on(Ground::ReplyRecord) && answers_a_packet(conversation) {
        return Ok(Ground::ReplyRecord);
    }
    if kind.may_rest_on(Ground::OwnRecord) && left_a_record(conversation) {
        return Ok(Ground::OwnRecord);
    }
    Err(DropReason::PolicyDenied)
}

/// Notes a UDP or echo packet of a pod of this node that the forward rule let pass, for its reply.
#[inline(always)]
pub(crate) fn begin_exchange(
    packet: Packet,
    slice: u32,
    source: Address,
    sent: &Headers,
) -> Result<(), DropReason> {
    if sent.transport.kind.leaves_reply_record() {
        let destination = sent.ip.destination();
        let answer = reply::key_of_answer(slice, source, destination, &sent.transport);
        let own = reply::key_of(slice, source, destination, &sent.transport);
        replies::begin(&answer, &own, &NewExchangesKey::of(packet.ifindex()))?;
    }
    Ok(())
}

/// Notes a UDP or echo packet of another node that the forward rule let pass, for its reply.
#[inline(always)]
pub(crate) fn expect_reply(slice: u32, source: Address, sent: &Headers) {
    if sent.transport.kind.leaves_reply_record() {
        let destination = sent.ip.destination();
        let answer = reply::key_of_answer(slice, source, destination, &sent.transport);
        replies::remember(&answer);
    }
}

/// Judges a packet that only passes through: one that begins something needs the forward rule, any other
/// the rule of either direction. Both ends ask for more; what they remember of exchanges no gateway needs
/// to know, so each may stand in for another.
#[inline(always)]
pub(crate) fn judge_in_transit(conversation: &Conversation) -> Result<(), DropReason> {
    if allows(forward_rule(conversation)) {
        return Ok(());
    }
    if conversation.transport.kind.may_pass_by_mirrored_rule()
        && allows(mirrored_rule(conversation))
    {
        return Ok(());
    }
    Err(DropReason::PolicyDenied)
}

#[inline(always)]
fn forward_rule(conversation: &Conversation) -> Option<u32> {
    maps::policy_verdict(PolicyKey {
        slice: conversation.slice,
        source_namespace: conversation.source_namespace,
        destination_namespace: conversation.destination_namespace,
        protocol: conversation.transport.protocol,
        reserved: 0,
        port: conversation.transport.destination_port.network_word(),
    })
}

#[inline(always)]
fn mirrored_rule(conversation: &Conversation) -> Option<u32> {
    maps::policy_verdict(PolicyKey {
        slice: conversation.slice,
        source_namespace: conversation.destination_namespace,
        destination_namespace: conversation.source_namespace,
        protocol: conversation.transport.protocol,
        reserved: 0,
        port: conversation.transport.source_port.network_word(),
    })
}

#[inline(always)]
fn left_a_record(conversation: &Conversation) -> bool {
    let Conversation {
        slice,
        source,
        destination,
        ..
    } = *conversation;
    let answer = reply::key_of_answer(slice, source, destination, &conversation.transport);
    replies::is_expected(&answer)
}

#[inline(always)]
fn answers_a_packet(conversation: &Conversation) -> bool {
    let Conversation {
        slice,
        source,
        destination,
        ..
    } = *conversation;
    replies::is_expected(&reply::key_of(
        slice,
        source,
        destination,
        &conversation.transport,
    ))
}
