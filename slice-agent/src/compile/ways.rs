//! The routes of blocks, and of pods that differ from theirs.

use slice_common::layout::{Class, Route, RouteKind};

use super::delivery::Member;
use super::policy;
use crate::model::ValidatedSlice;

/// Where a block's or a pod's packets go, and who may bring them.
#[derive(Clone, Copy)]
pub(super) struct Way {
    kind: RouteKind,
    cluster: u32,
    path_group: u32,
    deliverers: Member,
}

impl Way {
    pub(super) fn to_this_node(cluster: u32) -> Self {
        Self {
            kind: RouteKind::Local,
            cluster,
            path_group: 0,
            deliverers: Member::NOBODY,
        }
    }

    pub(super) fn by(path_group: u32, cluster: u32, deliverers: Member) -> Self {
        Self {
            kind: RouteKind::Via,
            cluster,
            path_group,
            deliverers,
        }
    }

    pub(super) fn route(self, slice: &ValidatedSlice, namespace: &str, class: Class) -> Route {
        Route {
            slice: slice.id.number(),
            cluster: self.cluster,
            namespace: policy::namespace_id(slice, namespace),
            kind: self.kind.number(),
            class: class.class,
            dscp: class.dscp,
            path_group: self.path_group,
            deliver_group: self.deliverers.group,
            deliver_members: self.deliverers.bits,
        }
    }
}
