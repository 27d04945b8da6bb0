//! The latest incidents, bounded, shared by the thread that concludes them and the one that serves them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::diagnosis::incident::Incident;

/// Incidents that are kept.
pub const MAX_RECENT: usize = 256;

/// One incident and where its packets are.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The incident.
    pub incident: Arc<Incident>,
    /// Its capture, once it is written; it may have been removed since.
    pub capture: Option<PathBuf>,
}

/// The latest incidents. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Kept>>>);

impl Recent {
    /// Takes an incident; the oldest goes if there are too many. One with the same id is replaced.
    pub fn push(&self, incident: Arc<Incident>) {
        self.with(|kept| {
            if let Some(known) = kept.iter_mut().find(|known| known.incident.id == incident.id) {
                known.incident = incident;
                return;
            }
            if kept.len() >= MAX_RECENT {
                kept.pop_front();
            }
            kept.push_back(Kept { incident, capture: None });
        });
    }

    /// The packets of an incident were written.
    pub fn captured(&self, id: &str, path: PathBuf) {
        self.with(|kept| {
            if let Some(known) = kept.iter_mut().rev().find(|known| known.incident.id == id) {
                known.capture = Some(path);
            }
        });
    }

    /// The incident with this id.
    pub fn get(&self, id: &str) -> Option<Kept> {
        self.with(|kept| kept.iter().rev().find(|known| known.incident.id == id).cloned())
    }

    /// All of them, the newest first.
    pub fn newest_first(&self) -> Vec<Kept> {
        self.with(|kept| kept.iter().rev().cloned().collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<Kept>) -> T) -> T {
        // Whoever panicked left whole entries behind.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
