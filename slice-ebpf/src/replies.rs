//! The notebook of UDP and ICMP exchanges: who may be answered, and until when.

use slice_common::layout::ReplyKey;
use slice_common::reply;

use crate::maps;
use crate::packet::now_ns;

#[inline(always)]
pub(crate) fn is_expected(key: &ReplyKey) -> bool {
    match maps::reply_expiry_ns(key) {
        Some(expiry_ns) => reply::is_fresh(expiry_ns, now_ns()),
        None => false,
    }
}

#[inline(always)]
pub(crate) fn remember(key: &ReplyKey) {
    let now = now_ns();
    let fresh_enough = match maps::reply_expiry_ns(key) {
        Some(expiry_ns) => !reply::wants_refresh(expiry_ns, now),
        None => false,
    };
    if !fresh_enough {
        maps::set_reply_expiry(key, reply::expiry_ns(now));
    }
}
