//! Gives advice, and remembers what it gave: under a flood of collisions the same is asked again and again, and thousands of
//! service ports are looked through each time. Incidents share what is remembered: it may list thousands of ports.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::advice::{Cause, NodeFacts, advise, own_port};
use super::build::with_service_ports;
use super::connection::Tracked;
use super::incident::{Advice, Verdict};
use super::size;
use super::tables::Tables;

/// Bytes of advice that are remembered, about. One piece may be larger.
const MOST: usize = 256 << 10;

/// What advice depends on, besides the node: the verdict, and the port if the advice is about that one only.
type Asked = (Verdict, Option<u16>);

/// What is known about the node's ports, and the advice that follows.
#[derive(Debug, Default)]
pub(super) struct Advisor {
    node: NodeFacts,
    /// As long as nothing else is known about the node.
    given: RefCell<Given>,
}

#[derive(Debug, Default)]
struct Given {
    advice: BTreeMap<Asked, Arc<[Advice]>>,
    bytes: usize,
}

impl Advisor {
    pub(super) fn set_node(&mut self, node: NodeFacts) {
        if node != self.node {
            *self.given.get_mut() = Given::default();
            self.node = node;
        }
    }

    pub(super) const fn node(&self) -> &NodeFacts {
        &self.node
    }

    /// Against a source port that is a service.
    pub(super) fn on(&self, verdict: Verdict, connection: &Tracked, tables: &Tables) -> Arc<[Advice]> {
        let tuple = connection.tuple();
        let (local, remote) = (tuple.map(|tuple| tuple.local), tuple.map(|tuple| tuple.remote));
        let cause = Cause { verdict, local, remote };
        if self.node.service_ports.is_empty() {
            let node = with_service_ports(&self.node, connection.netns(), connection.start(), tables);
            return advise(&node, &cause).into();
        }
        self.remembered(&cause)
    }

    fn remembered(&self, cause: &Cause) -> Arc<[Advice]> {
        let asked = (cause.verdict, own_port(&self.node, cause));
        let mut given = self.given.borrow_mut();
        if let Some(known) = given.advice.get(&asked) {
            return Arc::clone(known);
        }
        let advice: Arc<[Advice]> = advise(&self.node, cause).into();
        let bytes = size::of_advice(&advice);
        if given.bytes + bytes > MOST {
            *given = Given::default();
        }
        given.bytes += bytes;
        given.advice.insert(asked, Arc::clone(&advice));
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(verdict: Verdict, port: u16) -> Cause {
        let local = format!("10.23.77.{}:{port}", port % 200).parse().ok();
        Cause { verdict, local, remote: None }
    }

    fn advisor(reserved: &str) -> Advisor {
        let mut advisor = Advisor::default();
        advisor.set_node(NodeFacts {
            reserved: Some(reserved.to_owned()),
            local_port_range: Some((1024, 60_000)),
            service_ports: (0..1000).map(|number| 2000 + 7 * number).collect(),
            ..NodeFacts::default()
        });
        advisor
    }

    #[test]
    fn incidents_of_all_service_ports_share_one_long_advice() {
        let advisor = advisor("");
        let first = advisor.remembered(&cause(Verdict::Collision, 2000));
        assert!(size::of_advice(&first) > 10_000);
        for port in (2007..9000).step_by(7) {
            assert!(Arc::ptr_eq(&first, &advisor.remembered(&cause(Verdict::Collision, port))));
        }
        let other = advisor.remembered(&cause(Verdict::Collision, 2001));
        assert!(!Arc::ptr_eq(&first, &other), "that is no service now, and the advice has to add it");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_is_what_would_be_given() {
        let advisor = advisor("2000-5000,65000");
        for verdict in [Verdict::Collision, Verdict::CollisionSnat, Verdict::ReuseDelay] {
            for port in (2000..8000).chain(60_000..u16::MAX).step_by(11) {
                let cause = cause(verdict, port);
                assert_eq!(*advisor.remembered(&cause), *advise(advisor.node(), &cause));
                assert!(advisor.given.borrow().bytes <= MOST);
            }
        }
    }
}
