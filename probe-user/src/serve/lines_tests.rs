//! Properties of the lines: nothing is lost, nothing is told twice.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::report::samples;

const SECOND: Nanos = 1_000_000_000;
const EVERY: Duration = Duration::from_mins(10);

fn incident(service: u16, owner: &str, number: u64) -> Incident {
    let mut incident = samples::hijacked();
    incident.id = format!("id-{number}");
    incident.started_at = format!("2022-09-15T19:09:02.{number:09}Z");
    incident.service.as_mut().unwrap().address = format!("10.0.0.1:{service}");
    incident.owner.comm = Some(owner.to_owned());
    incident.owner.pid = Some(u32::try_from(number).unwrap());
    incident
}

#[test]
fn repeats_are_counted_and_told_once_per_period_until_they_end() {
    let mut lines = Lines::new(EVERY);
    assert!(lines.take(&incident(36704, "kubelet", 1), 0));
    assert!(!lines.take(&incident(36704, "kubelet", 2), 5 * SECOND));
    assert!(lines.take(&incident(36704, "curl", 3), 6 * SECOND), "another owner is another pair");
    assert!(lines.take(&incident(31055, "kubelet", 4), 7 * SECOND), "another service as well");
    assert!(!lines.take(&incident(36704, "kubelet", 5), 8 * SECOND));
    assert_eq!(lines.next, Some(600 * SECOND));
    assert!(lines.due(599 * SECOND).is_empty());
    let told = lines.due(600 * SECOND);
    insta::assert_snapshot!(serde_json::to_string(&told[0]).unwrap());
    assert_eq!((told.len(), lines.repeats()), (1, 2));
    // Still within a period: counted; a period without any ends it.
    assert!(!lines.take(&incident(36704, "kubelet", 6), 700 * SECOND));
    assert_eq!(lines.due(1200 * SECOND)[0].count, 1);
    assert!(lines.due(1800 * SECOND).is_empty());
    assert_eq!(lines.next, None);
    assert!(lines.take(&incident(36704, "kubelet", 7), 1801 * SECOND));
}

#[test]
fn another_verdict_is_told_and_no_verdict_is_not() {
    let mut lines = Lines::new(EVERY);
    assert!(lines.take(&samples::hijacked(), 0));
    assert!(lines.take(&samples::other_reset(), 0));
    assert!(lines.take(&samples::unknown_owner(), 0));
    assert!(!lines.take(&samples::none(), 0));
    assert_eq!((lines.repeats(), lines.finish().len()), (0, 0), "a false alarm is no repeat either");
}

#[test]
fn too_many_pairs_are_counted_together_and_said_to_be_several() {
    let mut lines = Lines::new(EVERY);
    let all = u64::try_from(MAX_PAIRS).unwrap() + 10;
    let told = (0..all).filter(|n| lines.take(&incident(7, &format!("task-{n}"), *n), 0)).count();
    assert_eq!(told, MAX_PAIRS);
    let mut repeats = lines.due(600 * SECOND);
    let together = repeats.remove(0);
    assert!(repeats.is_empty());
    assert_eq!((together.count, together.several, lines.repeats()), (10, true, 10));
    assert_eq!((&together.service, &together.owner, &together.service_name), (&None, &None, &None));
    assert_eq!(together.last_id, format!("id-{}", all - 1));
    // There is room again.
    assert!(lines.take(&incident(7, "new", all), 601 * SECOND));
}

#[test]
fn a_clock_that_is_set_back_delays_no_count_for_longer_than_a_period() {
    let mut lines = Lines::new(EVERY);
    lines.take(&incident(7, "a", 1), 1_000_000 * SECOND);
    lines.take(&incident(7, "a", 2), 1_000_001 * SECOND);
    assert!(lines.due(0).is_empty());
    assert_eq!(lines.due(600 * SECOND).len(), 1);
}

#[test]
fn another_period_counts_from_the_beginning_of_the_one_that_runs() {
    let mut lines = Lines::new(EVERY);
    lines.take(&incident(7, "a", 1), 0);
    lines.take(&incident(7, "a", 2), SECOND);
    lines.set_repeat_every(Duration::from_mins(1));
    assert_eq!(lines.next, Some(60 * SECOND));
    assert_eq!(lines.due(60 * SECOND).len(), 1);
}

proptest! {
    #[test]
    fn told_and_counted_are_all_that_came(
        steps in proptest::collection::vec((0_u16..4, 0_u8..3, -5_i64..400, any::<bool>()), 1..200)
    ) {
        let mut lines = Lines::new(EVERY);
        let (mut now, mut told, mut repeats) = (0, BTreeSet::new(), Vec::new());
        let mut came = 0;
        for (number, (service, owner, seconds, ask)) in steps.into_iter().enumerate() {
            now += seconds * SECOND;
            if ask {
                repeats.extend(lines.due(now));
            }
            let incident = incident(service, &owner.to_string(), number as u64);
            came += 1;
            if lines.take(&incident, now) {
                prop_assert!(told.insert(incident.id));
            }
        }
        repeats.extend(lines.finish());
        let counted: u64 = repeats.iter().map(|line| line.count).sum();
        prop_assert_eq!(told.len() as u64 + counted, came);
        prop_assert_eq!(counted, lines.repeats());
        prop_assert!(repeats.iter().all(|line| line.count > 0 && line.since <= line.until && !told.contains(&line.last_id)));
        prop_assert_eq!(lines.next, None);
    }
}
