use super::*;
use crate::ipvs::table::Protocol;
use crate::kubernetes::pod::{Handler, ProbeType};
use crate::kubernetes::service::ServiceType;

const POD: &str = include_str!("testdata/pod.yaml");

/// The YAML of `testdata/pod.yaml` as JSON.
fn pod_json() -> String {
    include_str!("testdata/pod.json").trim_end().to_owned()
}

fn pods(text: &str) -> PodList {
    parse_pods(text.as_bytes()).unwrap()
}

fn pod_named(name: &str) -> String {
    format!(
        r#"{{"metadata":{{"namespace":"default","name":"{name}"}},"spec":{{"containers":[{{"name":"c","env":[{{"name":"A","value":"s3cret"}}]}}]}}}}"#
    )
}

fn service_json(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"namespace":"default","name":"{name}"}},"spec":{{"clusterIP":"10.0.0.1","ports":[{{"port":80}}]}}}}"#
    )
}

fn names(list: &PodList) -> Vec<&str> {
    list.items.iter().map(|pod| pod.name.as_str()).collect()
}

#[test]
fn all_of_a_pod() {
    let list = pods(POD);
    assert_eq!(list.unreadable, []);
    insta::assert_debug_snapshot!(list.items[0]);
    assert!(!format!("{list:?}").contains("s3cret"), "no value of a header, a variable or a query is kept");
    assert_eq!(pods(&pod_json()).items, list.items, "JSON and YAML say the same");
}

// kubernetes/kubernetes#122902
#[test]
fn native_sidecars_have_probes_and_plain_init_containers_have_none() {
    let list = pods(POD);
    let sidecar = list.items[0].containers.iter().find(|container| container.sidecar).unwrap();
    assert_eq!(sidecar.name, "proxy");
    assert_eq!(sidecar.probes.len(), 1);
    assert_eq!(sidecar.probes[0].kind, ProbeType::Startup);
    assert!(sidecar.id.as_ref().is_some_and(|id| id.len() == 64));
    assert!(list.items[0].containers.iter().all(|container| container.name != "migrate"));
}

#[test]
fn a_host_network_pod_without_addresses_has_those_of_its_node() {
    let pod = pod_named("a").replace("\"containers\"", "\"hostNetwork\":true,\"containers\"");
    let pod = pod.strip_suffix('}').unwrap().to_owned() + r#","status":{"hostIP":"10.0.0.9"}}"#;
    let list = pods(&pod);
    assert_eq!(list.items[0].ips, ["10.0.0.9".parse::<std::net::IpAddr>().unwrap()]);
    let other = pod.replace("\"hostNetwork\":true", "\"hostNetwork\":false");
    assert!(pods(&other).items[0].ips.is_empty());
}

#[test]
fn named_ports_are_resolved_in_their_own_container() {
    let probe = |port: &str| {
        let text = format!(
            r#"{{"kind":"Pod","metadata":{{"namespace":"d","name":"p"}},"spec":{{"containers":[
            {{"name":"a","ports":[{{"name":"http","containerPort":8080}}]}},
            {{"name":"b","ports":[{{"name":"web","containerPort":9090}}],"readinessProbe":{{"tcpSocket":{{"port":{port}}}}}}}]}}}}"#
        );
        match pods(&text).items[0].containers[1].probes[0].handler {
            Handler::TcpSocket { port, .. } => port,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(probe("\"web\""), Some(9090));
    assert_eq!(probe("\"http\""), None, "a port of another container");
    assert_eq!(probe("\"8443\""), Some(8443), "kubelet reads a number in quotes as one");
    assert_eq!(probe("70000"), None);
}

#[test]
fn the_forms_of_json() {
    let (a, b) = (pod_named("a"), pod_named("b"));
    let (kind_a, kind_b) = (a.replacen('{', r#"{"kind":"Pod","#, 1), b.replacen('{', r#"{"kind":"Pod","#, 1));
    let forms = [
        format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":[{a},{b}]}}"#),
        format!(r#"{{"apiVersion":"v1","items":[{a},{b}],"kind":"PodList"}}"#),
        format!(r#"{{"apiVersion":"v1","items":[{kind_a},{kind_b}],"kind":"List"}}"#),
        format!("[{kind_a},{kind_b}]"),
        format!("{kind_a}\n{kind_b}\n"),
        format!("{kind_a}{kind_b}"),
        format!("\u{feff}{{\r\n\"items\": [{a},\r\n{b}]\r\n}}\r\n"),
        format!(r#"{{"kind":"PodList","items":[{a}]}} {{"kind":"PodList","items":[{b}]}}"#),
    ];
    for form in forms {
        let list = pods(&form);
        assert_eq!(names(&list), ["a", "b"], "{form}");
        assert_eq!((list.unreadable, list.cut_short), (Vec::new(), None), "{form}");
        assert_eq!(recognise(form.as_bytes()), Some(ListKind::Pods), "{form}");
    }
}

#[test]
fn the_forms_of_yaml() {
    let one = |name: &str| {
        format!(
            "kind: Pod\nmetadata:\n  namespace: default\n  name: {name}\nspec:\n  containers:\n  - name: c\n"
        )
    };
    let indented = |text: &str, dash: &str| {
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        lines.fold(format!("{dash}{first}\n"), |out, line| out + "  " + line + "\n")
    };
    let items = indented(&one("a"), "- ") + &indented(&one("b"), "- ");
    let forms = [
        format!("apiVersion: v1\nitems:\n{items}kind: List\nmetadata:\n  resourceVersion: \"\"\n"),
        format!("# made by hand\nkind: PodList\nitems:\n{}", items.replace("- kind: Pod\n  ", "- ")),
        format!("---\n{}---\n{}", one("a"), one("b")),
        format!("{}---\n{}...\n", one("a"), one("b")),
        format!("\u{feff}{}---\r\n{}", one("a").replace('\n', "\r\n"), one("b").replace('\n', "\r\n")),
        "kind: PodList\nitems: [".to_owned() + &format!("{},{}", pod_named("a"), pod_named("b")) + "]\n",
    ];
    for form in forms {
        let list = pods(&form);
        assert_eq!(list.form, Form::Yaml);
        assert_eq!(names(&list), ["a", "b"], "{form}");
        assert_eq!((list.unreadable, list.cut_short), (Vec::new(), None), "{form}");
        assert_eq!(recognise(form.as_bytes()), Some(ListKind::Pods), "{form}");
    }
}

#[test]
fn services_of_an_api_server() {
    let text = r#"{"kind":"ServiceList","items":[{"metadata":{"namespace":"ingress","name":"lb"},"spec":{
        "type":"LoadBalancer","clusterIP":"10.0.0.5","clusterIPs":["10.0.0.5","fd00::5"],"externalIPs":["192.0.2.4"],
        "healthCheckNodePort":31999,"ports":[{"name":"http","protocol":"TCP","port":80,"targetPort":"web","nodePort":30080},
        {"name":"quic","protocol":"UDP","port":443,"nodePort":0}]},
        "status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.1"},{"hostname":"lb.example"}]}}},
        {"metadata":{"namespace":"d","name":"headless"},"spec":{"clusterIP":"None","clusterIPs":["None"],"ports":null}}]}"#;
    let list = parse_services(text.as_bytes()).unwrap();
    assert_eq!(list.unreadable, []);
    insta::assert_debug_snapshot!(list.items);
    assert_eq!(list.items[1].kind, Some(ServiceType::ClusterIp));
    let mut as_yaml = Collector::<KubeService>::default();
    yaml::read(text, &mut as_yaml);
    assert_eq!(as_yaml.items, list.items, "JSON is YAML, too");
    assert_eq!(list.items[0].ports[1].protocol, Protocol::Udp);
}

#[test]
fn one_malformed_item_is_shown_with_its_place_and_hides_no_other() {
    let bad = pod_named("bad").replace("[{\"name\":\"c\"", "[{\"nome\":\"c\"");
    let text =
        format!("{{\"kind\":\"PodList\",\n\"items\":[\n{},\n{bad},\n{}]}}", pod_named("a"), pod_named("b"));
    let list = pods(&text);
    assert_eq!(names(&list), ["a", "b"]);
    assert_eq!(list.unreadable.len(), 1);
    let shown = &list.unreadable[0];
    assert_eq!((shown.line, shown.text.as_str()), (4, "items[1] default/bad"));
    assert_eq!(shown.reason, "missing field `name`");
}

#[test]
fn a_malformed_item_of_yaml_too() {
    let text = "kind: List\nitems:\n- kind: Pod\n  metadata: {namespace: d, name: a}\n  spec: {containers: [{name: c}]}\n\
                - kind: Pod\n  metadata: {namespace: d, name: b}\n  spec: 7\n\
                - kind: Pod\n  metadata: {namespace: d, name: e}\n  spec: *other\n";
    let text = text.replace("[{name: c}]}\n", "[{name: c}]}\n  x: &other {}\n");
    let list = pods(&text);
    assert_eq!(names(&list), ["a"]);
    let shown: Vec<_> = list.unreadable.iter().map(|item| (item.line, item.text.as_str())).collect();
    assert_eq!(shown, [(7, "items[1] d/b"), (10, "items[2] d/e")]);
    assert!(list.unreadable[1].reason.contains("alias"), "{:?}", list.unreadable[1]);
}

#[test]
fn a_list_cut_in_the_middle_yields_what_came_before() {
    let text = format!(
        "{{\"kind\":\"PodList\",\"items\":[\n{},\n{},\n{}]}}",
        pod_named("a"),
        pod_named("b"),
        pod_named("c")
    );
    let list = pods(&text[..text.len() - 30]);
    assert_eq!(names(&list), ["a", "b"]);
    let cut = list.cut_short.unwrap();
    assert!(cut.contains("ends in the middle, after 2 objects"), "{cut}");
    let yaml = "apiVersion: v1\nitems:\n- kind: Pod\n  metadata: {namespace: d, name: a}\n  spec: {containers: [{name: c}]}\n\
                - kind: Pod\n  metadata:\n    namespace: d\n    name: b\n  spec:\n    containers:\n    - name: c\n";
    let list = pods(yaml);
    assert_eq!(names(&list), ["a"], "the last object of a cut list may be half of one");
    assert!(list.cut_short.is_some());
    assert_eq!(list.unreadable.len(), 1);
    let list = pods(&(yaml.to_owned() + "    - name: d\n      ports: [{contai"));
    assert_eq!(names(&list), ["a"]);
    assert!(list.cut_short.unwrap().contains("no YAML from here on"));
}

#[test]
fn a_broken_object_among_several_is_skipped() {
    let kind = |name: &str| pod_named(name).replacen('{', r#"{"kind":"Pod","#, 1);
    let list = pods(&format!("{}\n{{\"kind\":\"Pod\",,}}\n{}\n", kind("a"), kind("b")));
    assert_eq!(names(&list), ["a", "b"]);
    assert_eq!(list.unreadable.len(), 1);
    assert_eq!(list.unreadable[0].line, 2);
}

#[test]
fn other_kinds_are_counted_or_named() {
    let pod = pod_named("a").replacen('{', r#"{"kind":"Pod","#, 1);
    let deployment = r#"{"kind":"Deployment","metadata":{"name":"x"},"spec":{"template":{}}}"#;
    let mixed =
        format!(r#"{{"kind":"List","items":[{pod},{},{deployment},{deployment}]}}"#, service_json("s"));
    assert_eq!(pods(&mixed).items.len(), 1);
    let left_out = |taken: &[&str]| pods(&mixed).left_out(taken);
    let all = "objects of other kinds were left out: 2 Deployment, 1 Service";
    assert_eq!(left_out(&[]).as_deref(), Some(all));
    assert_eq!(left_out(&["Service"]).as_deref(), Some("objects of other kinds were left out: 2 Deployment"));
    assert_eq!(left_out(&["Service", "Deployment"]), None);
    assert_eq!(parse_services(mixed.as_bytes()).unwrap().items.len(), 1);

    let items = pod_named("a");
    for text in [
        format!(r#"{{"kind":"PodList","items":[{items}]}}"#),
        format!(r#"{{"items":[{pod}],"kind":"List"}}"#),
        r#"{"kind":"PodList","items":[]}"#.to_owned(),
        "kind: PodList\nitems: []\n".to_owned(),
        pod.clone(),
    ] {
        let error = parse_services(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("looks like Pod objects"), "{text}: {error}");
    }
    let late = r#"{"items":[{"metadata":{"name":"x"},"spec":{}}],"kind":"EndpointsList"}"#;
    let error = parse_services(late.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("Endpoints objects"), "{error}");
}

#[test]
fn what_is_no_list_is_refused_with_a_name() {
    let refused = |bytes: &[u8]| parse_pods(bytes).unwrap_err().to_string();
    assert!(refused(b"").contains("empty"));
    assert!(refused(b" \n").contains("empty"));
    assert!(refused(b"\x1f\x8b\x08\0").contains("gzip"));
    assert!(refused(b"NAME READY STATUS RESTARTS AGE\nweb-1 1/1 Running 0 5d\n").contains("-o json"));
    assert!(refused(b"{\"kind\":").contains("ends in the middle"));
    assert!(refused(b"{}").contains("looks like kindless objects"));
    assert!(refused(b"{\"msg\":\"a\"}\n{\"msg\":\"b\"}\n").contains("looks like kindless objects"));
    assert!(refused(b"kind: [a\n").contains("no YAML"));
    assert!(parse_services(b"State Recv-Q Send-Q Local Address:Port\n").is_err());
    assert!(parse_services(b"TCP  10.0.0.1:443 rr\n  -> 10.0.0.2:80 Masq 1 0 0\n").is_err());
    assert_eq!(pods(r#"{"kind":"PodList","items":null}"#).items, []);
    assert_eq!(pods(r#"{"kind":"List","items":[]}"#).items, []);
}

#[test]
fn the_beginning_tells_the_kind() {
    let item = pod_named("a");
    let cases = [
        (include_str!("testdata/services_without_header.txt").to_owned(), Some(ListKind::Services)),
        (service_json("a"), Some(ListKind::Services)),
        (r#"{"kind":"ServiceList","items":["#.to_owned(), Some(ListKind::Services)),
        (format!(r#"{{"apiVersion":"v1","items":[{item},"#), Some(ListKind::Pods)),
        (POD.to_owned(), Some(ListKind::Pods)),
        (r#"{"items":[{"involvedObject":{"kind":"Pod"},"kind":"Event"}],"kind":"List"}"#.to_owned(), None),
        ("{\"kind\":\"PodDisruptionBudgetList\"}".to_owned(), None),
        ("I0915 19:09:04.534948 607529 prober.go:121] \"Probe failed\" pod=\"a/b\"\n".to_owned(), None),
        ("TCP  10.0.0.1:443 rr\n".to_owned(), None),
        ("TIME-WAIT 0 0 169.254.20.10:50967 169.254.20.10:8080\n".to_owned(), None),
        ("{\"log\":\"x\"}\n".to_owned(), None),
        (String::new(), None),
    ];
    for (text, kind) in cases {
        assert_eq!(recognise(text.as_bytes()), kind, "{text}");
    }
}

#[test]
fn limits_are_said() {
    let text =
        format!(r#"{{"kind":"PodList","items":[{},{},{}]}}"#, pod_named("a"), pod_named("b"), pod_named("c"));
    let mut found = Collector::<Pod>::with_limit(2);
    json::read(&text, &mut found);
    let list = finish(Form::Json, found, None, EXPECTED_PODS).unwrap();
    assert_eq!(names(&list), ["a", "b"]);
    assert_eq!(list.cut_short.as_deref(), Some("more than 2 objects: the rest was not read"));
    let deep = format!("kind: Pod\nspec: {}{}\n", "{spec: ".repeat(50), "}".repeat(50));
    assert!(pods(&deep).unreadable[0].reason.contains("nested deeper"));
    let deep = format!("kind: Pod\nspec: {}{}\n", "{spec: ".repeat(50_000), "}".repeat(50_000));
    assert!(matches!(parse_pods(deep.as_bytes()), Err(ParseError::Broken { .. })));
    let deep =
        format!(r#"{{"kind":"PodList","items":[{{"spec":{}{}}}]}}"#, "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(pods(&deep).unreadable.len(), 1);
}

#[test]
fn bytes_that_are_no_text_are_said() {
    let mut text =
        format!(r#"{{"kind":"PodList","items":[{},{}]}}"#, pod_named("a"), pod_named("b")).into_bytes();
    let at = text.windows(6).position(|part| part == b"s3cret").unwrap();
    text[at] = 0xff;
    let list = parse_pods(&text).unwrap();
    assert_eq!(names(&list), ["a", "b"]);
    assert_eq!(list.notes, ["bytes that are no UTF-8 were replaced"]);
}

/// 500 pods with three probes each as the API server sends them, managedFields included. `cargo test --release`
/// prints the time; the assertion only keeps it from becoming quadratic.
#[test]
fn five_hundred_pods() {
    let one = pod_json().replacen(
        "\"metadata\":{",
        &format!("\"metadata\":{{\"managedFields\":\"{}\",", "x".repeat(4000)),
        1,
    );
    let text = format!(r#"{{"kind":"PodList","items":[{}]}}"#, vec![one; 500].join(","));
    let start = std::time::Instant::now();
    let list = pods(&text);
    println!("{} pods, {} bytes: {:?}", list.items.len(), text.len(), start.elapsed());
    assert_eq!(list.items.len(), 500);
    assert!(start.elapsed().as_secs() < 20);
}
