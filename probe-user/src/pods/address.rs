//! Which pod had an address at which time. Addresses are used again soon after a pod went away.

use std::collections::HashMap;
use std::net::IpAddr;

use super::index::Slot;
use crate::observation::Nanos;

/// A pod that has or had an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    slot: Slot,
    span: Span,
}

/// When something was so, as far as the lists that were seen tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// At this time it was not yet so; it began later. `None`: so from the first list on.
    pub after: Option<Nanos>,
    /// At this time it was no longer so; it ended earlier. `None`: still so.
    pub until: Option<Nanos>,
}

impl Span {
    /// Whether it may have been so at that time.
    pub fn covers(&self, at: Nanos) -> bool {
        self.after.is_none_or(|after| at > after) && self.until.is_none_or(|until| at <= until)
    }
}

/// All addresses of pods that have one of their own.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    holders: HashMap<IpAddr, Vec<Holder>>,
}

impl Addresses {
    /// From `now` on the pod has exactly these addresses, the new ones since some time later than `after`.
    pub(super) fn set(
        &mut self,
        slot: Slot,
        old: &[IpAddr],
        new: &[IpAddr],
        now: Nanos,
        after: Option<Nanos>,
    ) {
        for ip in old.iter().filter(|ip| !new.contains(ip)) {
            for holder in self.open(*ip, slot) {
                holder.span.until = Some(now);
            }
        }
        for ip in new {
            if self.open(*ip, slot).next().is_none() {
                let span = Span { after, until: None };
                self.holders.entry(*ip).or_default().push(Holder { slot, span });
            }
        }
    }

    /// The pods that may have had this address at that time. More than one: the lists do not tell them apart.
    pub(super) fn at(&self, ip: IpAddr, at: Nanos) -> impl Iterator<Item = Slot> {
        let holders = self.holders.get(&ip).map(Vec::as_slice).unwrap_or_default();
        holders.iter().filter(move |holder| holder.span.covers(at)).map(|holder| holder.slot)
    }

    /// Whether a pod has or had this address.
    pub(super) fn knows(&self, ip: IpAddr) -> bool {
        self.holders.contains_key(&ip)
    }

    /// Forgets what ended before `limit`.
    pub(super) fn forget(&mut self, limit: Nanos) {
        self.holders.retain(|_, holders| {
            holders.retain(|holder| holder.span.until.is_none_or(|until| until >= limit));
            !holders.is_empty()
        });
    }

    fn open(&mut self, ip: IpAddr, slot: Slot) -> impl Iterator<Item = &mut Holder> {
        let holders = self.holders.get_mut(&ip).map(Vec::as_mut_slice).unwrap_or_default();
        holders.iter_mut().filter(move |holder| holder.slot == slot && holder.span.until.is_none())
    }
}
