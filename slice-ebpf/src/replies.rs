//! The notebook of UDP and ICMP exchanges: who may be answered, and until when.

use slice_common::drop_reason::DropReason;
use slice_common::layout::{NewExchangesKey, ReplyKey};
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

/// Notes what came from another node, where whoever began it was counted.
#[inline(always)]
pub(crate) fn remember(key: &ReplyKey) {
    let now = now_ns();
    match maps::reply_expiry_ns(key) {
        Some(expiry_ns) if !reply::wants_refresh(expiry_ns, now) => {}
        _ => maps::set_reply_expiry(key, reply::expiry_ns(now)),
    }
}

/// Notes what is said at a pod of this node, by the record of its answer (`key`). What is not known yet is
/// counted against `beginner`, unless it is an answer itself, by its own record (`own`): whoever asked was counted.
#[inline(always)]
pub(crate) fn begin(
    key: &ReplyKey,
    own: &ReplyKey,
    beginner: &NewExchangesKey,
) -> Result<(), DropReason> {
    let now = now_ns();
    match maps::reply_expiry_ns(key) {
        Some(expiry_ns) if !reply::wants_refresh(expiry_ns, now) => return Ok(()),
        Some(_) => {}
        None if is_expected(own) => {}
        None => {
            let due_ns = maps::new_exchange_due_ns(beginner);
            let due_ns = reply::begun(due_ns, now).ok_or(DropReason::TooManyExchanges)?;
            maps::set_new_exchange_due(beginner, due_ns);
        }
    }
    maps::set_reply_expiry(key, reply::expiry_ns(now));
    Ok(())
}
