use std::sync::Arc;

use super::*;
use crate::report::{samples, status_samples};

fn shown(now: &Snapshot, latest: &[Kept]) -> String {
    page(now, latest).replace(STYLE, "…").replace(include_str!("html/style.sha256"), "…")
}

#[test]
fn a_page_of_a_sidecar_that_has_seen_much() {
    insta::assert_snapshot!(shown(&status_samples::busy(), &status_samples::latest()));
}

#[test]
fn a_page_of_a_sidecar_that_has_seen_nothing() {
    insta::assert_snapshot!(shown(&status_samples::quiet(), &[]));
}

#[test]
fn a_sidecar_that_is_not_ready_does_not_say_that_all_is_well() {
    let not_ready = vec!["the hooks are not attached: connect".to_owned()];
    let page = shown(&Snapshot { not_ready, ..status_samples::quiet() }, &[]);
    assert!(page.contains("NOT READY") && page.contains("the hooks are not attached: connect"));
    assert!(!page.contains("no connection was"), "{page}");
}

#[test]
fn what_comes_from_outside_stays_text_in_links_too() {
    let id = "<x>\"':[fd00::1]/../é".to_owned();
    let incident = crate::diagnosis::incident::Incident { id, ..samples::hijacked() };
    let page = shown(&status_samples::busy(), &[Kept { incident: Arc::new(incident), capture: None }]);
    assert!(
        page.contains("href=\"incidents/%3Cx%3E%22%27%3A%5Bfd00%3A%3A1%5D%2F%2E%2E%2F%C3%A9\""),
        "{page}"
    );
    assert!(!page.contains("<x>"));
}

#[test]
fn the_page_is_bounded() {
    let kept = Kept { incident: Arc::new(samples::hijacked()), capture: None };
    let page = shown(&status_samples::busy(), &vec![kept; MAX_SHOWN + 1]);
    assert_eq!(page.matches("/report\"").count(), MAX_SHOWN);
    assert!(page.contains("there are more in"));
}
