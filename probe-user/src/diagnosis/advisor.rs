//! Gives advice, and remembers what it gave: under a flood of collisions the same is asked again and again, and thousands of
//! service ports are looked through each time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::advice::{Cause, NodeFacts, advise};
use super::build::with_service_ports;
use super::connection::Tracked;
use super::incident::{Advice, Verdict};
use super::tables::Tables;

/// Causes whose advice is remembered.
const MOST: usize = 1024;

/// What advice depends on, besides the node: the remote side of a cause plays no part where the source port is a service.
type Asked = (Verdict, Option<SocketAddr>);

/// What is known about the node's ports, and the advice that follows.
#[derive(Debug, Default)]
pub(super) struct Advisor {
    node: NodeFacts,
    /// As long as nothing else is known about the node.
    given: RefCell<BTreeMap<Asked, Vec<Advice>>>,
}

impl Advisor {
    pub(super) fn set_node(&mut self, node: NodeFacts) {
        self.given.get_mut().clear();
        self.node = node;
    }

    pub(super) const fn node(&self) -> &NodeFacts {
        &self.node
    }

    /// Against a source port that is a service.
    pub(super) fn on(&self, verdict: Verdict, connection: &Tracked, tables: &Tables) -> Vec<Advice> {
        let tuple = connection.tuple();
        let (local, remote) = (tuple.map(|tuple| tuple.local), tuple.map(|tuple| tuple.remote));
        let cause = Cause { verdict, local, remote };
        if self.node.service_ports.is_empty() {
            let node = with_service_ports(&self.node, connection.netns(), connection.start(), tables);
            return advise(&node, &cause);
        }
        let mut given = self.given.borrow_mut();
        if given.len() >= MOST {
            given.clear();
        }
        given.entry((verdict, local)).or_insert_with(|| advise(&self.node, &cause)).clone()
    }
}
