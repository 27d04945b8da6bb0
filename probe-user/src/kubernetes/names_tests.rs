use super::*;
use crate::kubernetes::parse_services;
use crate::kubernetes::service::ServiceType;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn service(name: &str, cluster_ip: &str, ports: &[(Protocol, u16, Option<u16>)]) -> KubeService {
    KubeService {
        namespace: Some("default".to_owned()),
        name: name.to_owned(),
        kind: Some(ServiceType::NodePort),
        cluster_ips: vec![ip(cluster_ip)],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: ports
            .iter()
            .map(|(protocol, port, node_port)| ServicePort {
                name: None,
                protocol: *protocol,
                port: *port,
                node_port: *node_port,
            })
            .collect(),
        health_check_node_port: None,
    }
}

fn shown(names: &[ServiceName]) -> Vec<String> {
    names.iter().map(|name| format!("{name} {}", name.kind)).collect()
}

#[test]
fn the_dashboard_behind_the_node_port() {
    let list = parse_services(include_bytes!("testdata/services_without_header.txt")).unwrap();
    let names = ServiceNames::new(&list.items);
    let node = [ip("169.254.20.10"), ip("10.10.85.235"), ip("10.23.254.52")];
    for known in [Some(&node[..]), None] {
        let found = names.name_of(Protocol::Tcp, at("169.254.20.10:36704"), known);
        assert_eq!(shown(&found), ["kube-system/kubernetes-dashboard:443 NodePort"]);
        let found = names.name_of(Protocol::Tcp, at("10.23.254.52:443"), known);
        assert_eq!(shown(&found), ["kube-system/kubernetes-dashboard:443 ClusterIP"]);
        let found = names.name_of(Protocol::Tcp, at("10.10.112.20:7071"), known);
        assert_eq!(shown(&found), ["fe-node-online/bos-fe-xapi-node-online-1:7071 LoadBalancer"]);
        assert_eq!(names.name_of(Protocol::Udp, at("169.254.20.10:36704"), known), []);
    }
    assert_eq!(
        names.name_of(Protocol::Tcp, at("192.0.2.1:36704"), Some(&node)),
        [],
        "another node's address"
    );
}

// kubernetes/kubernetes#132068, #93674
#[test]
fn a_node_port_is_none_on_a_cluster_ip() {
    let services = [
        service("cluster", "172.16.0.1", &[(Protocol::Tcp, 31000, None)]),
        service("node", "172.16.0.2", &[(Protocol::Tcp, 80, Some(31000))]),
    ];
    let names = ServiceNames::new(&services);
    // The node has the cluster IPs on kube-ipvs0.
    let node = [ip("10.0.0.1"), ip("172.17.0.1"), ip("172.16.0.1"), ip("172.16.0.2")];
    let name = |address| shown(&names.name_of(Protocol::Tcp, at(address), Some(&node)));
    assert_eq!(name("10.0.0.1:31000"), ["default/node:80 NodePort"]);
    assert_eq!(name("172.17.0.1:31000"), ["default/node:80 NodePort"]);
    assert_eq!(name("127.0.0.1:31000"), ["default/node:80 NodePort"]);
    assert_eq!(name("172.16.0.1:31000"), ["default/cluster:31000 ClusterIP"]);
    assert!(name("172.16.0.2:31000").is_empty());
    assert!(name("[::ffff:172.16.0.2]:31000").is_empty());
    assert_eq!(name("[::ffff:10.0.0.1]:31000"), ["default/node:80 NodePort"]);
}

#[test]
fn several_candidates_are_all_listed_and_a_doubled_list_is_none() {
    let one = service("one", "172.16.0.1", &[(Protocol::Tcp, 80, Some(31000))]);
    let two = service("two", "172.16.0.2", &[(Protocol::Tcp, 80, Some(31000))]);
    let names = ServiceNames::new(&[one.clone(), two, one]);
    let found = names.name_of(Protocol::Tcp, at("10.0.0.1:31000"), None);
    assert_eq!(shown(&found), ["default/one:80 NodePort", "default/two:80 NodePort"]);
}

#[test]
fn port_names_and_missing_namespaces() {
    let mut one = service("one", "172.16.0.1", &[(Protocol::Tcp, 80, Some(31000))]);
    one.ports[0].name = Some("http".to_owned());
    one.namespace = None;
    one.external_ips = vec![ip("192.0.2.7")];
    let names = ServiceNames::new(&[one]);
    assert_eq!(shown(&names.name_of(Protocol::Tcp, at("192.0.2.7:80"), None)), ["one:http external IP"]);
    assert!(names.name_of(Protocol::Tcp, at("192.0.2.7:31000"), None).is_empty());
    let node = [ip("192.0.2.7")];
    let found = names.name_of(Protocol::Tcp, at("192.0.2.7:31000"), Some(&node));
    assert_eq!(shown(&found), ["one:http NodePort"]);
}

// kubernetes/kubernetes#63617, #60749
#[test]
fn a_health_check_node_port_that_is_a_node_port_of_another() {
    let mut a =
        service("a", "172.16.0.1", &[(Protocol::Tcp, 80, Some(30001)), (Protocol::Udp, 80, Some(30073))]);
    a.health_check_node_port = Some(30073);
    let b = service("b", "172.16.0.2", &[(Protocol::Tcp, 80, Some(30073)), (Protocol::Udp, 80, Some(30001))]);
    let services = [a.clone(), b, a];
    let names = ServiceNames::new(&services);
    assert_eq!(
        shown(&names.name_of(Protocol::Tcp, at("10.0.0.1:30073"), None)),
        ["default/a:30073 healthCheckNodePort", "default/b:80 NodePort"]
    );
    let found = duplicates(&services);
    assert_eq!(found.len(), 1, "TCP and UDP of one number are two ports: {found:?}");
    assert_eq!((found[0].protocol, found[0].port), (Protocol::Tcp, 30073));
    assert_eq!(shown(&found[0].claims), ["default/a:30073 healthCheckNodePort", "default/b:80 NodePort"]);
}
