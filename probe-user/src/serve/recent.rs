//! The latest incidents, bounded, shared by the thread that concludes them and the one that serves them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::diagnosis::incident::Incident;
use crate::diagnosis::size;

/// Incidents that are kept.
pub const MAX_RECENT: usize = 256;
/// Bytes of those together, about; the newest is kept in any case. An incident with what belongs to it takes 3 to 6 KiB
/// where services have few backends, and advice that several of them have counts once.
const MAX_BYTES: usize = 2 << 20;

/// One incident and where its packets are.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The incident.
    pub incident: Arc<Incident>,
    /// Its capture, once it is written; it may have been removed since.
    pub capture: Option<PathBuf>,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    /// Each new one has the next number.
    number: u64,
    /// Bytes of the incident without its advice.
    own: usize,
    advice: usize,
}

impl Entry {
    fn new(number: u64, incident: Arc<Incident>) -> Self {
        let (own, advice) = (size::of_incident(&incident), size::of_advice(&incident.advice));
        Self { kept: Kept { incident, capture: None }, number, own, advice }
    }

    fn has_id(&self, id: &str) -> bool {
        self.kept.incident.id == id
    }
}

/// The latest incidents. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Entry>>>);

impl Recent {
    /// Takes an incident; the oldest go if they are too many or too large. One with the same id is replaced.
    pub fn push(&self, incident: Arc<Incident>) {
        self.with(|entries| {
            if let Some(known) = entries.iter_mut().find(|known| known.has_id(&incident.id)) {
                let capture = known.kept.capture.take();
                *known = Entry::new(known.number, incident);
                known.kept.capture = capture;
            } else {
                let number = entries.back().map_or(0, |last| last.number + 1);
                entries.push_back(Entry::new(number, incident));
            }
            while entries.len() > MAX_RECENT || entries.len() > 1 && bytes(entries) > MAX_BYTES {
                entries.pop_front();
            }
        });
    }

    /// The packets of an incident were written.
    pub fn captured(&self, id: &str, path: PathBuf) {
        self.with(|entries| {
            if let Some(known) = entries.iter_mut().rev().find(|known| known.has_id(id)) {
                known.kept.capture = Some(path);
            }
        });
    }

    /// The incident with this id.
    pub fn get(&self, id: &str) -> Option<Kept> {
        self.with(|entries| {
            entries.iter().rev().find(|known| known.has_id(id)).map(|known| known.kept.clone())
        })
    }

    /// All of them, the newest first.
    pub fn newest_first(&self) -> Vec<Kept> {
        self.with(|entries| entries.iter().rev().map(|entry| entry.kept.clone()).collect())
    }

    /// The newest incident before the one with this number, and its own number; `None` = the newest of all. For going
    /// through them one by one, while they come and go.
    pub(super) fn before(&self, number: Option<u64>) -> Option<(u64, Arc<Incident>)> {
        self.with(|entries| {
            let older = |entry: &&Entry| number.is_none_or(|number| entry.number < number);
            let entry = entries.iter().rev().find(older)?;
            Some((entry.number, Arc::clone(&entry.kept.incident)))
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<Entry>) -> T) -> T {
        // Whoever panicked left whole entries behind.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Advice that neighbours share counts once.
fn bytes(entries: &VecDeque<Entry>) -> usize {
    let shared = entries
        .iter()
        .zip(entries.iter().skip(1))
        .filter(|(one, next)| Arc::ptr_eq(&one.kept.incident.advice, &next.kept.incident.advice));
    let shared: usize = shared.map(|(one, _)| one.advice).sum();
    entries.iter().map(|entry| entry.own + entry.advice).sum::<usize>().saturating_sub(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::incident::Advice;
    use crate::report::samples;

    fn incident(id: &str) -> Arc<Incident> {
        Arc::new(Incident { id: id.to_owned(), ..samples::hijacked() })
    }

    #[test]
    fn the_oldest_goes_and_the_same_id_is_one_incident() {
        let recent = Recent::default();
        for number in 0..=MAX_RECENT {
            recent.push(incident(&format!("id-{number}")));
        }
        assert!(recent.get("id-0").is_none());
        recent.captured("id-7", "7.pcapng".into());
        recent.push(incident("id-7"));
        let all = recent.newest_first();
        assert_eq!((all.len(), all[0].incident.id.as_str()), (MAX_RECENT, &*format!("id-{MAX_RECENT}")));
        assert_eq!(recent.get("id-7").unwrap().capture, Some("7.pcapng".into()));
    }
    #[test]
    fn large_incidents_are_fewer_unless_they_share_what_is_large() {
        let long: Arc<[Advice]> = [Advice {
            setting: String::new(),
            value: Some("30001,".repeat(10_000)),
            command: None,
            persist: None,
            why: String::new(),
        }]
        .into();
        let advised = |number: usize, advice: Arc<[Advice]>| {
            Arc::new(Incident { id: number.to_string(), advice, ..samples::hijacked() })
        };
        let (sharing, alone) = (Recent::default(), Recent::default());
        for number in 0..MAX_RECENT {
            sharing.push(advised(number, Arc::clone(&long)));
            alone.push(advised(number, long.iter().cloned().collect()));
        }
        assert_eq!(sharing.newest_first().len(), MAX_RECENT);
        let kept = alone.newest_first();
        assert!((20..40).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept[0].incident.id, (MAX_RECENT - 1).to_string());
        // One alone is kept, whatever its size, and the others have to go.
        let mut huge = samples::hijacked();
        huge.service.as_mut().unwrap().backends = vec!["10.0.0.1:80".to_owned(); 100_000];
        sharing.push(Arc::new(huge));
        assert_eq!(sharing.newest_first().len(), 1);
    }

    #[test]
    fn they_can_be_gone_through_while_they_come_and_go() {
        let recent = Recent::default();
        (0..3).for_each(|number| recent.push(incident(&number.to_string())));
        let (at, first) = recent.before(None).unwrap();
        assert_eq!(first.id, "2");
        recent.push(incident("later"));
        let (at, second) = recent.before(Some(at)).unwrap();
        assert_eq!(second.id, "1");
        for number in 0..MAX_RECENT {
            recent.push(incident(&format!("much later {number}")));
        }
        assert!(recent.before(Some(at)).is_none());
    }
}
