//! Datagrams in parts: the first says for all of them who they are for.

use slice_common::address::Address;
use slice_common::drop_reason::DropReason;
use slice_common::layout::{Class, FirstFragment, FragmentKey};

use super::conversation::Talk;
use super::read::{Ip, TCP};
use super::{Model, Notes};
use crate::fuzz::input::Input;

/// TCP's header without options, which holds the flags that were judged.
const TCP_HEADER_BYTES: u16 = 20;

impl Model<'_> {
    /// Notes what the first part of a datagram says, once it may pass.
    pub(super) fn note_first_part(
        &mut self,
        input: &Input,
        ip: Ip,
        talk: Talk,
        class: Class,
        notes: &mut Notes,
    ) {
        if !ip.is_fragment() {
            return;
        }
        let first = FirstFragment {
            source_port: talk.ports[0].to_be(),
            destination_port: talk.ports[1].to_be(),
            class,
        };
        self.saw(input, "first part noted");
        let key = key(ip, talk);
        if self.first_parts.insert(key, first) != Some(first) {
            notes.noted = Some((key, first));
        }
    }

    /// What the first part said, for a later one. One that would overwrite the judged header of TCP has
    /// no business here (RFC 1858).
    pub(super) fn first_part(
        &mut self,
        input: &Input,
        ip: Ip,
        talk: Talk,
    ) -> Result<FirstFragment, DropReason> {
        let overwrites = ip.protocol() == TCP && ip.fragment_offset() * 8 < TCP_HEADER_BYTES;
        let first = self.first_parts.get(&key(ip, talk)).copied();
        match first {
            Some(_) if overwrites => {
                self.saw(input, "part over a header");
                Err(DropReason::Fragment)
            }
            Some(first) => {
                self.saw(input, "later part");
                Ok(first)
            }
            None => Err(DropReason::Fragment),
        }
    }
}

fn key(ip: Ip, talk: Talk) -> FragmentKey {
    FragmentKey {
        slice: talk.slice,
        source: Address::from_octets(talk.from.address),
        destination: Address::from_octets(talk.to.address),
        identification: ip.identification().to_be(),
        protocol: ip.protocol(),
        reserved: 0,
    }
}
