use super::*;
use crate::exposure::check::judge;
use crate::exposure::samples;

const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

fn look(node: &Node, at: Nanos) -> Look {
    Look { at, check: judge(node), settings: settings(node), possible_causes: BTreeMap::new() }
}

fn with_table(reserved: &str, ports: &[u16]) -> Node {
    let mut node = samples::ranges("20000 40000", Some(reserved));
    let mut rows = String::new();
    for port in ports {
        rows += &format!("TCP  10.23.77.129:{port} rr\n");
    }
    node.ipvs = samples::table(&rows);
    node.addresses = samples::seed().addresses;
    node
}

/// kubernetes/kubernetes#111823: each (service, port) once, and a gauge.
#[test]
fn a_node_port_in_the_ephemeral_range_is_told_once() {
    let mut watch = ExposureWatch::default();
    let first = watch.take(&look(&with_table("", &[31704]), 1));
    assert_eq!((first.len(), first[0].kind, first[0].port_count), (1, ChangeKind::NewlyExposed, 1));
    assert!(first[0].text.contains("31704"), "{}", first[0].text);
    assert!(watch.take(&look(&with_table("", &[31704]), 2)).is_empty());
    let second = watch.take(&look(&with_table("", &[31704, 31000]), 3));
    assert_eq!(second[0].ports.iter().map(|port| port.port).collect::<Vec<_>>(), [31000]);
    // Gone and back: the same service on the same port is not news.
    assert!(watch.take(&look(&with_table("", &[31000]), 4)).is_empty());
    assert!(watch.take(&look(&with_table("", &[31704, 31000]), 5)).is_empty());
    let view = watch.view().unwrap();
    assert_eq!((view.exposed_ports, view.newly_exposed, view.checked_at), (Some(2), 1, 5));
}

#[test]
fn another_service_on_a_told_port_is_news_and_a_name_alone_is_not() {
    let mut watch = ExposureWatch::default();
    let named = |service: &str| {
        let mut look = look(&with_table("", &[31704]), 1);
        if let Some(port) = look.check.exposed_ports.as_mut().and_then(|ports| ports.first_mut()) {
            port.services =
                [service].into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect();
        }
        look
    };
    assert_eq!(watch.take(&named("")).len(), 1);
    assert_eq!(watch.take(&named("a/b:80")).len(), 0);
    assert_eq!(watch.take(&named("")).len(), 0);
    assert_eq!(watch.take(&named("c/d:80")).len(), 1);
}

/// kubespray 2.31, task "Ensure nodePort range is reserved": agents that overwrite each other's value.
#[test]
fn a_setting_that_is_changed_back_is_counted() {
    let mut watch = ExposureWatch::default();
    let mut changes = Vec::new();
    for (at, reserved) in (1..).zip(["30000-31000,31704", "30000-31000", "30000-31000,31704", "30000-31000"])
    {
        let mut look = look(&with_table(reserved, &[31704]), at);
        look.possible_causes.insert(RESERVED, vec!["tuned runs (pid 7): x".to_owned()]);
        changes.extend(watch.take(&look));
    }
    let settings: Vec<_> = changes.iter().filter(|change| change.setting.is_some()).collect();
    let kinds: Vec<_> = settings.iter().map(|change| (change.kind, change.changes)).collect();
    assert_eq!(
        kinds,
        [
            (ChangeKind::SettingChanged, Some(1)),
            (ChangeKind::SettingChangedBack, Some(2)),
            (ChangeKind::SettingChangedBack, Some(3)),
        ]
    );
    assert_eq!(
        settings[1].text,
        "net.ipv4.ip_local_reserved_ports was 30000-31000 and is 30000-31000,31704, which it had before: somebody changes it \
         back (changed 2 times since the start); it could have been: tuned runs (pid 7): x; no service port is exposed now"
    );
    assert_eq!(watch.view().unwrap().setting_changes[RESERVED], 3);
    // The port itself was told once, however often it was reserved in between.
    assert_eq!(changes.iter().filter(|change| change.kind == ChangeKind::NewlyExposed).count(), 1);
}

#[test]
fn many_ports_are_one_record() {
    let ports: Vec<u16> = (30_000..30_200).collect();
    let mut watch = ExposureWatch::default();
    let changes = watch.take(&look(&with_table("", &ports), 1));
    assert_eq!((changes.len(), changes[0].port_count, changes[0].ports.len()), (1, 200, MAX_NAMED));
    assert!(changes[0].text.contains("30004 and 195 more as a source port"), "{}", changes[0].text);
}
