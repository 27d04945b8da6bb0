use super::*;
use crate::exposure::samples;

#[test]
fn script_for_the_incidents_node_and_for_a_safe_one() {
    let scripts: Vec<String> = samples::reports()
        .into_iter()
        .filter(|(name, _)| name.contains("incident") || name.contains("reserved"))
        .map(|(name, check)| format!("===== {name}\n{}", script(&check)))
        .collect();
    insta::assert_snapshot!(scripts.join(""));
}
