//! A timeline without its repetitions: one packet is captured at every interface that it crosses.

use crate::analysis::model::Moment;
use crate::observation::Nanos;

/// The same words so soon after are the same event, seen elsewhere. A SYN is sent again after 200 ms at the earliest
/// (`TCP_RTO_MIN`).
const SAME_EVENT: Nanos = 50_000_000;
/// Entries that are looked back over.
const LOOK_BACK: usize = 16;

/// An event, and where else it was seen.
pub(super) struct Event<'a> {
    pub(super) first: &'a Moment,
    pub(super) elsewhere: Vec<&'a Moment>,
}

/// The events of a timeline, in its order.
pub(super) fn events(moments: &[Moment]) -> Vec<Event<'_>> {
    let mut events: Vec<Event<'_>> = Vec::new();
    for moment in moments {
        let known = events.iter_mut().rev().take(LOOK_BACK).find(|event| same(event.first, moment));
        match known {
            // Told twice: the same record of a live trace in two files.
            Some(event) if event.first == moment => {}
            Some(event) => event.elsewhere.push(moment),
            None => events.push(Event { first: moment, elsewhere: Vec::new() }),
        }
    }
    events
}

fn same(first: &Moment, later: &Moment) -> bool {
    let apart = later.at.zip(first.at).map(|(later, first)| later.saturating_sub(first));
    first.text == later.text && apart.is_some_and(|apart| (0..=SAME_EVENT).contains(&apart))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(at: Option<Nanos>, source: &str, text: &str) -> Moment {
        Moment { at, source: source.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn one_packet_at_several_interfaces_is_one_event_and_a_retransmit_is_another() {
        let ms = 1_000_000;
        let all = [
            moment(Some(0), "node, packet 1", "SYN"),
            moment(Some(ms), "pod, packet 1", "SYN"),
            moment(Some(2 * ms), "pod, packet 2", "SYN-ACK"),
            moment(Some(3 * ms), "backend, packet 1", "SYN"),
            moment(Some(200 * ms), "node, packet 3", "SYN"),
            moment(Some(201 * ms), "pod, packet 3", "SYN"),
            moment(Some(201 * ms), "tcp_connect", "began"),
            moment(Some(201 * ms), "tcp_connect", "began"),
            moment(None, "table, row 1", "row"),
            moment(None, "table, row 2", "row"),
        ];
        let events: Vec<_> = events(&all)
            .into_iter()
            .map(|event| (event.first.source.as_str(), event.elsewhere.len()))
            .collect();
        assert_eq!(
            events,
            [
                ("node, packet 1", 2),
                ("pod, packet 2", 0),
                ("node, packet 3", 1),
                ("tcp_connect", 0),
                ("table, row 1", 0),
                ("table, row 2", 0)
            ]
        );
    }
}
