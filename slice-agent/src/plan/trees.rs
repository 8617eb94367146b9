//! The changes of classes in which packets wait: in place, as far as that goes.

use std::collections::{BTreeMap, BTreeSet};

use slice_common::id::TrafficClass;
use slice_common::layout::{QueueClass, ShaperTerms};

use super::{Change, Mending, Trimming};
use crate::image::{ClassTree, NodeImage, TreeClass};

/// What packets are sent to next.
pub(super) fn grown<'a>(
    was: &'a NodeImage,
    is: &'a NodeImage,
) -> impl Iterator<Item = Change> + 'a {
    is.trees
        .iter()
        .filter_map(|(ifindex, tree)| match was.trees.get(ifindex) {
            Some(before) if can_be_mended(before, tree) => {
                mending(before, tree).map(|it| Change::MendTree(*ifindex, it))
            }
            _ => Some(Change::BuildTree(*ifindex, tree.clone())),
        })
}

/// What packets are no longer sent to.
pub(super) fn shrunk<'a>(
    was: &'a NodeImage,
    is: &'a NodeImage,
) -> impl Iterator<Item = Change> + 'a {
    was.trees.iter().filter_map(|(ifindex, before)| {
        let Some(tree) = is.trees.get(ifindex) else {
            return Some(Change::RemoveTree(*ifindex, before.clone()));
        };
        if !can_be_mended(before, tree) {
            return None;
        }
        let busy = busy(before, vacated(is, *ifindex));
        let classes = before.classes.keys().rev();
        let classes: Vec<u16> = classes
            .filter(|minor| !tree.classes.contains_key(minor) && !busy.contains(minor))
            .copied()
            .collect();
        let interface = tree.interface.clone();
        let trimming = Trimming { interface, classes };
        (!trimming.classes.is_empty()).then_some(Change::TrimTree(*ifindex, trimming))
    })
}

/// The backs of classes that are configured no more, but flows that wait there go on to.
fn vacated(image: &NodeImage, ifindex: u32) -> impl Iterator<Item = u16> {
    let here = image
        .rates
        .iter()
        .filter(move |(at, _)| at.key.ifindex == ifindex);
    here.flat_map(|(_, terms)| {
        let vacated = TrafficClass::all().filter(|class| terms.is_vacated(*class));
        vacated
            .map(|class| QueueClass::Back(ShaperTerms::class_clocks(terms.clocks, class)).minor())
    })
}

/// In which packets wait or may yet, with all that they are below: the kernel would drop what waits in a class that is
/// removed. They are looked at again.
fn busy(tree: &ClassTree, vacated: impl Iterator<Item = u16>) -> BTreeSet<u16> {
    let mut busy = BTreeSet::new();
    for minor in vacated.chain(tree.waiting.iter().copied()) {
        let mut above = Some(minor);
        while let Some(class) = above.filter(|minor| busy.insert(*minor)) {
            above = tree.classes.get(&class).map(|class| class.parent);
        }
    }
    busy
}

/// A class cannot be hung elsewhere.
fn can_be_mended(before: &ClassTree, tree: &ClassTree) -> bool {
    let is_elsewhere = |(minor, class): (&u16, &TreeClass)| {
        let wanted = tree.classes.get(minor);
        wanted.is_some_and(|wanted| wanted.parent != class.parent)
    };
    !before.classes.iter().any(is_elsewhere)
}

fn mending(before: &ClassTree, tree: &ClassTree) -> Option<Mending> {
    let differs = |(minor, class): &(&u16, &TreeClass)| before.classes.get(minor) != Some(class);
    let classes: BTreeMap<u16, TreeClass> = tree
        .classes
        .iter()
        .filter(differs)
        .map(|(minor, class)| (*minor, *class))
        .collect();
    let frame = tree.frame_bytes;
    let frame_bytes = (frame != before.frame_bytes).then_some(frame);
    let is_right = classes.is_empty() && frame_bytes.is_none();
    (!is_right).then(|| Mending {
        interface: tree.interface.clone(),
        frame_bytes,
        classes: classes.into_iter().collect(),
    })
}
